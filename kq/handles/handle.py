"""Handles: what a submitter holds of a job, and many of them at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from kq.aside import aside
from kq.broker import BURIED, PARKED
from kq.coming import Coming
from kq.errors import (
    BrokerError,
    ExecutorDied,
    JobBuried,
    JobError,
    JobFailed,
    JobRevoked,
    MessageError,
    ResultExpired,
    ResultTimeout,
)
from kq.handles.revoking import revoke
from kq.handles.standing import Order, caller
from kq.handles.whereabouts import Looks, find_state, place_of
from kq.state.store import Store, StoreUnreachable
from kq.values.job import State
from kq.values.outcome import DEATHS
from kq.values.record import Record, decode_record, job_key

if TYPE_CHECKING:
    from kq.handles.stream import Chunk
    from kq.values.event import Event

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

#: Seconds that result() waits when it is not told how long.
PATIENCE = 3600.0
#: as_completed() asks for so many jobs first, then for as many as make a round of results of so many bytes, up to MOST.
FIRST, MOST, ROUND = 50, 500, 4 * 1024 * 1024
#: Seconds between two attempts to wait at a state store that does not answer.
PAUSE = 0.2


class Handle(Generic[R_co]):
    """A submitted job, seen from outside. Two handles with the same id are the same job."""

    __slots__ = ("_app", "_told", "id", "queue")

    def __init__(self, id: str, queue: str, app: Looks) -> None:
        self.id = id
        self.queue = queue
        self._app = app
        self._told: bytes | None = None  # how it ended, as as_completed() saw it and nobody has asked since

    def __repr__(self) -> str:
        return f"<job {self.id} in {self.queue}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Handle) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def result(self, timeout: float | None = None) -> R_co:
        """What the job returned, as JSON values; waits for it without polling.

        timeout: seconds to wait, an hour by default. Raises ResultTimeout when the job has not ended by then,
        JobBuried when it was set aside (ExecutorDied when the processes that ran it died), JobFailed or JobRevoked
        when it ended without a result, ResultExpired when it ended and its result is not kept any more.
        """
        value: R_co = value_of(self.id, self._end(timeout))
        return value

    def degraded_by(self, timeout: float | None = None) -> int:
        """Which job type answered: 0 the one that was submitted, 1 the first that runs instead of it, and so on.

        Waits, and raises, as result() does.
        """
        record = self._end(timeout)
        value_of(self.id, record)
        return record.degraded_by

    def _end(self, timeout: float | None) -> Record:
        """How the job ended; raises ResultTimeout, or ResultExpired."""
        key, (found, self._told) = job_key(self.id), (self._told, None)
        if found is None:
            found = wait(self._app.store, [key], PATIENCE if timeout is None else timeout).get(key)
        if found is None:
            raise self._unheard()
        record = decode_record(found)
        if record is None:
            raise MessageError(f"how job {self.id} ended stands in the state store, but can't be read")
        return record

    def _unheard(self) -> JobError:
        """Why nothing was heard of the job's end."""
        return ResultExpired(self.id) if self._is_gone() else ResultTimeout(self.id)

    def _is_gone(self) -> bool:
        """Whether the job is certainly neither waiting nor running, although nothing is known of its end."""
        with suppress(BrokerError), closing(self._app.inspector()) as inspector:
            if not inspector.traits.indexed:
                return False  # such a broker does not show what its workers hold
            queue = place_of(self.id, self.queue, self._app.store)
            known = any(inspector.find(queue + place, [self.id]) for place in ("", PARKED, BURIED))
            return not known and self._app.store.get([job_key(self.id)])[0] is None
        return False

    def stream(self, offset: int = 0, *, timeout: float | None = None) -> Coming[Chunk]:
        """What the job emits, for `for` and `async for`: what stands there, then what comes, until the job has ended.

        offset: begin with this chunk; to go on after an interruption, one more than the last one's. A chunk that
        `begins` is the first of an attempt: what an earlier attempt emitted counts no more, and only the last one's
        chunks are kept, as long as the result is. timeout: seconds in all, an hour by default.
        The iterator raises ResultTimeout when the job has not ended by then, and StreamCut at the end when chunks were
        left out. How the job ended is told by result().
        """
        from kq.handles.stream import chunks  # who follows no stream pays for nothing of it

        return Coming(chunks(self._app.store, self.id, offset, PATIENCE if timeout is None else timeout))

    def events(self, *, timeout: float | None = None) -> Coming[Event]:
        """What happens to the job, for `for` and `async for`: first the last move that is known of it, then each as it
        comes, until it has completed, was buried, revoked or has expired.

        The names are those of `kq events`. While it is followed its worker tells of it and of no other job for that; it
        goes on when the connection was lost, with the move that is then the last one. Moves of the first second, and of
        an outage, may be passed over; the end never is, where results are kept. timeout: seconds in all, an hour by
        default. The iterator raises ResultTimeout when the job has not ended by then.
        """
        from kq.handles.following import moves  # who follows no job pays for nothing of it

        lasts = PATIENCE if timeout is None else timeout
        return Coming(moves(self._app, self.id, self.queue, lasts, threading.Event()))

    def __await__(self) -> Generator[Any, None, R_co]:
        return self.result() if self._told is not None else (yield from aside(self.result).__await__())

    def state(self) -> State:
        """Where the job is now."""
        with closing(self._app.inspector()) as inspector:
            return find_state(self.id, self.queue, self._app.store, inspector)

    def revoke(self, *, interrupt: bool = False, reason: str = "") -> bool:
        """End the job (promise C10): one that waits or is delayed never starts, one that runs does not run again.

        interrupt: one that runs is interrupted too, as at its timeout, and killed when it ignores that. False when it
        has ended or was buried, or is not known.
        """
        order = Order(by=caller(), reason=reason, interrupt=interrupt)
        with closing(self._app.inspector()) as inspector:
            return revoke(self.id, self.queue, order, self._app, inspector)


class Completing(Generic[R]):
    """Handles, each as soon as its job has ended, for `for` and for `async for`; made by as_completed()."""

    def __init__(self, handles: Iterable[Handle[R]], timeout: float | None) -> None:
        self._handles = list(handles)
        self._timeout = PATIENCE if timeout is None else timeout
        if any(handle._app is not self._handles[0]._app for handle in self._handles):
            raise ValueError("these handles are of more than one app; wait for those of each app apart")

    def __iter__(self) -> Iterator[Handle[R]]:
        return chain.from_iterable(self._rounds())

    async def __aiter__(self) -> AsyncIterator[Handle[R]]:
        rounds = self._rounds()
        nothing: list[Handle[R]] = []
        while ended := await aside(next, rounds, nothing):
            for handle in ended:
                yield handle

    def _rounds(self) -> Iterator[list[Handle[R]]]:
        """Those that have ended since the last round."""
        until = time.monotonic() + self._timeout
        left: dict[str, list[Handle[R]]] = {}
        for handle in self._handles:
            left.setdefault(job_key(handle.id), []).append(handle)
        together = FIRST
        while left:
            asked = list(islice(left, together))
            found = wait(self._handles[0]._app.store, asked, until - time.monotonic())
            if not found:
                raise left[asked[0]][0]._unheard()
            size = sum(map(len, found.values()))
            together = max(1, min(MOST, ROUND * len(found) // max(1, size)))
            yield [_telling(handle, told) for key, told in found.items() for handle in left.pop(key)]


def _telling(handle: Handle[R], told: bytes) -> Handle[R]:
    """handle, of which it is known how its job ended."""
    handle._told = told
    return handle


def as_completed(handles: Iterable[Handle[R]], timeout: float | None = None) -> Completing[R]:
    """handles, each as soon as its job has ended or was buried; for `for` and for `async for`.

    The next result() of such a handle returns, or raises, at once; so thousands of results cost a few round trips.
    It waits for up to 500 jobs at a time, those that stand first.
    timeout: seconds for all of them, an hour by default. After that ResultTimeout, or ResultExpired, is raised for the
    first job of which nothing was heard. Raises ValueError for handles of more than one app.
    """
    return Completing(handles, timeout)


def wait(store: Store, keys: Sequence[str], timeout: float) -> dict[str, bytes]:
    """store.wait_any() that outlives an outage (promise C18). Raises StoreUnreachable when that lasts to the end."""
    until = time.monotonic() + timeout
    while True:
        try:
            return store.wait_any(keys, max(0.0, until - time.monotonic()))
        except StoreUnreachable:
            if time.monotonic() + PAUSE >= until:
                raise
            time.sleep(PAUSE)


def value_of(job: str, record: Record) -> Any:
    """The result in record; raises what says why there is none."""
    if record.state is State.COMPLETED:
        return msgspec.json.decode(record.value)
    kind = {State.BURIED: JobBuried, State.REVOKED: JobRevoked, State.EXPIRED: JobRevoked}.get(record.state, JobFailed)
    if kind is JobBuried and record.history and record.history[-1].outcome in DEATHS:
        kind = ExecutorDied
    raise kind(job, record.error, traceback=record.traceback)
