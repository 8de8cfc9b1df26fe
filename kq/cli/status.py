"""`kq status`: everything at one look, as sections of text or as the snapshot's JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from kq.cli.condition import FAIL_IF, doubt
from kq.cli.failing import DONE, NO, UNAVAILABLE
from kq.cli.frame import flags, verb
from kq.cli.looking import looking
from kq.cli.show import NOTHING, print_json, print_table, rate, say, span
from kq.cli.watch import watching
from kq.plain import printable
from kq.units import format_duration, format_size, format_time
from kq.values.advice import advice, held, says, waits
from kq.values.condition import Condition
from kq.values.snapshot import FailureRow, QueueRow, RunningRow, Snapshot, WorkerRow

#: So many groups of failures are shown.
FAILURES = 10


@verb("status")
@watching
@FAIL_IF
def command(conditions: tuple[Condition, ...]) -> int:
    """Show queues, workers and failures: whether kq is falling behind, where, and why."""
    return look(conditions)


def look(conditions: tuple[Condition, ...]) -> int:
    """Look once, print what is seen; returns the exit code."""
    with looking() as control:
        shot = control.snapshot()
    doubt(conditions, shot)
    met = [condition.text for condition in conditions if condition.holds(shot)]
    show(shot)
    for text in met:
        click.echo(click.style(f"it is so: {printable(text)}", fg="red"), err=True)
    return UNAVAILABLE if shot.broker else NO if met else DONE


def show(shot: Snapshot) -> None:
    """Print it."""
    if flags().json:
        print_json(shot)
        return
    click.echo(printable(_head(shot)))
    if not shot.absent:
        click.echo(_totals(shot))
    queues = [_queue_row(row, unknown=bool(shot.broker)) for row in shot.queues]
    spare = "RETRYING FAIL/S DRAIN WAIT95 DELAYED RUNNING WORKERS IN/S OUT/S"
    _section(["QUEUE", *_QUEUE.split(), "STATE"], queues, _QUEUE, spare)
    workers, spare = list(map(_worker_row, shot.workers)), "LEASE CPU RSS OK QUEUES FAILED"
    _section(["WORKER", "STATE", *_WORKER.split(), "QUEUES", "RUNS"], workers, _WORKER, spare)
    rows = [_failure_row(row, shot.at) for row in shot.failures[:FAILURES]]
    _section(["FAILURE", "QUEUE", *_FAILURE.split(), "LATEST"], rows, _FAILURE, "QUEUE AGO")
    _tell(shot)


_QUEUE = "READY DELAYED RETRYING RUNNING BURIED IN/S OUT/S FAIL/S OLDEST WAIT95 DRAIN WORKERS"
_WORKER = "BEAT LEASE BUSY OK FAILED RSS CPU"
_FAILURE = "FAILED BURIED AGO"


def _section(headings: Sequence[str], rows: Sequence[Sequence[str]], right: str, spare: str) -> None:
    if rows:
        click.echo()
        print_table(headings, rows, right=right, spare=spare)


def _tell(shot: Snapshot) -> None:
    """What is wrong, each with the command to type next; and what could not be had."""
    for each in advice(shot):
        click.echo()
        say(click.style(printable(each.what), fg="yellow"))
        click.echo(f"  {printable(each.command)}")
    for told in () if shot.absent else shot.missing:
        click.echo()
        say(printable(told))


def _head(shot: Snapshot) -> str:
    control = f"control {shot.control}" if shot.control else "no control"
    return f"{shot.url}  {format_time(shot.at)}  {control}"


def _totals(shot: Snapshot) -> str:
    all = shot.totals
    ready, delayed, buried = (
        NOTHING if shot.broker else f"{number:,}" for number in (all.ready, all.delayed, all.buried)
    )
    jobs = [
        f"ready {ready}",
        f"running {all.running}/{all.slots}",
        f"delayed {delayed}",
        f"buried {buried}",
        f"completed {NOTHING if all.completed is None else f'{all.completed:,}'}",
        f"workers {all.workers}/{all.known}",
    ]
    pace = [
        f"in {rate(all.came)}/s",
        f"out {rate(all.ended)}/s",
        f"fail {rate(all.failed)}/s",
        f"oldest {span(all.oldest)}",
        f"p95 wait {span(all.wait_p95)}",
    ]
    return "\n".join(map("  ".join, (jobs, pace)))


def _queue_row(row: QueueRow, *, unknown: bool) -> list[str]:
    """unknown: the broker did not say what is in it."""
    counts = [None] * 5 if unknown else [row.ready, row.delayed, row.retrying, row.running, row.buried]
    rates = [row.came, row.ended, row.failed]
    return [
        row.name,
        *(NOTHING if count is None else f"{count:,}" for count in counts),
        *map(rate, rates),
        *map(span, (row.oldest, row.wait_p95, row.drain)),
        str(row.workers),
        "unknown" if unknown else _state(row),
    ]


def _state(row: QueueRow) -> str:
    told: list[str] = [row.state]
    if row.paused is not None:
        told.append(f"by {row.paused.by}: {row.paused.reason}" if row.paused.reason else f"by {row.paused.by}")
    if row.unbegun and not row.running:
        told.append(held(row))
    if row.parked:
        told.append(f"{row.parked:,} parked")
    if row.degraded:
        told.append(f"{row.degraded:.0%} degraded")
    if row.holder:
        told.append(f"held by {row.holder}")
    return ", ".join(told)


def _worker_row(row: WorkerRow) -> list[str]:
    runs = [f"{job.type} {job.id} {format_duration(job.seconds)} {says(job.progress)}".rstrip() for job in row.running]
    runs += waits(row)
    return [
        row.name,
        row.state,
        format_duration(row.beat_age),
        format_duration(row.lease_left),
        f"{len(row.running)}/{row.slots}",
        f"{row.ok:,}",
        f"{row.failed:,}",
        NOTHING if row.rss is None else format_size(row.rss).replace(" ", ""),
        NOTHING if row.cpu is None else f"{row.cpu:.0%}",
        ", ".join(row.queues),
        ", ".join(runs),
    ]


def arguments_text(job: RunningRow) -> str:
    """What a job that runs is called with: (doc="report.pdf", width=200); "" where nobody says."""
    told = [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in job.arguments.items()]
    return f"({', '.join(told)})" if told else ""


def _failure_row(row: FailureRow, now: float) -> list[str]:
    buried = NOTHING if row.buried is None else f"{row.buried:,}"
    ago = format_duration(max(0.0, round(now - row.last, 1)))
    return [f"{row.type} {row.exception}", row.queue, f"{row.failed:,}", buried, ago, row.message]
