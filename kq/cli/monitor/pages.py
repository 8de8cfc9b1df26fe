"""What is seen instead of the board: what was opened, the help, and the question over all. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.segment import Segment

from kq.cli.monitor import listing, panes
from kq.cli.monitor.grid import Column, Marks, table
from kq.cli.monitor.ink import ACCENT, BOLD, DIM, PLAIN, WARN, Line, clipped, fitted, said, wrapped
from kq.cli.monitor.keys import KEYS
from kq.cli.monitor.scene import JobRow, Page, Scene
from kq.cli.monitor.state import Spot, Ui
from kq.units import format_local
from kq.values import advice
from kq.values.snapshot import FailureRow, QueueRow, Snapshot, WorkerRow

#: What the marks say.
LEGEND = (
    "● alive  ▲ late: it missed a beat  ✗ dead: its jobs go to others  ◌ ends",
    "¹ alone runs the queue's jobs, one at a time  ≠ has other code than most",
)
#: What the row of a job says, and the title of its detail.
IN_ROW = ("id", "type", "queue", "state", "submitted", "buried", "due", "error")
#: What the title of a job's page says.
IN_TITLE = ("id",)
#: Cells of the names of facts.
NAMES = 11


def title(page: Page) -> Line:
    """What a page is about."""
    return [Segment(f"{page.kind if page.kind != 'group' else 'failures'} ", DIM), said(page.name, BOLD)]


def page(ui: Ui, scene: Scene, page: Page, width: int, height: int) -> list[Line]:
    """The lines of a page: its facts, which scroll, and below them its jobs."""
    facts = facts_of(ui, scene, page, width)
    if page.kind == "job":
        return scrolled(facts, ui.scroll, height)
    rows = listing.jobs(ui, scene, page)
    heading = [fitted([Segment(f"jobs {len(rows)}", DIM)], width)]
    room = max(3, height - len(facts) - 2)
    lines = window(panes.job_columns(at(scene)), rows, ui, width, room, is_focus=True)
    return [*facts[: max(2, height - room - 2)], fitted([], width), *heading, *lines][:height]


def scrolled(lines: Sequence[Line], scroll: int, height: int) -> list[Line]:
    """So many of lines, from where somebody has scrolled to; the last ones when he went beyond."""
    return cut(lines[min(scroll, max(0, len(lines) - height)) :], height, "↓")


def cut(lines: Sequence[Line], height: int, key: str) -> list[Line]:
    """So many of lines; where there are more the last says how many, and which key shows them."""
    more = len(lines) - height + 1
    if more <= 1 or height < 2:
        return list(lines[:height])
    return [*lines[: height - 1], [Segment(" " * (NAMES + 2) + f"… {more} more lines: {key}", DIM)]]


def at(scene: Scene) -> float:
    """The moment of the snapshot: ages are told from then, so that those of an old one do not seem to grow."""
    return scene.now if scene.shot is None else scene.shot.at


def window(
    columns: Sequence[Column[listing.R]],
    rows: Sequence[listing.R],
    ui: Ui,
    width: int,
    height: int,
    *,
    is_focus: bool,
    list: str = "jobs",
) -> list[Line]:
    """A table of height lines at most, with the chosen row in sight."""
    spot = ui.spots.get(list, Spot())
    chosen = listing.place(spot, rows)
    first = first_row(chosen, len(rows), height - 1)
    shown = rows[first : first + max(0, height - 1)]
    marked = frozenset(number for number, row in enumerate(shown) if is_focus and listing.key_of(row) in ui.marks)
    return table(columns, shown, width, Marks(chosen - first if is_focus and rows else None, marked))[:height]


def first_row(chosen: int, count: int, room: int) -> int:
    """Which row is the first of room that are seen, so that the chosen one is among them."""
    return max(0, min(chosen - room // 2, count - room))


def facts_of(ui: Ui, scene: Scene, page: Page, width: int, *, in_row: bool = False) -> list[Line]:
    """What there is to know of what was opened or chosen, a line each. in_row: without what its row says already."""
    lines: list[Line] = []
    for name, text in _facts(scene, page):
        if page.kind == "job" and name in (IN_ROW if in_row else IN_TITLE):
            continue
        for number, line in enumerate(wrapped(text, width - NAMES - 2)):
            lead = Segment((name if not number else "").rjust(NAMES) + "  ", DIM)
            lines.append(fitted(clipped([lead, *line], width), width))
    return lines


def _facts(scene: Scene, page: Page) -> Iterator[tuple[str, str]]:
    shot, book = scene.shot, scene.page(page)
    if book.trouble:
        yield "trouble", book.trouble
    if page.kind == "queue" and shot is not None:
        yield from (told for row in shot.queues if row.name == page.name for told in _queue(row, shot))
    if page.kind == "worker" and shot is not None:
        yield from (told for row in shot.workers if row.name == page.name for told in _worker(row, shot))
    if page.kind == "group" and shot is not None:
        yield from (told for row in shot.failures if _is(row, page) for told in _group(row, shot))
    yield from book.facts
    if scene.book is None or scene.book.page != page:
        yield "", "there is no more in a recording" if scene.replay else "looking…"


def _is(row: FailureRow, page: Page) -> bool:
    return (row.queue, row.type, row.exception, row.place) == (page.queue, page.type, page.exception, page.place)


def _queue(row: QueueRow, shot: Snapshot) -> Iterator[tuple[str, str]]:
    counts = [f"{row.ready:,} ready", f"{row.delayed:,} delayed", f"{row.running:,} running", f"{row.buried:,} buried"]
    counts += [f"{advice.held(row)} and not begun"] * bool(row.unbegun)
    yield "jobs", ", ".join(counts) + (f", {row.parked:,} parked" if row.parked else "")
    rates = [
        f"{panes.per_second(number).text}/s {name}"
        for name, number in (("in", row.came), ("out", row.ended), ("failed", row.failed))
    ]
    yield "rates", ", ".join(rates)
    spans = {
        "oldest": row.oldest,
        "wait p50": row.wait_p50,
        "p95": row.wait_p95,
        "run p50": row.run_p50,
        "run p95": row.run_p95,
    }
    yield "times", ", ".join(f"{name} {panes.span(seconds).text}" for name, seconds in spans.items())
    if row.paused is not None:
        yield (
            "paused",
            f"by {row.paused.by} at {_clock(row.paused.at)}" + (f": {row.paused.reason}" if row.paused.reason else ""),
        )
    serving = [worker.name for worker in shot.workers if row.name in worker.queues and worker.state != "dead"]
    yield "workers", ", ".join(serving) or "none takes its jobs"
    if row.singleton:
        yield "singleton", "one job at a time" + (f", at {row.holder}" if row.holder else "; nobody has its seat")


def _worker(row: WorkerRow, shot: Snapshot) -> Iterator[tuple[str, str]]:
    lease = f"{panes.tenths(row.lease_left)} of its lease of {panes.whole(row.lease)} left"
    if row.state == "dead":
        lease = f"its lease of {panes.whole(row.lease)} is over"
    yield "state", f"{row.state}, beat {panes.tenths(row.beat_age)} ago, {lease}"
    yield "process", f"{row.host} pid {row.pid}, started {_clock(row.started)}, {row.pool} pool"
    usual = panes.usual_code(shot)
    other = "" if row.code == usual else f"; most workers have {usual or 'unknown'}"
    yield "code", (row.code or "unknown") + other
    used = f"; {panes.size(row.rss).text} memory, {panes.share(row.cpu).text} of a core" if row.state != "dead" else ""
    yield "counts", f"{row.ok:,} ok, {row.failed:,} failed{used}"
    if told := advice.waits(row):
        yield "held", ", ".join(told)
    limits = {name: f" ({limit} at a time)" if limit < row.slots else "" for name, limit in row.queues.items()}
    yield "queues", ", ".join(name + limit for name, limit in limits.items())
    yield "executors", ", ".join(map(str, row.executors)) or "none"
    for singleton in shot.singletons:
        if singleton.holder == row.name:
            yield "singleton", f"{singleton.queue}, {panes.span(singleton.lease_left).text} of its lease left"
    if row.retired:
        yield "retired", f"at {_clock(row.retired)}, as it was dead"


def _group(row: FailureRow, shot: Snapshot) -> Iterator[tuple[str, str]]:
    yield "error", "".join(piece.text for piece in panes.error(row))
    yield "where", row.place or "unknown"
    buried = NOBODY if row.buried is None else f"{row.buried:,} buried"
    yield "jobs", f"{row.type} in {row.queue}: {row.failed:,} attempts failed so, {buried}"
    yield "latest", f"{panes.ago(row.last, shot.at).text} ago, {row.job}"


NOBODY = "nobody counts what lies buried"


def _clock(at: float) -> str:
    return format_local(at) if at else "unknown"


def help_lines(ui: Ui, width: int) -> list[Line]:
    """Every key."""
    lines: list[Line] = []
    for key in KEYS:
        style = DIM if ui.read_only and key.changes else PLAIN
        note = Segment("  (not while READ-ONLY)", WARN) if ui.read_only and key.changes else Segment("", PLAIN)
        lines.append(
            fitted(
                clipped([Segment(key.keys.rjust(NAMES), ACCENT), Segment(f"  {key.does}", style), note], width), width
            )
        )
    for legend in LEGEND:
        lines.append(fitted(clipped([Segment(" " * (NAMES + 2) + legend, DIM)], width), width))
    lines.append(
        fitted(clipped([Segment(f"  looks every {panes.whole(ui.every)}; any other key goes back", DIM)], width), width)
    )
    return lines


def question(ui: Ui, width: int) -> list[Line]:
    """What is asked: the deed, the command line that does the same, and the keys that answer."""
    asks = ui.asks
    if asks is None:
        return []
    inner = max(20, min(width - 8, max(40, len(asks.deed) + 1, len(asks.told))))
    keys = [
        Segment("y", ACCENT),
        Segment(" do it   ", DIM),
        Segment("r", ACCENT),
        Segment(" with a reason   ", DIM),
        Segment("n", ACCENT),
        Segment(" leave it", DIM),
    ]
    if asks.name:
        keys = [Segment("its name is to be typed first", WARN)]
    body = [*wrapped(f"{asks.deed}?", inner, BOLD), [], *wrapped(asks.told, inner, ACCENT), [], keys]
    edge = Segment("│", WARN)
    lines = [[Segment(f"╭{'─' * (inner + 2)}╮", WARN)]]
    lines += [[edge, Segment(" ", PLAIN), *fitted(line, inner), Segment(" ", PLAIN), edge] for line in body]
    return [*lines, [Segment(f"╰{'─' * (inner + 2)}╯", WARN)]]


def chosen_page(ui: Ui, scene: Scene) -> Page | None:
    """What Enter opens."""
    row = listing.chosen(ui, scene)
    match row:
        case QueueRow():
            return Page("queue", row.name)
        case WorkerRow():
            return Page("worker", row.name)
        case FailureRow():
            return Page("group", f"{row.type} {row.exception}", row.queue, row.type, row.exception, row.place)
        case JobRow():
            return Page("job", row.id, row.queue, row.type)
    return None
