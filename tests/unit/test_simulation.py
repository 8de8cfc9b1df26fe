"""Ten thousand small histories of workers that die, freeze and fail, and what holds in each of them.

The broker is a few lists; what is admitted, decided and written down is the code that workers run, on a state store in
memory with a clock that the simulation moves. A history is made again from its seed: run_history(seed).
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TypeAlias

import msgspec
import pytest

from kq.broker import Delivery
from kq.state.memory import MemoryStore
from kq.state.store import Write
from kq.values.failure import Failure
from kq.values.job import ENDED, Counters, State
from kq.values.message import Envelope, Head, Stage, decode_head, encode_head
from kq.values.outcome import (
    Asked,
    Bury,
    Died,
    Done,
    Drop,
    Expired,
    FallBack,
    GiveBack,
    GivenBack,
    Outcome,
    OutOfMemory,
    Raised,
    Retry,
    Revoke,
    Rules,
    TimedOut,
    Unusable,
    Verdict,
    verdict_after,
)
from kq.values.policy import Fixed, Never
from kq.values.record import decode_record, encode, job_key, lease_key
from kq.worker.scribe import Scribe
from kq.worker.starts import Starts
from kq.worker.task import Kind, Task

HISTORIES = int(os.environ.get("KQ_HISTORIES") or 10_000)
STEPS = 40
LEASE = 10.0

KINDS = [
    Kind("plain", Rules(retry_policy=Fixed(delay=1, retries=3), max_lost=2, max_infra=3), 1.0, 1e6),
    Kind("once", Rules(retry_policy=Never(), on_lost="bury", max_infra=2), 1.0, 1e6),
    Kind("final", Rules(on_timeout="bury", max_infra=2), 1.0, 1e6),
    Kind("best", Rules(max_lost=2, max_infra=2, fallback=True), 1.0, 1e6, (Stage("plain"), Stage("once", "other"))),
    Kind("early", Rules(on_lost="fallback", max_infra=2, fallback=True), 1.0, 1e6, (Stage("final"),)),
]
BY_NAME = {kind.name: kind for kind in KINDS}
#: A job, and which of its fallbacks it is.
At: TypeAlias = tuple[str, int]


class Hands:
    """A clock that the simulation moves."""

    time = 1_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


CLOCK = Hands()
STORE = MemoryStore("simulation", clock=CLOCK)


@dataclass
class Message:
    """One message of the broker. due: when it is ready."""

    id: str
    headers: dict[str, object]
    due: float
    redelivered: bool = False


@dataclass
class Worker:
    """What a supervisor knows. alive: it can act; frozen: it can't, and does not know."""

    name: str
    indexed: bool
    lease: float
    alive: bool = True
    held: dict[int, Message] = field(default_factory=dict)  # as the broker sees it
    arrived: list[Task] = field(default_factory=list)
    ready: list[Task] = field(default_factory=list)
    running: list[Task] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scribe = Scribe(self.name, "host", self.indexed, "")
        self.starts = Starts(STORE, self.name, self.indexed)


class History:
    """One seeded run."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.indexed = self.chance.random() < 0.5
        self.queue: list[Message] = []
        self.buried: list[Message] = []
        self.workers: list[Worker] = []
        self.tags = 0
        self.jobs: dict[str, Kind] = {}
        self.said: dict[str, Sequence[Stage]] = {}  # what runs instead
        self.begun: Counter[At] = Counter()
        self.retried: Counter[At] = Counter()
        self.fell: Counter[At] = Counter()
        self.counters: dict[At, Counters] = {}
        self.ended: dict[str, bytes] = {}
        self.released: set[str] = set()  # the jobs whose staged jobs are in the broker

    def run(self) -> None:
        for number in range(self.chance.randint(1, 3)):
            self.submit(number)
        acts = [self.reserve, self.begin, self.end, self.die, self.freeze, self.leave, self.wait, self.join]
        weights = [6, 6, 6, 1, 1, 1, 4, 1]
        for act in self.chance.choices(acts, weights, k=STEPS):
            act()
            self.check()
        self.drain()
        for job in self.jobs:
            assert job in self.ended or any(message.id == job for message in self.buried), f"{job} was lost"
            record = decode_record(self.ended.get(job))
            completed = record is not None and record.state is State.COMPLETED
            assert completed <= (job in self.released), f"{job} completed, and what it had staged was lost"
            if self.indexed:
                assert completed or job not in self.released, f"{job} did not complete, and what it had staged was sent"
        for message in self.buried:
            self.check_buried(decode_head(message.headers))

    # What may happen.

    def submit(self, number: int) -> None:
        job, kind = f"{self.seed}-{number}", self.chance.choice(KINDS)
        self.jobs[job] = kind
        said = (Stage("plain"), Stage("final")) if self.chance.random() < 0.2 else None
        self.said[job] = kind.fallback if said is None else said
        copies = 1 if self.indexed or self.chance.random() < 0.8 else 2
        headers = encode_head(Head(id=job, type=kind.name, again=copies > 1, fallback=said))
        self.queue += [Message(job, headers, CLOCK.time) for _ in range(copies)]

    def join(self) -> None:
        worker = Worker(f"{self.seed}-w{len(self.workers)}", self.indexed, CLOCK.time + LEASE)
        self.workers.append(worker)
        self.beat(worker)

    def beat(self, worker: Worker) -> None:
        worker.lease = CLOCK.time + LEASE
        STORE.write([Write(lease_key(worker.name), b"1", LEASE * 0.9)])

    def some_worker(self) -> Worker | None:
        alive = [worker for worker in self.workers if worker.alive]
        return self.chance.choice(alive) if alive else None

    def reserve(self) -> None:
        worker = self.some_worker()
        ready = [message for message in self.queue if message.due <= CLOCK.time]
        if worker is None or not ready:
            return
        message = ready[0]
        self.queue.remove(message)
        self.tags += 1
        worker.held[self.tags] = message
        head = decode_head(message.headers)
        delivery = Delivery(
            self.tags, "q", message.id, message.headers, b"{}", 5, message.redelivered, "application/json"
        )
        task = Task(delivery, head, BY_NAME[head.type], head.counters)
        if task.suspect or head.again or not self.indexed:
            worker.arrived.append(task)
            self.admit(worker)
        else:
            worker.ready.append(task)

    def admit(self, worker: Worker) -> None:
        admitted = worker.starts.admit(worker.arrived)
        worker.arrived = admitted.unclear
        worker.ready += admitted.ready
        for task, staged in admitted.copies:
            self.settle(worker, task, Drop(staged))
        for task in admitted.lost:
            self.settle(worker, task, self.judged(task, Died("with its worker")))

    def begin(self) -> None:
        worker = self.some_worker()
        if worker is not None and worker.arrived:
            self.admit(worker)
        if worker is None or not worker.ready:
            return
        task = worker.ready.pop(0)
        if task.suspect and not task.counted:
            counted = worker.starts.count([task])
            worker.arrived += counted.unclear
            if not counted.ready:
                return
        self.begun[at(task)] += 1
        worker.running.append(task)

    def end(self) -> None:
        worker = self.some_worker()
        if worker is not None and worker.running:
            task = worker.running.pop(self.chance.randrange(len(worker.running)))
            self.settle(worker, task, self.verdict(task))

    def die(self) -> None:
        """kill -9 of the whole worker; the broker finds out when the lease is over."""
        worker = self.some_worker()
        if worker is not None:
            worker.alive = False

    def freeze(self) -> None:
        """A worker sleeps past its lease, and then says what it had to say."""
        worker = self.some_worker()
        if worker is None:
            return
        worker.alive = False
        self.pass_time(LEASE + 1)
        before = dict(self.ended)
        for task in worker.running:
            made = STORE.write(list(worker.scribe.records(task, self.verdict(task), CLOCK.time)))
            assert not any(made), "a late word was heard"
        self.check()
        assert self.ended == before

    def leave(self) -> None:
        """A worker is told to end at once: it gives back all that it has."""
        worker = self.some_worker()
        if worker is None:
            return
        for task in [*worker.ready, *worker.arrived]:
            self.settle(worker, task, GiveBack())
        for task in worker.running:
            died = task.rules.starts_once
            self.settle(worker, task, self.judged(task, Died("stopped with its worker") if died else GivenBack()))
        worker.alive = False

    def wait(self) -> None:
        self.pass_time(self.chance.choice([0.1, 1.0, LEASE / 2]))

    def pass_time(self, seconds: float) -> None:
        CLOCK.time += seconds
        for worker in self.workers:
            if worker.alive:
                self.beat(worker)
            elif worker.lease <= CLOCK.time:
                for message in worker.held.values():
                    self.queue.insert(0, Message(message.id, message.headers, message.due, redelivered=True))
                worker.held.clear()

    # What follows from it.

    def outcome(self, task: Task) -> Outcome:
        chance = self.chance
        failure = Failure((chance.choice(["OSError.ENOSPC", "ConnectionError", "ValueError", "shop.Odd"]),), "x")
        outcomes: list[Outcome] = [
            Done(b"1", (Envelope(f"{task.head.id}+", "later", b""),)),
            Raised(failure),
            Raised(failure),
            Asked(failure, delay=0.5),
            TimedOut(1.0, killed=chance.random() < 0.5),
            Died("signal 9"),
            OutOfMemory("1 GiB"),
            Unusable("wrong arguments"),
            Expired(),
        ]
        return chance.choice(outcomes)

    def verdict(self, task: Task) -> Verdict:
        """What becomes of a job that ran; sometimes somebody has revoked it meanwhile."""
        return Revoke("by ops") if self.chance.random() < 0.1 else self.judged(task, self.outcome(task))

    def judged(self, task: Task, outcome: Outcome) -> Verdict:
        return verdict_after(outcome, task.counters, task.rules, self.chance)

    def settle(self, worker: Worker, task: Task, verdict: Verdict) -> None:
        """As a supervisor does: first the state store, then the broker; and sometimes it dies between the two."""
        writes = list(worker.scribe.records(task, verdict, CLOCK.time))
        made = STORE.write(writes)
        if not all(done for done, write in zip(made, writes, strict=True) if write.alive):
            assert not self.indexed, "its lease was alive, and there is no copy of it"
            verdict = Drop()
        if self.chance.random() < 0.05:
            worker.alive = False
            return
        self.count(task, verdict)
        between = (
            not self.indexed and self.chance.random() < 0.05
        )  # it dies after what follows is stored, before the ack
        for envelope in worker.scribe.follow_ups(task, verdict, CLOCK.time):
            if envelope.queue == "later":
                self.released.add(task.head.id)
                continue
            message = Message(envelope.id, dict(envelope.headers), CLOCK.time + envelope.delay)
            (self.buried if isinstance(verdict, Bury) else self.queue).append(message)
        if between:
            worker.alive = False
            return
        message = worker.held.pop(task.delivery.tag)
        if isinstance(verdict, GiveBack):
            self.queue.insert(0, Message(message.id, message.headers, message.due, redelivered=True))
        if self.chance.random() < 0.95:
            STORE.write(list(worker.scribe.released(task, verdict, CLOCK.time)))

    def count(self, task: Task, verdict: Verdict) -> None:
        """One attempt adds one to one counter, and none goes down; but for a copy that begins where its message was."""
        if isinstance(verdict, Retry | Bury | FallBack):
            last, after = self.counters.get(at(task), Counters()), verdict.counters
            assert after.attempts - task.counters.attempts == (verdict.how is not None)
            if self.indexed:
                assert after.failed >= last.failed
                assert after.lost >= last.lost
                assert after.infra >= last.infra
            self.counters[at(task)] = after
            self.retried[at(task)] += isinstance(verdict, Retry)
            self.fell[at(task)] += isinstance(verdict, FallBack)

    # What always holds.

    def check(self) -> None:
        for job in self.jobs:
            (found,) = STORE.get([job_key(job)])
            record = None if found is None else decode_record(found)
            if record is not None and record.state in ENDED:
                end = encode(msgspec.structs.replace(record, staged=()))
                # Without an index two copies of a message may both run, when a worker dies while it takes one away:
                # then the last that ends says how the job did.
                assert self.ended.get(job, end) == end or not self.indexed, f"the end of {job} changed"
                self.ended[job] = end
        for (job, number), counters in self.counters.items():
            assert counters.attempts <= self.begun[job, number], f"{job} is blamed for more than its starts"
            rules = self.kind(job, number).rules
            # Without an index two copies may differ in what is counted against them, and have their starts in common.
            assert counters.lost <= rules.max_lost or not self.indexed
            assert counters.infra <= rules.max_infra
        for (job, number), begun in self.begun.items():
            if self.kind(job, number).rules.starts_once:
                again = self.retried[job, number] + (self.fell[job, number - 1] if number else 1)
                assert begun <= again, f"{job} started again, and nobody said so"
            assert not number or self.fell[job, number - 1], (
                f"{job} went on as another type, and the last had not given up"
            )

    def kind(self, job: str, number: int) -> Kind:
        """The type of a job, or of one of its fallbacks."""
        said = self.said[job]
        return BY_NAME[said[number - 1].type] if number else self.jobs[job]

    def check_buried(self, head: Head) -> None:
        """Its history goes through its types in order; what none of them could do lies as it was submitted."""
        types = [self.jobs[head.id].name, *(stage.type for stage in self.said[head.id])]
        assert head.type == types[head.degraded_by]
        assert (head.first is None) == (head.degraded_by == 0)
        way = iter(types)
        assert all(type in way for type, _ in groupby(attempt.type for attempt in head.history if attempt.type))

    def drain(self) -> None:
        """A worker that lives does what is left."""
        self.pass_time(2 * LEASE)
        for _ in range(200):
            if not self.queue and not any(worker.held for worker in self.workers):
                return
            if self.some_worker() is None:
                self.join()
            for act in (self.wait, self.reserve, self.begin, self.end):
                act()
                self.check()
        left = [message.id for message in self.queue]
        raise AssertionError(f"still there after a long time: {left}")


def at(task: Task) -> At:
    return task.head.id, task.head.degraded_by


def run_history(seed: int) -> None:
    """Play one history, at a time that is always the same; a failure names its seed."""
    CLOCK.time = Hands.time
    try:
        History(seed).run()
    except BaseException as error:
        error.add_note(f"this was run_history({seed})")
        raise


@pytest.mark.parametrize("part", range(10))
def test_in_every_history_jobs_are_kept_blamed_for_what_they_did_and_ended_once(part: int) -> None:
    first = random.SystemRandom().randrange(10**9)
    for seed in range(first, first + HISTORIES // 10):
        run_history(seed)


@pytest.mark.parametrize("seed", [935222834, 888844541, 367301393])
def test_histories_that_went_wrong_once(seed: int) -> None:
    run_history(seed)
