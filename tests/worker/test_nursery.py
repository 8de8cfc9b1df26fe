"""The nursery: whatever becomes of it, the worker has executors, and no job is stuck."""

from __future__ import annotations

import sys

import psutil
import pytest

from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.processes import children, executors_of, lives, nurseries, status
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import Gate
from kq.worker.pool import PoolKind
from tests.worker.jobs import Odd
from tests.worker.world import POOLS, WorkerWorld


class TestANurseryThatDies(WorkerWorld):
    def test_takes_nobody_with_it_when_it_had_not_told_of_a_birth(self, jobs: Odd, crew: Crew) -> None:
        worker = crew.program("--max-jobs", "1")
        (nursery,) = nurseries(worker.supervisor)
        nursery.suspend()
        assert jobs.add.submit(1, 2).result(10) == 3  # and a new executor is asked for
        waiting = jobs.add.submit(3, 4)
        eventually(lambda: status(nursery) == psutil.STATUS_STOPPED, "it does not answer")
        nursery.kill()
        assert waiting.result(10) == 7
        assert worker.process.poll() is None

    def test_settles_what_an_executor_had_whose_end_it_did_not_tell(
        self, jobs: Odd, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        worker = crew.program()
        job = jobs.hold.submit(gate.path)
        eventually(lambda: diary.starts(job.id), "the job runs")
        (nursery,) = nurseries(worker.supervisor)
        (executor,) = executors_of(worker.supervisor)
        nursery.suspend()
        executor.kill()
        eventually(lambda: not lives(executor), "the executor is dead")
        nursery.kill()
        eventually(lambda: len(diary.starts(job.id)) == 2, "the job runs again", within=5)
        gate.open()
        assert job.result(10)
        assert worker.process.poll() is None


class TestANurseryThatIsForked(WorkerWorld):
    """The first one of `kq worker`; one that takes its place is a program of its own."""

    def test_shares_its_memory_with_the_supervisor(self, crew: Crew) -> None:
        worker = crew.program()
        alone = worker.supervisor.memory_full_info().uss
        self.replaced(worker.supervisor)
        assert worker.supervisor.memory_full_info().uss > 1.5 * alone

    def test_gives_jobs_the_surroundings_that_they_have_in_any_other(self, jobs: Odd, crew: Crew) -> None:
        worker = crew.program("--processes", "2", ready=False).ready(times=2)
        before = jobs.surroundings.submit().result(10)
        for supervisor in children(worker.supervisor):
            self.replaced(supervisor)
        assert before == jobs.surroundings.submit().result(10)
        assert before["its parent imported the application"]

    def replaced(self, supervisor: psutil.Process) -> None:
        """Let another nursery, and its executor, take the place of the first."""
        (nursery,), (executor,) = nurseries(supervisor), executors_of(supervisor)
        nursery.kill()
        eventually(lambda: [each for each in executors_of(supervisor) if each != executor], "there is another")


class TestThousandsOfExecutors(WorkerWorld):
    def test_are_born_while_the_worker_obeys(self, crew: Crew) -> None:
        worker = crew.program(concurrency=5000)
        worker.stop()
        assert "told to end: 0 running" in worker.said()

    def test_are_refused_where_so_many_files_may_not_be_open(self, crew: Crew) -> None:
        worker = crew.program(concurrency=5000, ready=False)
        worker.supervisor.rlimit(psutil.RLIMIT_NOFILE, (300, 300))
        assert worker.wait() == 78
        assert "KQ101 a worker for 5000 jobs at once has room for " in worker.said()
        assert "executors here: Too many open files" in worker.said()


class TestASupervisorThatDies(WorkerWorld):
    @pytest.mark.parametrize("pool", POOLS)
    @pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the nursery ends them when it comes to that")
    def test_takes_its_executors_with_it_whoever_is_busy(
        self, jobs: Odd, crew: Crew, diary: Diary, gate: Gate, pool: PoolKind
    ) -> None:
        worker = crew.program(pool=pool)
        job = jobs.hold.submit(gate.path)
        eventually(lambda: diary.starts(job.id), "the job runs")
        (nursery,) = nurseries(worker.supervisor)
        (executor,) = executors_of(worker.supervisor)
        nursery.suspend()
        worker.process.kill()
        eventually(lambda: not lives(executor), "the executor is dead", within=5)
        nursery.resume()
