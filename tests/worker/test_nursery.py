"""The nursery: whatever becomes of it, the worker has executors, and no job is stuck."""

from __future__ import annotations

import ctypes
import os
import sys

import psutil
import pytest

from kq.app import App
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.processes import children, executors_of, lives, nurseries, status
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import Gate, buried
from kq.control import Control
from kq.worker.pool import PoolKind
from tests.brokers import OnMemory
from tests.worker.jobs import Odd
from tests.worker.unruly import WHERE, Unruly
from tests.worker.world import POOLS, WorkerWorld


class TestANurseryThatDies(WorkerWorld):
    application = WHERE

    @pytest.fixture
    def jobs(self, app: App) -> Unruly:
        return Unruly(app)

    def test_takes_nobody_with_it_when_it_had_not_told_of_a_birth(self, jobs: Unruly, crew: Crew) -> None:
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
        self, jobs: Unruly, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        worker = crew.program()
        job = diary.begun(jobs.hold.submit(gate.path))
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

    def test_again_while_it_imports_is_replaced_again(self, jobs: Unruly, crew: Crew) -> None:
        worker = crew.program()
        dead: list[psutil.Process] = []
        for _ in range(3):
            (nursery,) = eventually(
                lambda: [each for each in nurseries(worker.supervisor) if each not in dead], "there is another"
            )
            nursery.kill()
            dead.append(nursery)
        assert jobs.add.submit(1, 2).result(20) == 3
        assert worker.process.poll() is None

    @pytest.mark.parametrize("pool", POOLS)
    def test_by_the_hand_of_a_job_does_not_take_that_ones_neighbours_with_it_again(
        self, control: Control, jobs: Unruly, crew: Crew, diary: Diary, gate: Gate, pool: PoolKind
    ) -> None:
        crew.program(pool=pool, concurrency=4)
        beside = [jobs.hold.submit(gate.path) for _ in range(3)]
        eventually(lambda: len(diary.starts()) == 3, "they run")
        job = jobs.kill_parent.submit()
        assert "3 of at most 3 times" in buried(control, job.queue, job).error
        assert len(diary.starts(job.id)) == 3
        gate.open()
        for each in beside:
            each.result(10)
            assert len(diary.starts(each.id)) == 2

    def test_as_often_as_jobs_do_that_blames_nobody_who_runs_apart(
        self, control: Control, jobs: Unruly, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        crew.program(pool="thread", concurrency=4)
        patient = diary.begun(jobs.hold.submit(gate.path))
        for _ in range(4):
            job = jobs.kill_parent.submit()
            assert buried(control, job.queue, job)
        gate.open()
        assert patient.result(10)
        assert max(entry.attempt for entry in diary.starts(patient.id)) == 2


def hold_fast(child: psutil.Process) -> None:
    """Stop a child of this process as a debugger does: SIGCONT does not let it go on."""
    attach = 16
    assert ctypes.CDLL(None).ptrace(attach, child.pid, None, None) == 0
    os.waitpid(child.pid, 0)


class TestANurseryThatIsFrozen(OnMemory):
    lease = 3.0
    application = WHERE

    @pytest.fixture
    def jobs(self, app: App) -> Unruly:
        return Unruly(app)

    @pytest.fixture(autouse=True)
    def soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """These tests run the worker in this process, and do not wait for as long as people do."""
        monkeypatch.setattr("kq.worker.pool.TELLS_WITHIN", 0.5)

    def test_is_told_to_go_on_when_an_executor_has_died(
        self, jobs: Unruly, crew: Crew, diary: Diary, gate: Gate, caplog: pytest.LogCaptureFixture
    ) -> None:
        worker = crew.worker(concurrency=2)
        job, other = jobs.hold.submit(gate.path), jobs.hold.submit(gate.path)
        eventually(lambda: len(diary.starts()) == 2, "they run")
        (nursery,) = nurseries(worker.supervisor)
        nursery.suspend()
        psutil.Process(diary.starts(job.id)[0].pid).kill()
        eventually(lambda: len(diary.starts(job.id)) == 2, "it runs again", within=5)
        assert "told nothing for 0.5 s of" in caplog.text
        gate.open()
        assert job.result(10)
        assert other.result(10)
        assert len(diary.starts(other.id)) == 1
        assert nurseries(worker.supervisor) == [nursery]

    @pytest.mark.skipif(sys.platform != "linux", reason="who is traced elsewhere may go on")
    def test_for_good_is_replaced_and_nobody_is_blamed(
        self, jobs: Unruly, crew: Crew, diary: Diary, gate: Gate, caplog: pytest.LogCaptureFixture
    ) -> None:
        worker = crew.worker(concurrency=2, debuggable=True)
        job, other = jobs.hold.submit(gate.path), jobs.hold.submit(gate.path)
        eventually(lambda: len(diary.starts()) == 2, "they run")
        (nursery,) = nurseries(worker.supervisor)
        hold_fast(nursery)
        psutil.Process(diary.starts(job.id)[0].pid).kill()
        eventually(lambda: not lives(nursery), "it is killed", within=10)
        eventually(lambda: len(diary.starts(other.id)) == 2, "what ran beside it runs again")
        assert "told nothing for 1 s: it is killed" in caplog.text
        gate.open()
        assert job.result(10)
        assert other.result(10)
        assert {entry.attempt for entry in diary.starts(other.id)} == {1}

    def test_by_a_job_that_dies_then_is_told_to_go_on_each_time(
        self, control: Control, jobs: Unruly, crew: Crew, diary: Diary
    ) -> None:
        crew.worker()
        job = jobs.stop_parent.submit()
        assert "exit code 1" in buried(control, job.queue, job, within=10).error
        assert len(diary.starts(job.id)) == 3
        assert jobs.add.submit(1, 2).result(10) == 3

    def test_does_not_keep_a_worker_from_ending(self, jobs: Unruly, crew: Crew, diary: Diary, gate: Gate) -> None:
        worker = crew.worker(grace=0)
        diary.begun(jobs.hold.submit(gate.path))
        (nursery,) = nurseries(worker.supervisor)
        nursery.suspend()
        worker.stop()
        assert not lives(nursery)


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
        diary.begun(jobs.hold.submit(gate.path))
        (nursery,) = nurseries(worker.supervisor)
        (executor,) = executors_of(worker.supervisor)
        nursery.suspend()
        worker.process.kill()
        eventually(lambda: not lives(executor), "the executor is dead", within=5)
        nursery.resume()
