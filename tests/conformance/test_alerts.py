"""Alerts on every broker; `make alerts` tells of 100 000 failures."""

from __future__ import annotations

from kq.conformance.contract import AlertSuite, RuleSuite
from tests.brokers import OnMemory, OnRabbit, OnRedis, OnSqlite


class TestAlertsOnMemory(OnMemory, AlertSuite):
    pass


class TestAlertsOnSqlite(OnSqlite, AlertSuite):
    pass


class TestAlertsOnRedis(OnRedis, AlertSuite):
    pass


class TestAlertsOnRabbit(OnRabbit, AlertSuite):
    pass


class TestRulesOnMemory(OnMemory, RuleSuite):
    pass


class TestRulesOnSqlite(OnSqlite, RuleSuite):
    pass


class TestRulesOnRedis(OnRedis, RuleSuite):
    pass


class TestRulesOnRabbit(OnRabbit, RuleSuite):
    pass
