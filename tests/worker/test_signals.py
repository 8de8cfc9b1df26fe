"""Signals: whatever a worker is told, no job is lost, nothing stays behind, and the next worker goes on at once."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from kq.app import App
from kq.conformance.contract.crew import Crew, Program
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.figures import survives
from kq.conformance.contract.processes import children, ended, lives, nurseries, pids, tree
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import Gate
from kq.control import Control
from kq.handles.handle import Handle
from kq.worker.pool import PoolKind
from tests.worker.jobs import Odd
from tests.worker.world import POOLS, WorkerWorld

AT_ONCE = 1.0  # seconds after which the next worker has what the last one gave back


class TestStopping(WorkerWorld):
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    @survives("F10")
    def test_a_worker_finishes_what_runs_and_gives_back_what_waits(
        self, app: App, control: Control, jobs: Odd, crew: Crew, diary: Diary, gate: Gate, number: int
    ) -> None:
        worker = crew.program(concurrency=2)
        running = app.submit_many(jobs.hold.job(gate.path) for _ in range(2))
        eventually(lambda: len(diary.starts()) == 2, "two jobs run")
        waiting = app.submit_many(jobs.note.job(str(number)) for number in range(10))
        worker.send(number)
        gate.open()
        assert worker.wait() == 0
        assert all(handle.result(1) for handle in running)
        assert len(diary.starts()) == 2
        crew.program(concurrency=2)
        ready = time.time()
        assert [handle.result(10) for handle in waiting] == [str(number) for number in range(10)]
        assert len(diary.starts()) == 12
        assert diary.starts(waiting[0].id)[0].at - ready < AT_ONCE

    @pytest.mark.parametrize("pool", POOLS)
    @survives("F10")
    def test_when_the_grace_is_over_running_jobs_are_given_back_at_once(
        self, app: App, jobs: Odd, crew: Crew, diary: Diary, gate: Gate, pool: str
    ) -> None:
        worker = crew.program(concurrency=2, pool=pool, grace=0.3)  # type: ignore[arg-type]
        handles = app.submit_many(jobs.hold.job(gate.path) for _ in range(2))
        eventually(lambda: len(diary.starts()) == 2, "two jobs run")
        self.hands_over(worker, handles, crew, diary, gate, lambda: worker.send(signal.SIGTERM))

    @survives("F10")
    def test_a_second_signal_does_not_wait_for_the_grace(
        self, app: App, jobs: Odd, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        worker = crew.program(concurrency=2, grace=60)
        handles = app.submit_many(jobs.hold.job(gate.path) for _ in range(2))
        eventually(lambda: len(diary.starts()) == 2, "two jobs run")

        def twice() -> None:
            worker.send(signal.SIGTERM)
            eventually(lambda: "told to end" in worker.said(), "it has heard")
            worker.send(signal.SIGTERM)

        self.hands_over(worker, handles, crew, diary, gate, twice)

    def hands_over(
        self, worker: Program, handles: list[Handle[int]], crew: Crew, diary: Diary, gate: Gate, tell: object
    ) -> None:
        """A second worker, that waits already, has the jobs as soon as the first has ended."""
        heir = crew.program(concurrency=2)
        before = len(diary.starts())
        assert callable(tell)
        tell()
        assert worker.wait() == 0
        ended = time.time()
        eventually(lambda: len(diary.starts()) == before + 2, "both run elsewhere")
        assert {start.attempt for start in diary.starts()} == {1}  # it does not count
        assert max(start.at for start in diary.starts()) - ended < AT_ONCE
        gate.open()
        heirs = pids(heir.executors())
        assert {handle.result(10) for handle in handles} <= heirs

    @survives("F10")
    def test_a_signal_to_the_whole_group_cuts_no_job_short(
        self, jobs: Odd, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        worker = crew.program()
        job = diary.begun(jobs.hold.submit(gate.path))
        group(worker)
        gate.open()
        assert worker.wait() == 0
        assert job.result(1)
        assert len(diary.starts(job.id)) == 1

    def test_an_idle_worker_ends_at_once_and_leaves_no_trace(self, control: Control, crew: Crew) -> None:
        worker = crew.program(grace=60)
        eventually(control.workers, "it is listed")
        told = time.monotonic()
        worker.stop()
        assert time.monotonic() - told < 5.0  # and not after its grace
        assert not control.heartbeat_check()
        assert not crew.left_behind()

    def test_a_worker_that_stops_while_the_broker_is_locked_ends_too(
        self, crew: Crew, environment: dict[str, str]
    ) -> None:
        worker = crew.program(grace=0.1)
        path = environment["KQ_URL"].removeprefix("sqlite:///")
        with closing(sqlite3.connect(path, isolation_level=None)) as stranger:
            stranger.execute("BEGIN IMMEDIATE")
            worker.send(signal.SIGTERM)
            assert worker.wait() == 0
            stranger.execute("ROLLBACK")
        stranger.close()

    def test_an_app_that_does_not_import_ends_the_worker_with_a_reason(self, crew: Crew, tmp_path: Path) -> None:
        (tmp_path / "broken.py").write_text("import kq\nraise RuntimeError('no such day')\n")
        worker = crew.program("-A", "broken:app", ready=False)
        assert worker.wait() != 0
        assert "no such day" in worker.said()


def group(worker: Program) -> None:
    """TERM to every process of a worker, as a service manager sends it."""
    for process in worker.tree():
        ended(lambda process=process: process.send_signal(signal.SIGTERM))  # type: ignore[misc]


def twice(worker: Program) -> None:
    worker.send(signal.SIGTERM)
    eventually(lambda: "told to end" in worker.said(), "it heard the first")
    worker.send(signal.SIGTERM)


def once(number: int) -> Callable[[Program], None]:
    return lambda worker: worker.send(number)


#: What is sent, how many of four running jobs start again because of it, in a process of their own and in one that
#: they share, and whether the worker ends by it.
SIGNALS: dict[str, tuple[Callable[[Program], None], int, int, bool]] = {
    "TERM": (once(signal.SIGTERM), 0, 0, True),
    "TERM to the group": (group, 0, 0, True),
    "TERM twice": (twice, 4, 4, True),
    "INT": (once(signal.SIGINT), 0, 0, True),
    "HUP": (once(signal.SIGHUP), 0, 0, False),
    "USR1": (once(signal.SIGUSR1), 0, 0, False),
    "USR2": (once(signal.SIGUSR2), 1, 4, False),
}


class TestEachSignal(WorkerWorld):
    @pytest.mark.parametrize(
        ("pool", "name"),
        [
            *(("process", name) for name in SIGNALS),
            *((pool, name) for pool in POOLS[1:] for name in ("TERM twice", "USR2")),
        ],
    )
    def test_four_of_four_jobs_in_flight_finish_or_go_back_and_nothing_stays(
        self, app: App, jobs: Odd, crew: Crew, diary: Diary, gate: Gate, pool: PoolKind, name: str
    ) -> None:
        send, apart, shared, ends = SIGNALS[name]
        again = apart if pool == "process" else shared
        worker = crew.program(concurrency=4, pool=pool, grace=30)
        handles = app.submit_many(jobs.hold.job(gate.path) for _ in range(4))
        eventually(lambda: len(diary.starts()) == 4, "four run")
        heir = crew.program(concurrency=4)
        sent = time.time()
        send(worker)
        eventually(lambda: len(diary.starts()) == 4 + again, f"{again} run again", within=5)
        assert not again or max(start.at for start in diary.starts()) - sent < AT_ONCE
        eventually(lambda: "told to end" in worker.said() or name.startswith("USR"), "it is told")
        gate.open()
        assert all(handle.result(10) for handle in handles)
        assert len(diary.starts()) == len(handles) + again
        if name == "HUP":
            worker.ready(times=2)
        if not ends:
            assert worker.process.poll() is None
            worker.send(signal.SIGTERM)
        assert worker.wait() == 0
        heir.stop()
        assert heir.process.returncode == 0
        assert not crew.left_behind()


class TestReload(WorkerWorld):
    def test_hup_brings_in_new_code_and_loses_nothing(
        self, app: App, crew: Crew, tmp_path: Path, queue: str, diary: Diary, gate: Gate
    ) -> None:
        code = "import kq, os\nfrom kq.conformance.contract import jobs\n"
        code += "app = kq.App('shop', queue=os.environ['KQ_CONTRACT_QUEUE'])\napp.job(name='hold')(jobs.hold)\n"
        shop = tmp_path / "shop.py"
        shop.write_text(code + "@app.job(name='version')\ndef version(): return 'old'\n")
        worker = crew.program("-A", "shop:app")
        assert app.submit("version").result(10) == "old"
        job = diary.begun(app.submit("hold", gate.path))
        shop.write_text(code + "@app.job(name='version')\ndef version(): return 'new, at last'\n")
        worker.send(signal.SIGHUP)
        eventually(lambda: "told to end" in worker.said(), "it has heard")
        gate.open()
        worker.ready(times=2)
        assert job.result(10) == diary.starts(job.id)[0].pid
        assert len(diary.starts(job.id)) == 1
        assert app.submit("version").result(10) == "new, at last"
        assert worker.process.poll() is None
        eventually(lambda: len(worker.tree()) == 3, "the processes with the old code are gone")

    def test_a_worker_that_is_told_to_begin_anew_while_it_does_so_lives(self, jobs: Odd, crew: Crew) -> None:
        worker = crew.program()

        def told_again() -> bool:
            if worker.said().count("starting anew") == 1:  # from here on it is another program, which hears nothing yet
                worker.send(signal.SIGHUP)
                worker.send(signal.SIGUSR2)
            return worker.said().count(" ready: ") >= 2 or worker.process.poll() is not None

        worker.send(signal.SIGHUP)
        eventually(told_again, "it is ready again, or gone", 30)
        assert worker.process.poll() is None
        assert jobs.add.submit(1, 2).result(30) == 3

    def test_new_code_that_does_not_import_is_told_and_the_old_goes_on(
        self, app: App, crew: Crew, tmp_path: Path, queue: str
    ) -> None:
        code = "import kq, os\napp = kq.App('shop', queue=os.environ['KQ_CONTRACT_QUEUE'])\n"
        shop = tmp_path / "shop.py"
        shop.write_text(code + "@app.job(name='version')\ndef version(): return 'old'\n")
        worker = crew.program("-A", "shop:app")
        shop.write_text(code + "@app.job(name='version'\ndef version(): return 'new'\n")
        worker.send(signal.SIGHUP)
        eventually(lambda: "stays with the code that it has" in worker.said(), "it says so")
        (line,) = [line for line in worker.said().splitlines() if "stays with" in line]
        assert "shop:app does not import" in line
        assert "SyntaxError" in line
        assert app.submit("version").result(10) == "old"
        assert worker.said().count(" ready: ") == 1

    def test_a_worker_that_is_told_to_end_while_it_begins_anew_ends(
        self, jobs: Odd, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        worker = crew.program(grace=60)
        job = diary.begun(jobs.hold.submit(gate.path))
        worker.send(signal.SIGHUP)
        eventually(lambda: "told to end" in worker.said(), "it ends")
        worker.send(signal.SIGTERM)
        gate.open()
        assert worker.wait() == 0
        assert job.result(1)
        assert worker.said().count(" ready: ") == 1


class TestInsight(WorkerWorld):
    @pytest.mark.parametrize("pool", POOLS)
    def test_usr1_tells_what_runs_and_where(self, jobs: Odd, crew: Crew, diary: Diary, gate: Gate, pool: str) -> None:
        worker = crew.program(pool=pool)  # type: ignore[arg-type]
        job = diary.begun(jobs.hold.submit(gate.path))
        worker.send(signal.SIGUSR1)
        eventually(lambda: f"hold {job.id} running for" in worker.said(), "it tells what runs")
        eventually(lambda: "in hold" in worker.said(), "it shows the stack")
        gate.open()
        assert job.result(10)
        assert len(diary.starts(job.id)) == 1

    def test_usr2_kills_the_executor_that_is_longest_at_its_job(
        self, jobs: Odd, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        worker = crew.program(concurrency=2)
        stuck = diary.begun(jobs.hold.submit(gate.path))
        other = diary.begun(jobs.hold.submit(gate.path))
        worker.send(signal.SIGUSR2)
        eventually(lambda: len(diary.starts(stuck.id)) == 2, "the first runs again")
        gate.open()
        assert stuck.result(10)
        assert other.result(10)
        assert len(diary.starts(other.id)) == 1
        assert worker.process.poll() is None


class TestProcesses(WorkerWorld):
    def test_several_supervisors_share_the_work_and_one_that_dies_is_replaced(
        self, app: App, control: Control, jobs: Odd, crew: Crew, diary: Diary
    ) -> None:
        worker = crew.program("--processes", "2", concurrency=1, ready=False).ready(times=2)
        assert len({handle.result(20) for handle in app.submit_many(jobs.nap.job(0.05) for _ in range(20))}) == 2
        supervisors = children(worker.supervisor)
        assert len(supervisors) == 2
        supervisors[0].kill()
        eventually(lambda: sum(map(lives, children(worker.supervisor))) == 2, "there are two again")
        worker.ready(times=3)
        assert pids(children(worker.supervisor)) != pids(supervisors)
        assert jobs.add.submit(1, 2).result(10) == 3
        worker.stop()
        assert worker.process.returncode == 0
        assert not crew.left_behind()

    def test_signals_reach_every_supervisor(self, app: App, jobs: Odd, crew: Crew, diary: Diary, gate: Gate) -> None:
        worker = crew.program("--processes", "2", concurrency=1, ready=False).ready(times=2)
        handles = app.submit_many(jobs.hold.job(gate.path) for _ in range(2))
        eventually(lambda: len(diary.starts()) == 2, "both run")
        worker.send(signal.SIGTERM)
        gate.open()
        assert worker.wait() == 0
        assert all(handle.result(1) for handle in handles)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_to_the_group_of_several_supervisors_is_meant_once(
        self, app: App, jobs: Odd, crew: Crew, diary: Diary, gate: Gate, number: int
    ) -> None:
        worker = crew.program("--processes", "2", concurrency=1, ready=False).ready(times=2)
        handles = app.submit_many(jobs.hold.job(gate.path) for _ in range(2))
        eventually(lambda: len(diary.starts()) == 2, "both run")
        os.killpg(worker.process.pid, number)
        eventually(lambda: worker.said().count("told to end") == 2, "both are told")
        gate.open()
        assert worker.wait() == 0
        assert all(handle.result(1) for handle in handles)
        assert len(diary.starts()) == 2

    def test_a_supervisor_that_dies_while_the_others_end_is_not_replaced(
        self, app: App, jobs: Odd, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        worker = crew.program("--processes", "2", concurrency=1, ready=False).ready(times=2)
        diary.begun(jobs.hold.submit(gate.path))
        (runner,) = [each for each in children(worker.supervisor) if diary.starts()[0].pid in pids(tree(each))]
        (idle,) = [each for each in children(worker.supervisor) if each != runner]
        idle.kill()
        worker.send(signal.SIGTERM)
        eventually(lambda: "told to end" in worker.said(), "the other is told")
        gate.open()
        assert worker.wait() == 0
        assert not crew.left_behind()

    def test_supervisors_end_in_good_order_when_what_started_them_is_killed(
        self, jobs: Odd, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        worker = crew.program("--processes", "2", concurrency=1, ready=False).ready(times=2)
        job = diary.begun(jobs.hold.submit(gate.path))
        worker.send(signal.SIGKILL)
        worker.process.wait()
        eventually(lambda: worker.said().count("told to end") == 2, "both end")
        gate.open()
        assert job.result(10)
        eventually(lambda: not crew.left_behind(), "nothing is left")

    def test_executors_end_with_the_supervisor_whatever_ended_it(self, crew: Crew) -> None:
        worker = crew.program(concurrency=3)
        (nursery,) = nurseries(worker.supervisor)
        eventually(lambda: len(worker.executors()) == 3, "there are three executors")
        executors = worker.executors()
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
        psutil.wait_procs([nursery, *executors], timeout=5)
        assert not crew.left_behind()
