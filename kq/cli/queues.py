"""`kq queues`: what waits where."""

from __future__ import annotations

import click

from kq.cli import offer, orders
from kq.cli.ask import YES, sure
from kq.cli.doubt import must_know_queue
from kq.cli.frame import flags, noun
from kq.cli.looking import looking
from kq.cli.repair import reason
from kq.cli.show import print_json, print_table
from kq.cli.watch import watching
from kq.control import QueueInfo, schema
from kq.plain import printable
from kq.units import counted


@noun("queues")
def command() -> None:
    """List queues, pause and resume them, say why they wait, empty them."""


@command.command("ls")
@watching
def ls() -> None:
    """Show each queue: jobs ready, delayed, running (held by workers) and buried, and the workers that serve it."""
    with looking() as control:
        queues = control.queues()
    if flags().json:
        print_json(list(map(schema.queue, queues)))
        return
    rows = [[q.name, *map(str, (q.ready, q.delayed, q.held, q.buried, q.workers)), _note(q)] for q in queues]
    headings = ["QUEUE", "READY", "DELAYED", "RUNNING", "BURIED", "WORKERS", "NOTE"]
    print_table(headings, rows, right="READY DELAYED RUNNING BURIED WORKERS", none="There are no queues yet.")


def _note(queue: QueueInfo) -> str:
    told = [f"paused {queue.paused}"] if queue.paused else []
    told += [f"{queue.parked:,} parked"] * bool(queue.parked)
    told += ["no live worker takes it"] * bool(not queue.workers and (queue.ready or queue.held))
    if queue.singleton is not None:
        told.append(f"singleton held by {queue.singleton}" if queue.singleton else "singleton")
    return ", ".join(told)


@command.command("purge")
@click.argument("queue", shell_complete=offer.QUEUE)
@click.option("--buried", is_flag=True, help="The jobs that lie buried from it, instead of those that wait.")
@YES
@reason
def purge(queue: str, buried: bool, yes: bool, reason: str) -> None:
    """End all jobs that wait in QUEUE, for good; those that run go on. Says first how many there are."""
    with looking() as control:
        must_know_queue(control, queue)
        info = next(each for each in control.queues() if each.name == queue)
        count = info.buried if buried else info.ready + info.delayed + info.parked
        if count:
            sure(f"delete {counted(count, 'job')} {'buried from' if buried else 'waiting in'} {queue} for good", yes)
        ended = control.purge(queue, buried=buried, reason=reason) if count else 0
    if flags().json:
        print_json({"queue": queue, "purged": ended})
    else:
        click.echo(printable(f"purged {queue}: {counted(ended, 'job')}"))


@command.command("rm")
@click.argument("queue", shell_complete=offer.QUEUE)
@reason
def rm(queue: str, reason: str) -> None:
    """Remove QUEUE, which must be empty and served by no worker. The next submit or worker makes it anew."""
    with looking() as control:
        must_know_queue(control, queue)
        control.remove_queue(queue, reason=reason)
    if flags().json:
        print_json({"queue": queue, "removed": True})
    else:
        click.echo(printable(f"removed {queue}"))


for ordered in (orders.pause, orders.resume, orders.why_queue):
    command.add_command(ordered)
