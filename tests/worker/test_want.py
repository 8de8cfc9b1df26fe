"""What a worker does to which the system gives nothing: it goes on with what it has, and loses no job and no lease."""

from __future__ import annotations

import os
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from itertools import pairwise
from math import inf
from pathlib import Path

import psutil
import pytest

from kq.app import App
from kq.clock import SYSTEM
from kq.conformance.contract.crew import Crew, Program
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.processes import ended, lives, nurseries
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import Gate
from kq.control.health import Answers, served
from kq.errors import NotStarted
from kq.events import Herald
from kq.state.store import StoreUnreachable, Write
from kq.values.event import Event
from kq.values.tally import Tally
from kq.worker import Worker
from kq.worker.backoff import LONGEST
from kq.worker.guard import Guard
from kq.worker.pool import PoolKind
from tests.scarce import no_more_files_here, no_more_threads
from tests.servers import free_port
from tests.worker.unruly import WHERE, Unruly
from tests.worker.world import POOLS, WorkerWorld

#: Below this number a process has no descriptor to give: those are open for as long as it lives.
FEW = 8

#: An application in whose processes no fork succeeds while there is a file of that name.
FULL = """
import errno, os
fork = os.fork
def fork_if_there_is_room():
    if os.path.exists({full!r}):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()
os.fork = fork_if_there_is_room
from tests.worker.unruly import app
"""

#: An application whose executors, or their nursery, die when one is born, while there is a file of that name; who dies
#: leaves word of when.
SICK = """
import os, time
def die_if_sick():
    if os.path.exists({sick!r}):
        with open({deaths!r}, "a") as deaths:
            deaths.write(f"{{time.monotonic()}}\\n")
        os._exit(3)
os.register_at_fork({when}=die_if_sick)
from tests.worker.unruly import app
"""

#: An application whose worker has no thread to begin with.
THREADLESS = """
import pathlib, threading, kq
if pathlib.Path("/proc/self/comm").read_text() != "kq-nursery\\n":
    threading.stack_size(1 << 47)
app = kq.App("shop")
"""


@contextmanager
def no_more_files(process: psutil.Process) -> Iterator[None]:
    """A process that can open nothing, whatever it closes meanwhile."""
    most = process.rlimit(psutil.RLIMIT_NOFILE)
    process.rlimit(psutil.RLIMIT_NOFILE, (FEW, most[1]))
    try:
        yield
    finally:
        ended(lambda: process.rlimit(psutil.RLIMIT_NOFILE, most))


class Asked:
    """One of whom nothing is known."""

    ticked: float | None = None
    unready = ""
    tally: Tally | None = None


def probed(port: int) -> tuple[int, str]:
    """What a worker answers who asks whether it takes jobs, without what stands in brackets."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        return answer.status, answer.read().decode().partition(" (")[0]


class Scarcity(WorkerWorld):
    application = WHERE

    @pytest.fixture
    def jobs(self, app: App) -> Unruly:
        return Unruly(app)

    def born(self, worker: Program, number: int) -> list[psutil.Process]:
        """Its executors, when there are so many."""
        eventually(lambda: len(worker.executors()) == number, "all are born")
        return worker.executors()

    def goes_on(self, worker: Program, what: str) -> None:
        """It has said once what was lacking, and once that there is room, and has kept its lease."""
        eventually(lambda: "the system has room again" in worker.said(), "there is room")
        assert worker.said().count(f"the system has no room for another executor ({what})") == 1
        assert worker.said().count("the system has room again") == 1
        assert "run elsewhere" not in worker.said()
        assert worker.process.poll() is None


class TestFiles(Scarcity):
    def test_are_awaited_when_an_executor_is_to_be_replaced_and_the_others_work_on(
        self, jobs: Unruly, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        worker = crew.program("--no-control", concurrency=2)
        executors = self.born(worker, 2)
        first = jobs.hold.submit(gate.path)
        (start,) = eventually(lambda: diary.starts(first.id), "a job runs")
        (idle,) = [each for each in executors if each.pid != start.pid]
        with no_more_files(worker.supervisor):
            idle.kill()
            eventually(lambda: "no room for another executor" in worker.said(), "it says so")
            gate.open()
            others = [jobs.note.submit(str(number)) for number in range(3)]
            eventually(lambda: len(diary.starts(*(each.id for each in others))) == 3, "others run")
            assert {each.pid for each in diary.starts()} == {start.pid}
        assert first.result(10) == start.pid
        assert [each.result(10) for each in others] == ["0", "1", "2"]
        eventually(lambda: len(worker.executors()) == 2, "there are two again")
        self.goes_on(worker, "Too many open files")
        assert len(diary.starts()) == 4

    @pytest.mark.parametrize("pool", POOLS)
    def test_are_awaited_when_there_is_no_executor_left_and_no_nursery(
        self, app: App, jobs: Unruly, crew: Crew, diary: Diary, gate: Gate, pool: PoolKind
    ) -> None:
        worker = crew.program("--no-control", concurrency=2, pool=pool)
        held = app.submit_many(jobs.hold.job(gate.path) for _ in range(2))
        eventually(lambda: len(diary.starts()) == 2, "they run")
        with no_more_files(worker.supervisor):
            (nursery,) = nurseries(worker.supervisor)
            nursery.kill()
            eventually(lambda: "no room for another executor" in worker.said(), "it says so")
            eventually(lambda: not nurseries(worker.supervisor), "there is none")
        gate.open()
        assert all(each.result(20) for each in held)
        self.goes_on(worker, "Too many open files")

    def test_that_do_not_come_with_an_executor_leave_the_next_one_whole(
        self, jobs: Unruly, crew: Crew, diary: Diary
    ) -> None:
        worker = crew.program(concurrency=1)
        (executor,), (nursery,) = self.born(worker, 1), nurseries(worker.supervisor)
        with no_more_files(nursery):
            nursery.rlimit(psutil.RLIMIT_NOFILE, (nursery.num_fds() + 1, nursery.rlimit(psutil.RLIMIT_NOFILE)[1]))
            executor.kill()
            eventually(lambda: "no room for another executor" in worker.said(), "it says so")
            job = jobs.note.submit("after all")
        assert job.result(10) == "after all"
        self.goes_on(worker, "Too many open files")
        assert len(diary.starts(job.id)) == 1
        assert lives(nursery)

    def test_that_new_code_can_not_be_tried_for_leave_the_old(self, jobs: Unruly, crew: Crew) -> None:
        worker = crew.program("--no-control")
        with no_more_files(worker.supervisor):
            worker.send(signal.SIGHUP)
            eventually(lambda: "stays with the code that it has" in worker.said(), "it says so")
            assert "Too many open files" in worker.said()
        assert jobs.add.submit(1, 2).result(10) == 3
        worker.send(signal.SIGHUP)
        worker.ready(times=2)

    def test_that_are_too_few_for_a_worker_at_all_are_no_bug_but_a_setting(self, environment: dict[str, str]) -> None:
        command = f'ulimit -n 12; exec "$0" -m kq -A {WHERE} worker'
        worker = subprocess.run(
            ["sh", "-c", command, sys.executable], env={**os.environ, **environment}, capture_output=True, timeout=60
        )
        assert worker.returncode == 78
        assert worker.stderr.startswith(b"KQ101 this process may not have as many files open as it needs")
        assert b"ulimit -n" in worker.stderr

    def test_for_a_bell_are_an_outage_and_no_end(self, app: App, environment: dict[str, str]) -> None:
        store, other = app.store, app.apart()
        store.write([Write("bell", None)])  # which makes the tables
        answers: list[dict[str, bytes]] = []
        waiter = threading.Thread(target=lambda: answers.append(other.store.wait_any(["bell"], 10)))
        waiter.start()
        with closing(sqlite3.connect(environment["KQ_URL"].removeprefix("sqlite:///"))) as looker:
            eventually(lambda: looker.execute("SELECT * FROM state_waiter").fetchall(), "it waits")
        with no_more_files_here(), pytest.raises(StoreUnreachable, match="there is no room"):
            store.write([Write("bell", b"1", 60.0)])
        store.write([Write("bell", b"2", 60.0)])
        waiter.join(10)
        other.close()
        assert answers == [{"bell": b"2"}]

    def test_for_who_asks_how_it_is_cost_no_processor_while_they_are_missing(self, app: App) -> None:
        port = free_port()
        asked = Answers(app, Asked(), lambda: False)
        with served(f"127.0.0.1:{port}", asked), closing(socket.socket()) as client:
            with no_more_files_here():
                client.connect(("127.0.0.1", port))
                client.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
                began = time.process_time()
                assert not select.select([client], [], [], 0.5)[0]
                assert time.process_time() - began < 0.2
            assert select.select([client], [], [], 10)[0]
            assert b"200 OK" in client.recv(4096)


class TestProcesses(Scarcity):
    @pytest.fixture
    def full(self, tmp_path: Path) -> Path:
        """There is no room for another process while there is that file."""
        full = tmp_path / "there is no room"
        (tmp_path / "full.py").write_text(FULL.format(full=str(full)))
        return full

    @pytest.mark.parametrize("pool", POOLS)
    @pytest.mark.parametrize("there", [0, 1])
    def test_are_awaited_and_nobody_is_killed_for_the_wait(
        self, jobs: Unruly, crew: Crew, diary: Diary, gate: Gate, full: Path, pool: PoolKind, there: int
    ) -> None:
        """A job kills its executor, and is to run again with a parent of its own; others run beside it, or none."""
        if pool != "process" and there:
            pytest.skip("they share the executor that dies")
        worker = crew.program("-A", "full:app", concurrency=1 + there, pool=pool)
        self.born(worker, 1 + there)
        beside = [jobs.hold.submit(gate.path) for _ in range(there)]
        eventually(lambda: len(diary.starts()) == there, "others run")
        full.touch()
        job = jobs.perform.submit(["signal 9", "return"])
        eventually(lambda: "no room for another executor" in worker.said(), "it says so")
        if not there:
            waiting = jobs.note.submit("waits")
            assert not diary.starts(waiting.id)
            assert len(diary.starts(job.id)) == 1
        full.unlink()
        job.result(20)
        self.goes_on(worker, "Resource temporarily unavailable")
        assert [start.attempt for start in diary.starts(job.id)] == [1, 2]
        gate.open()
        for each in beside:
            each.result(10)
            assert len(diary.starts(each.id)) == 1

    def test_that_are_missing_from_the_beginning_are_awaited(
        self, jobs: Unruly, crew: Crew, diary: Diary, full: Path
    ) -> None:
        full.touch()
        worker = crew.program("-A", "full:app", concurrency=2)
        eventually(lambda: "no room for another executor" in worker.said(), "it says so")
        assert "ulimit -u" in worker.said()
        job = jobs.note.submit("waits")
        full.unlink()
        assert job.result(10) == "waits"
        self.goes_on(worker, "Resource temporarily unavailable")

    def test_a_worker_that_waits_for_some_ends_when_it_is_told_to(self, jobs: Unruly, crew: Crew, full: Path) -> None:
        worker = crew.program("-A", "full:app", grace=60)
        self.born(worker, 1)
        full.touch()
        job = jobs.perform.submit(["signal 9", "return"])
        eventually(lambda: "no room for another executor" in worker.said(), "it says so")
        told = time.monotonic()
        worker.stop()
        assert time.monotonic() - told < 5.0  # and not after its grace
        assert worker.process.returncode == 0
        full.unlink()
        crew.program()
        job.result(10)

    def test_executors_and_nursery_end_with_a_supervisor_that_dies_while_there_is_no_room(
        self, jobs: Unruly, crew: Crew, diary: Diary, gate: Gate, full: Path
    ) -> None:
        worker = crew.program("-A", "full:app", concurrency=2)
        self.born(worker, 2)
        held = jobs.hold.submit(gate.path)
        eventually(lambda: diary.starts(held.id), "a job runs")
        full.touch()
        jobs.perform.submit(["signal 9"])
        eventually(lambda: "no room for another executor" in worker.said(), "it says so")
        processes = worker.tree()
        worker.supervisor.kill()
        worker.wait()
        eventually(lambda: not any(map(lives, processes)), "nobody is left", within=5)


class TestExecutorsThatDieAtOnce(Scarcity):
    @pytest.fixture
    def sick(self, tmp_path: Path) -> Path:
        """Nobody lives who is born while there is that file."""
        return tmp_path / "sick"

    @pytest.fixture
    def deaths(self, tmp_path: Path) -> Callable[[], list[float]]:
        """When somebody died of that, monotonic."""
        deaths = tmp_path / "deaths"
        deaths.touch()
        return lambda: [float(line) for line in deaths.read_text().splitlines()]

    @pytest.fixture(params=["after_in_child", "after_in_parent"])
    def who(self, request: pytest.FixtureRequest, tmp_path: Path, sick: Path) -> str:
        """Who dies: the executor, or its nursery."""
        code = SICK.format(sick=str(sick), deaths=str(tmp_path / "deaths"), when=request.param)
        (tmp_path / "sickly.py").write_text(code)
        return "an executor" if request.param == "after_in_child" else "the nursery"

    @pytest.mark.parametrize("pool", ["process", "thread"])
    def test_are_tried_again_with_growing_pauses_until_they_live(
        self,
        jobs: Unruly,
        crew: Crew,
        diary: Diary,
        sick: Path,
        who: str,
        deaths: Callable[[], list[float]],
        pool: PoolKind,
    ) -> None:
        sick.touch()
        port = free_port()
        worker = crew.program("-A", "sickly:app", "--health", f"127.0.0.1:{port}", concurrency=2, pool=pool)
        job = jobs.note.submit("after all")
        eventually(lambda: len(deaths()) >= 8, "some have died", within=60)
        pauses = [later - sooner for sooner, later in pairwise(deaths())]
        assert min(pauses[-2:]) > LONGEST / 2
        assert probed(port) == (503, f"it has no executor: {who} dies as soon as it is born")
        sick.unlink()
        assert job.result(20) == "after all"
        eventually(lambda: "executors live again: there are all" in worker.said(), "all live")
        assert probed(port)[0] == 200
        assert worker.said().count(f"{who} dies as soon as it is born") == 1
        assert "run elsewhere" not in worker.said()
        assert len(diary.starts(job.id)) == 1

    def test_leave_those_at_work_that_live(
        self, jobs: Unruly, crew: Crew, diary: Diary, gate: Gate, sick: Path, deaths: Callable[[], list[float]]
    ) -> None:
        (sick.parent / "sickly.py").write_text(
            SICK.format(sick=str(sick), deaths=str(sick.parent / "deaths"), when="after_in_child")
        )
        port = free_port()
        worker = crew.program("-A", "sickly:app", "--health", f"127.0.0.1:{port}", concurrency=2)
        self.born(worker, 2)
        held = jobs.hold.submit(gate.path)
        eventually(lambda: diary.starts(held.id), "a job runs")
        sick.touch()
        killer = jobs.perform.submit(["signal 9", "return"])
        eventually(lambda: len(deaths()) >= 3, "others have died", within=60)
        assert probed(port)[0] == 200  # it has an executor
        gate.open()
        assert held.result(20) == diary.starts(held.id)[0].pid
        killer.result(20)  # in that one, when it is free
        sick.unlink()
        self.born(worker, 2)
        assert [start.attempt for start in diary.starts(killer.id)] == [1, 2]


class TestThreads:
    def test_that_are_missing_do_not_end_the_guard(self) -> None:
        renewed = threading.Event()
        looked = threading.Event()

        def due() -> float:
            looked.set()
            return inf if renewed.is_set() else 0.0

        guard = Guard(1.0, SYSTEM, lambda now: None, due, renewed.set)
        guard.start()
        with no_more_threads():
            looked.clear()
            assert looked.wait(5)
            looked.clear()
            assert looked.wait(5)
            assert not renewed.is_set()
        assert renewed.wait(5)
        guard.stop()

    @pytest.mark.parametrize(
        "line",
        [
            ["worker", "--no-control"],
            ["worker"],
            ["worker", "--no-control", "--health", "127.0.0.1:{port}"],
            ["control", "--health", "127.0.0.1:{port}"],
        ],
        ids=" ".join,
    )
    def test_that_are_missing_at_the_very_start_are_an_error_that_says_what_to_do(
        self, tmp_path: Path, line: list[str]
    ) -> None:
        (tmp_path / "threadless.py").write_text(THREADLESS)
        path = os.pathsep.join([str(tmp_path), *sys.path])
        program = subprocess.run(
            [sys.executable, "-m", "kq", "-A", "threadless:app", *(word.format(port=free_port()) for word in line)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path, "KQ_URL": "sqlite:///kq.db"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        said = [each for each in program.stderr.splitlines() if " INFO " not in each]
        assert program.returncode == 71
        assert said[0].startswith("KQ404 the system has no thread to give for kq-")
        assert "ulimit -u" in said[1]
        assert len(said) == 2

    def test_that_are_missing_for_a_worker_in_a_program_are_an_error_of_kq(self) -> None:
        worker = Worker(App("few", f"memory://{os.urandom(4).hex()}"), where=WHERE)
        with no_more_threads(), pytest.raises(NotStarted, match="no thread to give for kq-worker"):
            worker.start()
        worker.supervisor.close()
        worker.app.close()

    def test_that_are_missing_hold_an_event_back_and_raise_nothing(self) -> None:
        told: list[bytes] = []

        class Ear:
            def tell(self, messages: Sequence[tuple[str, bytes]]) -> None:
                told.extend(data for _, data in messages)

            def close(self) -> None:
                """It has nothing open."""

        herald = Herald(Ear)
        with no_more_threads():
            herald.say([Event(event="ready", at=1.0)])
        herald.say([Event(event="ended", at=2.0)])
        eventually(lambda: b"ready" in b"".join(told) and b"ended" in b"".join(told), "both are told")
        herald.close()
