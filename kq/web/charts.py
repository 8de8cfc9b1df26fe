"""Charts, drawn here as SVG: with no script and no style in them, so that the page's policy may be strict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, log10

from markupsafe import Markup

from kq.plain import printable
from kq.values.snapshot import Point, span_of


@dataclass(frozen=True, slots=True)
class Axis:
    """Where the values of a chart stand. span: seconds that it shows. places: 0.0 as long ago, 1.0 now. step: what a
    value stands for, as a part of that; where they are further apart than that nobody knows what was between.
    """

    span: float
    places: Sequence[float]
    step: float

    @property
    def gap(self) -> float:
        """So far apart two values have nothing to do with each other."""
        return 2.5 * self.step

    @property
    def minutes(self) -> str:
        """What it shows, for people."""
        return f"{self.span / 60:.0f} min"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart. kind: names its colour in kq.css. values: a value for each place, None where nobody knows."""

    name: str
    kind: str
    values: Sequence[float | None]


def spark(axis: Axis, values: Sequence[float | None], label: str) -> Markup:
    """A small chart for a cell of a table; nothing when there is too little to see."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return Markup("")
    top = max(known) or 1.0
    line = _path(axis, values, top, 80.0, 18.0)
    return Markup(
        '<svg class="spark" viewBox="0 0 80 20" width="80" height="20" role="img" aria-label="{}">'
        '<path class="line" d="{}"/></svg>'
    ).format(printable(label), line)


def chart(title: str, axis: Axis, lines: Sequence[Line], unit: Callable[[float], str]) -> Markup:
    """A chart of the last minutes. unit: writes a value for people."""
    known = [value for line in lines for value in line.values if value is not None]
    top = _round_up(max(known, default=0.0))
    width, height = 320.0, 96.0
    said = ", ".join(f"{line.name} {unit(last)}" for line in lines if (last := _last(line.values)) is not None)
    parts = [
        Markup('<figure class="chart"><figcaption>{}{}</figcaption>').format(printable(title), _legend(lines, unit)),
        Markup('<div class="plot"><span>{}</span>').format(unit(top) if known else "nothing is known yet"),
        Markup(
            '<svg viewBox="0 0 320 112" role="img" aria-label="{}" preserveAspectRatio="none">'
            '<line class="grid" x1="0" x2="320" y1="8" y2="8"/><line class="grid" x1="0" x2="320" y1="56" y2="56"/>'
            '<line class="axis" x1="0" x2="320" y1="104" y2="104"/><g transform="translate(0 8)">'
        ).format(printable(f"{title}: {said or 'nothing is known'}")),
    ]
    parts += [
        Markup('<path class="line {}" d="{}"/>').format(line.kind, _path(axis, line.values, top, width, height))
        for line in reversed(lines)  # the first is seen where others are the same
    ]
    parts.append(Markup("</g></svg></div>"))
    parts.append(Markup('<div class="scale"><span>{} ago</span><span>now</span></div></figure>').format(axis.minutes))
    return Markup("").join(parts)


def axis(points: Sequence[Point], now: float, step: float, like: Axis | None = None) -> Axis:
    """Where points stand, step seconds apart. like: an axis that shows as much, so that both can be compared."""
    span = span_of(points, now, step) if like is None else like.span
    return Axis(span, [1 - (now - point.at) / span for point in points], step / span)


def _legend(lines: Sequence[Line], unit: Callable[[float], str]) -> Markup:
    """The lines' names, and where they are now."""
    keys = []
    for line in lines:
        last = _last(line.values)
        said = "–" if last is None else unit(last)
        keys.append(Markup('<span class="key {}">{} <b>{}</b></span>').format(line.kind, printable(line.name), said))
    return Markup("").join(keys)


def _last(values: Sequence[float | None]) -> float | None:
    """How it is now."""
    return values[-1] if values else None


def _path(axis: Axis, values: Sequence[float | None], top: float, width: float, height: float) -> str:
    """The line through values, with gaps where nobody knows."""
    words, before = list[str](), -axis.gap
    for place, value in zip(axis.places, values, strict=True):
        if value is None:
            before = -axis.gap
            continue
        level = f"{height - height * min(value / top, 1.0):.1f}"
        if place - before < axis.gap:
            words.append(f"L{place * width:.1f} {level}")
        else:  # as long as what it stands for, so that one alone is to be seen too
            begin = max(0.0, place - axis.step)
            words.append(f"M{begin * width:.1f} {level}h{(place - begin) * width:.1f}")
        before = place
    return " ".join(words)


def _round_up(value: float) -> float:
    """The next number that reads well: 1, 2, 5, 10, 20, 50…"""
    if value <= 0:
        return 1.0
    power = 10.0 ** (ceil(log10(value)) - 1)
    return next(round(power * step, 10) for step in (1, 2, 5, 10, 20) if power * step >= value)
