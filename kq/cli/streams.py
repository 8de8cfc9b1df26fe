"""`kq jobs stream`: what a job emits, as it comes."""

from __future__ import annotations

import json
from contextlib import suppress

import click

from kq.cli import offer
from kq.cli.frame import Duration, flags, verb
from kq.cli.looking import looking
from kq.control import schema
from kq.control.view import known_job
from kq.errors import ResultTimeout
from kq.handles.stream import Chunk
from kq.plain import printable_json, printable_lines
from kq.values.secret import without_marked

#: Seconds that are followed when nobody says for how long: a year.
EVER = 366 * 86400.0


@verb("stream")
@click.argument("id", shell_complete=offer.JOB)
@click.option("-f", "--follow", is_flag=True, help="Until the job has ended; else what stands there.")
@click.option("--offset", type=click.IntRange(0), default=0, metavar="N", help="Begin with this chunk.")
@click.option("--for", "seconds", type=Duration(), metavar="10s", help="Follow for at most so long.")
def command(id: str, follow: bool, offset: int, seconds: float | None) -> None:
    """Print what the job ID emits: text as it is, all else as JSON, a line each; with --json each chunk on a line.

    Where a run of the job takes the place of what one before it emitted, stderr says so, and --json `begins`.
    """
    lasts = (EVER if seconds is None else seconds) if follow or seconds is not None else 0.0
    with looking() as control:
        known_job(control, id)
        open_line = False
        with suppress(ResultTimeout), control.stream(id, offset, timeout=lasts) as stream:
            for chunk in stream:
                open_line = _print(chunk, open_line)
        if open_line:
            click.echo()


def _print(chunk: Chunk, open_line: bool) -> bool:
    """Print a chunk; returns whether it ended within a line. open_line: whether the one before did."""
    if flags().json:
        click.echo(printable_json(json.dumps(without_marked(schema.chunk(chunk)), ensure_ascii=False)))
        return False
    if chunk.begins and chunk.offset:  # a job that was given back has the same attempt once more
        if open_line:
            click.echo()
            open_line = False
        click.echo(f"attempt {chunk.attempt} begins anew:", err=True)
    text = chunk.value
    if not isinstance(text, str):
        text = ("\n" if open_line else "") + json.dumps(without_marked(text), ensure_ascii=False) + "\n"
    click.echo(printable_lines(text), nl=False)
    return not text.endswith("\n")
