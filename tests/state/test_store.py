"""The state stores under the shared suite, and what is particular to each."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from kq.broker import Broker
from kq.conformance.store import StoreSuite
from kq.state import Store, open_store
from kq.url import parse

_fresh = itertools.count()


class TestMemoryStore(StoreSuite):
    @pytest.fixture(autouse=True)
    def _name(self) -> None:
        self.name = f"test-{next(_fresh)}"

    def open(self) -> Store:
        return open_store(f"memory://{self.name}")

    def broker(self) -> Broker:
        return Broker(parse(f"memory://{self.name}"))


class TestSqliteStore(StoreSuite):
    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "state.db"

    def open(self) -> Store:
        return open_store(f"sqlite:///{self.path}")

    def broker(self) -> Broker:
        return Broker(parse(f"sqlite:///{self.path}"))


class TestRedisStore(StoreSuite):
    @pytest.fixture(autouse=True)
    def _server(self, redis_url: str) -> None:
        self.url = redis_url

    def open(self) -> Store:
        return open_store(self.url)

    def broker(self) -> Broker:
        return Broker(parse(self.url))
