"""`kq queues`: what waits where."""

from __future__ import annotations

import msgspec

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
    rows = [[q.name, *map(str, (q.ready, q.delayed, q.held, q.buried, q.workers)), _note(q)] for q in queues]
    headings = ["QUEUE", "READY", "DELAYED", "RUNNING", "BURIED", "WORKERS", "NOTE"]
    print_table(headings, rows, right="READY DELAYED RUNNING BURIED WORKERS", none="There are no queues yet.")


def _note(queue: QueueInfo) -> str:
    told = [f"paused {queue.paused}"] if queue.paused else []
    return ", ".join(told + [f"{queue.parked} parked"] * bool(queue.parked))


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
        "parked": queue.parked,
        "paused": None if queue.paused is None else msgspec.to_builtins(queue.paused),
    }
