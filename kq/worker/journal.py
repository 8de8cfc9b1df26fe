"""What a worker's log says of jobs: one line for each start and each end. Logger `kq.jobs`; `kq worker -v` shows all.

Failures are told on any level from INFO up, by `kq.worker`. The fields of a line are in its record's `kq`, for
formatters that write more than text.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from kq.units import format_duration
from kq.values.outcome import Bury, Complete, Drop, Expire, FallBack, GiveBack, Park, PassOn, Retry, Revoke, Verdict
from kq.worker.task import Task

_jobs = logging.getLogger("kq.jobs")
_worker = logging.getLogger("kq.worker")

#: Ends that are told of on any level from INFO up.
_TOLD_OF = (Retry, Bury, FallBack, PassOn)


def started(tasks: Iterable[Task]) -> None:
    """tasks have begun, on executors of this worker."""
    if _jobs.isEnabledFor(logging.INFO):
        for task in tasks:
            _jobs.info("%s started", _name(task), extra={"kq": _fields(task, "started")})


def ended(task: Task, verdict: Verdict, now: float) -> None:
    """task has ended with verdict, or goes without having begun. now: monotonic."""
    log = _worker if isinstance(verdict, _TOLD_OF) else _jobs
    level = logging.WARNING if isinstance(verdict, Bury) else logging.INFO
    if isinstance(verdict, Retry) and _is_one_of_many(verdict.counters.attempts):
        level = logging.DEBUG
    if not log.isEnabledFor(level):
        return
    (word, why), after = _told(task, verdict), ""
    fields = _fields(task, word)
    if task.started:
        fields["seconds"] = round(now - task.started, 6)
        after = f" after {format_duration(now - task.started)}"
    log.log(level, "%s %s%s%s", _name(task), word, after, why, extra={"kq": fields})


def _is_one_of_many(attempt: int) -> bool:
    """Whether this failed attempt is told on DEBUG only: all but each 10th from 20 on, each 100th from 100 on, …"""
    return attempt > 20 and attempt % 10 ** (len(str(attempt)) - 1) != 0


def _name(task: Task) -> str:
    return f"{task.head.type} {task.head.id} ({task.delivery.queue}, attempt {task.counters.attempts + 1})"


def _fields(task: Task, event: str) -> dict[str, Any]:
    return {
        "event": event,
        "job": task.head.id,
        "type": task.head.type,
        "queue": task.delivery.queue,
        "attempt": task.counters.attempts + 1,
    }


def _told(task: Task, verdict: Verdict) -> tuple[str, str]:
    """What became of a job in a word or two, and what more there is to say."""
    match verdict:
        case Complete():
            return "completed", ""
        case Retry(delay=delay, failure=failure):
            return "failed", f": {failure}; again " + (f"in {format_duration(delay)}" if delay else "at once")
        case FallBack(failure=failure):
            return "fell back", f": {failure}; {task.next.type if task.next else 'nothing'} runs instead"
        case Bury(failure=failure):
            return "buried", f": {failure}"
        case Revoke(reason=reason):
            return "revoked", f": {reason}"
        case GiveBack():
            return "given back", ""
        case Park():
            return "parked", ""
        case PassOn(delay=delay, why=why):
            return why, f" for {format_duration(delay)}"
        case Expire():
            return "expired", ""
        case Drop():
            return "dropped", ": it runs or has ended elsewhere"
