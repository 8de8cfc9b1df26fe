"""Which jobs are meant: by id, or by what is said of them.

Text is searched in what may be seen of a job: who can't see a secret can't find it out by searching either.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from kq.control import MOST, Control, JobInfo, Where
from kq.control.veil import Veil
from kq.values.job import State
from kq.web.fields import Field, Said

#: Characters of a text in which others are searched: thousands of jobs may have one of a megabyte each.
LONGEST = 10_000
#: The fields that choose jobs.
CHOICE = (
    Field("queue", "text", "Only jobs of this queue."),
    Field("type", "text", "Only of this type: its name, its last part, or a pattern with *.", ""),
    Field("error", "text", "Only ended by this exception, named likewise.", ""),
    Field("place", "text", "Only failed at this place: file and function.", ""),
    Field(
        "search",
        "text",
        "Only with this text in what is shown of id, arguments (the first 10,000 characters of each) and error.",
        "",
    ),
    Field("older", "duration", "Only buried, or submitted, longer ago.", 0.0),
)


def where(said: Said) -> Where:
    """What is said, but for the text."""
    return Where(said["type"], said["error"], "", said["older"], said["place"])


def listed(control: Control, veil: Veil, said: Said, state: State | str | None, limit: int) -> list[JobInfo]:
    """Jobs in their order, at most limit of each queue."""
    if not said["search"]:
        return control.jobs(said["queue"], state, limit, where(said))
    found = control.jobs(said["queue"], state, MOST, where(said))
    counts: dict[str, int] = {}
    fits = []
    for job in _fitting(control, veil, said, found):
        counts[job.queue] = counts.get(job.queue, 0) + 1
        if counts[job.queue] <= limit:
            fits.append(job)
    return fits


def buried(control: Control, veil: Veil, said: Said, ids: Sequence[str], limit: int | None) -> list[JobInfo]:
    """The buried jobs that are meant, at most limit."""
    if not said["search"]:
        return control.buried(said["queue"], ids=ids, where=where(said), limit=limit)
    found = control.buried(said["queue"], ids=ids, where=where(said))
    return list(_fitting(control, veil, said, found))[:limit]


def _fitting(control: Control, veil: Veil, said: Said, jobs: Iterable[JobInfo]) -> Iterable[JobInfo]:
    text = said["search"].casefold()
    return (job for job in jobs if text in _seen(control, veil, job).casefold())


def _seen(control: Control, veil: Veil, job: JobInfo) -> str:
    shown: list[Any] = list(veil.arguments(control, job, LONGEST))
    error = veil.data({"error": job.error})["error"]
    return "\n".join([job.id, error, json.dumps(shown, ensure_ascii=False)])
