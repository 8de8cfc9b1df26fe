"""`kq logs`: what jobs log, and programs with `kq.logging.Handler`, as they log it."""

from __future__ import annotations

from pathlib import Path

import click

from kq.cli import offer
from kq.cli.events import number, tell
from kq.cli.frame import Duration, verb
from kq.units import format_time
from kq.values.event import Event


@verb("logs")
@click.option("-f", "--follow", is_flag=True, help="Until ctrl-C; that is so in any case.")
@click.option("--job", metavar="ID", default="", help="Only of this job.")
@click.option("--queue", default="", shell_complete=offer.QUEUE, help="Only of jobs of this queue.")
@click.option("--type", default="", shell_complete=offer.TYPE, help="Only of this job type; may have *.")
@click.option("--for", "seconds", type=Duration(), metavar="10s", help="End after so long.")
@click.option("--record", type=click.Path(dir_okay=False, path_type=Path), help="Write them to FILE too, a line each.")
def command(follow: bool, job: str, queue: str, type: str, seconds: float | None, record: Path | None) -> None:
    """Show what jobs log, and programs with kq.logging.Handler, as they log it; with --json a line each."""
    tell("logs", job, queue, type, seconds, record, as_text)


def as_text(event: Event) -> str:
    """A record for people; one that has several lines is told as one."""
    when = format_time(event.at)
    if event.event == "lost":
        return f"{when}  {number(event.n)} lines were not told, as there were too many"
    about = f"  {event.type} {event.job} on {event.worker}" if event.job else ""
    return f"{when}  {event.level} {event.logger}: {event.message}{about}"
