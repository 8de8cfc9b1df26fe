"""C1 kept and C16 atomic: what submitting promises, also to a producer that dies in the midst of it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain

import pytest
from msgspec.structs import replace

from kq.app import App
from kq.broker import BURIED, Delivery, Inspector, Session, Settlement
from kq.clock import new_id
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.figures import Figures, keeps, survives
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, Gate, deleted, in_pools, requires
from kq.control import Control
from kq.errors import BrokerError
from kq.values.job import Job, State
from kq.values.message import Envelope

ALL = 100_000  # more jobs than a test submits

#: Submits one job after the other for ever; a line before and after each.
ONE_BY_ONE = """
from kq.conformance.contract.jobs import app, jobs
while True:
    job = jobs.note.job()
    print("try", job.id, flush=True)
    app.submit(job)
    print("ok", job.id, flush=True)
"""
#: Submits groups of SIZE jobs, all or nothing, for ever; a line after each.
SIZE = 40
IN_GROUPS = f"""
import sys
from itertools import count
from kq.conformance.contract.jobs import app, jobs
for number in count():
    app.submit_many(jobs.note.job(f"{{sys.argv[1]}}.{{number}}") for _ in range({SIZE}))
    print("ok", f"{{sys.argv[1]}}.{{number}}", flush=True)
"""


class Kept(ContractWorld):
    """C1: when submit returns the job is stored, once."""

    @keeps("C1")
    @survives("F5")
    def test_what_was_submitted_is_stored_although_the_producer_is_killed_at_once(
        self, app: App, control: Control, queue: str, crew: Crew, measured: Figures
    ) -> None:
        requires(app, "shared")
        chance = random.Random(1)
        kills = 4
        lines = list(chain.from_iterable(said_before_death(crew.start(ONE_BY_ONE), chance) for _ in range(kills)))
        tried, acknowledged = ({id for word, id in lines if word == kind} for kind in ("try", "ok"))
        stored = [job.id for job in control.jobs(queue, limit=ALL)]
        assert len(stored) == len(set(stored))
        assert acknowledged <= set(stored) <= tried
        unsaid = len(set(stored) - acknowledged)
        assert unsaid <= kills
        measured(f"{kills} kill -9 over {len(acknowledged)} submits: 0 lost, 0 twice, {unsaid} stored unsaid")
        measured.account()

    @keeps("C1")
    def test_a_job_that_waits_and_is_submitted_again_is_stored_once(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, diary: Diary
    ) -> None:
        job, delayed = jobs.note.job("x"), jobs.note.options(delay=0.3).job("y")
        for each in (job, delayed, job, delayed):
            handle = app.submit(each)
        crew.worker()
        handle.result(10)
        assert not eventually_more_than(2, diary)
        assert not control.jobs(handle.queue)

    @keeps("C1")
    def test_a_job_that_was_submitted_twice_and_looked_at_runs_once_and_leaves_nothing(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, diary: Diary
    ) -> None:
        twice = [jobs.nap.job(0.05) for _ in range(5)]
        for job in [*twice, *twice]:
            app.submit(job)
        assert {each.id for each in control.jobs(app.defaults.queue or "")} == {job.id for job in twice}
        crew.worker(concurrency=2)
        eventually(lambda: not control.jobs(app.defaults.queue or ""), "nothing is left")
        assert Counter(start.id for start in diary.starts()) == dict.fromkeys((job.id for job in twice), 1)

    @keeps("C1")
    def test_a_job_that_runs_and_is_submitted_again_is_stored_once(
        self, app: App, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        crew.worker(concurrency=2)
        job = jobs.hold.job(gate.path)
        handle = diary.begun(app.submit(job))
        app.submit(job)
        assert not eventually_more_than(1, diary)
        gate.open()
        handle.result(10)

    @keeps("C1")
    def test_a_job_that_has_ended_and_is_submitted_again_a_second_later_does_not_run_again(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, diary: Diary
    ) -> None:
        crew.worker()
        job: Job[str] = Job("0000" + jobs.note.job().id[4:], "note", ("x",))  # an id of 1970: made long ago
        first = app.submit(job)
        assert first.result(10) == "x"
        eventually(lambda: not control.jobs(first.queue), "it has left the broker")
        again = app.submit(job)
        assert again.result(10) == "x"
        eventually(lambda: not control.jobs(again.queue), "the second has left it too")
        assert len(diary.starts(job.id)) == 1

    @keeps("C1")
    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
    def test_a_child_that_is_forked_while_threads_submit_submits_too(
        self, app: App, control: Control, queue: str, jobs: Jobs
    ) -> None:
        requires(app, "shared")
        jobs.note.submit("first")
        over = threading.Event()

        def submit() -> None:
            while not over.is_set():
                jobs.note.submit()

        with ThreadPoolExecutor(2) as pool:
            busy = [pool.submit(submit) for _ in range(2)]
            try:
                eventually(lambda: len(control.jobs(queue)) > 2, "they submit")
                codes = [in_a_child(lambda: jobs.note.submit("child")) for _ in range(10)]
            finally:
                over.set()
            assert [each.result() for each in busy] == [None, None]
        assert codes == [0] * 10
        assert [job.args for job in control.jobs(queue, limit=ALL)].count(["child"]) == 10

    @keeps("C1")
    @in_pools("process", "thread", "async")
    def test_a_job_may_submit_jobs(self, jobs: Jobs, crew: Crew, diary: Diary, pool: str) -> None:
        crew.worker(pool=pool)  # type: ignore[arg-type]
        child = jobs.breed.submit("child").result(10)
        eventually(lambda: diary.ends(child), "the job that a job submitted runs")


class Atomic(ContractWorld):
    """C16: a group is stored as a whole or not at all, and so is what a job's end leads to."""

    @keeps("C16")
    def test_a_group_of_which_one_job_is_wrong_is_not_stored(
        self, app: App, control: Control, queue: str, jobs: Jobs
    ) -> None:
        wrong: Job[str] = Job("1", "note", (object(),))
        good = jobs.note.submit("good")
        with pytest.raises(TypeError):
            app.submit_many([jobs.note.job("a"), wrong, jobs.note.job("b")])
        assert [job.id for job in control.jobs(queue)] == [good.id]

    @keeps("C16")
    def test_a_transaction_that_raises_stores_nothing(self, app: App, control: Control, queue: str, jobs: Jobs) -> None:
        jobs.note.submit("before")
        with pytest.raises(ZeroDivisionError), app.transaction():  # noqa: PT012 - the block is what is tested
            jobs.note.submit("a")
            jobs.note.submit("b")
            raise ZeroDivisionError
        assert [job.args for job in control.jobs(queue)] == [["before"]]
        with app.transaction():
            jobs.note.submit("c")
            jobs.note.submit("d")
            assert len(control.jobs(queue)) == 1
        assert [job.args for job in control.jobs(queue, State.READY)] == [["before"], ["c"], ["d"]]

    @keeps("C16")
    def test_what_a_task_submits_after_the_transaction_that_it_began_in_goes_out_at_once(
        self, app: App, control: Control, queue: str, jobs: Jobs
    ) -> None:
        async def late(over: asyncio.Event, word: str) -> None:
            await over.wait()
            await jobs.note.submit_async(word)
            with app.transaction():
                jobs.note.submit(f"{word} in another")

        async def main() -> None:
            over = asyncio.Event()
            with app.transaction():
                first = asyncio.create_task(late(over, "after a good end"))
                await jobs.note.submit_async("in it")
            with pytest.raises(ZeroDivisionError), app.transaction():  # noqa: PT012
                second = asyncio.create_task(late(over, "after a bad end"))
                await asyncio.create_task(jobs.note.submit_async("dropped"))
                raise ZeroDivisionError
            over.set()
            await asyncio.gather(first, second)

        asyncio.run(main())
        said = sorted(str(job.args[0]) for job in control.jobs(queue, State.READY))
        late_words = [f"after a {how} end{where}" for how in ("bad", "good") for where in ("", " in another")]
        assert said == [*late_words, "in it"]

    @keeps("C16")
    def test_ends_in_two_queues_of_which_the_second_failed_may_be_said_again(
        self, app: App, inspector: Inspector, queue: str, jobs: Jobs
    ) -> None:
        other, third = f"{queue}.other", f"{queue}.third"
        jobs.note.submit()
        jobs.note.options(queue=other).submit()
        mismatched(app, third)
        with session(app, queue, other) as (worker, arrived):
            first, second = sorted(arrived, key=lambda delivery: delivery.queue)
            ends = [Settlement(first), Settlement(second, (Envelope("next", third, b"{}"),))]
            with pytest.raises(BrokerError, match="third"):
                worker.settle(ends)
            deleted(app, third)
            assert worker.settle(ends) == []
        assert not any(in_it(inspector, name) for name in (queue, other))
        assert [seen.id for seen in inspector.browse(third, "ready")] == ["next"]

    @keeps("C16")
    def test_a_follow_up_whose_queue_was_deleted_is_stored_by_the_second_try(
        self, app: App, inspector: Inspector, queue: str, jobs: Jobs
    ) -> None:
        app.submit_many(jobs.note.job() for _ in range(2))
        with session(app, queue) as (worker, arrived):
            first, second = ([Settlement(each, (Envelope(each.id, queue + BURIED, b"{}"),))] for each in arrived)
            worker.settle(first)
            deleted(app, queue + BURIED)
            with pytest.raises(BrokerError):
                worker.settle(second)
            worker.settle(second)
        assert (in_it(inspector, queue), in_it(inspector, queue + BURIED)) == (0, 1)

    @keeps("C16")
    def test_a_group_that_could_not_be_stored_does_not_go_with_the_next(
        self, app: App, control: Control, queue: str, jobs: Jobs
    ) -> None:
        until = time.monotonic() + 5
        good = app.envelope(jobs.note.job("half a group"))
        wrong = replace(good, id="wrong", headers={"x": object()})
        for group in ([good, wrong], [good, wrong]):
            with pytest.raises((TypeError, ValueError)):
                app.publisher.publish(group, until)
        jobs.note.submit("next")
        assert [job.args for job in control.jobs(queue)] == [["next"]]

    @keeps("C16")
    @survives("F5")
    def test_groups_of_a_producer_that_is_killed_are_stored_whole_or_not_at_all(
        self, app: App, control: Control, queue: str, crew: Crew, measured: Figures
    ) -> None:
        requires(app, "shared")
        chance = random.Random(16)
        kills = 4
        said = [said_before_death(crew.start(IN_GROUPS, str(number)), chance) for number in range(kills)]
        acknowledged = {group for lines in said for _, group in lines}
        stored = Counter(str(job.args[0]) for job in control.jobs(queue, limit=ALL))
        assert set(stored.values()) == {SIZE}
        assert acknowledged <= set(stored)
        measured(f"{kills} kill -9 over {len(stored)} groups of {SIZE}: 0 torn")

    @keeps("C16")
    def test_the_end_of_an_attempt_and_the_retry_are_one_step_when_workers_are_killed(
        self, app: App, control: Control, queue: str, jobs: Jobs, crew: Crew, diary: Diary, measured: Figures
    ) -> None:
        requires(app, "shared")
        acts = ["retry 0", "retry 0", "return"]
        handles = app.submit_many(jobs.perform.job(acts) for _ in range(120))
        kills = 3
        for number in range(kills):
            worker = crew.program(concurrency=2)
            eventually(lambda goal=100 * (number + 1): len(diary.starts()) > goal, "jobs run")  # type: ignore[misc]
            worker.kill()
        crew.program(concurrency=2)
        last = {handle.id: handle.result(30) for handle in handles}
        assert min(last.values()) == 3  # a start that went down with its worker may be one of them
        eventually(lambda: not control.jobs(queue), "nothing is left")
        attempts = Counter((start.id, start.attempt) for start in diary.starts())
        counted = {(id, number) for id in last for number in range(1, last[id] + 1)}
        assert set(attempts) <= counted
        # A worker that was killed after it had counted a start and before the job's first line left no trace of it.
        assert len(counted - set(attempts)) <= kills * 2
        again = sum(attempts.values()) - len(attempts)
        measured(f"{kills} workers killed over {len(attempts)} attempts: 0 skipped, {again} started again")


def mismatched(app: App, queue: str) -> None:
    """Declare queue otherwise than kq does."""
    with app.broker.connection() as connection, connection.channel() as channel:
        channel.queue_declare(queue, durable=True, auto_delete=False, arguments={"x-max-priority": 3})


def in_it(inspector: Inspector, queue: str) -> int:
    """How many messages are in queue, in any state."""
    counts = inspector.count(queue)
    return counts.ready + counts.delayed + counts.held


@contextmanager
def session(app: App, *queues: str) -> Iterator[tuple[Session, list[Delivery]]]:
    """A worker's connection to queues, and all that was in them."""
    arrived: list[Delivery] = []
    connected = Session(app.broker, new_id(), app.lease, dict.fromkeys(queues, 100), arrived.append)
    try:
        eventually(
            lambda: not connected.drain() and {each.queue for each in arrived} == set(queues), "all is delivered"
        )
        yield connected, arrived
    finally:
        connected.close()


def in_a_child(act: Callable[[], object]) -> int:
    """The exit code of a forked child that does this: 0 when it went well and soon."""
    child = os.fork()
    if not child:
        signal.alarm(10)
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def said_before_death(producer: subprocess.Popen[str], chance: random.Random) -> list[list[str]]:
    """Kill a producer after some of its lines; returns the words of all that it said."""
    assert producer.stdout is not None
    with producer.stdout as lines:
        said = [lines.readline() for _ in range(chance.randrange(20, 80))]
        producer.send_signal(signal.SIGKILL)
        said += [line for line in lines if line.endswith("\n")]
    assert producer.wait(10) == -signal.SIGKILL, "".join(said)
    return [line.split() for line in said]


def eventually_more_than(count: int, diary: Diary) -> bool:
    """Whether more jobs than count start within a short while."""
    try:
        eventually(lambda: len(diary.starts()) > count, "more start", within=0.5)
    except AssertionError:
        return False
    return True
