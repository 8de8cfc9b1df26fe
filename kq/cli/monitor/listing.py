"""Lists: which rows of the scene are seen, in which order, and which of them is chosen. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, TypeVar, cast

from kq.cli.monitor import filtering
from kq.cli.monitor.scene import JobRow, Page, Scene
from kq.cli.monitor.state import List, Spot, Ui
from kq.cli.status import arguments_text
from kq.values.advice import says
from kq.values.snapshot import FailedRow, FailureRow, QueueRow, RunningRow, Snapshot, WorkerRow

Row: TypeAlias = QueueRow | WorkerRow | FailureRow | JobRow
R = TypeVar("R", QueueRow, WorkerRow, FailureRow, JobRow)

_QUEUE: Mapping[str, Callable[[QueueRow], object]] = {
    # Not every broker tells at once how long jobs have waited; where none does, something else may be wrong.
    "oldest": lambda row: (-(row.oldest or 0.0), -row.ready, row.state == "ok", -row.buried),
    "ready": lambda row: -row.ready,
    "wait": lambda row: -(row.wait_p95 or 0.0),
    "in": lambda row: -(row.came or 0.0),
    "buried": lambda row: -row.buried,
    "name": lambda row: row.name,
}
#: Workers that need a look come first.
_WORST = ("late", "dead", "stopping", "alive")
#: Seconds for which one that has died does: then others have what it had, and it makes room.
MOURNED = 60.0
_WORKER: Mapping[str, Callable[[WorkerRow], object]] = {
    "state": lambda row: (row.state == "dead" and row.beat_age > MOURNED, _WORST.index(row.state), row.name),
    "name": lambda row: row.name,
    "beat": lambda row: -row.beat_age,
    "busy": lambda row: -len(row.running),
    "age": lambda row: -max((job.seconds for job in row.running), default=0.0),
}
_GROUP: Mapping[str, Callable[[FailureRow], object]] = {
    "latest": lambda row: -row.last,
    "failed": lambda row: -row.failed,
    "buried": lambda row: -(row.buried or 0),
}
_JOB: Mapping[str, Callable[[JobRow], object]] = {
    "latest": lambda row: -(row.at or 0.0),
    "age": lambda row: row.at or 0.0,
    "job": lambda row: (row.queue, row.type),
    "error": lambda row: row.note,
    "order": lambda row: 0,
}


def queues(ui: Ui, shot: Snapshot) -> list[QueueRow]:
    """The queues that are seen."""
    return _seen(ui, shot.queues, _queue_facts, _QUEUE[ui.sort("queues")])


def workers(ui: Ui, shot: Snapshot) -> list[WorkerRow]:
    """The workers that are seen."""
    return _seen(ui, shot.workers, _worker_facts, _WORKER[ui.sort("workers")])


def groups(ui: Ui, shot: Snapshot) -> list[FailureRow]:
    """The groups of failures that are seen."""
    return _seen(ui, shot.failures, _group_facts, _GROUP[ui.sort("groups")])


def failures(ui: Ui, shot: Snapshot) -> list[JobRow]:
    """The jobs that failed last and are seen, each with its latest attempt."""
    latest: dict[str, JobRow] = {}
    for row in shot.recent:
        latest.setdefault(row.id, _failed(row))
    return _seen(ui, list(latest.values()), _job_facts, _JOB[ui.sort("failures")])


def jobs(ui: Ui, scene: Scene, page: Page) -> list[JobRow]:
    """The jobs of a page that are seen."""
    found: Sequence[JobRow] = scene.page(page).jobs
    if page.kind == "worker" and scene.shot is not None:
        found = [
            _running(job, row, scene.shot.at)
            for row in scene.shot.workers
            if row.name == page.name
            for job in row.running
        ]
    return _seen(ui, found, _job_facts, _JOB[ui.sort("jobs")])


def rows(ui: Ui, scene: Scene) -> Sequence[Row]:
    """The rows of the list that keys move in."""
    if ui.page is not None:
        return jobs(ui, scene, ui.page)
    if scene.shot is None:
        return []
    found: Mapping[List, Callable[[Ui, Snapshot], Sequence[Row]]] = {
        "queues": queues,
        "workers": workers,
        "groups": groups,
        "failures": failures,
    }
    return found[ui.list](ui, scene.shot)


def key_of(row: Row) -> str:
    """What makes a row the same one in the next snapshot."""
    match row:
        case JobRow():
            return row.id
        case FailureRow():
            return "\0".join((row.queue, row.type, row.exception, row.place))
        case _:
            return row.name


def place(spot: Spot, rows: Sequence[Row]) -> int:
    """Where the chosen row stands among rows: where it is by now, or where it was before it went; 0 without any."""
    for index, row in enumerate(rows):
        if key_of(row) == spot.key:
            return index
    return max(0, min(spot.index, len(rows) - 1))


def chosen(ui: Ui, scene: Scene) -> Row | None:
    """The row that is chosen in the list that keys move in."""
    found = rows(ui, scene)
    return found[place(ui.spots.get(ui.list, Spot()), found)] if found else None


def marked(ui: Ui, scene: Scene) -> list[Row]:
    """The rows that are marked; the chosen one when none is."""
    found = [row for row in rows(ui, scene) if key_of(row) in ui.marks]
    one = chosen(ui, scene)
    return found or ([one] if one is not None else [])


def _seen(ui: Ui, rows: Sequence[R], facts: Callable[[R], Mapping[str, str]], order: Callable[[R], object]) -> list[R]:
    terms = filtering.parse(ui.filter)
    found = [row for row in rows if filtering.fits(terms, facts(row))]
    return sorted(found, key=cast("Callable[[R], float]", order))


def _queue_facts(row: QueueRow) -> Mapping[str, str]:
    counts = {"delayed": row.delayed, "retrying": row.retrying, "running": row.running, "buried": row.buried}
    return {"queue": row.name, "state": " ".join([row.state, *(name for name, number in counts.items() if number)])}


def _worker_facts(row: WorkerRow) -> Mapping[str, str]:
    types = {job.type for job in row.running}
    return {"worker": row.name, "queue": " ".join(row.queues), "type": " ".join(types), "state": row.state}


def _group_facts(row: FailureRow) -> Mapping[str, str]:
    state = "buried" if row.buried else "failed"
    return {"queue": row.queue, "type": row.type, "err": f"{row.exception} {row.message}", "state": state}


def _job_facts(row: JobRow) -> Mapping[str, str]:
    facts = {"id": row.id, "type": row.type, "queue": row.queue, "state": row.state, "err": row.note}
    return {**facts, "worker": row.worker} if row.worker else facts


def _failed(row: FailedRow) -> JobRow:
    state = "buried" if row.next is None else "retrying"
    return JobRow(row.id, row.type, row.queue, state, row.attempt, row.at, row.next, row.error, row.worker, row.of)


def _running(row: RunningRow, worker: WorkerRow, at: float) -> JobRow:
    note = f"{arguments_text(row)} {says(row.progress)}".strip()
    state = "reclaimed" if worker.state == "dead" else "running"
    return JobRow(row.id, row.type, row.queue, state, at=at - row.seconds, note=note)
