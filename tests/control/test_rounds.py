"""Control may fail at any call it makes: the next one finishes what it began, and nothing is told twice."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import pytest

from kq.app import App
from kq.broker import PARKED, Delivery, Inspector, Session, Settlement
from kq.conformance.contract.waiting import eventually
from kq.control import Control, rounds
from kq.control.parking import SILENCE, put_back
from kq.control.program import controlled
from kq.control.rounds import Rounds
from kq.control.sight import RunningJob, WorkerInfo
from kq.handles.standing import Kind, Order, give
from kq.state.store import Store, StoreUnreachable, Write
from kq.values.job import State
from kq.values.message import Envelope
from kq.values.record import SEAT, encode, worker_key
from kq_transports.engine import Counts

R = TypeVar("R")
LEASE = 1.0


class Failing(Store):
    """A state store whose call number `fails_at` raises, before or after it was carried out."""

    def __init__(self, inner: Store, fails_at: int, *, after: bool) -> None:
        self._inner, self._left, self._after = inner, fails_at, after

    def _call(self, verb: Callable[[], R]) -> R:
        self._left -= 1
        fails = self._left == -1
        if fails and not self._after:
            raise StoreUnreachable("gone")
        found = verb()
        if fails:
            raise StoreUnreachable("gone")
        return found

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        return self._call(lambda: self._inner.get(keys))

    def write(self, writes: Sequence[Write]) -> list[bool]:
        return self._call(lambda: self._inner.write(writes))

    def scan(self, prefix: str, limit: int = 1000) -> list[tuple[str, bytes]]:
        return self._call(lambda: self._inner.scan(prefix, limit))

    def wait_any(self, keys: Sequence[str], timeout: float) -> dict[str, bytes]:
        return self._call(lambda: self._inner.wait_any(keys, timeout))

    def now(self) -> float:
        return self._call(self._inner.now)

    def close(self) -> None:
        self._inner.close()


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    app = App("rounds", f"sqlite:///{tmp_path}/kq.db", lease=LEASE)
    app.job(name="note")(print)
    yield app
    app.close()


@pytest.fixture
def sessions() -> Iterator[list[Session]]:
    """Those of workers that died: nobody beats for them, and nobody says goodbye."""
    sessions: list[Session] = []
    yield sessions
    for session in sessions:
        session.close()


def dead_worker(app: App, job: str) -> Session:
    """A worker that took a job, told of it, and is never heard again."""
    delivered: list[Delivery] = []
    session = Session(app.broker, f"victim-{job}", LEASE, {"default": 1}, delivered.append)
    assert session.next(5)
    now = app.store.now()
    runs = [RunningJob(job, "note", "default", now, 1.0, 600.0)]
    long_ago = now - 2 * LEASE
    worker = WorkerInfo(session.name, "web1", 1, long_ago, long_ago, LEASE, "process", 1, {"default": 1}, running=runs)
    app.store.write([Write(worker_key(session.name), encode(worker))])
    return session


@pytest.mark.parametrize("after", [False, True], ids=["before its effect", "after its effect"])
def test_a_round_that_fails_at_any_call_is_finished_by_the_next(
    app: App,
    sessions: list[Session],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    after: bool,
) -> None:
    monkeypatch.setattr(rounds, "ANSWER", 0.01)  # the dead never will
    caplog.set_level(logging.INFO, "kq.control")
    for fails_at in itertools.count():
        job = app.submit("note", str(fails_at))
        sessions.append(dead_worker(app, job.id))
        give(app.store, Kind.RESUME_TYPE, "note", Order())
        failed = one_round(app, fails_at, after)
        one_round(app, -1, after)
        assert job.state() is State.READY
        # One whose claim was made and not heard is not told of: rather that than twice.
        told = caplog.text.count(f"retired victim-{job.id}")
        assert told == 1 or (after and told == 0)
        assert not app.store.scan("order:resume-type:")
        assert job.revoke()
        if not failed:
            break
    assert fails_at > 5


def one_round(app: App, fails_at: int, after: bool) -> bool:
    """A round of a new control, whose call of that number to the state store fails; whether that happened."""
    plain = app.store
    failing = Failing(plain, fails_at, after=after) if fails_at >= 0 else plain
    app.connect(app.publisher, failing)
    made = Rounds(app)
    try:
        made.tick()
    except StoreUnreachable:
        return True
    finally:
        app.connect(app.publisher, plain)
        made.close()
        plain.write([Write(SEAT, None)])  # as when the lease of a dead one's seat is over
    return False


def test_who_puts_back_what_others_took_meanwhile_keeps_a_lease_that_is_shorter_than_its_patience(
    app: App, sessions: list[Session]
) -> None:
    class LookedThroughLate(Inspector):
        """Somebody takes the jobs just after they were counted."""

        def count(self, queue: str) -> Counts:
            counts = super().count(queue)
            taken: list[Delivery] = []
            sessions.append(Session(app.broker, "faster", 60, {queue: 10}, taken.append))
            assert sessions[-1].next(5)
            return counts

    assert LEASE < SILENCE
    parked: list[Delivery] = []
    app.submit("note", "x")
    sessions.append(Session(app.broker, "parks", 60, {"default": 1}, parked.append))
    assert sessions[-1].next(5)
    (job,) = parked
    sessions[-1].settle([Settlement(job, (Envelope(job.id, f"default{PARKED}", job.body, job.headers),))])
    with closing(LookedThroughLate(app.broker)) as inspector:
        assert put_back(app, inspector, f"default{PARKED}", {"note"}) == 0


def test_rounds_go_on_after_what_nobody_thought_of(app: App, caplog: pytest.LogCaptureFixture) -> None:
    seats: list[str] = []

    def odd(record: logging.LogRecord) -> bool:
        """A filter as an application may have one, that does not like the first line that it gets."""
        if "has the seat" in record.getMessage():
            seats.append(record.getMessage())
            if len(seats) == 1:
                raise LookupError("no such tenant")
        return True

    control = logging.getLogger("kq.control")
    control.addFilter(odd)
    caplog.set_level(logging.INFO, "kq.control")
    try:
        with controlled(app) as program:
            eventually(lambda: len(seats) > 1 and program.seated, "it has the seat again")
    finally:
        control.removeFilter(odd)
    assert ["no such tenant" in record.getMessage() for record in caplog.records].count(True) == 1
    assert "Traceback" in caplog.text


def test_control_can_be_looked_through_while_another_acts(app: App) -> None:
    app.submit("note", "x")
    made = Rounds(app)
    made.tick()
    with Control(app) as control:
        assert not control.health()
        assert control.ping() == []
    made.close()
