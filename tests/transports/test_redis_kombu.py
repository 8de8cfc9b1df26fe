"""The Redis transport keeps every promise that travels through Kombu's API, on a bad network too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kq_transports.conformance.kombu import KombuSuite, WireSuite
from kq_transports.conformance.kombu.world import KombuWorld, Place
from kq_transports.conformance.proxy import Proxy
from tests.servers import RedisServer


class OnRedis(KombuWorld):
    @pytest.fixture(autouse=True)
    def empty(self, redis_server: RedisServer, redis_url: str) -> None:
        self.port = redis_server.port

    def url(self, where: Path) -> str:
        return f"kq-redis://127.0.0.1:{self.port}/0"


class TestRedisTransport(OnRedis, KombuSuite):
    pass


class TestRedisOnABadNetwork(OnRedis, WireSuite):
    @pytest.fixture
    def wire(self, proxy_to: Callable[[int], Proxy]) -> Proxy:
        return proxy_to(self.port)

    def through(self, wire: Proxy) -> Place:  # type: ignore[override]
        return Place(f"kq-redis://127.0.0.1:{wire.port}/0", {})
