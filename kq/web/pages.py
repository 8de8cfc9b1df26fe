"""The pages: what each of them has to show. How it looks is the templates' matter."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import urlencode

from markupsafe import Markup

from kq.advice import advice
from kq.control import MOST, REPAIRABLE, Control, schema
from kq.errors import NotFound
from kq.job import ENDED, State
from kq.snapshot import Point, Snapshot
from kq.web.acts import unknown_job
from kq.web.asked import Asked
from kq.web.charts import Line, aligned, chart, spark
from kq.web.choosing import CHOICE, LISTED, listed
from kq.web.drawing import count, rate, span
from kq.web.fields import Field, from_form
from kq.web.looks import EFFECTS, JOBS, found_effects
from kq.web.openapi import document

#: So many jobs of a queue are shown on its page.
SHOWN = 50


@dataclass(frozen=True, slots=True)
class Page:
    """title, tab: as it is called. still: it does not change by itself."""

    template: str
    title: str
    values: Mapping[str, Any] = field(default_factory=dict)
    tab: str = ""
    still: bool = False


See: TypeAlias = Callable[[Asked], Awaitable[Page]]


async def overview(asked: Asked) -> Page:
    shot = await asked.desk.snapshot()
    values = {
        "shot": shot,
        "advice": advice(shot),
        "charts": _charts(shot, shot.history.total),
        "sparks": _sparks(shot),
    }
    return Page("overview.html", "Overview", values, "overview")


async def queues(asked: Asked) -> Page:
    shot = await asked.desk.snapshot()
    return Page("queues.html", "Queues", {"shot": shot, "sparks": _sparks(shot)}, "queues")


async def queue(asked: Asked) -> Page:
    shot, name = await asked.desk.snapshot(), asked.name
    row = next((row for row in shot.queues if row.name == name), None)
    if row is None:
        raise NotFound(f"there is no queue {name!r}", fix="It comes with the first job, or a worker that takes it.")
    why, jobs = await asked.desk.look(lambda control: (control.why_queue(name), control.jobs(name, limit=SHOWN)))
    charts = _charts(shot, shot.history.queues.get(name, ()))
    values = {"shot": shot, "row": row, "why": why, "jobs": _briefly(asked, jobs), "charts": charts, "shown": SHOWN}
    return Page("queue.html", f"Queue {name}", values, "queues")


async def jobs(asked: Asked) -> Page:
    said = from_form(JOBS, asked.query())

    def look(control: Control) -> tuple[Any, list[str], list[str]]:
        return (
            listed(control, asked.veil, said, said["state"], said["limit"]),
            control.queue_names(),
            control.type_names(),
        )

    found, queues, types = await asked.desk.look(look)
    values = {
        "jobs": _briefly(asked, found),
        "said": said,
        "query": urlencode({name: value for name, values in asked.query().items() for value in values if value}),
        "states": LISTED,
        "queues": queues,
        "types": types,
        "texts": _texts(asked, JOBS),
        "filtered": any(said[each.name] for each in CHOICE),
    }
    return Page("jobs.html", "Jobs", values, "jobs")


async def job(asked: Asked) -> Page:
    id = asked.name

    def look(control: Control) -> dict[str, Any]:
        found = control.job(id)
        if found is None:
            raise unknown_job(id)
        args, kwargs = asked.veil.arguments(control, found)
        doubts = control.doubts(id) if found.state is State.BURIED else []
        shown = asked.veil.data(schema.whole_job(found, doubts)) | {"args": args, "kwargs": kwargs}
        return {
            "job": shown,
            "why": asked.veil.data({"why": control.why(id)})["why"],
            "version": found.version,
            "now": control.app.store.now(),
            "repairable": found.state in REPAIRABLE,
            "ended": found.state in ENDED,
            "running": next((row for row in _running(control) if row["id"] == id), None),
        }

    values = await asked.desk.look(look)
    return Page("job.html", f"Job {id}", values, "jobs", still=values["ended"])


async def failures(asked: Asked) -> Page:
    said = from_form(CHOICE, asked.query())

    def look(control: Control) -> tuple[list[dict[str, Any]], float]:
        groups = schema.grouped(listed(control, asked.veil, said, State.BURIED, MOST))
        return [schema.group(*each) | {"queue": each[2].queue} for each in groups], control.app.store.now()

    groups, now = await asked.desk.look(look)
    return Page("buried.html", "Buried", {"groups": asked.veil.data(groups), "now": now, "said": said}, "buried")


async def workers(asked: Asked) -> Page:
    return Page("workers.html", "Workers", {"shot": await asked.desk.snapshot()}, "workers")


async def effects(asked: Asked) -> Page:
    said = from_form(EFFECTS, asked.query())

    def look(control: Control) -> dict[str, Any]:
        doubts = control.effects(stage="doubt", limit=SHOWN)
        found = found_effects(control, asked.veil, said)
        return {
            "doubts": asked.veil.data(list(map(schema.effect, doubts))),
            "effects": asked.veil.data(list(map(schema.effect, found))),
            "held": [schema.held_job(job) for job in control.held()],
            "now": control.app.store.now(),
        }

    values = await asked.desk.look(look)
    return Page("effects.html", "Side effects", {**values, "said": said, "texts": _texts(asked, EFFECTS)}, "effects")


async def audit(asked: Asked) -> Page:
    said = from_form((Field("limit", "number", "At most so many.", 200, least=1, most=MOST),), asked.query())

    def look(control: Control) -> tuple[list[Any], float]:
        return control.audit(said["limit"]), control.app.store.now()

    acts, now = await asked.desk.look(look)
    return Page("audit.html", "Audit", {"acts": acts, "now": now}, "audit")


async def submit(asked: Asked) -> Page:
    types = await asked.desk.look(lambda control: control.type_names())
    return Page("submit.html", "Submit a job", {"types": types}, "jobs", still=True)


async def api(asked: Asked) -> Page:
    return Page("api.html", "API", {"document": document(asked.at("api", "v1")[: -len("/api/v1")])}, "api", still=True)


#: Where each page is.
PAGES: Mapping[str, See] = {
    "/": overview,
    "/queues": queues,
    "/queues/{name}": queue,
    "/jobs": jobs,
    "/submit": submit,
    "/jobs/{name}": job,
    "/buried": failures,
    "/workers": workers,
    "/effects": effects,
    "/audit": audit,
    "/api": api,
}


def _charts(shot: Snapshot, points: Sequence[Point]) -> list[Markup]:
    """What happened in the last ten minutes."""
    slots = aligned(shot.history, points, shot.at)
    rates = [
        Line("in", "in", [None if point is None else point.came for point in slots]),
        Line("out", "out", [None if point is None else point.ended for point in slots]),
        Line("failed", "bad", [None if point is None else point.failed for point in slots]),
    ]
    waits = Line("wait", "wait", [None if point is None else point.wait_p95 for point in slots])
    there = Line("jobs", "in", _there(slots))
    return [
        chart("Jobs a second", rates, rate),
        chart("Jobs there", [there], lambda number: count(round(number))),
        chart("Wait, p95", [waits], span),
    ]


def _sparks(shot: Snapshot) -> dict[str, Markup]:
    """How many jobs each queue had, as small charts."""
    points, sparks = shot.history.queues, dict[str, Markup]()
    for row in shot.queues:
        values = _there(aligned(shot.history, points.get(row.name, ()), shot.at))
        sparks[row.name] = spark(values, f"jobs in {row.name} in the last ten minutes")
    return sparks


def _there(slots: Sequence[Point | None]) -> list[float | None]:
    return [None if point is None else point.jobs for point in slots]


def _texts(asked: Asked, fields: Sequence[Field]) -> dict[str, str]:
    """What somebody wrote into a filter, as he wrote it."""
    query = asked.query()
    return {field.name: query.get(field.name, [""])[-1] for field in fields}


def _briefly(asked: Asked, found: Any) -> list[dict[str, Any]]:
    """Jobs for a table."""
    return [
        asked.veil.data(schema.job(job)) | {"worker": job.worker, "due": job.due, "held": job.is_held} for job in found
    ]


def _running(control: Control) -> list[dict[str, Any]]:
    """What workers say of the jobs that they run."""
    return [
        {
            "id": job.id,
            "worker": beat.worker.name,
            "seconds": job.seconds + beat.age,
            "limit": job.limit,
            "progress": job.progress,
        }
        for beat in control.heartbeat_check()
        for job in beat.worker.running
    ]
