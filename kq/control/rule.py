"""Rules: conditions of which people are told when they have been so for a while, and again when they are over. Pure.

A rule is a condition in the settings (`alerts.rules`), as `--fail-if` has it. What is so for a moment is no news, nor
is what ends for a moment: a worker that is deployed anew, a queue that is drained in bursts.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from kq.units import counted, format_duration, format_instant
from kq.values.condition import Condition
from kq.values.snapshot import QueueRow, Snapshot, WorkerRow

#: So many queues or workers are named in an alert.
LINES = 20
News: TypeAlias = Literal["so", "over"]


class Watched(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a rule stands. since: when it came to be so. ended: when it ceased to be; 0.0 while it is so.

    told: people know of it.
    """

    since: float
    ended: float = 0.0
    told: bool = False


def watched(before: Watched | None, met: bool | None, now: float, after: float) -> tuple[Watched | None, News | None]:
    """How a rule stands now, and what people are to be told. None: it is not so, and nobody thinks that it is.

    met: whether its condition is so; None when nobody knows. after: seconds that either has to last.
    """
    if met is None:
        return before, None
    if before is None:
        return (Watched(now), None) if met else (None, None)
    if met:
        again = Watched(before.since, told=before.told)
        is_news = not before.told and now - before.since >= after
        return (Watched(before.since, told=True), "so") if is_news else (again, None)
    if not before.told:
        return None, None
    ended = before.ended or now
    return (None, "over") if now - ended >= after else (Watched(before.since, ended, told=True), None)


def told_of(
    app: str, rule: Condition, before: Watched, news: News, shot: Snapshot, after: float
) -> tuple[str, str, dict[str, Any]]:
    """Subject and text of an alert, and the same for programs. before: how the rule stood until now."""
    queues, now = rule.queues(shot), shot.at
    workers = [row for row in shot.workers if row.state == rule.name]
    until = now if news == "so" else before.ended or now
    lasted = format_duration(max(0.0, round(until - before.since)))
    names = [row.name for row in queues] + [row.name for row in workers] if news == "so" else []
    about = f": {', '.join(names[:3])}{' …' if len(names) > 3 else ''}" if names else ""
    data = {"rule": rule.text, "state": news, "since": before.since, "until": None if news == "so" else until}
    data |= {"queues": [row.name for row in queues] if news == "so" else []}
    if news == "so":
        subject, lines = f"[{app}] {rule.text}{about}", [*_so(rule, before, lasted, queues, workers), ""]
        lines.append(f"You are told once, and again when it has been over for {format_duration(after)}.")
    else:
        span = f"from {format_instant(before.since)} to {format_instant(until)}"
        subject, lines = f"[{app}] over: {rule.text}", [f"{rule.text} is over: it was so for {lasted}, {span}."]
    return " ".join(subject.split())[:200], "\n".join(lines), data


def gone(app: str, rule: Condition, since: float, until: float) -> tuple[str, str, dict[str, Any]]:
    """The same of control, which cannot tell that it is not there: of who came next."""
    lasted = format_duration(round(until - since))
    text = (
        f"Nobody made control's rounds for {lasted}: from {format_instant(since)} to {format_instant(until)}.\n"
        "Jobs ran all the same. What control does waited: telling you, retiring dead workers, finishing what people "
        "began.\n\nlook:      kq workers ls\nwatch:     kq status --fail-if 'control<1'"
    )
    data = {"rule": rule.text, "state": "over", "since": since, "until": until, "queues": []}
    return f"[{app}] control was gone for {lasted}", text, data


def _so(
    rule: Condition, before: Watched, lasted: str, queues: Sequence[QueueRow], workers: Sequence[WorkerRow]
) -> Iterable[str]:
    yield f"{rule.text} has been so for {lasted}, since {format_instant(before.since)}."
    yield ""
    yield from (f"  queue {row.name}: {_state(row)}" for row in queues[:LINES])
    yield from (f"  worker {row.name}: {row.state}, last beat {format_duration(row.beat_age)} ago" for row in workers)
    if len(queues) > LINES:
        yield f"  and {len(queues) - LINES} more queues"
    if queues:
        yield ""
        yield f"why:       kq queues why {shlex.quote(queues[0].name)}"
    yield "look:      kq status"


def _state(row: QueueRow) -> str:
    told = [
        f"{row.ready:,} ready",
        f"{row.running:,} running",
        f"{row.buried:,} buried",
        counted(row.workers, "worker"),
    ]
    if row.oldest:
        told.insert(0, f"the oldest waits for {format_duration(row.oldest)}")
    if row.paused is not None:
        told.append(f"paused by {row.paused.by or 'somebody'}")
    return ", ".join(told)
