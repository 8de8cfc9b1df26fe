"""Ends of executions until the broker is told of them: for how long they wait for others, and what becomes of them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import closing
from math import inf
from pathlib import Path

import pytest
from msgspec.structs import replace

from kq.app import App
from kq.broker import Delivery, Session
from kq.clock import RANDOM
from kq.errors import BrokerUnreachable
from kq.handles.handle import Handle
from kq.state import Write
from kq.state.memory import MemoryStore
from kq.values.failure import Failure
from kq.values.job import Counters
from kq.values.message import decode_head
from kq.values.outcome import Complete, Retry, Rules
from kq.values.record import Start, encode, lease_key
from kq.worker.ends import LOOKING, Ends
from kq.worker.ground import Ground
from kq.worker.meter import Meter
from kq.worker.plan import Plan
from kq.worker.pool import Pool
from kq.worker.skew import Skew
from kq.worker.starts import key_of
from kq.worker.task import Kind, Task
from kq.worker.voice import Voice
from kq_transports import memory
from kq_transports.conformance.flaky import Flaky

RETRY = Retry(0.0, Counters(1), Failure(("ValueError",), "no"), "raised")
DONE = Complete(b"7")


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


class Told:
    """The ends of a worker w1 on a broker in memory, whose jobs take a tenth of a millisecond each."""

    def __init__(self, app: App, *, indexed: bool) -> None:
        self.clock, self.app = Hand(), app
        skew = Skew(self.clock, app.store)
        covers = app.broker.carries
        self.ground = Ground(Plan({"q": 10}, 10, 15.0), "here", app.store, self.clock, skew, indexed, covers)
        self.pool = Pool("app:app", "", "", "thread", 1, self.clock, lambda ended: None)
        self.ends = Ends(self.ground, Meter(), Voice(app.broker, self.pool, skew), RANDOM)
        self.ends.join("w1", "")
        self.arrived: list[Delivery] = []
        self.session = Session(app.broker, "w1", 15.0, {"q": 10}, self.arrived.append)
        app.store.write([Write(lease_key("w1"), b"1")])

    def task(self, *, redelivered: bool = False) -> Task:
        """A job that was delivered here and has begun."""
        self.app.submit("t")
        assert self.session.next(5)
        delivery = self.arrived.pop()
        delivery.redelivered = redelivered
        head = decode_head(delivery.headers)
        kind = Kind("t", Rules(), 60.0, keep=60.0, seconds=0.0001)
        return Task(delivery, head, kind, head.counters, started=self.clock.at)

    def close(self) -> None:
        self.session.close()
        self.pool.close()


@pytest.fixture
def app() -> Iterator[App]:
    app = App("ends", f"memory://{uuid.uuid4().hex}", queue="q")
    yield app
    app.close()


@pytest.fixture
def told(app: App) -> Iterator[Told]:
    told = Told(app, indexed=True)
    yield told
    told.close()


def test_ends_of_short_jobs_are_told_together_within_five_milliseconds_of_the_first(told: Told) -> None:
    told.ends.add(told.task(), DONE)
    told.clock.at += 0.004
    told.ends.add(told.task(), DONE)
    waits = [told.ends.can_wait]
    told.clock.at += 0.0011
    waits.append(told.ends.can_wait)
    assert waits == [True, False]
    assert len(told.ends.settle(told.session)) == 2
    assert len(told.ends) == 0


def test_what_was_ended_by_a_settle_whose_answer_was_lost_is_not_taken_for_another_workers(
    app: App, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened = memory.Transport.open_engine
    monkeypatch.setattr(memory.Transport, "open_engine", lambda *args: Flaky(opened(*args), "settle", moment="after"))
    with closing(Told(app, indexed=True)) as told:
        told.ends.add(told.task(), DONE)
        with pytest.raises(BrokerUnreachable):
            told.ends.settle(told.session)
        told.ends.add(told.task(), DONE)
        assert len(told.ends.settle(told.session)) == 2
    assert not [record for record in caplog.records if "another worker" in record.msg]


@pytest.mark.parametrize("state", [None, "state.db"], ids=["one file", "two files"])
def test_a_settle_waits_for_the_disk_once_for_each_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str | None
) -> None:
    """Where record and ack are in one file, in this order, who has brought one to the disk has brought both."""
    waited: list[object] = []
    app = App(
        "ends", f"sqlite:///{tmp_path}/kq.db", queue="q", state=f"sqlite:///{tmp_path}/{state}" if state else None
    )
    with closing(app), closing(Told(app, indexed=True)) as told:
        told.ends.add(told.task(), DONE)
        monkeypatch.setattr(os, "fdatasync", waited.append)
        assert len(told.ends.settle(told.session)) == 1
        assert len(waited) == (2 if state else 1)


def test_an_end_that_others_wait_for_takes_those_of_short_jobs_along_at_once(told: Told) -> None:
    told.ends.add(told.task(), DONE)
    told.ends.add(told.task(), RETRY)
    assert not told.ends.can_wait


def test_the_end_of_a_job_that_may_run_elsewhere_is_told_at_once(told: Told) -> None:
    told.ends.add(told.task(redelivered=True), DONE)
    assert not told.ends.can_wait


def test_what_completed_is_written_down_when_the_broker_can_not_be_told(told: Told, app: App) -> None:
    task = told.task()
    told.ends.add(task, DONE)
    told.ends.lose()
    assert Handle[int](task.head.id, "q", app).result(0) == 7
    assert len(told.ends) == 0


def test_what_there_is_no_time_to_look_into_is_told_in_the_next_rounds(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker looks into the ledger what a job has begun that another type completed: the loop has more to do."""
    scan = MemoryStore.scan

    def slow(store: MemoryStore, prefix: str, limit: int = 1000) -> list[tuple[str, bytes]]:
        told.clock.at += 1.01 * LOOKING / 2
        return scan(store, prefix, limit)

    monkeypatch.setattr(MemoryStore, "scan", slow)
    for _ in range(3):
        task = told.task()
        task.head = replace(task.head, degraded_by=1)
        told.ends.add(task, DONE)
    assert len(told.ends.settle(told.session)) == 2
    assert (len(told.ends), told.ends.can_wait) == (1, False)
    assert told.ends.due <= told.clock.at
    assert len(told.ends.settle(told.session)) == 1
    assert (len(told.ends), told.ends.due) == (0, inf)


def test_nothing_follows_of_an_end_that_another_delivery_speaks_for(app: App) -> None:
    told = Told(app, indexed=False)
    task = told.task(redelivered=True)
    task.holder = "w1/q/1"
    app.store.write([Write(key_of(task), encode(Start("w2/q/1", 0)))])
    told.ends.add(task, RETRY)
    told.ends.settle(told.session)
    told.close()
    inspector = app.inspector()
    assert inspector.count("q").ready == inspector.count("q").delayed == 0  # the copy is gone, and no retry there
    inspector.close()
