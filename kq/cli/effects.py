"""`kq effects`: what the ledger knows of side effects, and what people decide about them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click
import msgspec

from kq.cli import offer
from kq.cli.frame import flags, noun
from kq.cli.jobs import as_data as job_data
from kq.cli.jobs import call_of, due_in
from kq.cli.repair import reason as why
from kq.cli.show import print_json, print_table
from kq.cli.target import looking
from kq.cli.watch import watching
from kq.control import Entry
from kq.errors import NotRepaired


@noun("effects")
def command() -> None:
    """List side effects, and decide about those in doubt."""


@command.command("ls")
@watching
@click.argument("prefix", default="")
@click.option("--doubt", is_flag=True, help="Only those that nobody knows of.")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="Look at so many at most.")
def ls(prefix: str, doubt: bool, limit: int) -> None:
    """Show the effects whose key begins with PREFIX: their stage, whose they are, since when."""
    with looking() as control:
        entries = control.effects(prefix, doubt=doubt, limit=limit)
    if flags().json:
        print_json([as_data(entry) for entry in entries])
        return
    rows = [[each.key, each.stage, each.job, _when(each.since), each.note] for each in entries]
    print_table(["KEY", "STAGE", "JOB", "SINCE", "NOTE"], rows, none="There are no effects.")


@command.command("held")
@watching
@click.option("--queue", metavar="NAME", help="Only jobs of this queue.", shell_complete=offer.QUEUE)
def held(queue: str | None = None) -> None:
    """Show what is going to happen unless somebody says no: kq jobs revoke ID."""
    with looking() as control:
        jobs = control.held(queue)
    if flags().json:
        print_json([job_data(job) | {"due": job.due} for job in jobs])
        return
    rows = [[job.id, call_of(job), job.queue, due_in(job), job.parent] for job in jobs]
    print_table(["ID", "JOB", "QUEUE", "DUE", "STAGED BY"], rows, none="Nothing is held.")


@command.command("show")
@watching
@click.argument("key", shell_complete=offer.EFFECT)
def show(key: str) -> None:
    """Show what is known of one effect."""
    with looking() as control:
        found = [entry for entry in control.effects(key) if entry.key == key]
    if not found:
        raise NotRepaired(f"the ledger has no effect {key!r}; kq effects ls lists them")
    if flags().json:
        print_json(as_data(found[0]))
        return
    for name, value in as_data(found[0]).items():
        click.echo(f"{name + ':':10} {value}")


@command.command("done")
@click.argument("key", shell_complete=offer.EFFECT)
@click.option("--outcome", default="null", metavar="JSON", help="What its jobs complete with.")
@why
def done(key: str, outcome: str, reason: str) -> None:
    """Say of an effect in doubt that it happened. Kick its job, and it completes."""
    try:
        value = msgspec.json.decode(outcome)
    except msgspec.DecodeError as error:
        raise click.UsageError(f"--outcome {outcome!r} is no JSON: {error}") from None
    with looking() as control:
        entry = control.effect_happened(key, value, reason=reason)
    _told(entry, "done; its job completes when it is kicked")


@command.command("lift")
@click.argument("key", shell_complete=offer.EFFECT)
@why
def lift(key: str, reason: str) -> None:
    """Forget an effect, so that it may happen (again). Kick its job, and it is done."""
    with looking() as control:
        entry = control.lift_effect(key, reason=reason)
    _told(entry, "forgotten; it happens when its job is kicked, or submitted again")


def _told(entry: Entry, what: str) -> None:
    if flags().json:
        print_json(as_data(entry))
        return
    click.echo(f"{entry.key}: {what}: kq jobs kick {entry.job}")


def as_data(entry: Entry) -> dict[str, Any]:
    """The form that scripts rely on."""
    return {
        "key": entry.key,
        "stage": entry.stage,
        "type": entry.type,
        "job": entry.job,
        "attempt": entry.attempt,
        "worker": entry.worker,
        "since": entry.since,
        "outcome": msgspec.json.decode(entry.outcome),
        "note": entry.note,
    }


def _when(instant: float) -> str:
    return datetime.fromtimestamp(instant).strftime("%Y-%m-%d %H:%M:%S")
