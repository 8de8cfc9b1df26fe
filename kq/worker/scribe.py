"""What is written down when a job ends: records for the state store, and follow-ups for the broker. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from kq.broker import BURIED, PARKED
from kq.job import State
from kq.message import Attempt, Envelope, Head, again, set_aside
from kq.outcome import (
    COUNTED,
    Bury,
    Complete,
    Drop,
    Expire,
    GiveBack,
    How,
    Park,
    PassOn,
    Retry,
    Revoke,
    Verdict,
)
from kq.record import Record, Start, encode, job_key, lease_key, unique_key
from kq.state.store import Write
from kq.worker.pool import Task
from kq.worker.starts import START_KEEP, key_of

#: Seconds during which a second copy of a message is recognised, where the broker can't.
COPY_KEEP = 3600.0
#: Characters of an error in a job's history.
ERROR_LIMIT = 500


@dataclass(frozen=True, slots=True)
class Scribe:
    """Writes in the name of one worker. indexed: whether the broker knows its messages by id. code: what it runs."""

    worker: str
    host: str
    indexed: bool
    code: str

    def records(self, task: Task, verdict: Verdict, now: float) -> Iterator[Write]:
        """What the state store is to know of it, under the fence (promise C4)."""
        record = self._record(task, verdict, now)
        key = key_of(task)
        mine = encode(Start(task.holder, task.starts)) if task.holder else b""
        keep = task.kind.keep or (COPY_KEEP if record is not None and record.staged else 0.0)
        if record is not None and keep > 0:
            yield Write(job_key(task.head.id), encode(record), keep, lease_key(self.worker), (key, mine))
        if mine:
            yield self._forget_start(task, key, mine, verdict)
        if task.head.unique and record is not None:
            lock = unique_key(task.head.unique)
            yield Write(lock, None, None, lease_key(self.worker), (key, mine), (lock, task.head.id.encode()))

    def follow_ups(self, task: Task, verdict: Verdict, now: float) -> tuple[Envelope, ...]:
        """What is stored together with the job's ack."""
        queue = task.delivery.queue
        if isinstance(verdict, Retry):
            return (
                _envelope(task, again(task.delivery.headers, self._after(task, verdict, now)), queue, verdict.delay),
            )
        if isinstance(verdict, PassOn):
            return (_envelope(task, again(task.delivery.headers, task.head), queue, verdict.delay),)
        if isinstance(verdict, Bury):
            return (_envelope(task, self._buried(task, verdict, now), queue + BURIED),)
        if isinstance(verdict, Complete) and verdict.staged:
            # Who had it before may have released them and died before the broker was told that it is done.
            known = task.delivery.redelivered or task.head.again
            return tuple(each.again() if known else each for each in verdict.staged)
        if isinstance(verdict, Drop):
            return tuple(each.again() for each in verdict.staged)
        if isinstance(verdict, Park):
            # The record of starts that nobody told the end of ends here, so they are counted on in the message.
            return (_envelope(task, again(task.delivery.headers, task.head.counting(task.counters)), queue + PARKED),)
        return ()

    def released(self, task: Task, verdict: Verdict, now: float) -> Iterator[Write]:
        """What is to be forgotten when the broker has the jobs that were staged; records() was told the same now."""
        record = self._record(task, verdict, now)
        if record is not None and record.staged:
            key, known = job_key(task.head.id), encode(record)
            rest = encode(msgspec.structs.replace(record, staged=())) if task.kind.keep > 0 else None
            yield Write(key, rest, task.kind.keep or None, must=(key, known))

    def _record(self, task: Task, verdict: Verdict, now: float) -> Record | None:
        common: dict[str, Any] = {
            "ended": now,
            "worker": self.worker,
            "attempts": task.counters.attempts + 1,
            "type": task.head.type,
            "queue": task.delivery.queue,
            "history": task.head.history,
        }
        match verdict:
            case Complete(value, staged):
                return Record(State.COMPLETED, value=msgspec.Raw(value), staged=staged, **common)
            case Bury(failure):
                common["history"] = self._after(task, verdict, now).history
                return Record(State.BURIED, error=str(failure), traceback=failure.traceback, **common)
            case Revoke(reason):
                return Record(State.REVOKED, error=reason, **common)
            case Expire():
                return Record(State.EXPIRED, error="its deadline passed before it started", **common)
        return None

    def _forget_start(self, task: Task, key: str, mine: bytes, verdict: Verdict) -> Write:
        """Undo or end the start record of task, if it still is ours, and we are still to be believed."""
        alive, unless, others = lease_key(self.worker), (key, mine), task.starts - task.counted
        if isinstance(verdict, GiveBack) and others:
            return Write(key, encode(Start("", others)), START_KEEP, alive, unless)
        known = isinstance(verdict, Complete) and task.kind.keep > 0  # its record tells a late copy by itself
        # Starts that were counted are so until the broker was told: if we die before that, the job comes back.
        if (self.indexed and not task.starts) or known or isinstance(verdict, GiveBack | Park):
            return Write(key, None, None, alive, unless)
        return Write(key, mine, COPY_KEEP, alive, unless)

    def _buried(self, task: Task, verdict: Bury, now: float) -> Mapping[str, Any]:
        """The headers of a job that is set aside."""
        queue, error = task.delivery.queue, str(verdict.failure)
        if not task.kind.name:  # it could not even be read
            return set_aside(task.delivery.headers, error=error, buried=now, queue=queue)
        traceback, log = verdict.failure.traceback or None, verdict.failure.log or None
        head = self._after(task, verdict, now)
        head = msgspec.structs.replace(head, error=error, traceback=traceback, log=log, buried=now, queue=queue)
        return again(task.delivery.headers, head)

    def _after(self, task: Task, verdict: Retry | Bury, now: float) -> Head:
        """The job's head with what is counted and remembered of this attempt, if there was one."""
        if verdict.how is None:
            return task.head
        attempt = self.attempt(task, verdict.how, str(verdict.failure), now)
        return task.head.counting(verdict.counters).after(attempt)

    def attempt(self, task: Task, how: How | Literal["completed"], error: str, now: float) -> Attempt:
        """A line of history about what this worker did, or the one that went down with the job."""
        counter = "" if how == "completed" else COUNTED[how]
        number, error = task.counters.attempts + 1, error[:ERROR_LIMIT]
        worker = task.holder.partition("/")[0] or self.worker
        if worker != self.worker:  # it went down with that one, and nobody knows more
            return Attempt(number, worker, now, now, how, error, counter=counter)
        return Attempt(number, worker, task.began, now, how, error, counter=counter, host=self.host, code=self.code)


def _envelope(task: Task, headers: Mapping[str, Any], queue: str, delay: float = 0.0) -> Envelope:
    """The job's message once more, under other headers."""
    delivery = task.delivery
    return Envelope(delivery.id or task.head.id, queue, delivery.body, headers, delivery.priority, delay)
