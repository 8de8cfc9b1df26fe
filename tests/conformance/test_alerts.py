"""Alerts on every broker; `make alerts` tells of 100 000 failures."""

from __future__ import annotations

from kq.conformance.contract import AlertSuite
from tests.brokers import OnMemory, OnRabbit, OnRedis, OnSqlite


class TestAlertsOnMemory(OnMemory, AlertSuite):
    pass


class TestAlertsOnSqlite(OnSqlite, AlertSuite):
    pass


class TestAlertsOnRedis(OnRedis, AlertSuite):
    pass


class TestAlertsOnRabbit(OnRabbit, AlertSuite):
    pass
