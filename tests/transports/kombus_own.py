"""Kombu's own transports under KombuSuite. Not collected by itself: `report.py` runs it.

Each is set up as a careful user would, and is asked for no trait that kq's transport on the same broker lacks.
"""

from __future__ import annotations

from pathlib import Path

import kombu
import pytest

from kq_transports.conformance.kombu import KombuSuite
from kq_transports.engine import Traits
from tests.servers import RedisServer


class TestMemory(KombuSuite):
    def url(self, where: Path) -> str:
        return "memory://"

    def traits(self, connection: kombu.Connection) -> Traits:
        return Traits("memory", durable=False, shared=False)


class TestSqlalchemy(KombuSuite):
    @pytest.fixture(autouse=True)
    def _driver(self) -> None:
        pytest.importorskip("sqlalchemy")

    def url(self, where: Path) -> str:
        return f"sqla+sqlite:///{where / 'kombu.db'}"

    def traits(self, connection: kombu.Connection) -> Traits:
        return Traits("sqla+sqlite")


class TestRedis(KombuSuite):
    transport_options = {"visibility_timeout": 1, "unacked_restore_limit": 10}

    @pytest.fixture(autouse=True)
    def _server(self, redis_server: RedisServer, redis_url: str) -> None:
        self.port = redis_server.port

    def url(self, where: Path) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def traits(self, connection: kombu.Connection) -> Traits:
        return Traits("redis")


class TestAmqp(KombuSuite):
    transport_options = {"confirm_publish": True}

    @pytest.fixture(autouse=True)
    def _server(self, rabbit_url: str) -> None:
        self.address = rabbit_url

    def url(self, where: Path) -> str:
        return self.address

    def traits(self, connection: kombu.Connection) -> Traits:
        return Traits("amqp", atomic=False, indexed=False)
