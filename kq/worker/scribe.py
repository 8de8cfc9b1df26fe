"""What is written down when a job ends: records for the state store, and follow-ups for the broker. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from kq.broker import BURIED, PARKED
from kq.handles.lock import Lock
from kq.state.store import Write
from kq.values.fallback import Form
from kq.values.job import State
from kq.values.message import Attempt, Envelope, Head, again, set_aside
from kq.values.outcome import (
    COUNTED,
    CUT_OFF,
    Bury,
    Complete,
    Drop,
    Expire,
    FallBack,
    GiveBack,
    How,
    Park,
    PassOn,
    Retry,
    Revoke,
    Verdict,
    asks_a_human,
)
from kq.values.record import Cut, Record, Start, cut_key, encode, job_key, lease_key, place_key
from kq.values.redaction import beginning
from kq.worker.gauge import SHORT
from kq.worker.starts import START_KEEP, key_of
from kq.worker.task import Task

#: Seconds during which a second copy of a message is recognised, where the broker can't.
COPY_KEEP = 3600.0
#: Seconds that is remembered where a job went that runs in another queue than it was submitted to.
PLACE_KEEP = 370 * 86400.0
#: Seconds that is remembered that an attempt was cut off, for those who find what it had begun.
CUT_KEEP = 30 * 86400.0
#: How the record of a job begins that has not ended: only a human's word lets it go on, and its end replaces that.
NOT_OVER = b'{"state":"buried"'
#: Characters of an error in a job's history.
ERROR_LIMIT = 500


@dataclass(frozen=True, slots=True)
class Scribe:
    """Writes in the name of one worker. indexed: whether the broker knows its messages by id. code: what it runs."""

    worker: str
    host: str
    indexed: bool
    code: str

    def records(self, task: Task, verdict: Verdict, now: float, behind: float = 0.0) -> Iterator[Write]:
        """What the state store is to know of it, under the fence (promise C4).

        behind: seconds by which our clock is behind the state store's.
        """
        if isinstance(verdict, Complete):
            if not (task.kind.keep or task.holder or task.head.unique or verdict.staged):
                return  # nobody asks; a record that is made and thrown away costs as much as the rest of a short job
        elif _was_cut_off(task, verdict):
            yield Write(cut_key(task.head.id), encode(Cut(self.worker, now)), CUT_KEEP, lease_key(self.worker))
        record = self._record(task, verdict, now)
        key = key_of(task)
        mine = encode(Start(task.holder, task.starts)) if task.holder else b""
        keep = task.kind.keep or (COPY_KEEP if record is not None and record.staged else 0.0)
        if record is not None and keep > 0:
            yield Write(
                job_key(task.head.id), encode(record), keep, lease_key(self.worker), (key, mine), replaces=NOT_OVER
            )
        if mine:
            yield self._forget_start(task, key, mine, verdict)
        head = task.head
        if head.unique and record is not None and not (isinstance(verdict, Bury) and head.unique_until == "gone"):
            yield from lock_of(task).freed(now + behind, lease_key(self.worker), (key, mine))
        if isinstance(verdict, FallBack) or head.degraded_by:
            yield from self._moved(task, verdict, now, (key, mine))

    def _moved(self, task: Task, verdict: Verdict, now: float, unless: tuple[str, bytes]) -> Iterator[Write]:
        """Where a job goes, or ends, that something runs instead of, for who looks for it where it was submitted."""
        place, alive = place_key(task.head.id), lease_key(self.worker)
        first = task.head.first.queue if task.head.first else task.delivery.queue
        goes = self._form(task, verdict, now).queue if isinstance(verdict, FallBack | Bury) else task.delivery.queue
        if goes != task.delivery.queue:
            yield Write(place, None if goes == first else goes.encode(), PLACE_KEEP, alive, unless)
        elif goes != first and isinstance(verdict, Complete | Revoke | Expire):
            yield Write(place, None, None, alive, unless)

    def follow_ups(self, task: Task, verdict: Verdict, now: float) -> tuple[Envelope, ...]:
        """What is stored together with the job's ack."""
        if isinstance(verdict, Complete):
            # Who had it before may have released them and died before the broker was told that it is done.
            known = task.delivery.redelivered or task.head.again
            return tuple(each.again() if known else each for each in verdict.staged) if verdict.staged else ()
        queue = task.delivery.queue
        if isinstance(verdict, Retry | FallBack):
            form = self._form(task, verdict, now)
            delay = verdict.delay if isinstance(verdict, Retry) else 0.0
            head = msgspec.structs.replace(form.head, due=now + delay)
            return (_envelope(task, again(task.delivery.headers, head), form.queue, delay, form.body),)
        if isinstance(verdict, PassOn):
            head = msgspec.structs.replace(task.head.counting(task.counters), due=now + verdict.delay)
            return (_envelope(task, again(task.delivery.headers, head), queue, verdict.delay),)
        if isinstance(verdict, Bury):
            form = self._form(task, verdict, now)
            headers = self._buried(task, verdict, form, now)
            return (_envelope(task, headers, form.queue + BURIED, body=form.body),)
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
        if isinstance(verdict, Complete):
            return Record(
                State.COMPLETED,
                msgspec.Raw(verdict.value),
                ended=now,
                worker=self.worker,
                attempts=task.counters.attempts + 1,
                type=task.head.type,
                queue=task.delivery.queue,
                log=task.log,
                history=task.head.history,
                degraded_by=task.head.degraded_by,
                staged=verdict.staged,
                took=round(task.took, 4) if task.took >= SHORT else None,
                cpu=task.cpu,
                rss=task.rss,
            )
        common: dict[str, Any] = {
            "ended": now,
            "worker": self.worker,
            "attempts": task.counters.attempts + 1,
            "type": task.head.type,
            "queue": task.delivery.queue,
            "history": task.head.history,
            "degraded_by": task.head.degraded_by,
        }
        match verdict:
            case Bury(failure):
                form = self._form(task, verdict, now)
                head, error = form.head, _error(task, verdict)
                common |= {
                    "history": head.history,
                    "type": head.type,
                    "queue": form.queue,
                    "degraded_by": head.degraded_by,
                }
                return Record(State.BURIED, error=error, traceback=failure.traceback, **common)
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
        # Its record tells a copy that comes later by itself. One that runs by now is only told apart by this.
        known = isinstance(verdict, Complete) and task.kind.keep > 0 and (self.indexed or not task.suspect)
        # Starts that were counted are so until the broker was told: if we die before that, the job comes back.
        if (self.indexed and not task.starts) or known or isinstance(verdict, GiveBack | Park | PassOn):
            return Write(key, None, None, alive, unless)
        return Write(key, mine, COPY_KEEP, alive, unless)

    def _buried(self, task: Task, verdict: Bury, form: Form, now: float) -> Mapping[str, Any]:
        """The headers of a job that is set aside."""
        queue, error = form.queue, _error(task, verdict)
        if not task.kind.name:  # it could not even be read
            return set_aside(task.delivery.headers, error=error, buried=now, queue=queue)
        traceback, log = verdict.failure.traceback or None, verdict.failure.log or task.log or None
        head = msgspec.structs.replace(form.head, error=error, traceback=traceback, log=log, buried=now, queue=queue)
        return again(task.delivery.headers, head)

    def _form(self, task: Task, verdict: Retry | FallBack | Bury, now: float) -> Form:
        """The job as it goes on, or lies."""
        form = Form(self._after(task, verdict, now), task.delivery.body, task.delivery.queue)
        if isinstance(verdict, FallBack):
            return form.next(task.stages)
        return form.put_back() if _is_exhausted(task, verdict) else form

    def _after(self, task: Task, verdict: Retry | FallBack | Bury, now: float) -> Head:
        """The job's head with what is counted and remembered of this attempt, if there was one."""
        if verdict.how is None:
            return task.head
        attempt = self.attempt(task, verdict.how, str(verdict.failure), now)
        # What has begun has had its key, or found that nobody else had it.
        head = msgspec.structs.replace(task.head, unique_late=False)
        return head.counting(verdict.counters).after(attempt)

    def attempt(self, task: Task, how: How | Literal["completed"], error: str, now: float) -> Attempt:
        """A line of history about what this worker did, or the one that went down with the job."""
        counter = "" if how == "completed" else COUNTED[how]
        number, error = task.counters.attempts + 1, beginning(error, ERROR_LIMIT)
        worker = task.holder.partition("/")[0] or self.worker
        type = task.head.type if task.stages else ""
        if worker != self.worker:  # it went down with that one, and nobody knows more
            return Attempt(number, worker, now, now, how, error, counter=counter, type=type)
        return Attempt(
            number,
            worker,
            task.began,
            now,
            how,
            error,
            counter=counter,
            host=self.host,
            code=self.code,
            type=type,
            cpu=task.cpu,
            rss=task.rss,
        )


def _was_cut_off(task: Task, verdict: Verdict) -> bool:
    """Whether the attempt may have ended in the middle of something, and not said so."""
    if isinstance(verdict, Retry | FallBack | Bury):
        return verdict.how in CUT_OFF
    return isinstance(verdict, Revoke) and task.ran is not None


def _is_exhausted(task: Task, verdict: Retry | Bury) -> bool:
    """Whether the last of its fallbacks gave up: then it lies as it was submitted, to begin anew when it is kicked."""
    if not isinstance(verdict, Bury) or not task.head.degraded_by or task.next is not None:
        return False
    return verdict.how is not None and not asks_a_human(verdict.failure)


def _error(task: Task, verdict: Bury) -> str:
    """Why the job lies there, in one line."""
    if not task.head.degraded_by:
        return str(verdict.failure)
    return f"{verdict.failure} ({task.head.type}, fallback {task.head.degraded_by} of {len(task.stages)})"


def lock_of(task: Task) -> Lock:
    """The lock of a job that has a unique key."""
    head = task.head
    return Lock(head.unique or "", head.id, task.delivery.queue, head.unique_until or "", head.unique_at_least or 0.0)


def _envelope(
    task: Task, headers: Mapping[str, Any], queue: str, delay: float = 0.0, body: bytes | None = None
) -> Envelope:
    """The job's message once more, under other headers. body: another one."""
    delivery = task.delivery
    body = delivery.body if body is None else body
    return Envelope(delivery.id or task.head.id, queue, body, headers, delivery.priority, delay)
