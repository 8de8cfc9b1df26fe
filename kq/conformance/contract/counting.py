"""C7 counts and C8 retry: which failures are whose, how often a job is tried, and what is remembered of it."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest

from kq.app import App
from kq.broker import Inspector
from kq.conformance.contract.crew import Crew, Program
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.figures import Figures, keeps, ms, survives
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, Gate, buried, elapsed, outcome, requires
from kq.control import Control
from kq.errors import ExecutorDied
from kq.handles.handle import Handle
from kq.values.job import State

#: So many jobs do no harm.
INNOCENTS = 40
ROUNDS = 4  # of a measurement of which the best counts


class Counts(ContractWorld):
    """C7: attempts count starts, and each cause of a failure is counted apart."""

    @keeps("C7")
    def test_three_causes_have_three_counters(
        self, inspector: Inspector, control: Control, jobs: Jobs, crew: Crew, diary: Diary
    ) -> None:
        crew.worker()
        job = jobs.perform.submit(["raise RuntimeError", "signal 9", "storage", "bad"])
        found = buried(control, job.queue, job)
        assert found.attempt == len(diary.starts(job.id)) == 4
        assert [each.outcome for each in found.history] == ["raised", "died", "bad storage", "raised"]
        assert [each.counter for each in found.history] == ["failed", "lost", "infra", "failed"]
        headers = headers_of(inspector, job)
        assert [headers.get(name) for name in ("failed", "lost", "infra")] == [2, 1, 1]

    @keeps("C7")
    @survives("F6")
    def test_a_job_that_kills_its_executors_is_buried_after_three_of_them_and_disturbs_nobody(
        self, control: Control, jobs: Jobs, crew: Crew, diary: Diary, measured: Figures
    ) -> None:
        worker = crew.worker(concurrency=2)
        delayed, took = poisoned(control, jobs, diary)
        for _ in range(ROUNDS):
            if delayed > 1.0:  # other programs disturb this machine, now more and now less
                delayed, took = min((delayed, took), poisoned(control, jobs, diary))
        assert worker.supervisor.is_running()
        measured(
            f"3 killers, 3 starts each, buried after {took:.1f} s; "
            f"{INNOCENTS} others waited {ms(delayed)} longer than without them"
        )
        measured.account(back=delayed)
        assert took <= 5.0
        assert delayed <= 1.0

    @keeps("C7")
    def test_executors_that_died_on_several_workers_are_counted_together(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, diary: Diary
    ) -> None:
        requires(app, "shared")
        crew.program()
        crew.program()
        job = jobs.perform.submit(["signal 9"])
        assert buried(control, job.queue, job).attempt == len(diary.starts(job.id)) == 3

    @keeps("C7")
    @survives("F6")
    def test_a_job_that_kills_whole_workers_is_buried_too(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, diary: Diary, measured: Figures
    ) -> None:
        requires(app, "shared")
        workers = [crew.program(ready=False) for _ in range(5)]
        for worker in workers:
            worker.ready()
        job = jobs.kill_worker.submit()
        assert "died" in buried(control, job.queue, job, within=6 * (self.lease + 2)).error
        starts = len(diary.starts(job.id))
        # Nobody lived to tell of the first start, so the first worker that dies may go uncounted.
        assert 3 <= starts <= 4
        assert sum(worker.process.poll() is None for worker in workers) == len(workers) - starts
        measured(f"after {starts} workers")

    @keeps("C7")
    def test_jobs_behind_a_killer_in_the_same_executor_are_not_blamed(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, diary: Diary
    ) -> None:
        crew.worker()
        # Short jobs are handed to an executor several at a time.
        for handle in app.submit_many(jobs.perform.job(["return"]) for _ in range(200)):
            handle.result(10)
        batch = app.submit_many([jobs.perform.job(["signal 9"]), *(jobs.perform.job(["return"]) for _ in range(30))])
        assert [handle.result(10) for handle in batch[1:]] == [1] * 30
        assert len(diary.starts(*(handle.id for handle in batch[1:]))) == 30
        assert buried(control, batch[0].queue, batch[0]).attempt == 3

    @keeps("C7")
    def test_jobs_that_never_started_are_not_blamed_for_their_worker(
        self, app: App, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate, measured: Figures
    ) -> None:
        requires(app, "shared")
        deaths = 3  # of a job that is to blame for them all it would be buried
        blocking = jobs.hold.options(priority=8).submit(gate.path)
        innocent = jobs.note.options(priority=1).submit("innocent")
        for number in range(deaths):
            # While its jobs are short a worker takes them ahead: so it holds the last one while the first runs.
            app.submit_many(jobs.note.options(priority=9).job() for _ in range(60))
            worker = crew.program()
            eventually(lambda goal=number: len(diary.starts(blocking.id)) > goal, "the first job runs")  # type: ignore[misc]
            eventually(lambda: innocent.state() is State.RESERVED, "the last one is held")
            worker.kill()
        gate.open()
        crew.worker()
        assert innocent.result(20) == "innocent"
        assert [start.attempt for start in diary.starts(innocent.id)] == [1]
        measured(f"delivered to {deaths} workers that were killed")

    @keeps("C7")
    @pytest.mark.parametrize("dies", ["executor", "worker"])
    def test_a_job_marked_on_lost_bury_starts_at_most_once(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate, dies: str
    ) -> None:
        worker = crew.worker()
        job = diary.begun(jobs.hold_once.submit(gate.path))
        if dies == "executor":
            worker.executors()[0].kill()
        else:
            requires(app, "shared")
            assert isinstance(worker, Program)
            worker.kill()
            crew.program()
        assert isinstance(outcome(job), ExecutorDied)
        assert buried(control, job.queue, job).attempt == len(diary.starts(job.id)) == 1


class Retries(ContractWorld):
    """C8: by policy, with the same id and the whole history."""

    @keeps("C8")
    def test_retries_wait_as_the_policy_says_and_then_the_job_is_buried(
        self, control: Control, jobs: Jobs, crew: Crew, diary: Diary, measured: Figures
    ) -> None:
        crew.worker()
        policies = {"fixed": (0.2, 0.2), "list": (0.3, 0.1), "growing": (0.1, 0.3)}
        submitted = {kind: getattr(jobs, f"perform_{kind}").submit(["raise RuntimeError"]) for kind in policies}
        late = []
        for kind, waits in policies.items():
            job = submitted[kind]
            found = buried(control, job.queue, job)
            waited = [after.at - before.at for before, after in pairwise(diary.starts(job.id))]
            assert len(waited) == len(waits), kind
            late += [real - wait for wait, real in zip(waits, waited, strict=True)]
            assert min(late) >= 0, kind
            assert found.id == job.id
            assert [each.number for each in found.history] == [1, 2, 3]
            assert [each.error for each in found.history] == ["RuntimeError: as asked"] * 3
            assert all(each.worker and each.started <= each.ended for each in found.history)
        measured(f"late by at most {ms(max(late))}")

    @keeps("C8")
    def test_the_polynomial_waits_fifteen_seconds_before_the_first_of_its_retries(
        self, control: Control, jobs: Jobs, crew: Crew, diary: Diary
    ) -> None:
        crew.worker()
        job = jobs.perform_patient.submit(["raise RuntimeError"])
        eventually(lambda: job.state() is State.RETRYING, "it waits for its retry")
        (found,) = control.jobs(job.queue, State.RETRYING)
        assert (found.id, found.attempt) == (job.id, 1)
        assert found.due is not None
        assert 14.5 <= found.due - diary.starts(job.id)[0].at <= 16

    @keeps("C8")
    def test_what_a_second_run_cannot_mend_is_not_run_again(
        self, control: Control, jobs: Jobs, crew: Crew, diary: Diary
    ) -> None:
        crew.worker()
        final = jobs.perform_plain.submit(["raise ValueError"])
        passing = jobs.perform_plain.submit(["retry 0.05", "return"])
        named = jobs.perform_by_error.submit(["raise OSError", "return"])
        unnamed = jobs.perform_by_error.submit(["raise RuntimeError", "return"])
        assert passing.result(10) == named.result(10) == 2
        for job in (final, unnamed):
            assert buried(control, job.queue, job).attempt == len(diary.starts(job.id)) == 1

    @keeps("C8")
    def test_a_policy_may_come_with_the_job(self, jobs: Jobs, crew: Crew) -> None:
        from kq.values.policy import Exponential

        crew.worker()
        policy = Exponential(first=0.01, retries=3)
        job = jobs.perform_plain.options(retry_policy=policy).submit(["raise RuntimeError"] * 3 + ["return"])
        assert job.result(10) == 4

    @keeps("C8")
    def test_jitter_spreads_a_crowd_that_failed_together(
        self, app: App, jobs: Jobs, crew: Crew, diary: Diary, measured: Figures
    ) -> None:
        from kq.values.policy import Exponential

        crew.worker()
        crowd = jobs.perform_plain.options(retry_policy=Exponential(first=1, retries=1))
        handles = app.submit_many(crowd.job(["raise RuntimeError", "return"]) for _ in range(50))
        assert all(handle.result(10) == 2 for handle in handles)
        starts = [diary.starts(handle.id) for handle in random.Random(8).sample(handles, 50)]
        waits = sorted(second.at - first.at for first, second in starts)
        assert waits[25] - waits[0] > 0.1
        assert waits[-1] - waits[25] > 0.1
        measured(f"50 retries over {waits[-1] - waits[0]:.2f} s of 1 s")


def poisoned(control: Control, jobs: Jobs, diary: Diary) -> tuple[float, float]:
    """How much longer others wait because of three killers, and how long it takes until those are buried; seconds."""
    alone = longest_wait(jobs, diary)
    began = time.monotonic()
    killers = [jobs.perform.submit([how]) for how in ("signal 9", "signal 11", "exit 3")]
    delayed = max(0.0, longest_wait(jobs, diary) - alone)
    reasons = [buried(control, killer.queue, killer).error for killer in killers]
    took = elapsed(began)
    for killer, reason, how in zip(killers, reasons, ("SIGKILL", "SIGSEGV", "exit code 3"), strict=True):
        assert len(diary.starts(killer.id)) == 3
        assert how in reason
    return delayed, took


def longest_wait(jobs: Jobs, diary: Diary) -> float:
    """Submit jobs one after the other: how long one of them took, from its submit's return to its end, at most."""
    stored: dict[Handle[str], float] = {}
    for number in range(INNOCENTS):
        stored[jobs.note.submit(str(number))] = time.time()
    assert [job.result(10) for job in stored] == [str(number) for number in range(INNOCENTS)]
    ends = diary.ends(*(job.id for job in stored))
    assert len(diary.starts(*(job.id for job in stored))) == len(ends) == INNOCENTS
    ended = {end.id: end.at for end in ends}
    return max(ended[job.id] - at for job, at in stored.items())


def headers_of(inspector: Inspector, job: Handle[Any]) -> Mapping[str, Any]:
    """The headers of a buried job."""
    (seen,) = inspector.find(f"{job.queue}.buried", [job.id])
    return seen.headers
