"""Tables as wide as there is room: columns of less weight go first, and the widest text gets what is left. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from rich.segment import Segment

from kq.cli.monitor.ink import ACCENT, CHOSEN, DIM, PLAIN, Line, fitted, width_of

R = TypeVar("R")
#: Cells between two columns, and before the first: for the mark of the chosen row.
GAP, MARGIN = 2, 2


@dataclass(frozen=True, slots=True)
class Column(Generic[R]):
    """width: cells that it takes at least; most: that it takes at most, while there is room. right: for numbers.

    wide: cells that the table has at least where it is shown, so that others have their room first.
    short: what it tells in so many cells of a row of which the cell does not fit.

    weight: the columns with the least are left out first where there is no room; the one with the most names the row.
    """

    heading: str
    width: int
    cell: Callable[[R], Line]
    weight: int = 0
    most: int = 0
    right: bool = False
    wide: int = 0
    short: Callable[[R, int], Line] | None = None


@dataclass(frozen=True, slots=True)
class Marks:
    """Which of the rows is chosen, None where keys move elsewhere; and which are marked."""

    chosen: int | None = None
    marked: frozenset[int] = frozenset()


def table(columns: Sequence[Column[R]], rows: Sequence[R], width: int, marks: Marks = Marks()) -> list[Line]:
    """A line of headings, and one for each row; each of width cells."""
    shown = _that_fit(columns, width - MARGIN)
    cells = [[column.cell(row) for column in shown] for row in rows]
    widths = _widths(shown, cells, width - MARGIN)
    for each, line in zip(rows, cells, strict=True):
        for number, column in enumerate(shown):
            if column.short is not None and width_of(line[number]) > widths[number]:
                line[number] = column.short(each, widths[number])
    heads = [[Segment(column.heading, DIM)] for column in shown]
    lines = [_line([Segment(" " * MARGIN, PLAIN)], heads, shown, widths, width)]
    name = max(range(len(shown)), key=lambda number: shown[number].weight)
    for number, row in enumerate(cells):
        is_chosen, is_marked = number == marks.chosen, number in marks.marked
        mark = Segment(("▸" if is_chosen else " ") + ("*" if is_marked else " "), ACCENT)
        if is_chosen:
            row[name] = [Segment(piece.text, CHOSEN) for piece in fitted(row[name], widths[name])]
        lines.append(_line([mark], row, shown, widths, width))
    return lines


def _that_fit(columns: Sequence[Column[R]], width: int) -> list[Column[R]]:
    shown = [column for column in columns if column.wide <= width]
    while len(shown) > 1 and sum(column.width + GAP for column in shown) - GAP > width:
        # The last of the lightest goes.
        shown.remove(min(reversed(shown), key=lambda column: column.weight))
    return shown


def _widths(columns: Sequence[Column[R]], rows: Sequence[Sequence[Line]], width: int) -> list[int]:
    """What each gets: its least, and of what is left as much as it can use, the weightiest columns first."""
    widths = [column.width for column in columns]
    left = width - sum(widths) - GAP * (len(columns) - 1)
    for number in sorted(range(len(columns)), key=lambda number: -columns[number].weight):
        column, wanted = columns[number], max([width_of(row[number]) for row in rows], default=0)
        more = max(0, min(left, min(wanted, column.most) - column.width))
        widths[number] += more
        left -= more
    return widths


def _line(start: Line, cells: Sequence[Line], columns: Sequence[Column[R]], widths: Sequence[int], width: int) -> Line:
    line = list(start)
    for number, (cell, column, cells_wide) in enumerate(zip(cells, columns, widths, strict=True)):
        if number:
            line.append(Segment(" " * GAP, PLAIN))
        line += fitted(cell, cells_wide, right=column.right)
    return fitted(line, width)
