"""Pools: what runs in them, how many at a time, and what ends a job that does not end by itself."""

from __future__ import annotations

import time

import pytest

from kq.app import App
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.processes import gone, lives, nurseries, pids
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import Gate, buried, outcome
from kq.control import Control
from kq.errors import JobBuried, JobRevoked
from kq.values.job import State
from kq.worker.pool import PoolKind
from tests.worker.jobs import Odd
from tests.worker.world import POOLS, WorkerWorld


@pytest.mark.parametrize("pool", POOLS)
class TestEveryPool(WorkerWorld):
    def test_runs_plain_functions_and_coroutines(self, jobs: Odd, crew: Crew, pool: PoolKind) -> None:
        worker = crew.worker(pool=pool, concurrency=2)
        plain, coroutine = jobs.nap.submit(0.01), jobs.nap_async.submit(0.01)
        assert {plain.result(10), coroutine.result(10)} <= pids(worker.executors())
        assert outcome(jobs.perform_plain.submit(["raise ValueError"]))

    @pytest.mark.parametrize("kind", ["leaves_word", "leaves_word_async"])
    def test_what_a_job_sets_in_its_context_is_gone_with_it(
        self, app: App, jobs: Odd, crew: Crew, pool: PoolKind, kind: str
    ) -> None:
        crew.worker(pool=pool, concurrency=1)
        handles = app.submit_many(getattr(jobs, kind).job("said") for _ in range(5))
        assert [handle.result(10) for handle in handles] == [""] * 5

    @pytest.mark.parametrize("kind", ["hold", "hold_async"])
    def test_runs_as_many_at_a_time_as_it_has_slots_and_not_one_more(
        self, app: App, jobs: Odd, crew: Crew, diary: Diary, gate: Gate, pool: PoolKind, kind: str
    ) -> None:
        slots = 2 if pool == "process" else 20
        crew.worker(pool=pool, concurrency=slots)
        handles = app.submit_many(getattr(jobs, kind).job(gate.path) for _ in range(slots + 5))
        eventually(lambda: len(diary.starts()) == slots, "all slots are used", within=2)
        with pytest.raises(AssertionError):
            eventually(lambda: len(diary.starts()) > slots, "one more", within=0.3)
        gate.open()
        assert all(handle.result(10) for handle in handles)

    def test_runs_a_job_that_was_delivered_before_beside_others(
        self, app: App, jobs: Odd, crew: Crew, diary: Diary, gate: Gate, pool: PoolKind
    ) -> None:
        worker = crew.worker(pool=pool, concurrency=2, grace=0)
        handles = app.submit_many(jobs.hold.job(gate.path) for _ in range(2))
        eventually(lambda: len(diary.starts()) == 2, "both run")
        worker.stop()
        crew.worker(pool=pool, concurrency=2)
        eventually(lambda: len(diary.starts()) == 4, "both run again", within=2)
        gate.open()
        assert all(handle.result(10) for handle in handles)

    @pytest.mark.parametrize("kind", ["tidy", "tidy_async"])
    def test_interrupts_a_job_that_runs_past_its_timeout_so_that_it_can_clean_up(
        self, control: Control, jobs: Odd, crew: Crew, diary: Diary, pool: PoolKind, kind: str
    ) -> None:
        worker = crew.worker(pool=pool)
        executors = worker.executors()
        job = getattr(jobs, kind).options(timeout=0.5).submit()
        found = buried(control, job.queue, job)
        (start,), (tidied,) = diary.starts(job.id), diary.entries("tidied")
        assert 0.4 <= tidied.at - start.at <= 1.2
        assert [each.outcome for each in found.history] == ["timed out"]
        assert worker.executors() == executors
        assert jobs.add.submit(1, 2).result(10) == 3

    @pytest.mark.parametrize("kind", ["stubborn", "frozen"])
    def test_kills_what_cannot_be_interrupted(
        self, control: Control, jobs: Odd, crew: Crew, diary: Diary, pool: PoolKind, kind: str
    ) -> None:
        worker = crew.worker(pool=pool)
        (executor,) = worker.executors()
        job = getattr(jobs, kind).options(timeout=0.5).submit()
        found = buried(control, job.queue, job)
        began = diary.starts(job.id)[0].at
        eventually(lambda: not lives(executor), "its executor is dead")
        assert time.time() - began <= 0.5 + 1.5
        assert [each.outcome for each in found.history] == ["timed out"]
        assert "killed" in found.error
        assert jobs.add.submit(1, 2).result(2) == 3
        assert worker.supervisor.is_running()


class TestTimeouts(WorkerWorld):
    def test_processes_that_a_killed_job_started_are_gone(
        self, control: Control, jobs: Odd, crew: Crew, diary: Diary
    ) -> None:
        crew.worker()
        job = jobs.parent.options(timeout=0.5).submit()
        buried(control, job.queue, job)
        child = int(diary.starts(job.id)[0].word)
        eventually(lambda: gone(child), "its child is gone", within=2)

    def test_neighbours_of_a_killed_job_are_not_disturbed(
        self, control: Control, jobs: Odd, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        crew.worker(concurrency=2)
        neighbour = diary.begun(jobs.hold.submit(gate.path))
        job = jobs.stubborn.options(timeout=0.3).submit()
        buried(control, job.queue, job)
        gate.open()
        neighbour.result(10)
        assert len(diary.starts(neighbour.id)) == 1

    @pytest.mark.parametrize("pool", ["thread", "async"])
    def test_neighbours_in_the_same_process_run_again_and_are_not_blamed(
        self, control: Control, jobs: Odd, crew: Crew, diary: Diary, gate: Gate, pool: PoolKind
    ) -> None:
        crew.worker(pool=pool, concurrency=4)
        neighbour = diary.begun(jobs.hold.submit(gate.path))
        for _ in range(4):
            job = jobs.stubborn.options(timeout=0.1).submit()
            buried(control, job.queue, job)
        eventually(lambda: len(diary.starts(neighbour.id)) >= 2, "the neighbour runs again")
        gate.open()
        assert neighbour.result(10)

    def test_a_job_that_hangs_once_is_retried(self, jobs: Odd, crew: Crew, diary: Diary) -> None:
        crew.worker()
        job = jobs.slow_once.options(timeout=0.3).submit()
        assert job.result(20) == "at last"
        assert len(diary.starts(job.id)) == 2

    def test_on_timeout_revoke_ends_a_job_for_good(self, control: Control, jobs: Odd, crew: Crew) -> None:
        crew.worker()
        job = jobs.dismissed.options(timeout=0.3).submit()
        assert isinstance(outcome(job), JobRevoked)
        eventually(lambda: not control.jobs(job.queue), "nothing is left of it")

    def test_a_job_may_take_as_long_as_its_own_timeout_says(self, jobs: Odd, crew: Crew) -> None:
        crew.worker()
        assert jobs.nap.options(timeout=5).submit(1.0).result(10)


class TestExecutors(WorkerWorld):
    @pytest.mark.parametrize("seconds", [0.0, 0.01, 0.05])
    def test_an_executor_that_has_run_its_jobs_is_replaced_and_none_is_lost(
        self, app: App, jobs: Odd, crew: Crew, diary: Diary, seconds: float
    ) -> None:
        crew.worker("--max-jobs", "5")
        handles = app.submit_many(jobs.nap.job(seconds) for _ in range(23))
        assert len({handle.result(20) for handle in handles}) == 5
        assert len(diary.starts()) == 23

    def test_an_executor_that_has_grown_too_large_is_replaced(self, jobs: Odd, crew: Crew) -> None:
        crew.worker("--max-rss", "400MiB")
        modest, large = jobs.hog.submit(1), jobs.hog.submit(300 * 1024 * 1024)
        assert modest.result(10) == large.result(10)
        assert jobs.hog.submit(1).result(10) != large.result(10)

    def test_a_nursery_that_dies_is_replaced_with_its_executors(
        self, jobs: Odd, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        worker = crew.worker(concurrency=2)
        job = diary.begun(jobs.hold.submit(gate.path))
        before = pids(worker.executors())
        (nursery,) = nurseries(worker.supervisor)
        nursery.kill()
        after = eventually(lambda: pids(worker.executors()) - before, "new executors")
        assert not after & before
        gate.open()
        assert job.result(10) not in before
        assert len(diary.starts(job.id)) == 2
        assert jobs.add.submit(1, 2).result(10) == 3
        assert worker.supervisor.is_running()

    def test_a_job_knows_what_it_is(self, jobs: Odd, crew: Crew) -> None:
        crew.worker()
        job = jobs.about_itself.submit()
        assert job.result(10) == {"id": job.id, "type": "about_itself", "queue": job.queue, "attempt": 1}


class TestStates(WorkerWorld):
    def test_the_state_of_a_job_follows_its_life(self, jobs: Odd, crew: Crew, diary: Diary, gate: Gate) -> None:
        job = jobs.hold.options(delay=0.2).submit(gate.path)
        assert job.state() is State.DELAYED
        eventually(lambda: job.state() is State.READY, "it is ready")
        crew.worker()
        diary.begun(job)
        assert job.state() in (State.RESERVED, State.RUNNING)
        gate.open()
        job.result(10)
        assert job.state() is State.COMPLETED
        assert isinstance(outcome(jobs.perform_plain.submit(["bad"])), JobBuried)
