"""`kq effects`: what the ledger knows of side effects. Doubts are answered by `kq jobs kick --done` or `--repeat`."""

from __future__ import annotations

from typing import cast, get_args

import click

from kq.cli import offer
from kq.cli.frame import flags, noun
from kq.cli.jobs import call_of, due_in
from kq.cli.looking import looking
from kq.cli.repair import reason as why
from kq.cli.show import print_json, print_table
from kq.cli.watch import watching
from kq.control import schema
from kq.effects.ledger import Stage
from kq.errors import NotRepaired
from kq.plain import printable
from kq.units import format_local


@noun("effects")
def command() -> None:
    """List side effects and those that are held, look at one, let one happen again."""


@command.command("ls")
@watching
@click.argument("prefix", default="")
@click.option("--stage", type=click.Choice(get_args(Stage)), help="Only begun ones, those in doubt, or those done.")
@click.option("--type", "job_type", default="", metavar="TYPE", help="Only of this job type; * stands for anything.")
@click.option("--search", default="", metavar="TEXT", help="Only with TEXT in key, job, outcome or note.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many.")
def ls(prefix: str, stage: str | None, job_type: str, search: str, limit: int) -> None:
    """Show the effects whose key begins with PREFIX: their stage, whose they are, since when.

    What is in doubt waits for an answer: kq jobs kick --done or --repeat.
    """
    with looking() as control:
        entries = control.effects(prefix, stage=cast("Stage | None", stage), type=job_type, text=search, limit=limit)
    if flags().json:
        print_json(list(map(schema.effect, entries)))
        return
    rows = [[each.key, each.stage, each.job, format_local(each.since), each.note] for each in entries]
    none = f"There are no {'such ' if prefix or stage or job_type or search else ''}effects."
    print_table(["KEY", "STAGE", "JOB", "SINCE", "NOTE"], rows, none=none, spare="SINCE")


@command.command("held")
@watching
@click.option("--queue", metavar="NAME", help="Only jobs of this queue.", shell_complete=offer.QUEUE)
def held(queue: str | None = None) -> None:
    """Show what is going to happen unless somebody says no: kq jobs revoke ID."""
    with looking() as control:
        jobs = control.held(queue)
    if flags().json:
        print_json(list(map(schema.held_job, jobs)))
        return
    rows = [[job.id, call_of(job), job.queue, due_in(job), job.parent] for job in jobs]
    print_table(["ID", "JOB", "QUEUE", "DUE", "STAGED BY"], rows, none="Nothing is held.")


@command.command("show")
@watching
@click.argument("key", shell_complete=offer.EFFECT)
def show(key: str) -> None:
    """Show what is known of one effect."""
    with looking() as control:
        entry = control.effect(key)
    if entry is None:
        raise NotRepaired(f"the ledger has no effect {key!r}", fix="kq effects ls lists them.")
    if flags().json:
        print_json(schema.effect(entry))
        return
    for name, value in schema.effect(entry).items():
        text = format_local(value) if name == "since" else value
        click.echo(f"{click.style(name.rjust(9), bold=True)}  {printable(str(text))}")


@command.command("lift")
@click.argument("key", shell_complete=offer.EFFECT)
@why
def lift(key: str, reason: str) -> None:
    """Forget an effect, so that it happens again when its job is submitted or kicked."""
    with looking() as control:
        entry = control.lift_effect(key, reason=reason)
    if flags().json:
        print_json(schema.effect(entry))
        return
    click.echo(f"lifted {printable(key)}: it happens again when its job is submitted or kicked")
