"""The panes of the board: which columns there are of queues, workers and failures, and how each cell is drawn. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style

from kq.cli.monitor.grid import Column
from kq.cli.monitor.ink import (
    ACCENT,
    BAD,
    BOLD,
    CHART,
    DIM,
    GOOD,
    NOTHING,
    PLAIN,
    WARN,
    WORST,
    Line,
    chart,
    faded,
    portion,
    said,
    slots,
    width_of,
)
from kq.cli.monitor.scene import JobRow
from kq.cli.monitor.state import Ui
from kq.cli.status import arguments_text
from kq.plain import middle_cut
from kq.units import format_duration, format_size
from kq.values import advice
from kq.values.snapshot import FailureRow, Point, QueueRow, RunningRow, Snapshot, WorkerRow

#: Seconds that a job may have been ready before it is worth a look, and before it is a matter of concern.
SOME_TIME, LONG = 5.0, 60.0
WAIT_CHART = 16
#: Seconds that a job has run before it is told how long the rest may take.
SURE = 2.0
#: Characters of a job type that stand before what is said of one job.
TYPE = 30
#: Characters of a worker's name that are shown before those of its code.
NAME = 10
#: Ids are long: they are shown where texts have room beside them.
ROOMY = 130


def queue_columns(shot: Snapshot) -> list[Column[QueueRow]]:
    """What is told of a queue."""
    unknown = bool(shot.broker)

    def count(number: int | None, style: Style = PLAIN) -> Line:
        return [Segment(NOTHING, DIM)] if unknown else counted(number, style)

    return [
        Column(
            "QUEUE", 12, lambda row: [said(row.name, BOLD)], 100, 30, short=lambda row, width: named(row.name, width)
        ),
        Column("READY", 9, lambda row: count(row.ready), 95, right=True),
        Column("DELAYED", 7, lambda row: count(row.delayed), 40, right=True),
        Column("RETRY", 6, lambda row: count(row.retrying, WARN), 45, right=True),
        Column("BURIED", 6, lambda row: count(row.buried, BAD), 70, right=True),
        Column("RUN", 5, lambda row: count(row.running), 90, right=True),
        Column("IN/s", 6, lambda row: [per_second(row.came)], 85, right=True),
        Column("OUT/s", 6, lambda row: [per_second(row.ended)], 85, right=True),
        Column("OLDEST", 6, lambda row: [oldest(row)], 92, right=True),
        Column("WAIT p95", WAIT_CHART, lambda row: [waits(row, shot.history.queues.get(row.name, ()))], 30),
        Column("NOW", 6, lambda row: [span(row.wait_p95)], 35, right=True),
        Column("DRAIN IN", 8, lambda row: [drain(row)], 38, right=True),
        Column("STATE", 18, lambda row: queue_state(row, shot.at), 93, 80),
    ]


def worker_columns(shot: Snapshot) -> list[Column[WorkerRow]]:
    """What is told of a worker."""
    usual = usual_code(shot)
    return [
        Column(
            "WORKER",
            16,
            lambda row: worker_name(row, usual),
            100,
            36,
            short=lambda row, width: worker_name(row, usual, width),
        ),
        Column("BEAT", 6, lambda row: [beat(row)], 95, right=True),
        Column("BUSY", 8, lambda row: slots(len(row.running), row.slots), 90, 14),
        Column("OK", 7, lambda row: counted(row.ok), 50, right=True),
        Column("FAIL", 5, lambda row: counted(row.failed, WARN), 51, right=True),
        Column("RSS", 7, lambda row: [size(row.rss if row.state != "dead" else None)], 45, right=True),
        Column("CPU", 5, lambda row: [share(row.cpu if row.state != "dead" else None)], 45, right=True),
        Column("QUEUES", 10, worker_queues, 52, 24, short=some_queues),
        Column("RUNS", 28, runs, 80, 90),
        Column("AGE", 6, lambda row: [longest(row)], 55, right=True),
    ]


def failure_columns(ui: Ui, at: float) -> list[Column[JobRow]]:
    """What is told of a job that failed."""
    return [
        Column("AGO", 6, lambda row: [ago(row.at, at)], 95, right=True),
        Column("JOB", 16, lambda row: [said(row.type, BOLD)], 100, 30, short=lambda row, width: named(row.type, width)),
        Column(
            "QUEUE", 8, lambda row: [said(row.queue)], 60, 16, short=lambda row, width: named(row.queue, width, PLAIN)
        ),
        Column("TRY", 5, lambda row: [tries(row)], 70, right=True),
        Column("ID", 28, lambda row: [said(row.id, DIM)], 40, 40, wide=ROOMY),
        Column("NEXT", 10, lambda row: [fate(row, at, ui.done_to(row.id, row.at))], 90),
        Column("ERROR", 28, lambda row: [said(row.note)], 85, 200),
    ]


def tries(row: JobRow) -> Segment:
    """Which attempt it was, of how many."""
    return Segment(f"{row.attempt}/{row.of}" if row.of else f"{row.attempt}", PLAIN)


def group_columns(at: float) -> list[Column[FailureRow]]:
    """What is told of jobs that failed alike."""
    return [
        Column("LATEST", 6, lambda row: [ago(row.last, at)], 95, right=True),
        Column("FAILED", 7, lambda row: counted(row.failed, WARN), 90, right=True),
        Column("BURIED", 7, lambda row: counted(row.buried, BAD), 92, right=True),
        Column("JOB", 16, lambda row: [said(row.type, BOLD)], 100, 30, short=lambda row, width: named(row.type, width)),
        Column(
            "QUEUE", 8, lambda row: [said(row.queue)], 60, 16, short=lambda row, width: named(row.queue, width, PLAIN)
        ),
        Column("WHERE", 16, lambda row: [said(row.place, DIM)], 30, 40),
        Column("ERROR", 30, error, 85, 200),
    ]


def job_columns(at: float) -> list[Column[JobRow]]:
    """What is told of a job of a page."""
    return [
        Column("JOB", 16, lambda row: [said(row.type, BOLD)], 100, 30, short=lambda row, width: named(row.type, width)),
        Column("STATE", 8, lambda row: [job_state(row)], 95),
        Column("AGE", 6, lambda row: [ago(row.at, at)], 70, right=True),
        Column("DUE", 9, lambda row: [due(row, at)], 44, right=True),
        Column("TRY", 3, lambda row: counted(row.attempt) if row.attempt else [], 42, right=True),
        Column("ID", 28, lambda row: [said(row.id, DIM)], 45, 40, wide=ROOMY),
        Column("NOTE", 16, lambda row: [said(row.note or row.worker)], 50, 200),
    ]


# Cells.


def whole(seconds: float) -> str:
    """A duration of which parts of a second do not matter: 8s, 6m12s."""
    return f"{round(seconds)}s" if seconds < 59.5 else format_duration(seconds)


def roughly(seconds: float) -> str:
    """A duration of which the second unit does not matter: 8s, 6m, 2h."""
    return re.sub(r"(?<=[mhd])\d.*", "", whole(seconds))


def tenths(seconds: float) -> str:
    """A duration that moves on while people look at it: 0.4s, 19s."""
    return f"{seconds:.1f}s" if seconds < 9.95 else format_duration(seconds)


def counted(number: int | None, style: Style = PLAIN) -> Line:
    """A number; dim when there is none."""
    if number is None:
        return [Segment(NOTHING, DIM)]
    return [Segment(f"{number:,}" if number < 10_000_000 else f"{number / 1e6:,.1f}M", style if number else DIM)]


def per_second(number: float | None) -> Segment:
    """A rate with one digit after the point, so that it does not jump."""
    if number is None:
        return Segment(NOTHING, DIM)
    return Segment(f"{number:,.0f}" if number >= 999.5 else f"{number:.1f}", PLAIN if number else DIM)


def span(seconds: float | None, style: Style = PLAIN) -> Segment:
    """A duration."""
    if seconds is None:
        return Segment(NOTHING, DIM)
    return Segment("0s" if seconds < 0.0005 else format_duration(seconds), style)


def ago(at: float | None, now: float) -> Segment:
    """How long ago it was."""
    return Segment("" if at is None else tenths(max(0.0, now - at)), DIM)


def oldest(row: QueueRow) -> Segment:
    """How long the oldest ready job has been so."""
    if row.oldest is None or row.paused is not None or not row.oldest:
        return span(row.oldest, DIM)
    if row.oldest >= LONG or (row.state in ("growing", "unserved") and row.oldest >= SOME_TIME):
        return span(row.oldest, WORST if row.state != "busy" else WARN)
    return span(row.oldest, GOOD if row.oldest < SOME_TIME else WARN)


def waits(row: QueueRow, points: Sequence[Point]) -> Segment:
    """How long jobs waited, in the last minutes."""
    style = BAD if row.state in ("growing", "unserved") else DIM if row.paused is not None else CHART
    before = [None] * (WAIT_CHART - len(points))
    return chart([*before, *(point.wait_p95 for point in points)], WAIT_CHART, style)


def drain(row: QueueRow) -> Segment:
    """When none is ready any more, if all goes on so."""
    if row.drain is None:
        return Segment(NOTHING, DIM)
    return Segment("now", DIM) if not row.drain else span(row.drain)


def queue_state(row: QueueRow, now: float) -> Line:
    """How it does, and what is to be known of it."""
    line = [_state(row, now)]
    if row.parked:
        line.append(Segment(f"  {row.parked:,} parked", WARN))
    if row.degraded:
        line.append(Segment(f"  {row.degraded:.0%} degraded", WARN))
    if row.unbegun and not row.running:
        line.append(said(f"  {advice.held(row)}", WARN))
    if row.singleton:
        # That nobody has the seat matters where somebody waits for it.
        waits = row.ready or row.unbegun
        nobody = Segment("  ¹ nobody has its seat" if waits else "  ¹", WARN if waits else DIM)
        line.append(said(f"  ¹ {row.holder}", DIM) if row.holder else nobody)
    return line


def _state(row: QueueRow, now: float) -> Segment:
    match row.state:
        case "paused":
            order = row.paused
            told = "" if order is None else f" {roughly(max(0.0, now - order.at))} by {order.by}"
            why = f": {order.reason}" if order is not None and order.reason else ""
            return said(f"‖ paused{told}{why}", WARN)
        case "unserved":
            return Segment("✗ no worker", BAD)
        case "growing":
            return Segment("▲ growing", WARN)
        case "busy":
            return Segment("busy", PLAIN)
    return Segment("ok", GOOD)


MARKS = {"alive": ("●", GOOD), "late": ("▲", WARN), "dead": ("✗", BAD), "stopping": ("◌", DIM)}


def named(name: str, width: int, style: Style = BOLD) -> Line:
    """A name in so many cells: its beginning and its end, which tell it from others."""
    return [said(middle_cut(name, width), style)]


def worker_name(row: WorkerRow, usual: str, width: int = 0) -> Line:
    """Its name; whether it lives; and whether its code is another one than most workers have.

    width: cells that there are for it; 0: as many as it takes.
    """
    mark, style = MARKS[row.state]
    code = [said(f" ≠{row.code or 'unknown'}", WARN)] if row.code != usual else []
    room = max(NAME, width - 2 - width_of(code)) if width else len(row.name)
    return [Segment(f"{mark} ", style), *named(row.name, room, BOLD if row.state != "dead" else DIM), *code]


def usual_code(shot: Snapshot) -> str:
    """The version of the application that most live workers have."""
    codes = [row.code for row in shot.workers if row.state != "dead"]
    return max(sorted(set(codes)), key=codes.count, default="")


def beat(row: WorkerRow) -> Segment:
    """How long ago its heart beat."""
    style = GOOD if row.beat_age <= row.lease / 3 + 1 else WARN if row.lease_left else WORST
    return Segment(tenths(row.beat_age), style)


def worker_queues(row: WorkerRow) -> Line:
    """What it serves; ¹ where it alone runs the jobs."""
    return [said(" ".join(_served(row)))]


def some_queues(row: WorkerRow, width: int) -> Line:
    """The first queues that it serves, whole, as many as fit beside how many others there are: `default mail +2`."""
    names = _served(row)
    for shown in range(len(names) - 1, 0, -1):
        text, more = " ".join(names[:shown]), f" +{len(names) - shown}"
        if cell_len(text + more) <= width or shown == 1:
            return [said(middle_cut(text, width - len(more))), Segment(more, DIM)]
    return [said(middle_cut(names[0], width))]


def _served(row: WorkerRow) -> list[str]:
    return [f"{name}¹" if name in row.singletons else name for name in row.queues]


def runs(row: WorkerRow) -> Line:
    """The job that has run longest, how far it is, how many others there are, and what it is called with.

    Before it what becomes of them, where the worker is not well.
    """
    job = _oldest(row)
    line = [] if job is None else [said(middle_cut(job.type, TYPE)), *progress(job)]
    if len(row.running) > 1:
        line.append(Segment(f" +{len(row.running) - 1}", DIM))
    if job is not None and job.arguments:
        line.append(said(f" {arguments_text(job)}", DIM))
    if not line and (told := advice.waits(row)):
        line = [said(", ".join(told), WARN)]
    match row.state:
        case "late":
            return [Segment(f"→ reclaimed in {whole(row.lease_left)}  ", WARN), *line]
        case "dead":
            return [Segment("→ reclaimed  ", DIM), *faded(line)]
        case "stopping":
            return [Segment("ends after  " if line else "ends", DIM), *line]
    return line


def _oldest(row: WorkerRow) -> RunningRow | None:
    return max(row.running, key=lambda job: job.seconds, default=None)


def progress(job: RunningRow) -> Line:
    """How far it says it is, and how long the rest takes if it goes on so."""
    done = job.progress
    if done is None:
        return []
    line = [Segment(" ", PLAIN)]
    line += (
        [portion(done.n / done.of, 6), Segment(f" {done.n:g}/{done.of:g}", PLAIN)]
        if done.of
        else [Segment(f"{done.n:g}", PLAIN)]
    )
    if 0 < done.n < done.of and job.seconds >= SURE:
        line.append(Segment(f" ~{whole(job.seconds * (done.of - done.n) / done.n)}", DIM))
    return [*line, said(f" {done.text}", DIM)] if done.text else line


def longest(row: WorkerRow) -> Segment:
    """How long its job has run; red when it may not run much longer."""
    job = _oldest(row)
    if job is None:
        return Segment("", DIM)
    return Segment(tenths(job.seconds), WARN if job.limit and job.seconds > 0.8 * job.limit else PLAIN)


def size(number: int | None) -> Segment:
    """Memory."""
    return (
        Segment(NOTHING, DIM)
        if number is None
        else Segment(format_size(number).replace(" ", "").replace("iB", ""), PLAIN)
    )


def share(number: float | None) -> Segment:
    """Cores."""
    return Segment(NOTHING, DIM) if number is None else Segment(f"{number:.0%}", WARN if number > 0.95 else PLAIN)


def fate(row: JobRow, now: float, done: str) -> Segment:
    """What becomes of a job that failed. done: what was done to it from here."""
    if done:
        return Segment(done, ACCENT)
    if row.due is None:
        return Segment("buried", BAD)
    left = row.due - now
    return Segment(f"retry {whole(left)}" if left >= 0.5 else "retry now", WARN)


def error(row: FailureRow) -> Line:
    """What a group failed of: the message of the latest, with its class in front where it has it not."""
    told = (
        row.message if row.message.startswith(row.exception.rpartition(".")[2]) else f"{row.exception}: {row.message}"
    )
    return [said(told)]


STATES = {"buried": BAD, "running": GOOD, "retrying": WARN, "paused": WARN}


def job_state(row: JobRow) -> Segment:
    """Where it is."""
    return said(row.state, STATES.get(row.state, PLAIN))


def due(row: JobRow, now: float) -> Segment:
    """When it starts."""
    if row.due is None:
        return Segment("", DIM)
    return Segment(f"in {whole(row.due - now)}" if row.due - now >= 0.5 else "now", PLAIN)
