"""kq keeps its contract on every broker, and on brokers behind a network also when that is bad."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kq.conformance.contract import ContractSuite, WireSuite
from kq.conformance.contract.outages import Server
from tests.brokers import OnMemory, OnRabbit, OnRedis, OnSqlite, Wired
from tests.conftest import available, lasting
from tests.servers import RabbitServer, RedisServer


class TestContractOnMemory(OnMemory, ContractSuite):
    pass


class TestContractOnSqlite(OnSqlite, ContractSuite):
    pass


class TestContractOnRedis(OnRedis, ContractSuite):
    pass


class TestContractOnRabbit(OnRabbit, ContractSuite):
    pass


@pytest.fixture(scope="module")
def mortal_redis() -> Iterator[RedisServer]:
    """A Redis that these tests end and start as they like."""
    with available(RedisServer) as server, lasting(server):
        yield server


@pytest.fixture(scope="module")
def mortal_rabbit() -> Iterator[RabbitServer]:
    """The same with RabbitMQ."""
    with available(RabbitServer) as server, lasting(server):
        yield server


class TestContractOnRedisInBadWeather(Wired, WireSuite):
    @pytest.fixture
    def server(self, mortal_redis: RedisServer) -> Server:
        return mortal_redis

    def url_at(self, port: int) -> str:
        return f"redis://127.0.0.1:{port}/0"


class TestContractOnRabbitInBadWeather(Wired, WireSuite):
    @pytest.fixture
    def server(self, mortal_rabbit: RabbitServer) -> Server:
        return mortal_rabbit

    @pytest.fixture
    def state_url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'state.db'}"

    def url_at(self, port: int) -> str:
        return f"amqp://guest:guest@127.0.0.1:{port}//"
