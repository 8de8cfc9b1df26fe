"""Printing: JSON for scripts, plain columns for people."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

import click
import msgspec

from kq.cli.plain import printable


def print_json(data: object) -> None:
    """data as JSON on stdout."""
    click.echo(msgspec.json.format(msgspec.json.encode(data), indent=2))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], right: str = "", none: str = "") -> None:
    """Columns as wide as they must be, on a terminal cut to its width.

    right: headings of columns with numbers. none: what to say instead when there are no rows.
    """
    if not rows:
        click.echo(none)
        return
    lines = [list(headings), *(list(map(printable, row)) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    numbers = set(right.split())
    limit = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for number, line in enumerate(lines):
        cells = [
            cell.rjust(width) if heading in numbers else cell.ljust(width)
            for heading, cell, width in zip(headings, line, widths, strict=True)
        ]
        text = "  ".join(cells).rstrip()
        text = text if limit is None or len(text) <= limit else f"{text[: limit - 1]}…"
        click.echo(click.style(text, bold=True) if number == 0 else text)
