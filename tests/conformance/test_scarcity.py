"""What kq promises of a broker without room: a full disk, a Redis at its limit, a RabbitMQ with an alarm."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from kq.conformance.contract import ScarcityAtWork, ScarcitySuite
from kq.conformance.contract.processes import asked, ended, tree
from tests.brokers import OnRabbit, OnRedis, OnSqlite
from tests.servers import RabbitServer, RedisServer


class FullDisk:
    """No file of this process and its workers grows much beyond the size that the database has now."""

    def __init__(self, database: Path) -> None:
        self._files = [database, database.with_name(f"{database.name}-wal")]

    def fill(self) -> None:
        self._limit(max(file.stat().st_size for file in self._files) + 8192)

    def free(self) -> None:
        self._limit(resource.RLIM_INFINITY)

    def _limit(self, size: int) -> None:
        own = psutil.Process()
        for process in tree(own):
            if asked(process.exe, "") == own.exe():  # not a server that other tests use
                limit = (size, resource.RLIM_INFINITY)
                ended(lambda process=process, limit=limit: resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limit))  # type: ignore[misc]


class TestScarcityOnSqlite(OnSqlite, ScarcitySuite):
    @pytest.fixture
    def space(self, broker_url: str) -> Iterator[FullDisk]:
        disk = FullDisk(Path(broker_url.removeprefix("sqlite:///")))
        yield disk
        disk.free()


class TestScarcityOnRedis(OnRedis, ScarcitySuite):
    @pytest.fixture
    def space(self, redis_server: RedisServer) -> Iterator[RedisServer]:
        yield redis_server
        redis_server.free()


class TestScarcityOnRabbit(OnRabbit, ScarcitySuite):
    @pytest.fixture
    def broker_url(self, mortal_rabbit: RabbitServer) -> str:
        return mortal_rabbit.url

    @pytest.fixture
    def space(self, mortal_rabbit: RabbitServer) -> Iterator[RabbitServer]:
        yield mortal_rabbit
        mortal_rabbit.free()


class TestScarcityOfTheStateStoreBesideRabbit(OnRabbit, ScarcityAtWork):
    @pytest.fixture
    def state_url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/state.db"

    @pytest.fixture
    def space(self, state_url: str) -> Iterator[FullDisk]:
        disk = FullDisk(Path(state_url.removeprefix("sqlite:///")))
        yield disk
        disk.free()
