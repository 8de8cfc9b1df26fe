"""What a key that changes something asks for: the command line that would do the same. Pure.

The monitor has no way of its own to change anything: what it shows in its question is what it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from kq.cli.monitor import listing
from kq.cli.monitor.scene import JobRow, Page, Scene
from kq.cli.monitor.state import Ask, Do, Show, Ui
from kq.control import commands
from kq.control.commands import Words
from kq.values.snapshot import FailureRow, QueueRow, RunningRow, WorkerRow

#: Where a job may be buried from, and from where it may be run at once.
WAITING, DELAYED = ("ready", "delayed", "retrying", "paused"), ("delayed", "retrying")
#: Where one may be changed.
CHANGEABLE = (*WAITING, "buried")


def asks(key: str, ui: Ui, scene: Scene) -> Ask | str:
    """What a key asks; or why it means nothing here."""
    return _KEYS[key](ui, scene)


def _pause(ui: Ui, scene: Scene) -> Ask | str:
    name = _queue(ui, scene)
    if not name:
        return "p pauses a queue: choose one (1)"
    rows = scene.shot.queues if scene.shot is not None else ()
    paused = any(row.name == name and row.paused is not None for row in rows)
    verb = "resume" if paused else "pause"
    line = commands.resume(name) if paused else commands.pause(name)
    return Ask(f"{verb.capitalize()} queue {name}", Do((line,)))


def _queue(ui: Ui, scene: Scene) -> str:
    """The queue that is chosen, or that what is chosen is of."""
    if ui.page is not None and ui.page.kind == "queue":
        return ui.page.name
    if ui.page is not None and ui.page.queue:
        return ui.page.queue
    match listing.chosen(ui, scene):
        case QueueRow(name=name):
            return name
        case JobRow(queue=queue) | FailureRow(queue=queue):
            return queue
    return ""


def _kick(ui: Ui, scene: Scene) -> Ask | str:
    if ui.page is not None and ui.page.kind == "job":
        return _kick_jobs(_jobs(ui, scene), ui)
    many: list[tuple[str, Words]] = []
    for row in listing.marked(ui, scene):
        match row:
            case QueueRow():
                if not row.buried:
                    return f"nothing lies buried in {row.name}"
                many.append((f"all {row.buried:,} buried jobs of {row.name}", commands.kick_all(queue=row.name)))
            case FailureRow(buried=0):
                return f"nothing of {row.type} lies buried for that"
            case FailureRow():
                line = commands.kick_all(queue=row.queue, type=row.type, error=row.exception, place=row.place)
                at = f" at {row.place}" if row.place else ""
                many.append((f"the buried jobs of {row.type} that failed of {row.exception}{at}", line))
            case WorkerRow():
                return "K kicks buried jobs: choose them among the failures (3)"
    if many:
        deed = many[0][0] if len(many) == 1 else f"the buried jobs of {len(many)} rows"
        return Ask(f"Kick {deed}", Do(tuple(line for _, line in many)))
    return _kick_jobs(_jobs(ui, scene), ui)


def _kick_jobs(jobs: Sequence[JobRow], ui: Ui) -> Ask | str:
    buried = [job for job in jobs if job.state == "buried"]
    if not buried:
        return _none(jobs, "K kicks jobs that are buried; R runs one now that is delayed")
    ids = tuple(job.id for job in buried)
    return Ask(f"Kick {_told(buried)}", Do((commands.kick(*ids),), ids, "kicked"))


def _bury(ui: Ui, scene: Scene) -> Ask | str:
    jobs = _jobs(ui, scene)
    waiting = [job for job in jobs if job.state in WAITING]
    if not waiting:
        return _none(jobs, "b buries jobs that wait or are delayed")
    ids = tuple(job.id for job in waiting)
    return Ask(f"Bury {_told(waiting)}", Do((commands.bury(*ids),), ids, "buried"))


def _revoke(ui: Ui, scene: Scene) -> Ask | str:
    jobs = [job for job in _jobs(ui, scene) if job.state != "buried"]
    if not jobs:
        return _none(_jobs(ui, scene), "x revokes jobs that wait, are delayed or run; kq jobs rm deletes buried ones")
    running = [job for job in jobs if job.state in ("running", "reserved")]
    lines = tuple(commands.revoke(job.id, interrupt=job in running) for job in jobs)
    deed = f"Revoke {_told(jobs)}" + (", and interrupt what runs" if running else "")
    return Ask(deed, Do(lines, tuple(job.id for job in jobs), "revoked"))


def _run_now(ui: Ui, scene: Scene) -> Ask | str:
    jobs = _jobs(ui, scene)
    delayed = [job for job in jobs if job.state in DELAYED]
    if not delayed:
        return _none(jobs, "R runs jobs now that are delayed; K kicks buried ones")
    lines = tuple(commands.run_now(job.id) for job in delayed)
    return Ask(f"Run {_told(delayed)} now", Do(lines, tuple(job.id for job in delayed), "runs now"))


def _edit(ui: Ui, scene: Scene) -> Ask | str:
    jobs = _jobs(ui, scene)
    if len(jobs) != 1 or jobs[0].state not in CHANGEABLE:
        return _none(jobs, "e edits one job that waits or is buried")
    return Ask(f"Edit {_told(jobs)} in your editor", Show(commands.edit(jobs[0].id)))


def _rehearse(ui: Ui, scene: Scene) -> Ask | str:
    jobs = _jobs(ui, scene)
    if len(jobs) != 1 or jobs[0].state not in CHANGEABLE:
        return _none(jobs, "r rehearses one job that waits or is buried")
    return Ask(f"Rehearse {_told(jobs)}", Show(commands.rehearse(jobs[0].id)))


def _drain(ui: Ui, scene: Scene) -> Ask | str:
    names = [row.name for row in listing.marked(ui, scene) if isinstance(row, WorkerRow)]
    if ui.page is not None and ui.page.kind == "worker":
        names = [ui.page.name]
    if not names:
        return "D lets a worker finish what runs, and end: choose one (2)"
    deed = f"Retire worker {names[0]}" if len(names) == 1 else f"Retire {len(names)} workers"
    return Ask(f"{deed}: finish what runs, and end", Do(tuple(map(commands.retire, names))))


def _jobs(ui: Ui, scene: Scene) -> list[JobRow]:
    """The jobs that are meant: what was opened, is marked or chosen; or the only one of a worker."""
    if ui.page is not None and ui.page.kind == "job":
        return [job for job in scene.page(ui.page).jobs if job.id == ui.page.name]
    found: list[JobRow] = []
    for row in listing.marked(ui, scene):
        match row:
            case JobRow():
                found.append(row)
            case WorkerRow(running=(RunningRow() as job,)):
                found.append(JobRow(job.id, job.type, job.queue, "running"))
    return found


def _told(jobs: Sequence[JobRow]) -> str:
    return f"{jobs[0].type} {jobs[0].id}" if len(jobs) == 1 else f"{len(jobs)} jobs"


def _none(jobs: Sequence[JobRow], otherwise: str) -> str:
    """Why a key means nothing for jobs."""
    if not jobs:
        return "choose a job first: among the failures (3), or open a queue or worker with Enter"
    states = ", ".join(sorted({job.state for job in jobs}))
    return f"{otherwise}; {'this is' if len(jobs) == 1 else 'these are'} {states}"


_KEYS: Mapping[str, Callable[[Ui, Scene], Ask | str]] = {
    "p": _pause,
    "K": _kick,
    "b": _bury,
    "x": _revoke,
    "R": _run_now,
    "e": _edit,
    "r": _rehearse,
    "D": _drain,
}
KEYS = frozenset(_KEYS)


def whereabouts(ui: Ui, scene: Scene) -> Words | str:
    """What shows where the job is that is meant; or why the key means nothing here. It changes nothing."""
    jobs = _jobs(ui, scene)
    running = [job for job in jobs if job.state in ("running", "reserved")]
    if len(running) != 1 or len(jobs) != 1:
        return _none(jobs, "t tells where one job is that runs")
    return commands.stack(running[0].id)


def named(ui: Ui, scene: Scene) -> str:
    """What y copies: the id of a job, or a name."""
    page: Page | None = ui.page
    row = listing.chosen(ui, scene)
    match row:
        case JobRow():
            return row.id
        case FailureRow():
            return row.job
        case QueueRow() | WorkerRow():
            return row.name
    return page.name if page is not None else ""
