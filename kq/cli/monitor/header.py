"""The lines above and below: where this is, how new the numbers are, the sums, what is missing, and the keys. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment

from kq.cli.monitor.ink import (
    ACCENT,
    BAD,
    BOLD,
    CHOSEN,
    DIM,
    GOOD,
    MORE,
    NOTHING,
    PLAIN,
    TITLE,
    WARN,
    WORST,
    Line,
    clipped,
    fitted,
    said,
    width_of,
    wrapped,
)
from kq.cli.monitor.keys import KEYS
from kq.cli.monitor.panes import LONG, SOME_TIME, per_second, whole
from kq.cli.monitor.scene import Scene
from kq.cli.monitor.state import Typing, Ui
from kq.units import counted, format_duration, format_time
from kq.values.advice import clocks_off

#: So many notes are shown at most.
NOTES = 3
#: So many lines of what became of an act.
TOLD = 3
#: Fewer cells of a URL say nothing.
SHORTEST = 8
PROMPTS = {"filter": "/", "verb": ":kq ", "reason": "reason: ", "name": "type its name: "}


def place(ui: Ui, scene: Scene, width: int) -> Line:
    """Which broker, and how new the numbers are."""
    left = [[Segment("kq monitor", TITLE)]]
    left += [[said(scene.app, BOLD)]] if scene.app else []
    url = said(scene.shot.url if scene.shot is not None else "")
    right = [[Segment(format_time(scene.now), DIM)]]
    right += [[Segment("READ-ONLY", WARN)]] if ui.read_only else []
    fresh = freshness(scene)
    room = width - _wide([*left, [], [fresh], *right[1:]]) - 2
    left += [[_tail(url, room)]] if url.text and room >= SHORTEST else []
    return _spread([*left, [fresh]], right, width, keep=(0, len(left)))


def _tail(text: Segment, width: int) -> Segment:
    """The end of a text, which tells one broker from another."""
    cells = cell_len(text.text)
    return text if cells <= width else Segment(MORE + set_cell_size(text.text[::-1], width - 1)[::-1], text.style)


def freshness(scene: Scene) -> Segment:
    """How the numbers are, in words: never an old number without a word."""
    age = whole(scene.age)
    match scene.freshness:
        case "waiting":
            return Segment("◌ first look", DIM)
        case "live":
            return Segment(f"● live {age}", GOOD)
        case "stale":
            return Segment(f"▲ stale {age}", WARN)
        case "frozen":
            return Segment(f"■ frozen {age}", WARN)
        case "replay":
            return Segment(f"▶ replay {scene.replay}{' frozen' if scene.frozen else ''}", ACCENT)
    again = f", again in {whole(scene.retry)}" if scene.retry >= 1 else ", asking"
    return Segment(f"✗ broker lost{again}" + (f", numbers {age} old" if scene.shot and scene.age >= 1 else ""), WORST)


def sums(scene: Scene, width: int) -> Line:
    """Everything together."""
    if scene.shot is None:
        return fitted([], width)
    all, unknown = scene.shot.totals, bool(scene.shot.broker)

    def count(name: str, number: int | None, style: object = BOLD) -> Line:
        told = NOTHING if unknown or number is None else f"{number:,}"
        return [Segment(f"{name} ", DIM), Segment(told, BOLD if not number or style is BOLD else style)]  # type: ignore[arg-type]

    busy = all.slots and all.running >= all.slots
    workers = [
        Segment("workers ", DIM),
        Segment(f"{all.workers}/{all.known}", WARN if all.workers < all.known else BOLD if all.workers else BAD),
    ]
    left = [
        count("ready", all.ready),
        [Segment("run ", DIM), Segment(f"{all.running}/{all.slots}", WARN if busy else BOLD)],
        count("delayed", all.delayed),
        count("retry", all.retrying, WARN),
        count("buried", all.buried, BAD),
        workers,
    ]
    right = [
        [Segment("in ", DIM), per_second(all.came), Segment("/s", DIM)],
        [Segment("out ", DIM), per_second(all.ended), Segment("/s", DIM)],
        [Segment("fail ", DIM), Segment(per_second(all.failed).text, BAD if all.failed else PLAIN), Segment("/s", DIM)],
        [Segment("oldest ", DIM), _concern(all.oldest)],
        [Segment("p95 wait ", DIM), _concern(all.wait_p95)],
    ]
    return _spread(left, right, width, keep=(0, 4, 5))


def _concern(seconds: float | None) -> Segment:
    if seconds is None:
        return Segment(NOTHING, DIM)
    style = BAD if seconds >= LONG else WARN if seconds >= SOME_TIME else GOOD
    return Segment(format_duration(seconds) if seconds >= 0.0005 else "0s", style)


def _spread(left: Sequence[Line], right: Sequence[Line], width: int, keep: Sequence[int]) -> Line:
    """Parts at both ends. Without room those of the right go first, but its last, then of the left but keep."""
    left, right, kept = list(left), list(right), [left[index] for index in keep]
    while _wide(left) + _wide(right) + 2 > width and len(right) > 1:
        right.pop(0)
    while _wide(left) + _wide(right) + 2 > width and (loose := [part for part in left if part not in kept]):
        left.remove(loose[-1])
    if _wide(left) + _wide(right) + 2 > width:
        right = []
    start, end = _joined(left), _joined(right)
    room = max(0, width - width_of(end))
    return fitted([*fitted(clipped(start, room), room), *end], width)


def _wide(parts: Sequence[Line]) -> int:
    return sum(map(width_of, parts)) + 2 * max(0, len(parts) - 1)


def _joined(parts: Sequence[Line]) -> Line:
    line: Line = []
    for number, part in enumerate(parts):
        line += [Segment("  ", PLAIN), *part] if number else part
    return line


def notes(scene: Scene, width: int) -> list[Line]:
    """What must be known beside the numbers: what is wrong, and what nobody knows."""
    told = list(_notes(scene))
    trouble = wrapped(f"✗ {scene.trouble}", width, BAD) if scene.trouble else []
    room = max(1, NOTES - len(told))  # what else is wrong is not pushed off by it
    if len(trouble) > room:
        trouble[room - 1 :] = [[*clipped(trouble[room - 1], width - 2), Segment(f" {MORE}", BAD)]]
    found = [*trouble, *told]
    lines = [fitted(clipped(line, width), width) for line in found[:NOTES]]
    if len(found) > NOTES:
        lines[-1] = fitted([Segment(f"▲ and {len(found) - NOTES + 1} more: kq status", WARN)], width)
    return lines


def _notes(scene: Scene) -> Iterator[Line]:
    shot = scene.shot
    if shot is None:
        return
    for trouble in filter(None, (shot.broker, shot.store)):
        yield [Segment("✗ ", BAD), said(trouble, BAD)]
    if shot.doubtful:
        yield [Segment(f"▲ {counted(shot.doubtful, 'side effect')} in doubt: kq effects ls --stage doubt", WARN)]
    for met in scene.met:
        yield [Segment("✗ it is so: ", BAD), said(met, WORST)]
    for host, seconds in clocks_off(shot).items():
        yield [said(f"▲ the clock of {host} and the state store's differ by {format_duration(abs(seconds))}", WARN)]
    for order in shot.paused:
        why = f": {order.reason}" if order.reason else ""
        yield [said(f"‖ type {order.what} paused{f' by {order.by}' if order.by else ''}{why}", WARN)]
    for missing in shot.missing:
        yield [Segment("· ", DIM), said(missing, DIM)]


def bottom(ui: Ui, width: int) -> list[Line]:
    """What is typed; else what became of the last act; else the keys."""
    if ui.typing is not None:
        return [fitted(typed(ui.typing, width), width)]
    if ui.told is not None:
        lines = wrapped(ui.told.text, width, BAD if ui.told.bad else GOOD)
        return [fitted(line, width) for line in lines[:TOLD]]
    line: Line = []
    if ui.marks:
        line += [Segment(f"{len(ui.marks)} marked  ", ACCENT)]
    if ui.filter:
        line += [said(f"/{ui.filter}  ", ACCENT)]
    return [fitted(clipped([*line, *_keys(ui, width - width_of(line))], width), width)]


def typed(typing: Typing, width: int) -> Line:
    """The line that is being typed, its end in sight, and what Tab may make of it."""
    line = [Segment(PROMPTS[typing.kind], ACCENT), said(typing.text, BOLD), Segment(" ", CHOSEN)]
    if typing.offers:
        line += [Segment("  ", PLAIN), said(" ".join(typing.offers), DIM)]
    while width_of(line) > width and len(line) > 3:
        line.pop()
    if width_of(line) > width:
        text = line[1].text[width_of(line) - width + 1 :]
        line[1] = Segment("…" + text, BOLD)
    return line


def _keys(ui: Ui, width: int) -> Line:
    shown = [key.short for key in KEYS if key.short and not (ui.read_only and key.changes)]
    if ui.page is not None:
        gone = ("Tab", "Enter", "s ", "g ", "Space") if ui.page.kind == "job" else ("Tab", "g ")
        shown = ["Esc back", *(short for short in shown if not short.startswith(gone))]
    while shown and sum(map(len, shown)) + 2 * (len(shown) - 1) > width:
        shown.pop(-3 if len(shown) > 3 else -1)
    line: Line = []
    for number, short in enumerate(shown):
        name, _, does = short.partition(" ")
        line += [Segment("  " if number else "", PLAIN), Segment(name, ACCENT), Segment(f" {does}", DIM)]
    return line
