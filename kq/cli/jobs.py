"""`kq jobs`: what waits, is delayed, runs or was buried; and all that is known of one job."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import click
import msgspec

from kq.cli import orders
from kq.cli.frame import flags, noun
from kq.cli.plain import printable
from kq.cli.show import print_json, print_table
from kq.cli.target import looking
from kq.control import JobInfo
from kq.job import State
from kq.units import format_duration

LISTED = [State.READY, State.DELAYED, State.RETRYING, State.RESERVED, State.RUNNING, State.BURIED]


@noun("jobs")
def command() -> None:
    """List jobs, and look at one."""


@command.command("ls")
@click.option("--state", type=click.Choice([state.value for state in LISTED]), help="Only jobs in this state.")
@click.option("--queue", metavar="NAME", help="Only jobs of this queue.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many of each queue.")
def ls(state: str | None = None, queue: str | None = None, limit: int = 100) -> None:
    """List jobs in the order in which they would run. Those that have ended are not listed; `show` knows them."""
    with looking() as control:
        jobs = control.jobs(queue, state, limit)
    if flags().json:
        print_json([as_data(job) for job in jobs])
        return
    rows = [[job.id, job.type, job.queue, job.state.value, str(job.attempt), _note(job)] for job in jobs]
    print_table(["ID", "TYPE", "QUEUE", "STATE", "ATTEMPT", "NOTE"], rows, right="ATTEMPT", none="There are no jobs.")


@command.command("show")
@click.argument("id")
def show(id: str) -> None:
    """Show all that is known of the job ID: arguments, history, error, result."""
    with looking() as control:
        job = control.job(id)
    if job is None:
        raise orders.unknown_job(id)
    if flags().json:
        print_json(as_data(job) | more_data(job))
        return
    for name, text in _lines(job):
        click.echo(f"{click.style(name.rjust(9), bold=True)}  {printable(text)}")


for ordered in (orders.why_job, orders.revoke):
    command.add_command(ordered)


def as_data(job: JobInfo) -> dict[str, object]:
    """The form that scripts rely on."""
    return {
        "id": job.id,
        "type": job.type,
        "queue": job.queue,
        "state": job.state.value,
        "attempt": job.attempt,
        "error": job.error or None,
    }


def more_data(job: JobInfo) -> dict[str, object]:
    """What `show` adds to it."""
    return {
        "args": job.args,
        "kwargs": job.kwargs,
        "history": [msgspec.to_builtins(attempt) for attempt in job.history],
        "priority": job.priority,
        "due": job.due,
        "result": job.result,
        "worker": job.worker or None,
        "traceback": job.traceback or None,
    }


def _note(job: JobInfo) -> str:
    if job.error:
        return job.error
    if job.due is not None:
        return f"due in {format_duration(max(0.0, job.due - time.time()))}"
    return job.worker


def _lines(job: JobInfo) -> Iterator[tuple[str, str]]:
    yield "id", job.id
    yield "type", job.type
    yield "queue", f"{job.queue}, priority {job.priority}"
    yield "state", job.state.value
    for name, text in (("worker", job.worker), ("error", job.error)):
        if text:
            yield name, text
    if job.due is not None:
        yield "due", f"in {format_duration(max(0.0, job.due - time.time()))}"
    yield "arguments", call_of(job)
    if job.state is State.COMPLETED:
        yield "result", _json(job.result)
    for attempt in job.history:
        took = format_duration(max(0.0, attempt.ended - attempt.started))
        yield f"attempt {attempt.number}", f"{attempt.outcome} after {took} on {attempt.worker}: {attempt.error}"
    yield from ((" ", line) for line in job.traceback.splitlines())


def call_of(job: JobInfo) -> str:
    """The job as a call: resize("cat.png", width=200)."""
    named = [f"{name}={_json(value)}" for name, value in job.kwargs.items()]
    return f"{job.type}({', '.join([*map(_json, job.args), *named])})"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
