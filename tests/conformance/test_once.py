"""Mails under kill -9, freezes and partitions, on brokers that outlive their clients; at length by `make once`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast
from urllib.parse import urlsplit

import pytest

from kq.conformance.contract.bar import OnceApart, OnceUnderFreeze, OnceUnderKills
from kq.conformance.contract.outages import Server
from tests.brokers import OnRabbit, OnRedis, OnSqlite, Wired


class TestOnceOnSqlite(OnSqlite, OnceUnderKills, OnceUnderFreeze):
    pass


class TestOnceOnRedis(OnRedis, OnceUnderKills, OnceUnderFreeze):
    pass


class TestOnceOnRabbit(OnRabbit, OnceUnderKills, OnceUnderFreeze):
    pass


class Apart(Wired, OnceApart):
    """Behind a network of its own, before a server that others use too."""

    @pytest.fixture
    def server(self, shared_url: str) -> Server:
        return cast("Server", SimpleNamespace(port=urlsplit(shared_url).port))


class TestOnceApartFromRedis(Apart):
    @pytest.fixture
    def shared_url(self, redis_url: str) -> str:
        return redis_url

    def url_at(self, port: int) -> str:
        return f"redis://127.0.0.1:{port}/0"


class TestOnceApartFromRabbit(Apart):
    @pytest.fixture
    def shared_url(self, rabbit_url: str) -> str:
        return rabbit_url

    @pytest.fixture
    def state_url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'state.db'}"

    def url_at(self, port: int) -> str:
        return f"amqp://guest:guest@127.0.0.1:{port}//"
