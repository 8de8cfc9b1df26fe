"""A worker's size and queues, changed while it works: in every pool, on every broker."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kq.app import App
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, Gate, in_pools
from kq.control import Control, WorkerInfo
from kq.control.size import Change, merged, size_of
from kq.errors import BadArguments, NotFound
from kq.handles.standing import Order
from kq.values.job import State
from kq.worker.pool import PoolKind
from tests.brokers import OnMemory, OnRabbit, OnRedis, OnSqlite

PATIENCE = 60.0


class Sizes(ContractWorld):
    lease = 10.0

    def worker(self, control: Control) -> WorkerInfo:
        """The one that lives."""
        control.ping()
        (worker,) = eventually(control.workers, "a worker lives", PATIENCE)
        return worker

    def is_so(self, control: Control, slots: int, *queues: str) -> None:
        """It runs so many jobs at a time, of these queues."""

        def look() -> bool:
            worker = self.worker(control)
            return worker.slots == slots and sorted(worker.queues) == sorted(queues)

        eventually(look, f"it has {slots} slots, and {queues}", PATIENCE)

    @in_pools("process", "thread", "async")
    def test_it_grows_at_once(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate, queue: str, pool: PoolKind
    ) -> None:
        crew.worker(pool=pool)
        handles = app.submit_many(jobs.hold.job(gate.path) for _ in range(4))
        eventually(lambda: len(diary.starts()) == 1, "one runs", PATIENCE)
        before = control.set_worker(self.worker(control).name, concurrency=3, by="ann", reason="rush")
        assert before.slots == 1
        eventually(lambda: len(diary.starts()) == 3, "three run", PATIENCE)
        self.is_so(control, 3, queue)
        assert control.snapshot().totals.slots == 3
        gate.open()
        for handle in handles:
            handle.result(PATIENCE)
        assert len(diary.starts()) == 4
        act = control.audit()[0]
        assert (act.by, act.act, act.reason, act.changed) == ("ann", "set", "rush", ("concurrency 3",))

    @in_pools("process", "thread", "async")
    def test_it_shrinks_when_what_runs_has_ended_and_gives_back_what_it_took_ahead(
        self,
        app: App,
        control: Control,
        jobs: Jobs,
        crew: Crew,
        diary: Diary,
        tmp_path: Path,
        queue: str,
        pool: PoolKind,
    ) -> None:
        crew.worker(pool=pool, concurrency=3)
        gates = [Gate(tmp_path / f"gate {number}") for number in range(5)]
        handles = app.submit_many(jobs.hold.job(gate.path) for gate in gates)
        eventually(lambda: len(diary.starts()) == 3, "three run", PATIENCE)
        control.set_worker(self.worker(control).name, concurrency=1)
        self.is_so(control, 1, queue)
        began = [start.id for start in diary.starts()]
        last = [handle for handle in handles if handle.id not in began]
        for handle, gate in list(zip(handles, gates, strict=True))[:2]:
            gate.open()
            handle.result(PATIENCE)
        control.ping()
        assert len(diary.starts()) == 3  # one still runs, and there is room for one
        eventually(
            lambda: len(control.jobs(queue, State.READY)) == 2, "the rest waits for whom it may concern", PATIENCE
        )
        for gate in gates:
            gate.open()
        for handle in [*handles, *last]:
            handle.result(PATIENCE)
        assert len(diary.starts()) == 5

    @in_pools("process", "thread", "async")
    def test_it_takes_another_queue_and_leaves_one(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate, queue: str, pool: PoolKind
    ) -> None:
        far = f"{queue}-aside"  # that no job type declares
        crew.worker(pool=pool, concurrency=2)
        name = self.worker(control).name
        running = app.submit_many([jobs.hold.job(gate.path)])[0]
        eventually(lambda: diary.starts(running.id), "it runs", PATIENCE)
        control.set_worker(name, queues=[f"+{far}:1", f"-{queue}"])
        there = jobs.note.options(queue=far).submit("far")
        assert there.result(PATIENCE) == "far"
        self.is_so(control, 2, far)
        assert self.worker(control).queues == {far: 1}
        left = jobs.note.submit("left")
        assert control.why_queue(queue).startswith(f"queue {queue}: no live worker takes it")
        gate.open()
        assert running.result(PATIENCE)  # what ran goes on
        assert jobs.note.options(queue=far).submit("farther").result(PATIENCE)  # it goes on taking jobs
        assert not diary.starts(left.id)
        control.set_worker(name, queues=[f"+{queue}"])
        assert left.result(PATIENCE) == "left"
        self.is_so(control, 2, far, queue)
        assert control.audit()[0].changed == (f"+{queue}",)

    def test_what_cannot_be_is_refused(self, control: Control, crew: Crew, queue: str) -> None:
        crew.worker(pool="process")
        name = self.worker(control).name
        with pytest.raises(NotFound, match="no live worker 'nobody'"):
            control.set_worker("nobody", concurrency=2)
        with pytest.raises(BadArguments, match="does not take queue nowhere"):
            control.set_worker(name, queues=["-nowhere"])
        with pytest.raises(BadArguments, match="a process for each job"):
            control.set_worker(name, concurrency=1001)
        with pytest.raises(BadArguments, match="too many queues"):
            control.set_worker(name, queues=[f"+{queue}-{n}" for n in range(1000)])
        with pytest.raises(BadArguments, match="would take no queue"):
            control.set_worker(name, queues=[f"-{queue}"])
        self.is_so(control, 1, queue)


class TestSizesOnMemory(OnMemory, Sizes):
    pass


class TestSizesOnSqlite(OnSqlite, Sizes):
    @pytest.mark.parametrize("pool", ["process", "thread", "async"])
    def test_it_stays_so_when_the_worker_begins_anew_and_when_it_loses_its_lease(
        self, control: Control, jobs: Jobs, crew: Crew, queue: str, pool: PoolKind
    ) -> None:
        worker = crew.program(pool=pool)
        first = self.worker(control).name
        control.set_worker(first, concurrency=2, queues=[f"+{queue}-far"])
        self.is_so(control, 2, queue, f"{queue}-far")
        worker.send(signal.SIGHUP)
        worker.ready(2)
        self.is_so(control, 2, queue, f"{queue}-far")
        second = self.worker(control).name
        assert second != first
        control.expel(second)
        eventually(lambda: self.worker(control).name not in (first, second), "it has come back", PATIENCE)
        self.is_so(control, 2, queue, f"{queue}-far")
        third = self.worker(control).name
        control.set_worker(third, queues=[f"-{queue}-far"])
        self.is_so(control, 2, queue)  # a change is on top of what stood
        assert jobs.note.submit("x").result(PATIENCE) == "x"

    @pytest.mark.timeout(600)
    def test_short_jobs_lose_nothing_while_the_size_changes_again_and_again(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, diary: Diary, queue: str
    ) -> None:
        for pool in ("process", "thread", "async"):
            worker = crew.program(concurrency=2, pool=pool)
            name = self.worker(control).name
            handles = app.submit_many(jobs.note.job("x") for _ in range(500))
            for size in (5, 1, 8, 2, 3):
                control.set_worker(name, concurrency=size)
                self.is_so(control, size, queue)
            for handle in handles:
                assert handle.result(PATIENCE) == "x"
            worker.stop()
        assert len(diary.starts()) >= 1500  # a lease that ended runs some again

    def test_it_is_said_on_the_command_line(self, control: Control, crew: Crew, queue: str, tmp_path: Path) -> None:
        crew.program()
        name = self.worker(control).name
        told = kq(tmp_path, "workers", "set", name, "-c", "2", "--queues", f"+{queue}-far:1", "--reason", "rush")
        assert told.returncode == 0, told.stderr
        assert told.stdout == f"Set {name}: it runs 2 jobs at once, of {queue}, {queue}-far.\n"
        assert "there is no queue" in told.stderr
        said = json.loads(kq(tmp_path, "workers", "set", name, "--queues", f"-{queue}-far", "--json").stdout)
        assert said == {"schema": 1, "name": name, "heard": True, "slots": 2, "queues": {queue: 2}}
        wrong = kq(tmp_path, "workers", "set", name)
        assert wrong.returncode == 65
        assert "it is not said what to change" in wrong.stderr
        for change, why in (
            ("+new:0", "'+new:0' has no limit from 1 to 10,000\n  Write +bulk, or +bulk:2."),
            ("+", "'+' names no queue\n  Write +bulk, +bulk:2 or -mail."),
            ("+new,", "'' does not say what to do with a queue\n  Write +bulk, +bulk:2 or -mail."),
        ):
            wrong = kq(tmp_path, "workers", "set", name, "-Q", change)
            assert (wrong.returncode, wrong.stdout, wrong.stderr) == (65, "", f"KQ202 {why}\n")


class TestSizesOnRedis(OnRedis, Sizes):
    pass


class TestSizesOnRabbit(OnRabbit, Sizes):
    pass


def kq(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kq", *arguments], capture_output=True, text=True, cwd=folder, timeout=60, check=False
    )


def test_changes_are_read_and_told() -> None:
    change = size_of(8, ["+bulk", "+mail:2", "-images"])
    assert change == Change(8, {"bulk": 0, "mail": 2}, ("images",))
    assert change.told() == ("concurrency 8", "+bulk", "+mail:2", "-images")


@pytest.mark.parametrize(
    "queues",
    [
        *([], ["bulk"], ["+"], ["+bulk:0"], ["+bulk:x"], ["-bulk:2"], ["+a", "-a"], ["+a b\n"]),
        *(["+bulk:10001"], [f"+bulk:{'9' * 5000}"], [f"+q{n}" for n in range(1001)], [f"-q{n}" for n in range(1001)]),
    ],
    ids=range(12),
)
def test_what_is_no_change_is_refused(queues: list[str]) -> None:
    with pytest.raises(BadArguments) as raised:
        size_of(None, queues)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("concurrency", [0, -1, 10_001])
def test_a_size_that_no_worker_has_is_refused(concurrency: int) -> None:
    with pytest.raises(BadArguments, match=str(concurrency)):
        size_of(concurrency, [])


def test_a_change_is_on_top_of_what_stands() -> None:
    stands = Order(slots=4, more={"bulk": 2}, less=("mail",))
    now = merged(stands, Change(0, {"mail": 0}, ("bulk",)), Order(by="ann"))
    assert now == Order(by="ann", slots=4, more={"mail": 0}, less=("bulk",))
