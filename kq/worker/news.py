"""What a worker tells those who listen: the moves of its jobs as events, without what looks like a secret. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import structs

from kq.values.event import Event
from kq.values.failure import Failure, group_of
from kq.values.outcome import Bury, Complete, Expire, FallBack, GiveBack, Park, PassOn, Retry, Revoke, Verdict
from kq.values.redaction import one_line, redacted_text
from kq.worker.slate import Written
from kq.worker.task import Task


def started(task: Task, worker: str, at: float) -> Event:
    """An attempt at task has begun."""
    return Event(
        event="started",
        at=at,
        job=task.head.id,
        type=task.head.type,
        queue=task.delivery.queue,
        worker=worker,
        attempt=task.counters.attempts + 1,
    )


def progress(task: Task, written: Written, worker: str, at: float) -> Event:
    """task said how far it is."""
    return structs.replace(
        started(task, worker, at), event="progress", n=written.n, of=written.of or None, message=one_line(written.text)
    )


def ended(task: Task, verdict: Verdict, worker: str, at: float) -> Iterator[Event]:
    """task was settled with verdict."""
    told = _told(verdict)
    if told is None:
        return
    name, failure, delay = told
    error = "" if failure is None else str(failure)
    yield Event(
        event=name,
        at=at,
        job=task.head.id,
        type=task.head.type,
        queue=task.delivery.queue,
        worker=worker,
        attempt=task.counters.attempts + 1,
        seconds=None if task.ran is None else round(task.ran, 6),
        error="" if failure is None else group_of(error, "")[0],
        message=redacted_text(one_line(verdict.reason if isinstance(verdict, Revoke) else error)),
        next=None if delay is None else at + delay,
    )
    if isinstance(verdict, Complete):
        for each in verdict.staged:
            yield Event(
                event="submitted", at=at, job=each.id, type=str(each.headers.get("type") or ""), queue=each.queue
            )


def _told(verdict: Verdict) -> tuple[str, Failure | None, float | None] | None:
    """The name of an event, what failed, and for how long the job waits now; None for what is no event."""
    match verdict:
        case Complete():
            return "completed", None, None
        case Retry(delay=delay, failure=failure):
            return "failed", failure, delay
        case FallBack(failure=failure):
            return "fell back", failure, 0.0
        case Bury(failure=failure):
            return "buried", failure, None
        case Revoke():
            return "revoked", None, None
        case Expire():
            return "expired", None, None
        case GiveBack():
            return "given back", None, None
        case Park():
            return "parked", None, None
        case PassOn(delay=delay):
            return "passed on", None, delay
    return None
