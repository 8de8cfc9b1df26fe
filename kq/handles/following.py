"""Following one job: how it stands, then what happens to it, until it has ended.

Its moves are told by workers while somebody follows it, and of no other job for that; that it has ended is also looked
for where it is recorded, since events are told at most once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing

import msgspec

from kq.broker import BURIED, PARKED, Inspector, Seen, home_of
from kq.clock import SYSTEM, made_at
from kq.errors import BrokerError, MessageError, ResultTimeout
from kq.handles.listening import heard
from kq.handles.standing import followed
from kq.handles.whereabouts import Looks, place_of, state_of
from kq.state.store import StoreUnreachable
from kq.values.event import ENDS, MOVES, Event, followed_key
from kq.values.failure import group_of
from kq.values.job import State
from kq.values.message import decode_head
from kq.values.reading import reader
from kq.values.record import decode_record, job_key, worker_key
from kq.values.redaction import one_line, redacted_text

#: Seconds between two looks whether it has ended, and that the event which tells so may be late.
LOOK, LATE = 1.0, 0.5
#: Seconds after which all workers know that somebody follows: how the job stands is looked for again then.
KNOWN = 1.5
#: Seconds after a look in which older events are left out.
STALE = 2.0
#: Seconds between two tries at a broker that does not answer.
AGAIN = 1.0
#: So many workers are asked what they run.
WORKERS = 10_000

#: The move that brought a job into a state in which it ends here.
_LAST = {
    State.COMPLETED: "completed",
    State.BURIED: "buried",
    State.REVOKED: "revoked",
    State.DELETED: "revoked",
    State.EXPIRED: "expired",
}


def moves(
    app: Looks, job: str, queue: str, timeout: float, over: threading.Event
) -> Generator[Event | None, None, None]:
    """The last known move of a job, then its moves as they are told, to its end; None while nothing happens.

    queue: that it was submitted to. timeout: seconds in all. over: ends it. Raises ResultTimeout when the job has not
    ended by then. A broker that does not answer is asked again, and then how the job stands is told anew if it has
    changed.
    """
    watch, until = _Watch(app, job, queue), time.monotonic() + timeout
    if (ended := watch.recorded()) is not None:
        yield ended
        return
    while not over.is_set():
        inspector = app.inspector()
        try:
            with closing(heard(app, inspector, followed(job), [followed_key(job)], over)) as events:
                watch.begin(inspector)
                for event in events:
                    for told in watch.seen(event):
                        yield told
                        if told.event in ENDS:
                            return
                    if time.monotonic() >= until:
                        raise ResultTimeout(job)
                    if event is None:
                        yield None
        except (BrokerError, StoreUnreachable):
            if time.monotonic() + AGAIN >= until:
                raise
            over.wait(AGAIN)
            yield None
        finally:
            inspector.close()


class _Watch:
    """What has been told of a job, and what is still to be."""

    def __init__(self, app: Looks, job: str, queue: str) -> None:
        self._app, self._job, self._queue = app, job, queue
        self._told: Event | None = None

    def begin(self, inspector: Inspector) -> None:
        """From now on its moves are heard."""
        self._inspector = inspector
        self._looks = [0.0, time.monotonic() + KNOWN]
        self._next, self._ended, self._looked = 0.0, 0.0, 0.0

    def seen(self, event: Event | None) -> Iterator[Event]:
        """What is to be told after event; after None what a look finds, if it is time for one."""
        looked = event is None
        event = event or self._look()
        if event is None or event.event not in MOVES or event.job != self._job:  # a stranger may have said it
            return
        if event.event not in ENDS and (self._is_told(event) or self._is_stale(event, looked)):
            return
        if event.event != "progress":
            self._told = event
        yield event

    def _is_told(self, event: Event) -> bool:
        """Whether this move, or one that comes after it, is what was told last."""
        if self._told is None:
            return False
        return event.event == "submitted" or (event.event, event.attempt) == (self._told.event, self._told.attempt)

    def _is_stale(self, event: Event, looked: bool) -> bool:
        """Whether it happened before what was told: what a look finds, and what was on its way when one took place."""
        if self._told is None or not (looked or time.monotonic() < self._looked + STALE):
            return False
        return event.at < self._told.at or event.attempt < self._told.attempt

    def _look(self) -> Event | None:
        now = time.monotonic()
        if self._looks and now >= self._looks[0]:
            del self._looks[0]
            self._looked = now
            return self._last_move()
        if now >= self._next:
            self._next = now + LOOK
            if not self._ended and self._app.store.get([job_key(self._job)])[0] is not None:
                self._ended = now
        if self._ended and now >= self._ended + LATE:
            return self.recorded()
        return None

    # How it stands.

    def _last_move(self) -> Event | None:
        """The last move that is known of the job."""
        if (event := self.recorded()) is not None:
            return event
        queue = place_of(self._job, self._queue, self._app.store)
        for place in ("", PARKED, BURIED):
            for seen in self._inspector.find(queue + place, [self._job]):
                return self._found(seen)
        # It may have ended meanwhile; else a worker has it, and this broker does not show what workers have.
        return self.recorded() or self._running() or self._event("submitted", made_at(self._job) or SYSTEM.now())

    def _event(self, name: str, at: float, queue: str = "", **more: object) -> Event:
        return Event(event=name, at=at, job=self._job, queue=queue or self._queue, **more)  # type: ignore[arg-type]

    def recorded(self) -> Event | None:
        """How it ended, or that it was buried."""
        record = decode_record(self._app.store.get([job_key(self._job)])[0])
        name = None if record is None else _LAST.get(record.state)
        if record is None or name is None:
            return None
        return self._event(
            name,
            record.ended,
            record.queue,
            type=record.type,
            worker=record.worker,
            attempt=record.attempts,
            error=group_of(record.error, "")[0] if name == "buried" else "",
            message=redacted_text(one_line(record.error)),
        )

    def _found(self, seen: Seen) -> Event:
        """The last move of a job whose message is there."""
        queue = home_of(seen.queue)
        try:
            head = decode_head(seen.headers)
        except MessageError:
            return self._event("submitted", SYSTEM.now(), queue)
        state, last = state_of(seen), next((each for each in reversed(head.history) if each.number), None)
        if state is State.RESERVED and (running := self._running()) is not None:
            return msgspec.structs.replace(running, type=head.type, queue=queue, attempt=head.counters.attempts + 1)
        if state is State.PAUSED:
            return self._event("parked", SYSTEM.now(), queue, type=head.type)
        if last is None or state is State.BURIED:
            name = "buried" if state is State.BURIED else "submitted"
            at = seen.headers.get("buried") if name == "buried" else head.submitted_at
            said = redacted_text(one_line(seen.headers.get("error") or ""))
            return self._event(name, float(at or SYSTEM.now()), queue, type=head.type, next=seen.due, message=said)
        return self._event(
            "failed",
            last.ended,
            queue,
            type=head.type,
            worker=last.worker,
            attempt=last.number,
            error=group_of(last.error, "")[0],
            message=redacted_text(one_line(last.error)),
            next=seen.due,
        )

    def _running(self) -> Event | None:
        """That an attempt has begun, where a worker said so with its last beat."""
        for _, told in self._app.store.scan(worker_key(""), WORKERS):
            worker = _decode_worker(told)
            for job in () if worker is None else worker.running:
                if worker is not None and job.id == self._job:
                    return self._event("started", job.since, job.queue, type=job.type, worker=worker.name, attempt=1)
        return None


class _Running(msgspec.Struct, frozen=True):
    id: str
    type: str
    queue: str
    since: float


class _Worker(msgspec.Struct, frozen=True):
    """What a worker says of itself, as far as it matters here."""

    name: str
    running: list[_Running] = []


_decode_worker = reader(_Worker)
