"""kq keeps its contract on every broker, and on brokers behind a network also when that is bad."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kq.conformance.contract import ContractSuite, WireSuite
from kq.conformance.contract.outages import Server
from tests.conftest import available, lasting
from tests.proxy import Proxy
from tests.servers import RabbitServer, RedisServer


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


class TestContractOnMemory(ContractSuite):
    def url(self, where: Path) -> str:
        return f"memory://{where.name}"


class TestContractOnSqlite(ContractSuite):
    def url(self, where: Path) -> str:
        return f"sqlite:///{where / 'kq.db'}"


class TestContractOnRedis(ContractSuite):
    @pytest.fixture(autouse=True)
    def empty(self, redis_url: str) -> None:
        self.redis = redis_url

    def url(self, where: Path) -> str:
        return self.redis


class TestContractOnRabbit(ContractSuite):
    @pytest.fixture(autouse=True)
    def running(self, rabbit_url: str) -> None:
        self.rabbit = rabbit_url

    def url(self, where: Path) -> str:
        return self.rabbit

    def state(self, where: Path) -> str:
        return f"sqlite:///{where / 'state.db'}"


class TestContractOnRedisInBadWeather(WireSuite):
    @pytest.fixture
    def server(self, mortal_redis: RedisServer) -> Server:
        return mortal_redis

    @pytest.fixture
    def wire(self, server: Server, proxy_to: Callable[[int], Proxy]) -> Proxy:
        return proxy_to(server.port)

    def url_at(self, port: int) -> str:
        return f"redis://127.0.0.1:{port}/0"


class TestContractOnRabbitInBadWeather(WireSuite):
    @pytest.fixture
    def server(self, mortal_rabbit: RabbitServer) -> Server:
        return mortal_rabbit

    @pytest.fixture
    def wire(self, server: Server, proxy_to: Callable[[int], Proxy]) -> Proxy:
        return proxy_to(server.port)

    def url_at(self, port: int) -> str:
        return f"amqp://guest:guest@127.0.0.1:{port}//"

    def state(self, where: Path) -> str:
        return f"sqlite:///{where / 'state.db'}"
