"""C16 atomic: what a job stages is released with its completion, and never without it."""

from __future__ import annotations

import os
import random
import time

import pytest

from kq.app import App
from kq.broker import Delivery, Session
from kq.clock import derived_id
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.figures import Figures, keeps
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.storing import mismatched
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, Gate, buried, in_pools, outcome, requires
from kq.control import Control
from kq.errors import JobBuried, JobRevoked
from kq.state.store import Write
from kq.values.job import Counters, State
from kq.values.message import Envelope, decode_head
from kq.values.outcome import Complete, Rules
from kq.values.record import lease_key
from kq.worker.pool import PoolKind
from kq.worker.scribe import Scribe
from kq.worker.task import Kind, Task

#: Kills of the lottery.
KILLS = int(os.environ.get("KQ_STAGED_KILLS") or 3)


class Gathered(ContractWorld):
    """C16: staged jobs."""

    @keeps("C16")
    @in_pools("process", "thread", "async")
    def test_what_a_job_staged_starts_when_it_has_completed(
        self, jobs: Jobs, crew: Crew, diary: Diary, pool: PoolKind
    ) -> None:
        crew.worker(pool=pool, concurrency=2)
        parents = [jobs.beget.submit(["return"], ["a", "b"]), jobs.beget_async.submit(["c", "d"])]
        for parent in parents:
            ids = parent.result(20)
            eventually(lambda ids=ids: len(diary.ends(*ids)) == 2, "they ran")  # type: ignore[misc]
            ended = diary.ends(parent.id)[0].at
            assert all(start.at > ended for start in diary.starts(*ids))
        assert sorted(end.word for end in diary.ends()) == ["a", "a,b", "b", "c", "c,d", "d"]

    @keeps("C16")
    def test_what_a_job_staged_that_did_not_complete_is_never_seen(
        self, control: Control, queue: str, jobs: Jobs, crew: Crew, diary: Diary
    ) -> None:
        crew.worker(concurrency=2)
        acts = ["bad", "bury", "hang", "exit 1", "raise ValueError"]
        failing = jobs.beget.options(timeout=0.5)
        parents = [failing.submit([act, "bad"], [act]) for act in acts]
        assert all(isinstance(outcome(parent), JobBuried) for parent in parents)
        jobs.note.submit("last").result(10)
        ids = {parent.id for parent in parents}
        eventually(lambda: {job.id for job in control.jobs(queue)} == ids, "nothing else is there")
        assert [end.word for end in diary.ends()] == ["last"]

    @keeps("C16")
    def test_a_retry_stages_anew(self, jobs: Jobs, crew: Crew, diary: Diary) -> None:
        crew.worker()
        parent = jobs.beget.submit(["raise RuntimeError", "storage", "signal 9", "return"], ["a"])
        (id,) = parent.result(20)
        eventually(lambda: diary.ends(id), "it ran")
        jobs.note.submit("last").result(10)
        assert [end.word for end in diary.ends()] == ["a", "a", "last"]

    @keeps("C16")
    def test_what_a_job_staged_that_is_revoked_while_it_runs_is_never_seen(
        self, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        crew.worker()
        parent = diary.begun(jobs.beget.submit([f"wait {gate.path}"], ["a"]))
        assert parent.revoke(interrupt=True)
        assert isinstance(outcome(parent), JobRevoked)
        jobs.note.submit("last").result(10)
        assert [end.word for end in diary.ends()] == ["last"]

    @keeps("C16")
    def test_what_is_held_is_listed_and_may_be_revoked(
        self, control: Control, jobs: Jobs, crew: Crew, diary: Diary
    ) -> None:
        crew.worker()
        parent = jobs.beget.submit(["return"], ["a", "b"], 60.0)
        first, second = parent.result(10)
        held = eventually(lambda: len(found := control.held(parent.queue)) == 2 and found, "they are there")
        assert isinstance(held, list)
        assert {(job.id, job.parent, job.state) for job in held} == {
            (id, parent.id, State.DELAYED) for id in (first, second)
        }
        assert all(50 < (job.due or 0) - time.time() <= 61 for job in held)
        assert {first, second} <= {job.id for job in control.held()}  # of all queues: others may hold some, too
        assert control.revoke(first, reason="the customer went away", by="anna")
        assert [job.id for job in control.held(parent.queue)] == [second]
        (line, *_) = control.audit()
        assert (line.by, line.act, line.job, line.reason) == ("anna", "revoked", first, "the customer went away")
        control.edit(second, delay=0)
        eventually(lambda: diary.ends(second), "the other one runs")
        assert not diary.starts(first)

    @keeps("C16")
    @pytest.mark.parametrize("released", [False, True])
    def test_what_a_worker_that_died_had_not_released_is_released_once(
        self, app: App, queue: str, jobs: Jobs, crew: Crew, diary: Diary, released: bool
    ) -> None:
        parent = jobs.note.submit("parent")
        envelope = follower(app, jobs, parent.id)
        completed_and_died(app, queue, self.lease, envelope)
        if released:  # as far as a broker goes that does not do it in one step with the ack
            app.publisher.publish([envelope], time.monotonic() + 5)
        crew.worker()
        eventually(lambda: diary.ends(envelope.id), "it ran")
        assert parent.result(10) == "by the dead"
        jobs.note.submit("last").result(10)
        assert [end.word for end in diary.ends()] == ["follower", "last"]

    @keeps("C16")
    def test_who_stages_for_a_queue_that_the_broker_refuses_is_buried_and_disturbs_nobody(
        self, app: App, control: Control, queue: str, jobs: Jobs, crew: Crew
    ) -> None:
        mismatched(app, f"{queue}.odd")
        crew.worker()
        parent = jobs.beget.submit(["return"], ["a"], queue=f"{queue}.odd")
        assert "the jobs that it staged can't be stored" in buried(control, queue, parent).error
        assert jobs.note.submit("next").result(10) == "next"

    @keeps("C16")
    def test_workers_killed_again_and_again_lose_nothing_that_was_staged_and_send_nothing_that_was_not(
        self, app: App, jobs: Jobs, crew: Crew, diary: Diary, measured: Figures
    ) -> None:
        requires(app, "shared")
        seed = random.randrange(10_000)
        chance = random.Random(seed)
        acts = [["nap 0.02"], ["raise RuntimeError", "nap 0.02"], ["nap 0.02"], ["bad"]]
        parents = app.submit_many(jobs.beget.job(acts[each % 4], [f"{each}"]) for each in range(40 * KILLS))
        for number in range(KILLS):
            worker = crew.program(concurrency=2)
            goal = len(parents) * (number + 1) // (KILLS + 2)
            eventually(lambda goal=goal: len(diary.ends()) >= goal, f"jobs run, seed {seed}", 30)  # type: ignore[misc]
            time.sleep(chance.uniform(0, 0.05))
            worker.kill()
        crew.program(concurrency=2)
        states = [eventually(lambda each=each: over(each.state()), "all end", 60) for each in parents]  # type: ignore[misc]
        followers = [derived_id(parent.id, 0) for parent in parents]
        due = {id for id, state in zip(followers, states, strict=True) if state is State.COMPLETED}
        eventually(lambda: due <= {end.id for end in diary.ends()}, f"what was staged runs, seed {seed}", 60)
        assert states.count(State.COMPLETED) == len(parents) * 3 // 4
        assert {start.id for start in diary.starts()} <= due | {parent.id for parent in parents}
        measured(
            f"seed {seed}: {KILLS} kills over {len(parents)} jobs, {len(due)} of which completed: as many staged jobs "
            f"ran, {diary.twice()} jobs ran twice"
        )


def over(state: State) -> State | None:
    return state if state in (State.COMPLETED, State.BURIED) else None


def follower(app: App, jobs: Jobs, parent: str) -> Envelope:
    """A job as if parent had staged it."""
    made, id = app.envelope(jobs.note.job("follower")), derived_id(parent, 0)
    headers = {**made.headers, "id": id, "parent": parent}
    return Envelope(id, made.queue, made.body, headers, made.priority)


def completed_and_died(app: App, queue: str, lease: float, staged: Envelope) -> None:
    """What a worker does that takes a job and dies after recording its end, before the broker hears of it."""
    arrived: list[Delivery] = []
    session = Session(app.broker, "dead", lease, {queue: 1}, arrived.append)
    assert session.next(10)
    scribe = Scribe("dead", "host", app.broker.traits.indexed, "")
    task = Task(arrived[0], decode_head(arrived[0].headers), Kind("note", Rules(), 1.0, 60.0), Counters())
    app.store.write([Write(lease_key("dead"), b"1", 60.0)])
    records = scribe.records(task, Complete(b'"by the dead"', (staged,)), time.time())
    assert all(app.store.write(list(records)))
    session.close()
