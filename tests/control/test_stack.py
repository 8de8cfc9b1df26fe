"""Where a running job is: told from afar in every pool and on every broker, without stopping it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from kq.app import App
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, Gate, in_pools
from kq.control import Control
from kq.errors import NotFound
from kq.handles.standing import Kind, order_key
from kq.state.store import Write
from kq.values.job import Job, State
from kq.values.record import encode
from kq.values.stack import Frame, Stack, of_job, stack_key
from kq.worker import serial
from kq.worker.lookout import DEEPEST
from kq.worker.pool import PoolKind
from tests.brokers import OnMemory, OnRabbit, OnRedis, OnSqlite
from tests.worker.jobs import WHERE, Odd

#: Seconds that a test waits for a job that begins beside much else.
PATIENCE = 60.0


class StackWorld(ContractWorld):
    lease = 10.0
    application = WHERE

    @pytest.fixture
    def jobs(self, app: App) -> Odd:
        return Odd(app)

    def started(self, app: App, diary: Diary, job: Job[object]) -> str:
        """The id of the job, which runs."""
        id = app.submit_many([job])[0].id
        eventually(lambda: diary.starts(id), "the job runs", PATIENCE)
        return id

    def seen(self, control: Control, id: str) -> Stack:
        """Its stack. Its worker may not have been told of, yet, to have it."""

        def look() -> Stack | None:
            with suppress(NotFound):
                return control.stack(id, PATIENCE)
            return None

        stack = eventually(look, "somebody tells where it is", PATIENCE)
        assert stack is not None
        return stack


def names(stack: Stack) -> list[str]:
    return [frame.name.rpartition(".")[2] for frame in stack.frames]


class Stacks(StackWorld):
    @in_pools("process", "thread", "async")
    def test_the_stack_of_a_job_begins_with_its_own_code_and_the_job_goes_on(
        self, app: App, control: Control, jobs: Odd, crew: Crew, diary: Diary, gate: Gate, pool: PoolKind
    ) -> None:
        crew.worker(pool=pool, concurrency=2)
        plain = self.started(app, diary, jobs.hold.job(gate.path))
        coroutine = self.started(app, diary, jobs.hold_async.job(gate.path))
        for id, name in ((plain, "hold"), (coroutine, "hold_async")):
            stack = self.seen(control, id)
            assert names(stack)[0] == name
            assert stack.frames[0].file.endswith("contract/jobs.py")
            assert (stack.job, stack.type, stack.note) == (id, name, "")
            assert stack.seconds > 0
        gate.open()
        for id in (plain, coroutine):
            done = control.wait(id, PATIENCE)
            assert done is not None
            assert (done.state, done.history) == (State.COMPLETED, ())
            assert len(diary.starts(id)) == 1

    @in_pools("process", "thread", "async")
    def test_a_job_that_keeps_the_interpreter_in_c_code_is_seen_too(
        self, app: App, control: Control, jobs: Odd, crew: Crew, diary: Diary, pool: PoolKind
    ) -> None:
        crew.worker(pool=pool, concurrency=2)
        stack = self.seen(control, self.started(app, diary, jobs.frozen.job()))
        assert names(stack) == ["frozen"]
        assert "in C" in stack.note

    def test_a_job_that_does_not_run_has_no_stack(self, app: App, control: Control, jobs: Odd, crew: Crew) -> None:
        waiting = jobs.note.submit("x")
        with pytest.raises(NotFound, match=f"job {waiting.id} is ready: it does not run"):
            control.stack(waiting.id)
        with pytest.raises(NotFound, match="no job 'nobody' is known"):
            control.stack("nobody")
        crew.worker()
        waiting.result(PATIENCE)
        with pytest.raises(NotFound, match=f"job {waiting.id} is completed: it does not run"):
            control.stack(waiting.id)


class TestStacksOnMemory(OnMemory, Stacks):
    pass


class TestStacksOnSqlite(OnSqlite, Stacks):
    def test_the_event_loop_that_does_not_come_round_is_told_of_for_jobs_that_wait_in_it(
        self, app: App, control: Control, jobs: Odd, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        crew.worker(pool="async", concurrency=3)
        coroutine = self.started(app, diary, jobs.hold_async.job(gate.path))
        blocking = self.started(app, diary, jobs.blocks_loop.job())
        for id in (coroutine, blocking):
            stack = self.seen(control, id)
            assert names(stack)[0] == "blocks_loop"
            assert "the event loop" in stack.note

    @in_pools("process", "async")
    def test_a_coroutine_that_awaits_and_does_not_say_where_is_not_taken_for_c_code(
        self, app: App, control: Control, jobs: Odd, crew: Crew, diary: Diary, pool: PoolKind
    ) -> None:
        crew.worker(pool=pool, concurrency=2)
        stack = self.seen(control, self.started(app, diary, jobs.deaf_async.job()))
        assert stack.note.startswith("it awaits: its event loop has nothing to run")
        assert names(stack)[-1] == "select"

    def test_a_worker_that_does_not_answer_leaves_what_it_said_last(
        self, app: App, control: Control, jobs: Odd, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        worker = crew.program()
        id = self.started(app, diary, jobs.hold.job(gate.path))
        self.seen(control, id)
        worker.pause_supervisor()
        stack = control.stack(id, 0.2)
        assert not stack.frames
        assert "did not answer within 200ms: it is " in stack.note
        assert "that the job runs, since " in stack.note
        worker.resume()

    def test_of_many_calls_the_innermost_are_told(
        self, app: App, control: Control, jobs: Odd, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        crew.worker()
        stack = self.seen(control, self.started(app, diary, jobs.sink.job(2 * DEEPEST, gate.path)))
        assert len(stack.frames) == DEEPEST
        assert "sink" in names(stack)
        assert names(stack)[-1] != "sink"
        gate.open()

    def test_a_job_that_began_anew_while_it_was_asked_for_is_to_be_asked_for_once_more(
        self, app: App, control: Control, jobs: Odd, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        worker = crew.program()
        id = self.started(app, diary, jobs.hold.job(gate.path))
        self.seen(control, id)
        worker.pause_supervisor()

        def answer() -> None:
            """In its place: it does not run here."""
            asked = order_key(Kind.STACK, "")
            keys = eventually(lambda: [key for key, _ in app.store.scan(asked, 10)], "somebody asks", PATIENCE)
            token = keys[0].split("/")[-2]
            app.store.write([Write(stack_key(token), encode(Stack(id, "", "w")), PATIENCE)])

        with ThreadPoolExecutor(1) as pool:
            answered = pool.submit(answer)
            with pytest.raises(NotFound, match=f"job {id} began anew just now"):
                control.stack(id, PATIENCE)
        answered.result()
        worker.resume()

    def test_an_executor_that_is_stopped_is_told_of_as_such(
        self, app: App, control: Control, jobs: Odd, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        worker = crew.program()
        id = self.started(app, diary, jobs.hold.job(gate.path))
        executor = self.seen(control, id).executor
        stopped = next(process for process in worker.executors() if process.pid == executor)
        stopped.suspend()
        stack = self.seen(control, id)
        stopped.resume()
        assert (stack.frames, stack.note) == ((), f"process {executor} did not answer: somebody has stopped it")

    def test_it_is_asked_for_on_the_command_line(
        self,
        app: App,
        control: Control,
        jobs: Odd,
        crew: Crew,
        diary: Diary,
        gate: Gate,
        environment: dict[str, str],
        tmp_path: Path,
    ) -> None:
        crew.program()
        id = self.started(app, diary, jobs.hold.job(gate.path))
        self.seen(control, id)
        told = kq(tmp_path, "jobs", "stack", id)
        assert told.returncode == 0, told.stderr
        assert told.stdout.splitlines()[0].startswith(f"hold {id} has run for ")
        assert "contract/jobs.py" in told.stdout.splitlines()[1]
        said = json.loads(kq(tmp_path, "jobs", "stack", id, "--json").stdout)
        assert said["frames"][0]["name"] == "hold"
        gate.open()
        control.wait(id, PATIENCE)
        refused = kq(tmp_path, "jobs", "stack", id)
        assert refused.returncode == 1
        assert f"job {id} is completed: it does not run" in refused.stderr


class TestStacksOnRedis(OnRedis, Stacks):
    pass


class TestStacksOnRabbit(OnRabbit, Stacks):
    pass


def kq(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kq", *arguments], capture_output=True, text=True, cwd=folder, timeout=60, check=False
    )


OURS = Frame(serial.__file__, 1, "execute")


@pytest.mark.parametrize(
    ("frames", "kept"),
    [
        ([OURS, Frame("shop.py", 2, "pay")], ["pay"]),
        (
            [Frame("main.py", 1, "main"), OURS, OURS, Frame("shop.py", 2, "pay"), Frame("lib.py", 3, "get")],
            ["pay", "get"],
        ),
        ([OURS], ["execute"]),
        ([], []),
    ],
)
def test_what_a_worker_does_around_a_job_is_cut_away(frames: Sequence[Frame], kept: list[str]) -> None:
    assert [frame.name for frame in of_job(frames)] == kept
