"""What people order: queues and job types paused and resumed, workers retired; and why things wait.

The verbs stand under their nouns: `kq queues pause`, `kq jobs why`, `kq workers retire`.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from kq.cli import offer
from kq.cli.doubt import doubt_among, doubt_queue, doubt_type, must_know_queue
from kq.cli.frame import flags, verb
from kq.cli.looking import looking
from kq.cli.show import print_json, say
from kq.cli.watch import watching
from kq.control import Control, schema
from kq.control.orders import after_set
from kq.control.size import size_of
from kq.control.view import known_job
from kq.errors import NotFound
from kq.plain import printable
from kq.units import counted, format_duration
from kq.values.stack import Stack

REASON = click.option("--reason", metavar="TEXT", default="", help="Why, for those who ask.")


def _target(queue: str | None, type: str | None) -> str:
    """What is meant. Raises UsageError unless it is one thing."""
    if (queue is None) == (type is None):
        raise click.UsageError("name a queue, or --type and a job type")
    return f"queue {queue}" if queue else f"type {type}"


def _told(control: Control, what: str, **data: object) -> None:
    """Say what was ordered, and which of the workers that live have heard it."""
    heard = control.ping()
    workers = control.workers()
    if flags().json:
        print_json({**data, "heard": heard, "workers": [worker.name for worker in workers]})
    else:
        click.echo(printable(f"{what}. Workers that have heard: {len(heard)} of {len(workers)}."))


@verb("pause")
@click.argument("queue", required=False, shell_complete=offer.QUEUE)
@click.option("--type", metavar="TYPE", help="Pause a job type, in whatever queue, instead.", shell_complete=offer.TYPE)
@REASON
def pause(queue: str | None = None, type: str | None = None, reason: str = "") -> None:
    """Let no job of QUEUE, or of a type, start until it is resumed. Jobs that run go on; submitting goes on."""
    what = _target(queue, type)
    with looking() as control:
        doubt_queue(control, queue)
        doubt_type(control, type)
        if queue is not None:
            control.pause(queue, reason=reason)
        elif type is not None:
            control.pause_type(type, reason=reason)
        _told(control, f"Paused {what}", paused=what)


@verb("resume")
@click.argument("queue", required=False, shell_complete=offer.QUEUE)
@click.option(
    "--type",
    metavar="TYPE",
    help="Resume a job type instead, and put back what was parked.",
    shell_complete=offer.TYPE,
)
@REASON
def resume(queue: str | None = None, type: str | None = None, reason: str = "") -> None:
    """Let jobs of QUEUE, or of a type, start again."""
    what = _target(queue, type)
    with looking() as control:
        if queue is not None:
            then = "" if control.resume(queue, reason=reason) else ", which was not paused"
            _told(control, f"Resumed {what}{then}", resumed=what)
        elif type is not None:
            back = control.resume_type(type, reason=reason)
            _told(control, f"Resumed {what}; {counted(back, 'parked job')} put back", resumed=what, back=back)


@verb("why")
@watching
@click.argument("queue", shell_complete=offer.QUEUE)
def why_queue(queue: str) -> None:
    """Say why the jobs of QUEUE wait."""
    with looking() as control:
        must_know_queue(control, queue)
        _say(control.why_queue(queue, local=not flags().json), queue=queue)


@verb("why")
@watching
@click.argument("id", shell_complete=offer.JOB)
def why_job(id: str) -> None:
    """Say why the job ID is where it is."""
    with looking() as control:
        known_job(control, id)
        _say(control.why(id, local=not flags().json), id=id)


@verb("stack")
@watching
@click.argument("id", shell_complete=offer.JOB)
def stack(id: str) -> int:
    """Say where the job ID is that runs: the calls of its code, the innermost last. Nothing is stopped.

    Exit code 1 when it does not run, or nobody tells.
    """
    with looking() as control:
        found = control.stack(id)
    if flags().json:
        print_json(schema.stack(found))
    else:
        for line in stack_lines(found):
            click.echo(printable(line))
    return 0 if found.frames else 1


def stack_lines(found: Stack) -> Iterator[str]:
    """Where a job is, for people."""
    if found.frames:
        ran = f"has run for {format_duration(round(found.seconds, 3))} on {found.worker}"
        yield f"{found.type} {found.job} {ran}, in process {found.executor}. It is here, the innermost call last:"
    yield from (f"  {frame}" for frame in found.frames)
    if found.note:
        yield found.note


@verb("retire")
@click.argument("name", shell_complete=offer.WORKER)
@click.option("--now", is_flag=True, help="Do not wait for it: its jobs go to others at once.")
@REASON
def retire(name: str, now: bool = False, reason: str = "") -> None:
    """Take the worker NAME out of commission: it finishes what runs, gives back the rest and ends."""
    with looking() as control:
        if not control.retire(name, now=now, reason=reason):
            raise NotFound(f"there is no worker {name!r}", fix="kq workers ls names them.")
    if flags().json:
        print_json({"name": name, "retired": True, "now": now})
    else:
        then = "its jobs are back." if now else "it ends when what runs is done."
        click.echo(printable(f"Retired {name}: {then}"))


@verb("set")
@click.argument("name", shell_complete=offer.WORKER)
@click.option("-c", "--concurrency", type=int, metavar="N", help="Run so many jobs at once.")
@click.option("-Q", "--queues", metavar="+A,-B", help="Take queue A too (+A:2: two of its jobs at once), B no more.")
@REASON
def set_worker(name: str, concurrency: int | None = None, queues: str | None = None, reason: str = "") -> int:
    """Change how many jobs the worker NAME runs at once, or which queues it takes, as long as it lives.

    What runs goes on. Exit code 1 when the worker has not heard of it yet: it will.
    """
    changes = [each.strip() for each in queues.split(",")] if queues else []
    with looking() as control:
        known = control.queue_names()  # before: the worker makes those that it is to take
        control.set_worker(name, concurrency=concurrency, queues=changes, reason=reason)
        for queue in size_of(concurrency, changes).more:
            doubt_among(known, queue)
        worker, heard = after_set(control, name)
    if flags().json:
        print_json(schema.size(name, worker, heard=heard))
    elif worker is not None and heard:
        click.echo(
            printable(f"Set {name}: it runs {counted(worker.slots, 'job')} at once, of {', '.join(worker.queues)}.")
        )
    else:
        click.echo(printable(f"{name} has not heard of it yet. It does what was said as soon as it looks."))
    return 0 if heard else 1


@verb("ping")
@click.option("--timeout", type=click.FloatRange(0), default=1.0, show_default=True, help="Seconds to wait for them.")
def ping(timeout: float) -> int:
    """Ask each worker that lives whether it listens. Exit code 1 when one does not answer in time."""
    with looking() as control:
        told = schema.ping(control.ping(timeout), control.workers())
    if flags().json:
        print_json(told)
    else:
        for name in told["answered"]:
            click.echo(f"{printable(name)}  answers")
        for name in told["silent"]:
            click.echo(f"{printable(name)}  " + click.style("is silent", fg="red"))
        if not told["answered"] and not told["silent"]:
            click.echo("No worker lives. Start one: kq worker")
    return 1 if told["silent"] else 0


def _say(sentence: str, **about: str) -> None:
    if flags().json:
        print_json({**about, "why": sentence})
    else:
        say(printable(sentence))
