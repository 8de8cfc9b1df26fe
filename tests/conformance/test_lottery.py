"""The kill lottery on every broker that outlives its clients. `make chaos` plays it at full size."""

from __future__ import annotations

import pytest

from kq.conformance.contract import LotterySuite
from tests.brokers import OnRabbit, OnRedis, OnSqlite


@pytest.mark.chaos
class TestLotteryOnSqlite(OnSqlite, LotterySuite):
    pass


@pytest.mark.chaos
class TestLotteryOnRedis(OnRedis, LotterySuite):
    pass


@pytest.mark.chaos
class TestLotteryOnRabbit(OnRabbit, LotterySuite):
    pass
