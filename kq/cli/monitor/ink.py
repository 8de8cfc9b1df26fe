"""Ink: what the screen is drawn with. Styled pieces of text, bars and small charts, each as wide as it says. Pure.

Only colours of the terminal's own palette, so that they fit whatever background people have. Every text of others goes
through `said`, which spells out what could move the cursor or forge a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style

from kq.plain import printable

#: Pieces beside each other.
Line: TypeAlias = list[Segment]

PLAIN = Style()
BOLD = Style(bold=True)
DIM = Style(dim=True)
GOOD = Style(color="green")
WARN = Style(color="yellow")
BAD = Style(color="red")
WORST = Style(color="red", bold=True)
ACCENT = Style(color="cyan")
TITLE = Style(color="cyan", bold=True)
CHART = Style(color="blue")
CHOSEN = Style(reverse=True)

LEVELS = "▁▂▃▄▅▆▇█"
FULL, EMPTY = "▮", "▯"
NOTHING = "—"
MORE = "…"

#: What stands for a character where the terminal knows ASCII only; all of them are one cell wide.
_ASCII = str.maketrans("╭╮╰╯─│▁▂▃▄▅▆▇█▮▯●✗▸▲‖…—–·→←↑↓¹≠■▶◌", "++++-|_.,-=+*#=.*x>^|~--.><^v@!#>o")


def said(text: str, style: Style = PLAIN) -> Segment:
    """A text that may be anybody's."""
    return Segment(printable(text), style)


def width_of(line: Iterable[Segment]) -> int:
    """Cells that a line takes."""
    return sum(cell_len(piece.text) for piece in line)


def clipped(line: Iterable[Segment], width: int) -> Line:
    """The line, of at most width cells; one that is cut says so."""
    line = list(line)
    if width_of(line) <= width:
        return line
    found: Line = []
    left = width - 1
    for piece in line:
        cells = cell_len(piece.text)
        if cells > left:
            found.append(Segment(set_cell_size(piece.text, left) + MORE, piece.style))
            break
        found.append(piece)
        left -= cells
    return found if width > 0 else []


def fitted(line: Iterable[Segment], width: int, *, right: bool = False) -> Line:
    """The line, of exactly width cells."""
    line = clipped(line, width)
    gap = Segment(" " * (width - width_of(line)), PLAIN)
    if not gap.text:
        return line
    return [gap, *line] if right else [*line, gap]


def faded(line: Iterable[Segment]) -> Line:
    """The line, as of what was, or is behind something."""
    return [Segment(piece.text, DIM) for piece in line]


def chart(values: Sequence[float | None], width: int, style: Style, most: float = 0.0) -> Segment:
    """The latest values, one a cell, as high as they are beside the highest. most: that, if it is at least so much."""
    values = values[-width:] if width > 0 else []
    most = max([most, *(value for value in values if value is not None)], default=0.0)
    return Segment("".join(_level(value, most) for value in values), style)


def _level(value: float | None, most: float) -> str:
    if value is None:
        return " "
    return LEVELS[0] if most <= 0 or value <= 0 else LEVELS[min(7, int(value / most * 7.999))]


def slots(busy: int, size: int) -> Line:
    """So many of size are busy: a bar where it is short, and the numbers."""
    style = PLAIN if busy < size else BOLD
    numbers = Segment(f"{busy}/{size}", style)
    if not 0 < size <= 8:
        return [numbers]
    return [Segment(FULL * min(busy, size) + EMPTY * max(0, size - busy) + " ", DIM if not busy else ACCENT), numbers]


def portion(done: float, width: int) -> Segment:
    """A bar that is full at 1.0."""
    full = max(0, min(width, round(done * width)))
    return Segment(FULL * full + EMPTY * (width - full), ACCENT)


def wrapped(text: str, width: int, style: Style = PLAIN) -> list[Line]:
    """Somebody's text, its lines broken where they are longer than width: after a space, or a slash of a path."""
    found: list[Line] = []
    for line in map(printable, text.splitlines() or [""]):
        while cell_len(line) > width > 1:
            head = line[:width] if line.isascii() else set_cell_size(line, width).rstrip()
            last = next((at for at in (head.rfind(" "), head.rfind("/")) if at > len(head) // 2), len(head) - 1)
            head = head[: last + 1]
            found.append([Segment(head, style)])
            line = line[len(head) :]
        found.append([Segment(line, style)])
    return found


def ascii_only(line: Iterable[Segment]) -> Line:
    """The line for a terminal that knows ASCII only, as wide as it was."""
    return [Segment(_ascii(piece.text), piece.style) for piece in line]


def _ascii(text: str) -> str:
    text = text if text.isascii() else text.translate(_ASCII)
    return text if text.isascii() else "".join(c if c.isascii() else "?" * cell_len(c) for c in text)
