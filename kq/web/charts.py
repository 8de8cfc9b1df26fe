"""Charts, drawn here as SVG: with no script and no style in them, so that the page's policy may be strict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, log10

from markupsafe import Markup

from kq.snapshot import History, Point

#: Seconds that a chart shows.
SPAN = 600.0


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart. kind: names its colour in kq.css. values: None where nobody knows."""

    name: str
    kind: str
    values: Sequence[float | None]


def spark(values: Sequence[float | None], label: str) -> Markup:
    """A small chart for a cell of a table; nothing when there is too little to see."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return Markup("")
    top = max(known) or 1.0
    line = _path(values, top, 80.0, 18.0)
    return Markup(
        '<svg class="spark" viewBox="0 0 80 20" width="80" height="20" role="img" aria-label="{}">'
        '<path class="line" d="{}"/></svg>'
    ).format(label, line)


def chart(title: str, lines: Sequence[Line], unit: Callable[[float], str]) -> Markup:
    """A chart of the last ten minutes. unit: writes a value for people."""
    known = [value for line in lines for value in line.values if value is not None]
    top = _round_up(max(known, default=0.0))
    width, height = 320.0, 96.0
    said = ", ".join(f"{line.name} {unit(last)}" for line in lines if (last := _last(line.values)) is not None)
    parts = [
        Markup('<figure class="chart"><figcaption>{}{}</figcaption>').format(title, _legend(lines)),
        Markup(
            '<svg viewBox="0 0 320 112" role="img" aria-label="{}" preserveAspectRatio="none">'
            '<line class="grid" x1="0" x2="320" y1="8" y2="8"/><line class="grid" x1="0" x2="320" y1="56" y2="56"/>'
            '<line class="axis" x1="0" x2="320" y1="104" y2="104"/><g transform="translate(0 8)">'
        ).format(f"{title}: {said or 'nothing is known'}"),
    ]
    if len(known) > 1:
        parts += [
            Markup('<path class="line {}" d="{}"/>').format(line.kind, _path(line.values, top, width, height))
            for line in lines
        ]
    parts.append(Markup("</g></svg>"))
    parts.append(
        Markup('<div class="scale"><span>10 min ago</span><span>{}</span><span>now</span></div>').format(
            f"top {unit(top)}" if known else "nothing is known yet"
        )
    )
    parts.append(Markup("</figure>"))
    return Markup("").join(parts)


def aligned(history: History, points: Sequence[Point], now: float) -> list[Point | None]:
    """points by the steps of the last ten minutes, None where there is none: what is old is at the left."""
    step = history.step or 10.0
    count = int(SPAN / step)
    slots: list[Point | None] = [None] * count
    for point in points:
        place = count - 1 - round((now - point.at) / step)
        if 0 <= place < count:
            slots[place] = point
    return slots


def _legend(lines: Sequence[Line]) -> Markup:
    if len(lines) < 2:
        return Markup("")
    return Markup("").join(Markup('<span class="key {}">{}</span>').format(line.kind, line.name) for line in lines)


def _last(values: Sequence[float | None]) -> float | None:
    return next((value for value in reversed(values) if value is not None), None)


def _path(values: Sequence[float | None], top: float, width: float, height: float) -> str:
    """The line through values, with gaps where nobody knows."""
    step = width / max(1, len(values) - 1)
    words, pen = list[str](), "M"
    for place, value in enumerate(values):
        if value is None:
            pen = "M"
            continue
        words.append(f"{pen}{place * step:.1f} {height - height * min(value / top, 1.0):.1f}")
        pen = "L"
    return " ".join(words)


def _round_up(value: float) -> float:
    """The next number that reads well: 1, 2, 5, 10, 20, 50…"""
    if value <= 0:
        return 1.0
    power = 10.0 ** (ceil(log10(value)) - 1)
    return next(round(power * step, 10) for step in (1, 2, 5, 10, 20) if power * step >= value)
