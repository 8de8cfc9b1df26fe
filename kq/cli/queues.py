"""`kq queues`: what waits where."""

from __future__ import annotations

from kq.cli import orders
from kq.cli.frame import flags, noun
from kq.cli.show import print_json, print_table
from kq.cli.target import looking
from kq.control import QueueInfo


@noun("queues")
def command() -> None:
    """List queues."""


@command.command("ls")
def ls() -> None:
    """Show each queue: jobs ready, delayed, running (held by workers) and buried, and the workers that serve it."""
    with looking() as control:
        queues = control.queues()
    if flags().json:
        print_json([as_data(queue) for queue in queues])
        return
    rows = [[q.name, *map(str, (q.ready, q.delayed, q.held, q.buried, q.workers))] for q in queues]
    headings = ["QUEUE", "READY", "DELAYED", "RUNNING", "BURIED", "WORKERS"]
    print_table(headings, rows, right="READY DELAYED RUNNING BURIED WORKERS", none="There are no queues yet.")


for ordered in (orders.pause, orders.resume, orders.why_queue):
    command.add_command(ordered)


def as_data(queue: QueueInfo) -> dict[str, object]:
    """The form that scripts rely on."""
    return {
        "name": queue.name,
        "ready": queue.ready,
        "delayed": queue.delayed,
        "running": queue.held,
        "buried": queue.buried,
        "workers": queue.workers,
    }
