"""The screen, drawn of the scene and of what somebody does at it: `render`. Pure.

The board has its panes one above the other, each as high as it needs while there is room; what is left is for failures,
then for the detail of what is chosen. On a screen below 80 x 24 it is the header and the queues.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.console import Console, ConsoleOptions
from rich.segment import Segment
from rich.style import Style

from kq.cli.monitor import header, listing, pages, panes
from kq.cli.monitor.ink import (
    ACCENT,
    BAD,
    CHART,
    DIM,
    GOOD,
    PLAIN,
    TITLE,
    Line,
    ascii_only,
    chart,
    clipped,
    faded,
    fitted,
    width_of,
)
from kq.cli.monitor.scene import Scene
from kq.cli.monitor.state import Pane, Ui
from kq.values.snapshot import Point, Snapshot, span_of

#: The least screen that has more than the queues.
LEAST_WIDTH, LEAST_HEIGHT = 80, 24
#: From this size on the board has the detail of what is chosen, and charts of three lines.
DETAIL_HEIGHT, TALL = 40, 36
#: Lines that three charts and their axis take; with fewer they stand beside each other.
TALL_CHARTS = 4
#: Cells before a chart, and for its latest value.
LEAD, LAST = 7, 8
#: The border and the headings of a pane.
FRAME = 3


class Size(NamedTuple):
    """Of the screen, in cells."""

    width: int
    height: int


#: What does not fit into so little is cut off.
TINY = Size(32, 8)


@dataclass(frozen=True, slots=True)
class Picture:
    """A whole screen. lines: each as wide as the screen."""

    lines: tuple[Line, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for line in self.lines:
            yield from line
            yield Segment.line()


def render(ui: Ui, scene: Scene, size: Size, *, ascii: bool = False) -> Picture:
    """The screen. ascii: of characters that every terminal has."""
    drawn = Size(max(size.width, TINY.width), max(size.height, TINY.height))
    lines = list(_lines(ui, scene, drawn))
    if ui.asks is not None and ui.typing is None:
        lines = _over(lines, pages.question(ui, drawn.width), drawn)
    if drawn != size:
        lines = [fitted(line, size.width) for line in lines[: size.height]]
    return Picture(tuple(ascii_only(line) if ascii else line for line in lines))


def _lines(ui: Ui, scene: Scene, size: Size) -> Iterator[Line]:
    width = size.width
    yield header.place(ui, scene, width)
    is_old = scene.freshness in ("stale", "lost")
    sums = header.sums(scene, width)
    yield faded(sums) if is_old else sums
    notes = [] if ui.helping or (size.height < 10 and not scene.trouble) else header.notes(scene, width)
    yield from notes
    bottom = header.bottom(ui, width)
    room = size.height - 2 - len(bottom) - len(notes)
    body = list(_body(ui, scene, width, room))[:room]
    if is_old:
        body = list(map(faded, body))
    yield from body
    yield from [fitted([], width)] * (room - len(body))
    yield from bottom


def _body(ui: Ui, scene: Scene, width: int, height: int) -> Iterator[Line]:
    if ui.helping:
        yield from box(
            [Segment("help", PLAIN)],
            pages.scrolled(pages.help_lines(ui, width - 4), ui.scroll, height - 2),
            width,
            height,
            is_focus=True,
        )
    elif ui.page is not None:
        lines = pages.page(ui, scene, ui.page, width - 4, height - 2)
        yield from box(pages.title(ui.page), lines, width, height, is_focus=True)
    elif scene.shot is not None:
        yield from _board(ui, scene, scene.shot, width, height)


def _over(lines: list[Line], window: list[Line], size: Size) -> list[Line]:
    """lines with a window over their middle; what is around it steps back."""
    top = max(0, (size.height - len(window)) // 2)
    left = max(0, (size.width - width_of(window[0])) // 2)
    lines = [faded(line) for line in lines]
    for number, row in enumerate(window[: size.height - top]):
        under = list(Segment.divide(lines[top + number], [left, left + width_of(row), size.width]))
        lines[top + number] = fitted([*under[0], *row, *under[2]], size.width)
    return lines


# The board.


def heights(wanted: Mapping[str, int], height: int) -> dict[str, int]:
    """Lines for each pane, in their order; 0 for one that has no room.

    wanted: lines that queues, workers, throughput and failures can use, and detail if it is to be there.
    """
    if height < LEAST_HEIGHT - 3 - header.NOTES:
        return {"queues": height}
    least = {"queues": 5, "workers": 5, "failures": 5, "throughput": 1, "detail": 8}
    shares = dict.fromkeys(wanted, 0)
    left = height
    for name in ("queues", "workers", "failures", "throughput", "detail"):
        if name in wanted and left >= least[name]:
            shares[name] = least[name]
            left -= least[name]
    for name, share in (("queues", 2), ("workers", 2), ("throughput", 1), ("failures", 1)):
        more = min(left, max(0, wanted[name] - shares[name])) if shares[name] else 0
        more = min(more, max(0, left // share))
        if name == "failures" and shares.get("detail"):
            # What it needs first, then what they need.
            more = min(more, max(left // 2, left - (wanted["detail"] - shares["detail"])))
        shares[name] += more
        left -= more
    for name in () if shares.get("detail") else ("queues", "workers", "failures"):
        more = min(left, max(0, wanted[name] - shares[name])) if shares[name] else 0
        shares[name] += more
        left -= more
    last = "detail" if shares.get("detail") else "failures" if shares["failures"] else "queues"
    shares[last] += left
    return shares


def _board(ui: Ui, scene: Scene, shot: Snapshot, width: int, height: int) -> Iterator[Line]:
    queues, workers = listing.queues(ui, shot), listing.workers(ui, shot)
    failures, groups = listing.failures(ui, shot), listing.groups(ui, shot)
    wanted = {
        "queues": len(queues) + FRAME,
        "workers": len(workers) + FRAME,
        "throughput": 6 if height >= TALL else 1,
        "failures": len(groups if ui.grouped else failures) + FRAME,
    }
    if height >= DETAIL_HEIGHT - 3 and width >= LEAST_WIDTH:
        wanted["detail"] = 10
    small = width < LEAST_WIDTH
    shares = {"queues": height} if small else heights(wanted, height)
    inner = width - 4
    for name, lines in shares.items():
        if not lines:
            continue
        is_focus = ui.pane == name
        rows = lines - 2
        if name == "queues":
            table = pages.window(panes.queue_columns(shot), queues, ui, inner, rows, is_focus=is_focus, list="queues")
            head = _title(ui, "queues", len(queues), len(shot.queues), rows - 1)
            if not shot.queues and not shot.broker:
                table = [[Segment("  There are no queues yet. kq submit, or a worker, makes them.", DIM)]]
        elif name == "workers":
            table = pages.window(
                panes.worker_columns(shot), workers, ui, inner, rows, is_focus=is_focus, list="workers"
            )
            head = _title(ui, "workers", len(workers), len(shot.workers), rows - 1)
            if not shot.workers and not shot.store:
                table = [[Segment("  No worker was seen in the last hour. Start one: kq worker", DIM)]]
        elif name == "failures" and ui.grouped:
            table = pages.window(
                panes.group_columns(shot.at), groups, ui, inner, rows, is_focus=is_focus, list="groups"
            )
            head = _title(ui, "failures", len(groups), len(shot.failures), rows - 1, "failures & buried by error")
        elif name == "failures":
            table = pages.window(
                panes.failure_columns(ui, shot.at), failures, ui, inner, rows, is_focus=is_focus, list="failures"
            )
            head = _title(ui, "failures", len(failures), len(failures), rows - 1, "failures & buried")
            if not failures:
                table = [[Segment(f"  {_no_failures(ui, shot)}", DIM)]]
        elif name == "throughput" and lines < FRAME:
            # Without a frame: it would cost two lines.
            yield from (fitted([Segment("  ", PLAIN), *line], width) for line in throughput(shot, width - 2, lines))
            continue
        elif name == "throughput":
            table = list(throughput(shot, inner, rows))
            head = [Segment(f"throughput {_minutes(shot)}", PLAIN)]
        else:
            page = pages.chosen_page(ui, scene)
            facts = [] if page is None else pages.facts_of(ui, scene, page, inner, in_row=True)
            table = pages.cut(facts, rows, "Enter")
            head = [Segment("detail", PLAIN)] if page is None else [Segment("detail  ", PLAIN), *pages.title(page)]
        yield from box(head, table, width, lines, is_focus=is_focus)


def _no_failures(ui: Ui, shot: Snapshot) -> str:
    if ui.filter:
        return "No failure fits the filter."
    if shot.totals.buried:
        return f"None of the last hour; {shot.totals.buried:,} buried: g shows for what, Enter on a queue shows which."
    return "None of the last hour."


def _title(ui: Ui, pane: Pane, seen: int, all: int, room: int, name: str = "") -> Line:
    list = "groups" if pane == "failures" and ui.grouped else pane
    line = [Segment(f"{name or pane} {seen if seen == all else f'{seen} of {all}'}", PLAIN)]
    line.append(Segment(f" · by {ui.sort(list)}", DIM))
    if seen > room > 0:
        spot = ui.spots.get(list)
        first = pages.first_row(0 if spot is None else min(spot.index, seen - 1), seen, room)
        line.append(Segment(f" · {first + 1}–{min(seen, first + room)}", DIM))
    return line


def _minutes(shot: Snapshot) -> str:
    """What the charts show."""
    return f"{_span(shot) / 60:.0f} min" if shot.history.total else ""


def _span(shot: Snapshot) -> float:
    """Seconds that the charts show."""
    return span_of(shot.history.total, shot.at, shot.history.step)


def throughput(shot: Snapshot, width: int, height: int) -> Iterator[Line]:
    """What ended, what failed and how long jobs waited, in the last minutes."""
    points = shot.history.total
    if not points:
        yield [Segment("  No history: nobody makes control's rounds.", DIM)]
        return
    span = _span(shot)
    series = _series(points, round(span / shot.history.step))
    if height >= TALL_CHARTS:
        yield from (_drawn(each, width, LEAD) for each in series)
        yield _axis(span, max(0, width - LEAD - LAST), width)
        return
    head = Segment(_minutes(shot).rjust(LEAD), DIM)
    wide = (width - LEAD) // 3
    yield [head, *(piece for each in series for piece in _drawn(each, wide, LEAD))]


class Series(NamedTuple):
    """One chart. last: its latest value in words. most: what fills it at least."""

    name: str
    values: Sequence[float | None]
    style: Style
    last: str
    most: float = 0.0


def _series(points: Sequence[Point], shown: int) -> list[Series]:
    """shown: how many points there are when there is no more room for them; a younger history is drawn at the right."""
    points = points[-shown:]
    before = [None] * (shown - len(points))
    ended, failed = ([*before, *(getattr(point, name) for point in points)] for name in ("ended", "failed"))
    waits = [*before, *(point.wait_p95 for point in points)]
    return [
        Series("out", ended, GOOD, f"{panes.per_second(ended[-1]).text}/s"),
        # A few failures among many jobs are to look like a few.
        Series("fail", failed, BAD, f"{panes.per_second(failed[-1]).text}/s", max(point.ended for point in points) / 4),
        Series("wait", waits, CHART, panes.span(waits[-1]).text),
    ]


def _drawn(series: Series, width: int, lead: int) -> Line:
    """All of it, over all the room that there is. lead: cells before the chart."""
    cells, points = max(0, width - lead - LAST), len(series.values)
    values = [series.values[cell * points // cells] for cell in range(cells)]
    if cells < points:
        # Each cell stands for several: the highest, for that is what is looked for.
        parts = [series.values[cell * points // cells : (cell + 1) * points // cells] for cell in range(cells)]
        values = [max((value for value in part if value is not None), default=None) for part in parts]
    drawn = chart(values, cells, series.style, series.most)
    return fitted([Segment(f"  {series.name}".ljust(lead), DIM), drawn, Segment(f" {series.last}", PLAIN)], width)


def _axis(seconds: float, cells: int, width: int) -> Line:
    start = f"-{seconds / 60:.0f} min"
    return fitted([Segment(" " * LEAD + start + " " * max(1, cells - len(start) - 3) + "now", DIM)], width)


def box(title: Line, lines: Iterable[Line], width: int, height: int, *, is_focus: bool) -> Iterator[Line]:
    """lines in a frame of this size."""
    edge = ACCENT if is_focus else DIM
    head = clipped(
        [
            Segment(piece.text, TITLE if is_focus and not (piece.style and piece.style.dim) else piece.style)
            for piece in title
        ],
        width - 6,
    )
    rest = "─" * max(0, width - width_of(head) - 5)
    yield [Segment("╭─ ", edge), *head, Segment(f" {rest}╮", edge)]
    shown = list(lines)[: max(0, height - 2)]
    shown += [[] for _ in range(height - 2 - len(shown))]
    for line in shown:
        yield [Segment("│ ", edge), *fitted(line, width - 4), Segment(" │", edge)]
    yield [Segment(f"╰{'─' * (width - 2)}╯", edge)]
