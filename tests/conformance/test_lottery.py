"""The kill lottery on every broker that outlives its clients. `make chaos` plays it at full size."""

from __future__ import annotations

from pathlib import Path

import pytest

from kq.conformance.contract import LotterySuite


@pytest.mark.chaos
class TestLotteryOnSqlite(LotterySuite):
    def url(self, where: Path) -> str:
        return f"sqlite:///{where / 'kq.db'}"


@pytest.mark.chaos
class TestLotteryOnRedis(LotterySuite):
    @pytest.fixture(autouse=True)
    def empty(self, redis_url: str) -> None:
        self.redis = redis_url

    def url(self, where: Path) -> str:
        return self.redis


@pytest.mark.chaos
class TestLotteryOnRabbit(LotterySuite):
    @pytest.fixture(autouse=True)
    def running(self, rabbit_url: str) -> None:
        self.rabbit = rabbit_url

    def url(self, where: Path) -> str:
        return self.rabbit

    def state(self, where: Path) -> str:
        return f"sqlite:///{where / 'state.db'}"
