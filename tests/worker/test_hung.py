"""Hung and poison jobs: what they do to their executor is over in time, leaves nothing behind, and disturbs nobody."""

from __future__ import annotations

import time

import psutil
import pytest

from kq.app import App
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.figures import Figures, ms, survives
from kq.conformance.contract.processes import gone, nurseries, status
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import Gate, buried
from kq.control import Control
from kq.worker.pool import PoolKind
from tests.worker.test_unruly import UnrulyWorld
from tests.worker.unruly import Unruly
from tests.worker.world import POOLS

LIMIT = 0.5  # seconds that a job may take
OVER = 1.0  # seconds after which what went over its limit is gone, and after which there is full capacity again


@pytest.mark.parametrize("pool", POOLS)
class TestInEveryPool(UnrulyWorld):
    @pytest.mark.parametrize("kind", ["stubborn", "frozen", "parent"])
    @survives("F7")
    def test_a_job_past_its_limit_is_killed_in_time_and_there_is_full_capacity_again(
        self,
        app: App,
        jobs: Unruly,
        crew: Crew,
        diary: Diary,
        gate: Gate,
        measured: Figures,
        pool: PoolKind,
        kind: str,
    ) -> None:
        worker = crew.worker(pool=pool, concurrency=2)
        job = getattr(jobs, kind).options(timeout=LIMIT).submit()
        (start,) = eventually(lambda: diary.starts(job.id), "it runs")
        eventually(lambda: gone(start.pid), "its executor is dead")
        late = time.time() - start.at - LIMIT
        assert late < OVER
        measured(f"dead {ms(late)} after its limit")
        held = app.submit_many(jobs.hold.job(gate.path) for _ in range(2))
        eventually(lambda: len(diary.starts(*(each.id for each in held))) == 2, "two run again", within=OVER)
        gate.open()
        assert all(handle.result(10) for handle in held)
        assert worker.supervisor.is_running()

    @pytest.mark.parametrize("then", ["hang", "die"])
    @survives("F7")
    def test_processes_that_left_the_group_and_their_parent_end_with_the_executor(
        self, control: Control, jobs: Unruly, crew: Crew, diary: Diary, pool: PoolKind, then: str
    ) -> None:
        crew.worker(pool=pool)
        job = jobs.escape.options(timeout=2.0).submit(then)
        buried(control, job.queue, job)
        for pid in map(int, diary.starts(job.id)[0].word.split()):
            eventually(lambda pid=pid: gone(pid), "the process is gone", within=OVER)  # type: ignore[misc]

    def test_processes_that_jobs_let_go_are_no_zombies_when_they_have_ended(
        self, app: App, jobs: Unruly, crew: Crew, pool: PoolKind
    ) -> None:
        worker = crew.program(pool=pool)
        for handle in app.submit_many(jobs.let_go.job() for _ in range(20)):
            handle.result(10)

        def zombies() -> int:
            return sum(status(each) == psutil.STATUS_ZOMBIE for each in worker.tree())

        eventually(lambda: zombies() == 0, "none is left")

    def test_a_job_that_multiplies_leaves_nobody(
        self, control: Control, jobs: Unruly, crew: Crew, pool: PoolKind
    ) -> None:
        worker = crew.program(pool=pool)
        job = jobs.multiply.submit()
        buried(control, job.queue, job)
        eventually(lambda: len(crew.left_behind()) == 3, "there are the supervisor, the nursery, an executor", within=5)
        assert jobs.add.submit(1, 2).result(5) == 3
        assert worker.process.poll() is None

    def test_a_job_that_takes_too_much_memory_is_killed_while_it_runs(
        self, control: Control, jobs: Unruly, crew: Crew, diary: Diary, pool: PoolKind
    ) -> None:
        crew.worker("--max-rss", "200MiB", pool=pool)
        job = jobs.swell.submit()
        found = buried(control, job.queue, job)
        assert "more than max_rss, 200 MiB" in found.error
        assert [(each.outcome, each.counter) for each in found.history] == [("out of memory", "lost")]
        assert jobs.add.submit(1, 2).result(5) == 3


class TestInProcesses(UnrulyWorld):
    def test_deaths_leave_no_descriptor_open(self, app: App, jobs: Unruly, crew: Crew) -> None:
        worker = crew.program(concurrency=2)

        def deaths(number: int) -> None:
            for handle in app.submit_many(jobs.perform.job(["exit 3", "return"]) for _ in range(number)):
                handle.result(20)
            eventually(lambda: len(worker.executors()) == 2, "there are two executors")

        deaths(5)
        before = worker.supervisor.num_fds()
        deaths(30)
        assert worker.supervisor.num_fds() < before + 10  # some are opened when they are first needed, none by a death

    @survives("F7")
    def test_processes_of_a_job_that_was_interrupted_end_too(
        self, control: Control, jobs: Unruly, crew: Crew, diary: Diary
    ) -> None:
        # In a shared executor nobody knows whose processes they are: there they end with it.
        crew.worker()
        job = jobs.escape.options(timeout=2.0).submit("linger")
        assert "killed" not in buried(control, job.queue, job).error
        for pid in map(int, diary.starts(job.id)[0].word.split()):
            eventually(lambda pid=pid: gone(pid), "the process is gone", within=OVER)  # type: ignore[misc]
        assert jobs.add.submit(1, 2).result(5) == 3

    @survives("F7")
    def test_processes_of_a_job_end_although_the_supervisor_died_while_an_executor_was_born(
        self, jobs: Unruly, crew: Crew, diary: Diary
    ) -> None:
        worker = crew.program("--max-jobs", "1", concurrency=2)
        job = jobs.escape.submit("linger")
        (start,) = eventually(lambda: diary.starts(job.id), "it runs")
        (nursery,) = nurseries(worker.supervisor)
        nursery.suspend()
        assert jobs.add.submit(1, 2).result(10) == 3  # and a new executor is asked for
        worker.supervisor.kill()
        worker.wait()
        nursery.resume()
        for pid in map(int, start.word.split()):
            eventually(lambda pid=pid: gone(pid), "the process is gone", within=5 * OVER)  # type: ignore[misc]
        assert "Exception ignored" not in worker.said()


@pytest.mark.parametrize("pool", ["thread", "async"])
class TestSharedExecutors(UnrulyWorld):
    def test_a_suspect_runs_alone_and_the_others_beside_it(
        self, app: App, control: Control, jobs: Unruly, crew: Crew, diary: Diary, gate: Gate, pool: PoolKind
    ) -> None:
        worker = crew.worker(pool=pool, concurrency=4)
        poison = jobs.perform.submit(["signal 9", "signal 9", "signal 9"])
        eventually(lambda: len(diary.starts(poison.id)) >= 2, "it runs again")
        neighbour = jobs.hold.submit(gate.path)
        (start,) = eventually(lambda: diary.starts(neighbour.id), "a neighbour runs")
        assert buried(control, poison.queue, poison).attempt == 3
        assert start.pid not in [each.pid for each in diary.starts(poison.id)[1:]]
        gate.open()
        assert neighbour.result(10)
        assert len(diary.starts(neighbour.id)) == 1
        eventually(lambda: len(worker.executors()) == 1, "its executor left")

    def test_an_executor_that_has_run_its_jobs_is_replaced_although_it_is_never_idle(
        self, app: App, jobs: Unruly, crew: Crew, diary: Diary, pool: PoolKind
    ) -> None:
        crew.worker("--max-jobs", "10", pool=pool, concurrency=4)
        handles = app.submit_many(jobs.nap.job(0.02 + 0.01 * (number % 3)) for number in range(60))
        assert len({handle.result(20) for handle in handles}) >= 4
        assert len(diary.starts()) == 60

    def test_no_more_jobs_run_at_a_time_than_there_are_slots_while_an_executor_is_replaced(
        self, app: App, jobs: Unruly, crew: Crew, diary: Diary, gate: Gate, pool: PoolKind
    ) -> None:
        crew.worker("--max-jobs", "3", pool=pool, concurrency=4)
        long = app.submit_many(jobs.hold.job(gate.path) for _ in range(3))
        eventually(lambda: len(diary.starts()) == 3, "three run")
        for handle in app.submit_many(jobs.note.job() for _ in range(3)):
            handle.result(10)
        more = app.submit_many(jobs.hold.job(gate.path) for _ in range(3))
        eventually(lambda: len(diary.starts()) == 7, "the fourth runs in another executor")
        with pytest.raises(AssertionError):
            eventually(lambda: len(diary.starts()) > 7, "one too many", within=0.5)
        gate.open()
        assert len({handle.result(10) for handle in [*long, *more]}) >= 2
