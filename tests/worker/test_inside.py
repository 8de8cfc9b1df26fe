"""What a job sees of the broker and may do there: as much as everybody, or it is told that it can't."""

from __future__ import annotations

import pytest

from kq.app import App
from kq.broker import Inspector
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.world import ContractWorld, outcome
from tests.brokers import OnMemory, OnRabbit, OnRedis, OnSqlite
from tests.worker.jobs import WHERE, Odd


class Inside(ContractWorld):
    application = WHERE

    @pytest.fixture
    def jobs(self, app: App) -> Odd:
        return Odd(app)

    def test_a_job_sees_what_waits_or_is_told_that_it_can_not(
        self, app: App, jobs: Odd, crew: Crew, queue: str
    ) -> None:
        far = f"{queue}-far"
        jobs.note.options(queue=far).submit()
        crew.worker()
        seen = outcome(jobs.looks.submit(far))
        if app.broker.traits.shared:
            assert seen == [1, 1]
        else:
            assert "lives in the process of the worker" in str(seen)

    def test_what_a_job_submits_by_an_app_of_its_own_is_stored(
        self, jobs: Odd, crew: Crew, queue: str, inspector: Inspector
    ) -> None:
        far = f"{queue}-far"
        crew.worker()
        id = jobs.submits_apart.submit(far).result(10)
        assert [seen.id for seen in inspector.browse(far, "ready")] == [id]
        assert jobs.submits_apart.submit(far).result(10) != id  # what it closed is not missed


class TestInsideOnMemory(OnMemory, Inside):
    pass


class TestInsideOnSqlite(OnSqlite, Inside):
    pass


class TestInsideOnRedis(OnRedis, Inside):
    pass


class TestInsideOnRabbit(OnRabbit, Inside):
    pass
