"""Printing: JSON for scripts, plain columns for people."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Container, Sequence

import click
import msgspec

from kq.cli.frame import flags
from kq.plain import cut, folded, middle_cut, printable, printable_json
from kq.stated import stated
from kq.units import format_duration, format_rate
from kq.values.secret import MARK, without_marked

#: Characters that a column is wide at most, and one of names: a long one must not push all that follows off the screen.
WIDEST, NAMED = 60, 40
#: Characters that the last column has at least, where it has so many: an id fits.
ROOM = 28
#: Columns that are never shortened: they are copied.
WHOLE = {"ID", "JOB", "KEY", "HEALTH", "STATE", "STAGE"}
#: Characters to which names are shortened before columns are left out, and afterwards.
NAME, SHORTEST = 24, 12
#: Stands for a number that nobody knows.
NOTHING = "-"


def print_json(data: object) -> None:
    """data as JSON on stdout; each object says first by which schema. One line while it is watched."""
    encoded = msgspec.json.encode(stated(data))
    if MARK.encode() in encoded:
        encoded = msgspec.json.encode(without_marked(msgspec.json.decode(encoded)))
    text = encoded if flags().watching else msgspec.json.format(encoded, indent=2)
    click.echo(printable_json(text.decode()))


def print_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], right: str = "", none: str = "", spare: str = ""
) -> None:
    """Columns as wide as they must be and no wider than WIDEST but the last. On a terminal what is longer is cut.

    right: headings of columns with numbers. none: what to say instead when there are no rows. spare: headings of
    columns that are left out, the first of them first, on a terminal that is too narrow for all.
    """
    if not rows:
        click.echo(none)
        return
    limit = width() if sys.stdout.isatty() else None
    lines = [list(headings), *(list(map(printable, row)) for row in rows)]
    if limit is not None:
        most = [WIDEST if heading in WHOLE else NAMED for heading in headings[:-1]]
        lines = [[*map(_shorter, line[:-1], most), line[-1]] for line in lines]
        lines = _narrowed(lines, limit, spare.split(), right.split())
    headings, widths, numbers = lines[0], _widths(lines), set(right.split())
    for number, line in enumerate(lines):
        cells = [
            cell.rjust(width) if heading in numbers else cell.ljust(width)
            for heading, cell, width in zip(headings, line, widths, strict=True)
        ]
        text = "  ".join(cells).rstrip()
        text = text if limit is None else cut(text, limit)
        click.echo(click.style(text, bold=True) if number == 0 else text)


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [min(WIDEST, max(map(len, column))) for column in zip(*lines, strict=True)]


def _narrowed(lines: list[list[str]], limit: int, spare: Sequence[str], numbers: Container[str]) -> list[list[str]]:
    """lines with shorter names, and without as many of the columns that can be spared as it takes.

    The first line has the headings.
    """
    lines = _shortened(lines, limit, numbers, NAME)
    for heading in spare:
        if _beyond(lines, limit) <= 0:
            break
        place = lines[0].index(heading)
        lines = [[*line[:place], *line[place + 1 :]] for line in lines]
    return _shortened(lines, limit, numbers, SHORTEST)


def _beyond(lines: Sequence[Sequence[str]], limit: int) -> int:
    """How many characters too wide they are."""
    *others, last = _widths(lines)
    return sum(others) + 2 * len(others) + min(last, ROOM) - limit


def _shortened(lines: list[list[str]], limit: int, numbers: Container[str], least: int) -> list[list[str]]:
    """lines that fit, if names of so many characters at least make them: the longest names first, ids never."""
    while (beyond := _beyond(lines, limit)) > 0:
        widths = _widths(lines)
        names = [
            place for place, heading in enumerate(lines[0][:-1]) if heading not in WHOLE and heading not in numbers
        ]
        place = max(names, key=lambda place: widths[place], default=-1)
        if place < 0 or widths[place] <= least:
            break
        next_widest = max((widths[other] for other in names if other != place), default=least)
        wide = max(least, widths[place] - beyond, min(next_widest, widths[place] - 1))
        lines = [[*line[:place], _shorter(line[place], wide), *line[place + 1 :]] for line in lines]
    return lines


def say(text: str) -> None:
    """A sentence on stdout; on a terminal it is broken where words end."""
    click.echo(fitting(text, 0))


def width() -> int:
    """Columns of the terminal."""
    return shutil.get_terminal_size().columns


def _shorter(text: str, width: int) -> str:
    """Of one name, or two, the beginning and the end; of several words what comes first."""
    return cut(text, width) if text.count(" ") > 1 else middle_cut(text, width)


def fitting(text: str, indent: int) -> str:
    """text for a terminal, its lines but the first indented; as it is for others."""
    return folded(text, width(), indent) if sys.stdout.isatty() and len(text) > width() - indent else text


def rate(number: float | None) -> str:
    """Something a second: 1,204, 31, 2.1, 0.042."""
    return NOTHING if number is None else format_rate(number)


def span(seconds: float | None) -> str:
    """A duration: 6m12s, 0s."""
    return NOTHING if seconds is None else format_duration(seconds) if seconds else "0s"
