"""The kill lottery on every broker that outlives its clients. `make chaos` plays it at full size."""

from __future__ import annotations

from kq.conformance.contract import LotterySuite
from tests.brokers import OnRabbit, OnRedis, OnSqlite


class TestLotteryOnSqlite(OnSqlite, LotterySuite):
    pass


class TestLotteryOnRedis(OnRedis, LotterySuite):
    pass


class TestLotteryOnRabbit(OnRabbit, LotterySuite):
    pass
