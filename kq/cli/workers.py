"""`kq workers`: who is alive, late or dead, and what runs where."""

from __future__ import annotations

from kq.cli import orders
from kq.cli.frame import flags, noun
from kq.cli.looking import looking
from kq.cli.show import print_json, print_table
from kq.cli.watch import watching
from kq.control import Heartbeat, schema
from kq.control.compose import lease_left
from kq.units import format_duration


@noun("workers")
def command() -> None:
    """List workers."""


@command.command("ls")
@watching
def ls() -> None:
    """Check each worker's heartbeat: alive, late (it missed a beat) or dead (its jobs go to others)."""
    with looking() as control:
        control.freshen()
        beats = control.heartbeat_check()
        if not beats:
            control.round_trip()  # nobody is there: perhaps because there is no broker
    if flags().json:
        print_json(list(map(schema.worker, beats)))
        return
    headings = ["WORKER", "HEALTH", "BEAT", "LEASE", "BUSY", "QUEUES", "RUNS"]
    none = "No worker was seen in the last hour. Start one: kq worker"
    print_table(headings, [_row(beat) for beat in beats], right="BEAT LEASE BUSY", none=none, spare="LEASE")


for ordered in (orders.set_worker, orders.retire, orders.ping):
    command.add_command(ordered)


def _row(beat: Heartbeat) -> list[str]:
    worker = beat.worker
    runs = ", ".join(f"{job.type} {job.id}" for job in worker.running)
    more = "stopping" if worker.stopping else "retired" if worker.retired else ""
    health = f"{beat.health.value}, {more}" if more else beat.health.value
    return [
        worker.name,
        health,
        format_duration(beat.age),
        format_duration(lease_left(beat)),
        f"{len(worker.running)}/{worker.slots}",
        ", ".join(f"{queue} (singleton)" if queue in worker.singletons else queue for queue in worker.queues),
        runs,
    ]
