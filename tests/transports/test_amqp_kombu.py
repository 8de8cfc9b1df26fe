"""The RabbitMQ transport keeps every promise that travels through Kombu's API, on a bad network too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kq_transports.conformance.kombu import KombuSuite, WireSuite
from kq_transports.conformance.kombu.world import KombuWorld, Place
from kq_transports.conformance.proxy import Proxy


class OnRabbit(KombuWorld):
    @pytest.fixture(autouse=True)
    def server(self, rabbit_url: str) -> None:
        self.port, self.path = urlsplit(rabbit_url).port or 0, urlsplit(rabbit_url).path

    def url(self, where: Path) -> str:
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        return f"kq-amqp://guest:guest@127.0.0.1:{port}{self.path}"


class TestAmqpTransport(OnRabbit, KombuSuite):
    pass


class TestAmqpOnABadNetwork(OnRabbit, WireSuite):
    @pytest.fixture
    def wire(self, proxy_to: Callable[[int], Proxy]) -> Proxy:
        return proxy_to(self.port)

    def through(self, wire: Proxy) -> Place:  # type: ignore[override]
        return Place(self.url_at(wire.port), {})
