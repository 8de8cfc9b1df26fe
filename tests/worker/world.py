"""The world of workers' tests: that of the contract, on an SQLite file, with a few more kinds of jobs."""

from __future__ import annotations

import pytest

from kq.app import App
from tests.brokers import OnSqlite
from tests.worker.jobs import WHERE, Odd

#: How jobs of either kind run in each pool.
POOLS = ("process", "thread", "async")


class WorkerWorld(OnSqlite):
    """What tests of workers stand on."""

    lease = 3.0
    application = WHERE

    @pytest.fixture
    def jobs(self, app: App) -> Odd:
        return Odd(app)
