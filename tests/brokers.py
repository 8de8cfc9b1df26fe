"""Where the brokers of the contract's tests are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kq.conformance.contract.outages import Server
from kq.conformance.contract.world import ContractWorld
from kq.worker.pool import PoolKind
from kq_transports.conformance.proxy import Proxy

#: What varies the pools does so on SQLite; on the others it runs in one of them, unless all is asked for.
THOROUGH = bool(os.environ.get("KQ_THOROUGH"))


def unless_thorough(pool: PoolKind) -> PoolKind | None:
    return None if THOROUGH else pool


class OnMemory(ContractWorld):
    pool = unless_thorough("async")

    @pytest.fixture
    def broker_url(self, tmp_path: Path) -> str:
        return f"memory://{tmp_path.name}"


class OnSqlite(ContractWorld):
    @pytest.fixture
    def broker_url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'kq.db'}"


class OnRedis(ContractWorld):
    pool = unless_thorough("thread")

    @pytest.fixture
    def broker_url(self, redis_url: str) -> str:
        return redis_url


class OnRabbit(ContractWorld):
    pool = unless_thorough("process")

    @pytest.fixture
    def broker_url(self, rabbit_url: str) -> str:
        return rabbit_url


class Wired:
    """Puts a network before the server."""

    @pytest.fixture
    def wire(self, server: Server, proxy_to: Callable[[int], Proxy]) -> Proxy:
        return proxy_to(server.port)
