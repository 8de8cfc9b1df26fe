"""Jobs before which somebody looks, and how that is told apart from the job."""

from __future__ import annotations

import pytest

from kq.app import App
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.world import buried
from kq.control import Control
from kq.worker.pool import PoolKind
from tests.brokers import OnSqlite
from tests.worker.jobs import Odd
from tests.worker.observed import LOOK, WHERE
from tests.worker.world import POOLS


class TestSlowObservers(OnSqlite):
    application = WHERE

    @pytest.fixture
    def jobs(self, app: App) -> Odd:
        return Odd(app)

    @pytest.mark.parametrize("pool", POOLS)
    def test_a_timeout_that_is_over_before_the_job_begins_interrupts_it_all_the_same(
        self, control: Control, jobs: Odd, crew: Crew, queue: str, pool: PoolKind
    ) -> None:
        crew.worker(pool=pool)
        found = buried(control, queue, jobs.tidy.options(timeout=LOOK / 5).submit())
        assert found.error is not None
        assert "SoftTimeout" in found.error
        assert "killed" not in found.error
