"""C7 and DESIGN 8, bad storage: another worker does what this one can't, and this one does not go on for ever."""

from __future__ import annotations

import signal
import time

from kq.app import App
from kq.conformance.contract.crew import Crew, Program
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.figures import Figures, keeps
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.processes import pids
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, Gate, requires
from kq.control import Control
from kq.errors import WorkerUnfit
from kq.handles.handle import Handle


class Remedies(ContractWorld):
    """What becomes of jobs, and of workers, when storage fails."""

    @keeps("C7")
    def test_a_job_that_met_bad_storage_is_left_to_another_worker_while_one_lives(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate, measured: Figures
    ) -> None:
        requires(app, "shared")
        here, there, job = self.a_busy_worker_and_one_that_storage_fails(jobs, crew, diary, gate)
        eventually(lambda: here.said().count("left to another worker") >= 2, "the idle worker has it in its hands")
        assert len(diary.starts(job.id)) == 1
        gate.open()
        assert job.result(20) == 2
        first, second = diary.starts(job.id)
        assert first.pid in pids(here.executors())
        assert second.pid in pids(there.executors())
        (attempt,) = eventually(lambda: info.history if (info := control.job(job.id)) else (), "its history is kept")
        assert (attempt.outcome, attempt.counter) == ("bad storage", "infra")
        measured(f"free again for {second.at - first.at:.1f} s, the worker that failed it did not start it")

    @keeps("C7")
    def test_it_runs_where_it_failed_when_no_other_worker_lives(
        self, app: App, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        requires(app, "shared")
        here, there, job = self.a_busy_worker_and_one_that_storage_fails(jobs, crew, diary, gate)
        there.send(signal.SIGTERM)
        gate.open()
        assert there.wait() == 0
        assert job.result(20) == 2
        assert {start.pid for start in diary.starts(job.id)} <= pids(here.executors())

    @keeps("C7")
    def test_a_worker_on_which_bad_storage_ends_several_jobs_ends_itself_and_another_does_them(
        self, app: App, jobs: Jobs, crew: Crew, measured: Figures
    ) -> None:
        requires(app, "shared")
        unfit = crew.program()
        handles = app.submit_many(jobs.perform.job(["storage", "return"]) for _ in range(3))
        began = time.monotonic()
        assert unfit.wait() == WorkerUnfit.exit_code
        measured(f"ended {time.monotonic() - began:.1f} s after the first of 3 jobs came")
        assert "bad storage ended 3 jobs" in unfit.said()
        crew.program()
        assert [handle.result(20) for handle in handles] == [2, 2, 2]

    def a_busy_worker_and_one_that_storage_fails(
        self, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate
    ) -> tuple[Program, Program, Handle[int]]:
        """The worker that has nothing more to do, the one that runs a job, and the job that waits."""
        workers = crew.program(), crew.program()
        held = jobs.hold.submit(gate.path)
        (busy,) = eventually(lambda: diary.starts(held.id), "one of them is busy")
        job = diary.begun(jobs.perform.submit(["storage", "return"]))
        here, there = sorted(workers, key=lambda worker: busy.pid in pids(worker.executors()))
        return here, there, job
