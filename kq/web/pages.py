"""The pages: what each of them has to show. How it looks is the templates' matter."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import urlencode

from markupsafe import Markup

from kq.control import MOST, REPAIRABLE, Control, JobInfo, schema
from kq.control.sight import LISTED
from kq.control.view import known_job
from kq.errors import InDoubt, NotFound
from kq.plain import cut
from kq.values.advice import advice
from kq.values.job import ENDED, State
from kq.values.snapshot import SPANS, FailedRow, Point, QueueRow, Snapshot
from kq.web.asked import Asked
from kq.web.charts import Axis, Line, axis, chart, spark
from kq.web.choosing import CHOICE, listed
from kq.web.drawing import as_json, count, rate, span
from kq.web.fields import Field, Said, from_form
from kq.web.looks import EFFECTS, JOBS, found_effects
from kq.web.openapi import document

#: So many jobs of a queue are shown on its page, and queues on the overview.
SHOWN, SHOWN_QUEUES = 50, 20
#: So many that lie buried are looked through for the newest.
LOOKED_THROUGH = 1000
#: So many jobs that failed last are shown on the overview.
RECENT = 10
#: Characters of what a job is called with, in a list.
CALL = 120
#: By what queues are sorted, the usual first; as in the monitor.
SORTS: Mapping[str, Callable[[QueueRow], tuple[float | str, ...]]] = {
    "oldest": lambda row: (-(row.oldest or 0.0), -row.ready, row.state == "ok", -row.buried, row.name),
    "ready": lambda row: (-row.ready, row.name),
    "wait": lambda row: (-(row.wait_p95 or 0.0), row.name),
    "in": lambda row: (-(row.came or 0.0), row.name),
    "buried": lambda row: (-row.buried, row.name),
    "name": lambda row: (0.0, row.name),
}
QUEUES = (
    Field("search", "text", "Only those with this text in their names.", ""),
    Field("sort", "text", "By what they are sorted.", "oldest", choices=tuple(SORTS)),
)


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
        "recent": _recent(shot)[:RECENT],
        **_queue_rows(shot, from_form(QUEUES, {}), SHOWN_QUEUES),
        "charts": _charts(shot, shot.history.total),
    }
    return Page("overview.html", "Overview", values, "overview")


async def queues(asked: Asked) -> Page:
    shot, said = await asked.desk.snapshot(), from_form(QUEUES, asked.query())
    return Page("queues.html", "Queues", {"shot": shot, **_queue_rows(shot, said, None)}, "queues")


def _queue_rows(shot: Snapshot, said: Said, most: int | None) -> dict[str, Any]:
    """The queues that are meant, how they were chosen, and how many jobs they had in the last minutes."""
    text = said["search"].casefold()
    rows = sorted((row for row in shot.queues if text in row.name.casefold()), key=SORTS[said["sort"]])
    all = _axis(shot, shot.history.total)
    return {"rows": rows[:most], "sparks": _sparks(shot, rows[:most], all), "minutes": all.minutes, **said}


async def queue(asked: Asked) -> Page:
    shot, name = await asked.desk.snapshot(), asked.name
    row = next((row for row in shot.queues if row.name == name), None)
    if row is None:
        raise NotFound(f"there is no queue {name!r}", fix="It comes with the first job, or a worker that takes it.")

    def look(control: Control) -> dict[str, Any]:
        jobs = [job for job in control.jobs(name, limit=SHOWN) if job.state is not State.BURIED]
        buried = control.jobs(name, State.BURIED, LOOKED_THROUGH)
        newest = sorted(buried, key=lambda job: job.buried or 0.0, reverse=True)[:SHOWN]
        return {
            "why": control.why_queue(name),
            "jobs": _briefly(asked, control, jobs),
            "buried": _briefly(asked, control, newest),
        }

    charts = _charts(shot, shot.history.queues.get(name, ()))
    values = {**await asked.desk.look(look), "shot": shot, "row": row, "charts": charts, "shown": SHOWN}
    return Page("queue.html", f"Queue {name}", values, "queues")


async def jobs(asked: Asked) -> Page:
    said = from_form(JOBS, asked.query())

    def look(control: Control) -> tuple[list[dict[str, Any]], list[str], list[str]]:
        found = listed(control, asked.veil, said, said["state"], said["limit"])
        return _briefly(asked, control, found), control.queue_names(), control.type_names()

    found, queues, types = await asked.desk.look(look)
    values = {
        "jobs": found,
        "said": said,
        "query": _query(asked),
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
        found = known_job(control, id)
        args, kwargs = asked.veil.arguments(control, found)
        doubts = control.doubts(id) if found.state is State.BURIED else []
        shown = asked.veil.data(schema.whole_job(found, doubts)) | {"args": args, "kwargs": kwargs}
        return {
            "job": shown,
            "why": asked.veil.text(control.why(id)),
            "version": found.version,
            "now": control.app.store.now(),
            "repairable": found.state in REPAIRABLE,
            "ended": found.state in ENDED,
            "running": next((row for row in _running(control) if row["id"] == id), None),
        }

    values, shot = await asked.desk.look(look), await asked.desk.snapshot()
    paused = any(order.what == values["job"]["type"] for order in shot.paused)
    return Page("job.html", f"Job {id}", {**values, "type_paused": paused}, "jobs", still=values["ended"])


async def stack(asked: Asked) -> Page:
    found = await asked.desk.slowly(lambda control: control.stack(asked.name))
    return Page("stack.html", f"Stack of job {asked.name}", {"stack": found}, "jobs", still=True)


async def failures(asked: Asked) -> Page:
    said = from_form(CHOICE, asked.query())

    def look(control: Control) -> tuple[list[dict[str, Any]], float]:
        groups = schema.grouped(listed(control, asked.veil, said, State.BURIED, MOST))
        told = [
            schema.group(*each) | {"queue": each[2].queue, "in_doubt": each[0].exception == InDoubt.__name__}
            for each in groups
        ]
        return asked.veil.data(told), control.app.store.now()

    groups, now = await asked.desk.look(look)
    values = {"groups": groups, "now": now, "texts": _texts(asked, CHOICE), "query": _query(asked)}
    return Page("buried.html", "Buried", values, "buried")


async def workers(asked: Asked) -> Page:
    return Page("workers.html", "Workers", {"shot": await asked.desk.snapshot()}, "workers")


async def singletons(asked: Asked) -> Page:
    shot = await asked.desk.snapshot()
    queues, workers = {row.name: row for row in shot.queues}, {row.name: row for row in shot.workers}
    rows = [
        {
            "seat": seat,
            "queue": queues[seat.queue],
            "worker": workers.get(seat.holder),
            "running": [
                (job, worker.name) for worker in shot.workers for job in worker.running if job.queue == seat.queue
            ],
        }
        for seat in shot.singletons
    ]
    return Page("singletons.html", "Singletons", {"shot": shot, "rows": rows}, "singletons")


async def effects(asked: Asked) -> Page:
    said = from_form(EFFECTS, asked.query())

    def look(control: Control) -> dict[str, Any]:
        doubts = control.effects(stage="doubt", limit=SHOWN)
        found = found_effects(control, asked.veil, said)
        return {
            "doubts": asked.veil.data(list(map(schema.effect, doubts))),
            "effects": asked.veil.data(list(map(schema.effect, found))),
            "held": asked.veil.data(list(map(schema.held_job, control.held()))),
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
    "/jobs/{name}/stack": stack,
    "/jobs/{name}": job,
    "/buried": failures,
    "/workers": workers,
    "/singletons": singletons,
    "/effects": effects,
    "/audit": audit,
    "/api": api,
}


def _charts(shot: Snapshot, points: Sequence[Point]) -> list[Markup]:
    """What happened in the last minutes."""
    points = _latest(shot, points)
    at = _axis(shot, points)
    rates = [
        Line("in", "in", [point.came for point in points]),
        Line("out", "out", [point.ended for point in points]),
        Line("failed", "bad", [point.failed for point in points]),
    ]
    waits = Line("wait", "wait", [point.wait_p95 for point in points])
    there = Line("jobs", "in", [point.jobs for point in points])
    return [
        chart("Jobs a second", at, rates, rate),
        chart("Jobs there", at, [there], lambda number: count(round(number))),
        chart("Wait, p95", at, [waits], span),
    ]


def _recent(shot: Snapshot) -> list[FailedRow]:
    """The jobs that failed last, each with its latest attempt."""
    latest: dict[str, FailedRow] = {}
    for row in shot.recent:
        latest.setdefault(row.id, row)
    return list(latest.values())


def _sparks(shot: Snapshot, rows: Sequence[QueueRow], all: Axis) -> dict[str, Markup]:
    """How many jobs each queue had, as small charts that show as much as the one of all."""
    sparks = dict[str, Markup]()
    for row in rows:
        points = _latest(shot, shot.history.queues.get(row.name, ()))
        at, label = _axis(shot, points, all), f"jobs in {row.name} in the last {all.minutes}"
        sparks[row.name] = spark(at, [point.jobs for point in points], label)
    return sparks


def _axis(shot: Snapshot, points: Sequence[Point], like: Axis | None = None) -> Axis:
    return axis(_latest(shot, points), shot.at, shot.history.step, like)


def _latest(shot: Snapshot, points: Sequence[Point]) -> list[Point]:
    """Those that a chart may show."""
    return [point for point in points if shot.at - SPANS[-1] <= point.at <= shot.at]


def _texts(asked: Asked, fields: Sequence[Field]) -> dict[str, str]:
    """What somebody wrote into a filter, as he wrote it."""
    query = asked.query()
    return {field.name: query.get(field.name, [""])[-1] for field in fields}


def _query(asked: Asked) -> str:
    """What the address says, to come back to it."""
    said = urlencode({name: value for name, values in asked.query().items() for value in values if value})
    return f"?{said}" if said else ""


def _briefly(asked: Asked, control: Control, found: Iterable[JobInfo]) -> list[dict[str, Any]]:
    """Jobs for a table."""
    return [
        asked.veil.data(schema.job(job))
        | {"worker": job.worker, "due": job.due, "held": job.is_held, "call": _called(asked, control, job)}
        for job in found
    ]


def _called(asked: Asked, control: Control, job: JobInfo) -> str:
    """What it is called with, as far as it can be seen at one look."""
    args, kwargs = asked.veil.arguments(control, job, CALL)
    told = [*map(as_json, args), *(f"{name}={as_json(value)}" for name, value in kwargs.items())]
    return cut(", ".join(told), CALL)


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
