"""Troubles in words, as people are told of them: of the first of a group, and of many in a digest."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from kq.clock import new_id
from kq.handles.trouble import Alert, Trouble
from kq.plain import printable, printable_lines
from kq.units import format_duration, format_instant
from kq.values.redaction import one_line

#: So many groups have a line of their own in a digest, and so many are told to programs: an alert is a job, which must
#: not be too large to be submitted.
LINES, TOLD_TO_PROGRAMS = 50, 100
#: Nothing is known.
NOTHING: Mapping[str, Any] = {}


class Past(msgspec.Struct, frozen=True, omit_defaults=True):
    """A group that people were told of. case: the one that they were told last, in short; last: when the last one was.

    ended: they were told that it has ended.
    """

    case: Trouble
    last: float
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Draft:
    """What is to be told next. news: of each group, how many cases are new. ended: the groups that have ended."""

    kind: Literal["first", "digest"]
    news: Mapping[str, int]
    ended: Sequence[str] = ()


def written(
    app: str,
    draft: Draft,
    cases: Mapping[str, Trouble],
    totals: Mapping[str, int],
    since: float,
    now: float,
    every: float,
    past: Mapping[str, Past] = NOTHING,
) -> Alert:
    """An alert in words. totals: how many cases there were of each group. past: those that were told of before."""
    ranked = sorted(cases, key=lambda id: -draft.news[id])
    back = {id: past[id] for id in cases if id in past and past[id].ended}
    ended = [past[id] for id in draft.ended]
    groups = [
        _group(cases[id], "came back" if id in back else "failed", draft.news[id], totals[id])
        for id in ranked[:TOLD_TO_PROGRAMS]
    ]
    groups += [_group(each.case, "ended") for each in ended[:TOLD_TO_PROGRAMS]]
    if draft.kind == "first":
        ((id, case),) = cases.items()
        subject = f"[{app}] {case.type}: {case.exception}{' came back' if back else ''}"
        text = "\n".join(_first_lines(case, draft.news[id], every, back.get(id)))
    elif not cases and len(ended) == 1:
        subject = f"[{app}] ended: {ended[0].case.type}: {ended[0].case.exception}"
        text = "\n".join(_ended_lines(ended))
    else:
        new = f"{_failures(sum(draft.news.values()))} of {_kinds(len(cases))}"
        subject = f"[{app}] {new if cases else f'{_kinds(len(ended))} of failures ended'}"
        lines = [*_digest_lines(cases, ranked, draft.news, totals, since, now), ""] if cases else []
        text = "\n".join([*lines, *_ended_lines(ended)]).rstrip()
    return Alert(new_id(), printable(" ".join(subject.split()))[:200], printable_lines(text), groups)


def _group(case: Trouble, news: str, new: int = 0, total: int = 0) -> dict[str, Any]:
    """A group for programs. news: "failed", "came back" or "ended"."""
    named = {"type": case.type, "exception": case.exception, "place": case.place, "news": news}
    return {
        **named,
        "new": new,
        "total": total,
        "job": case.job,
        "queue": case.queue,
        "error": one_line(case.error),
    }


def _ended_lines(ended: Sequence[Past]) -> Iterable[str]:
    for past in ended[:LINES]:
        case, left = past.case, dict(commands(past.case))["all"]
        place = f" in {case.place}" if case.place else ""
        yield f"ended: {case.type}: {case.exception}{place}"
        yield f"  None since {format_instant(past.last)}, with code {case.code or 'unknown'}."
        yield f"  {'left:':8} {left}"
        yield ""
    if len(ended) > LINES:
        yield f"And {_kinds(len(ended) - LINES)} more have ended."


def _first_lines(case: Trouble, new: int, every: float, before: Past | None) -> Iterable[str]:
    yield f"{case.error or case.exception}"
    yield ""
    if before is not None:
        code = before.case.code or "unknown"
        yield f"It had ended, and came back: the last one was at {format_instant(before.last)}, with code {code}."
    if case.job:
        yield f"{'A job was' if new == 1 else f'{new:,} jobs were'} buried. One of them:"
        yield f"  {case.call}"
        where = f"queue {case.queue}, on {case.worker}, code {case.code or 'unknown'}"
        yield f"  job {case.job}, {where}, {format_instant(case.at)}"
    else:
        yield f"It happened at {format_instant(case.at)}."  # so that it is another alert when it happens again
    yield ""
    yield from (f"{what + ':':10} {command}" for what, command in commands(case))
    if case.traceback:
        yield ""
        yield case.traceback.rstrip()
    yield ""
    yield f"More of this kind are summed up, at most once in {format_duration(every)}."


def _digest_lines(
    cases: Mapping[str, Trouble],
    ranked: Sequence[str],
    news: Mapping[str, int],
    totals: Mapping[str, int],
    since: float,
    now: float,
) -> Iterable[str]:
    yield f"Between {format_instant(since)} and {format_instant(now)}:"
    for id in ranked[:LINES]:
        case = cases[id]
        yield ""
        place = f" in {case.place}" if case.place else ""
        yield f"{_failures(news[id])} ({totals[id]:,} in all): {case.type}: {case.exception}{place}"
        yield f"  {one_line(case.error)}"
        yield from (f"  {what + ':':8} {command}" for what, command in commands(case))
    if len(ranked) > LINES:
        yield ""
        yield f"And {_failures(sum(news[id] for id in ranked[LINES:]))} of {_kinds(len(ranked) - LINES)}."
    yield ""
    yield "All of it: kq jobs ls --state buried --group"


def commands(case: Trouble) -> list[tuple[str, str]]:
    """What a human may type: what for, and the command."""
    type, exception = shlex.quote(case.type), shlex.quote(case.exception)
    if not case.job:
        return [("go on", f"kq queues resume --type {type}")]
    chosen = f"--type {type} --error {exception}" + (f" --place {shlex.quote(case.place)}" if case.place else "")
    found = [("look", f"kq jobs show {case.job}"), ("all", f"kq jobs ls --state buried {chosen}")]
    if case.exception.rpartition(".")[2] == "InDoubt":
        happened = ("happened", f"kq jobs kick {case.job} --done")
        return [*found, happened, ("did not", f"kq jobs kick {case.job} --repeat")]
    return [
        *found,
        ("mend", f"kq jobs edit {case.job}"),
        ("retry", f"kq jobs kick {chosen} --first 1 --stop-on-same-failure"),
        ("give up", f"kq jobs rm {case.job}"),
    ]


def _failures(number: int) -> str:
    return "1 failure" if number == 1 else f"{number:,} failures"


def _kinds(number: int) -> str:
    return "1 kind" if number == 1 else f"{number:,} kinds"
