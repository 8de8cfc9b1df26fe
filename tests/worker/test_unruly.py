"""Jobs that do what no job should: they are counted and buried, and nobody else comes to harm."""

from __future__ import annotations

import os

import pytest

from kq.app import App
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.processes import gone
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import Gate, buried
from kq.control import Control
from kq.values.job import State
from kq.values.record import RESULT_LIMIT
from kq.worker.pool import PoolKind
from kq.worker.wire import Frames, Page
from tests.brokers import OnRabbit, OnRedis, OnSqlite
from tests.worker.unruly import FORGED, WHERE, Unruly
from tests.worker.world import POOLS


class UnrulyWorld(OnSqlite):
    lease = 3.0
    application = WHERE

    @pytest.fixture
    def jobs(self, app: App) -> Unruly:
        return Unruly(app)


@pytest.mark.parametrize("pool", POOLS)
class TestInEveryPool(UnrulyWorld):
    def test_a_process_that_a_job_leaves_behind_does_not_hide_that_the_executor_died(
        self, control: Control, jobs: Unruly, crew: Crew, diary: Diary, pool: PoolKind
    ) -> None:
        crew.worker(pool=pool)
        job = jobs.orphan.submit()
        assert "exit code 1" in buried(control, job.queue, job).error
        assert len(diary.starts(job.id)) == 3
        assert jobs.add.submit(1, 2).result(5) == 3

    def test_a_process_that_a_job_forks_is_no_second_executor(
        self, jobs: Unruly, crew: Crew, diary: Diary, pool: PoolKind
    ) -> None:
        crew.worker(pool=pool)
        child = jobs.fork.submit().result(10)
        eventually(lambda: gone(child), "the child has ended")
        assert [jobs.add.submit(number, 1).result(5) for number in range(20)] == list(range(1, 21))

    @pytest.mark.parametrize("kind", ["close_all", "babble"])
    def test_a_job_that_spoils_what_its_executor_needs_is_buried_like_one_that_kills_it(
        self, control: Control, jobs: Unruly, crew: Crew, diary: Diary, pool: PoolKind, kind: str
    ) -> None:
        worker = crew.worker(pool=pool)
        job = getattr(jobs, kind).submit()
        assert buried(control, job.queue, job)
        assert len(diary.starts(job.id)) == 3
        assert jobs.add.submit(1, 2).result(5) == 3
        assert worker.supervisor.is_running()

    @pytest.mark.parametrize(
        "kind", ["nameless", "speechless", "unprintable", "stop", "exit", "interrupt", "cancelled"]
    )
    def test_an_error_that_cannot_be_told_is_an_error_all_the_same(
        self, control: Control, jobs: Unruly, crew: Crew, diary: Diary, pool: PoolKind, kind: str
    ) -> None:
        worker = crew.worker(pool=pool)
        executors = eventually(worker.executors, "its executor is there")
        job = jobs.curse.submit(kind)
        assert buried(control, job.queue, job).attempt == len(diary.starts(job.id)) == 1
        assert worker.executors() == executors

    @pytest.mark.parametrize("kind", ["exit", "interrupt"])
    def test_a_task_that_a_job_began_and_that_exits_is_not_laid_to_the_next_job(
        self, control: Control, jobs: Unruly, crew: Crew, pool: PoolKind, kind: str
    ) -> None:
        crew.worker(pool=pool)
        job = jobs.exit_within.submit(kind)
        assert buried(control, job.queue, job)
        after = [jobs.note_async.submit(word) for word in "abc"]
        assert [each.result(20) for each in after] == ["a", "b", "c"]

    def test_a_result_that_is_too_large_is_refused(
        self, control: Control, jobs: Unruly, crew: Crew, pool: PoolKind
    ) -> None:
        crew.worker(pool=pool)
        fits, does_not = jobs.large.submit(RESULT_LIMIT - 2), jobs.large.submit(RESULT_LIMIT - 1)
        assert len(fits.result(20)) == RESULT_LIMIT - 2
        assert "store it elsewhere" in buried(control, does_not.queue, does_not).error

    def test_what_a_job_starts_can_be_ended_by_it(self, jobs: Unruly, crew: Crew, pool: PoolKind) -> None:
        crew.worker(pool=pool)
        assert jobs.end_children.submit().result(20) == [-15, -15]


class TestInOnePool(UnrulyWorld):
    @pytest.mark.parametrize("kind", ["exit", "interrupt", "stop"])
    def test_a_coroutine_that_leaves_the_event_loop_ends_no_other(
        self, control: Control, jobs: Unruly, crew: Crew, gate: Gate, kind: str
    ) -> None:
        worker = crew.worker(pool="async", concurrency=3)
        executors = eventually(worker.executors, "its executor is there")
        other = jobs.hold_async.submit(gate.path)
        eventually(lambda: control.jobs(other.queue, State.RUNNING), "another runs beside it")
        if kind == "stop":
            assert jobs.stop_loop.submit().result(10) == "went on"
        else:
            job = jobs.exit_within.submit(kind)
            assert ("SystemExit" if kind == "exit" else "KeyboardInterrupt") in buried(control, job.queue, job).error
        gate.open()
        assert other.result(10) == executors[0].pid
        assert worker.executors() == executors

    def test_a_coroutine_that_cancels_all_tasks_cancels_its_own(
        self, control: Control, jobs: Unruly, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        worker = crew.worker(pool="async", concurrency=4)
        plain, waiting, once = jobs.hold_async, jobs.hold_within, jobs.hold_within_once
        beside = [each.submit(gate.path) for each in (plain, waiting, once)]
        eventually(lambda: len(diary.starts()) == 3, "they run")
        job = jobs.cancel_all.submit()
        assert "CancelledError" in buried(control, job.queue, job).error
        assert "has cancelled" in buried(control, job.queue, beside[2]).error  # it must not start twice
        eventually(lambda: len(diary.starts(beside[1].id)) == 2, "what waited for a task that is gone runs again")
        gate.open()
        assert beside[0].result(10) == beside[1].result(10) == worker.executors()[0].pid
        assert [len(diary.starts(each.id)) for each in beside] == [1, 2, 1]
        assert {entry.attempt for entry in diary.starts(beside[1].id)} == {1}

    def test_a_job_whose_executor_dies_before_it_told_the_end_was_started_and_is_counted(
        self, control: Control, jobs: Unruly, crew: Crew, diary: Diary
    ) -> None:
        crew.worker(pool="async")
        job = jobs.die_untold.submit()
        assert "exit code 7" in buried(control, job.queue, job).error
        assert len(diary.ends(job.id)) == 3

    def test_a_job_that_an_interruption_kills_has_timed_out(self, control: Control, jobs: Unruly, crew: Crew) -> None:
        crew.worker()
        job = jobs.drop_handlers.options(timeout=0.3).submit()
        found = buried(control, job.queue, job)
        assert [each.outcome for each in found.history] == ["timed out"]

    def test_jobs_are_interrupted_also_after_one_that_undid_the_signals(
        self, control: Control, jobs: Unruly, crew: Crew, diary: Diary
    ) -> None:
        worker = crew.worker()
        executors = worker.executors()
        assert jobs.drop_handlers.submit(0).result(10) is None
        job = jobs.tidy.options(timeout=0.3).submit()
        buried(control, job.queue, job)
        assert diary.entries("tidied")
        assert worker.executors() == executors

    @pytest.mark.parametrize("what", ["folder", "mask", "alarm", "limit", "signal"])
    def test_what_a_job_changes_of_its_process_is_as_it_was_for_the_next(
        self, jobs: Unruly, crew: Crew, what: str
    ) -> None:
        crew.worker()
        before = jobs.condition.submit().result(10)
        jobs.upset.submit(what).result(10)
        assert jobs.condition.submit().result(10) == before

    def test_a_signal_that_has_no_name_is_told_by_its_number(
        self, control: Control, jobs: Unruly, crew: Crew, diary: Diary
    ) -> None:
        worker = crew.worker()
        job = jobs.perform.options(timeout=60).submit(["signal 40", "signal 40", "signal 40"])
        assert "signal 40" in buried(control, job.queue, job).error
        assert worker.supervisor.is_running()

    def test_an_impossible_delay_is_an_error_of_the_job(
        self, control: Control, jobs: Unruly, crew: Crew, diary: Diary
    ) -> None:
        worker = crew.worker()
        handles = [jobs.postpone.submit(delay) for delay in ("inf", "nan", "-1", "1e300")]
        for job in handles:
            assert "cannot be described" in buried(control, job.queue, job).error
        assert worker.supervisor.is_running()


class TestFramesAndPages:
    def test_a_frame_beyond_the_limit_is_refused_before_it_is_gathered(self) -> None:
        with pytest.raises(ValueError, match="frame of 1819043176 bytes"):
            list(Frames(limit=1000).feed(b"hell" + b"o" * 20))

    def test_a_page_shows_its_marks_to_whoever_shares_it(self) -> None:
        page = Page(2)
        other = Page(2, os.dup(page.descriptor))
        other.mark(1, 7)
        page.interrupt = 7
        assert (page.marked(), other.interrupt) == ({7}, 7)
        page.close()
        other.close()


class Forged:
    lease = 3.0
    application = WHERE

    @pytest.fixture
    def jobs(self, app: App) -> Unruly:
        return Unruly(app)

    @pytest.mark.parametrize("what", FORGED)
    def test_whatever_a_job_says_in_its_executors_place_others_run(
        self, control: Control, jobs: Unruly, crew: Crew, what: str
    ) -> None:
        worker = crew.worker()
        job = jobs.forge.submit(what)
        ended = eventually(lambda: control.wait(job.id, 0.1), "it has ended, or lies buried")
        assert ended is not None
        assert ended.state in (State.COMPLETED, State.BURIED)
        assert jobs.add.submit(1, 2).result(5) == 3
        assert worker.supervisor.is_running()

        def counted() -> bool:
            control.ping()
            return any(row.state == "alive" and row.ok for row in control.snapshot().workers)

        eventually(counted, "what its worker says can be read")


class TestForgedOnSqlite(Forged, OnSqlite):
    pass


class TestForgedOnRedis(Forged, OnRedis):
    pass


class TestForgedOnRabbit(Forged, OnRabbit):
    pass
