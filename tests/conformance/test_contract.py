"""kq keeps its contract on every broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from kq.conformance.contract import ContractSuite


class TestContractOnSqlite(ContractSuite):
    def url(self, where: Path) -> str:
        return f"sqlite:///{where / 'kq.db'}"


class TestContractOnMemory(ContractSuite):
    def url(self, where: Path) -> str:
        return f"memory://{where.name}"


class TestContractOnRedis(ContractSuite):
    @pytest.fixture(autouse=True)
    def empty(self, redis_url: str) -> None:
        self.redis = redis_url

    def url(self, where: Path) -> str:
        return self.redis
