"""The monitor's pictures: golden files of whole screens, and what holds of each picture whatever is on it.

KQ_GOLDEN=write writes the files anew; look at them before they are committed.
"""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from kq.cli.monitor.board import Picture, Size, render
from kq.cli.monitor.ink import width_of, wrapped
from kq.cli.monitor.panes import WAIT_CHART, progress, waits
from kq.cli.monitor.scene import Page, Scene
from kq.cli.monitor.state import Ask, Do, Done, Spot, Told, Typing, Ui
from kq.values.snapshot import DoubtRow, History, Paused, Progress, Snapshot
from tests.unit.scenes import BILL, BILL_BOOK, DEFAULT, DEFAULT_BOOK, GROWS, SCENE, SHOT, running, with_long_names

#: The clock on the wall is told by the zone of whoever looks.
pytestmark = pytest.mark.usefixtures("two_hours_ahead")
GOLDEN = Path(__file__).parents[1] / "golden" / "monitor"
KICK = Ask("Kick shop.bill 019e6f2b01", Do((("jobs", "kick", "019e6f2b01", "--yes"),)))
ON_BILL = replace(SCENE, book=BILL_BOOK)
LOST = replace(SCENE, trouble="KQ302 redis://cache-1:6379/0 does not answer: Connection refused", age=12.0, retry=4.0)
IN_DOUBT = replace(
    LOST,
    shot=msgspec.structs.replace(SHOT, doubtful=2, missing=("nobody makes control's rounds",)),
    trouble="KQ302 redis://cache-1.eu-west-1.example.com:6379/0 does not answer: Error 111 connecting to "
    "cache-1.eu-west-1.example.com:6379. Connection refused. kq doctor looks at the whole way there.",
)
LENGTHY = replace(SCENE, shot=with_long_names(SHOT))
YOUNG = replace(SCENE, shot=msgspec.structs.replace(SHOT, history=History(total=GROWS[-5:])))
GROUP = Page("group", "shop.bill ValueError", "default", "shop.bill", "ValueError", "billing.py:bill")

SCREENS: dict[str, tuple[Ui, Scene, Size]] = {
    "80x24": (Ui(), SCENE, Size(80, 24)),
    "100x30": (Ui(), SCENE, Size(100, 30)),
    "160x45": (Ui(pane="failures", spots={"failures": Spot(BILL.name)}), ON_BILL, Size(160, 45)),
    "60x15": (Ui(), SCENE, Size(60, 15)),
    "220x50": (Ui(pane="workers"), SCENE, Size(220, 50)),
    "ascii": (Ui(marks=frozenset({"mail"})), SCENE, Size(100, 30)),
    "read-only": (Ui(read_only=True, pane="failures", grouped=True), SCENE, Size(100, 30)),
    "lost": (Ui(), LOST, Size(100, 30)),
    "broker-lost": (Ui(), replace(SCENE, shot=msgspec.structs.replace(SHOT, broker="it is away")), Size(100, 30)),
    "doubt-and-lost": (Ui(), IN_DOUBT, Size(80, 24)),
    "long-names-80x24": (Ui(), LENGTHY, Size(80, 24)),
    "long-names-160x45": (Ui(pane="failures", grouped=True), LENGTHY, Size(160, 45)),
    "first-look": (Ui(), Scene(now=SCENE.now, app="shop"), Size(80, 24)),
    "nothing-there": (Ui(), replace(SCENE, shot=Snapshot(at=SHOT.at, missing=("no control",))), Size(80, 24)),
    "young-80x24": (Ui(), YOUNG, Size(80, 24)),
    "young-120x35": (Ui(), YOUNG, Size(120, 35)),
    "job": (Ui(opened=(BILL,), outer=("",)), ON_BILL, Size(100, 30)),
    "queue": (Ui(opened=(DEFAULT,), outer=("",)), replace(SCENE, book=DEFAULT_BOOK), Size(100, 30)),
    "worker": (Ui(opened=(Page("worker", "app-1-9f3c"),), outer=("",)), SCENE, Size(100, 30)),
    "group": (Ui(opened=(GROUP,), outer=("",)), SCENE, Size(100, 30)),
    "question": (Ui(asks=KICK, pane="failures"), SCENE, Size(80, 24)),
    "help": (Ui(helping=True), SCENE, Size(100, 30)),
}


def text_of(picture: Picture) -> str:
    """The picture, as rich prints it."""
    width = width_of(picture.lines[0])
    console = Console(file=io.StringIO(), record=True, width=width, color_system=None, legacy_windows=False)
    console.print(picture, end="", soft_wrap=True)
    return console.export_text(styles=False)


@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_looks_as_it_did(name: str) -> None:
    ui, scene, size = SCREENS[name]
    seen = text_of(render(ui, scene, size, ascii=name == "ascii"))
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("KQ_GOLDEN") == "write":
        path.write_text(seen)
    assert seen == path.read_text(), "KQ_GOLDEN=write writes it anew"
    assert seen.isascii() or name != "ascii"


#: A new line that looks like one of a table, colours, a title, a C1 escape, bidi overrides, wide and endless letters.
EVIL = (
    "a\n│ forged │\r\x1b[2J\x1b]0;owned\x07\x9b31m\u202eli\u2066\u2028\u061cz\u200b\U000e0041東京 [bold red]" + "ﷺ" * 50
)
RAW = set("\n\r\x1b\x07\x9b\u202e\u2066\u2028\u061c\u200b\U000e0041")


def evil(value: Any) -> Any:
    """value with EVIL at the end of each text in it."""
    match value:
        case msgspec.Struct():
            kept = {"state", "at", "schema"}
            fields = {name: getattr(value, name) for name in value.__struct_fields__}
            return type(value)(**{name: one if name in kept else evil(one) for name, one in fields.items()})
        case str():
            return value + EVIL
        case tuple():
            return tuple(map(evil, value))
        case dict():
            return {evil(key): evil(one) for key, one in value.items()}
        case _:
            return value


TROUBLED = msgspec.structs.replace(
    SHOT, doubts=(DoubtRow(key="k", job="j"),), doubtful=1, paused=(Paused(what="shop.pay", at=1.0),), missing=("",)
)
STRANGE = [evil(SHOT), evil(msgspec.structs.replace(TROUBLED, broker="b", store="s"))]
DOINGS = [
    Ui(),
    Ui(pane="failures", grouped=True),
    Ui(helping=True),
    Ui(asks=Ask(EVIL, Do((("jobs", "kick", EVIL),)))),
    Ui(typing=Typing("filter", EVIL)),
    Ui(typing=Typing("verb", "jobs ", offers=(EVIL,)), told=Told(EVIL)),
    Ui(told=Told(EVIL, bad=True), filter="a"),
    Ui(opened=(Page("queue", "default" + EVIL),), outer=("",)),
    Ui(opened=(Page("worker", "app-1-9f3c" + EVIL),), outer=("",)),
    Ui(opened=(BILL,), outer=("",)),
]


@pytest.mark.parametrize("ui", DOINGS)
@pytest.mark.parametrize("ascii", [False, True])
def test_text_of_strangers_moves_nothing_and_each_line_is_as_wide_as_the_screen(ui: Ui, ascii: bool) -> None:
    book = replace(BILL_BOOK, facts=(("why", EVIL),), trouble=EVIL)
    for shot in STRANGE:
        for size in (Size(1, 1), Size(33, 9), Size(80, 24), Size(100, 31), Size(231, 60)):
            scene = Scene(now=1.0, shot=shot, trouble=EVIL, app=EVIL, met=(EVIL,), book=book)
            picture = render(ui, scene, size, ascii=ascii)
            assert len(picture.lines) == size.height
            for line in picture.lines:
                assert width_of(line) == size.width
                assert not RAW & {letter for piece in line for letter in piece.text}
                assert not ascii or all(piece.text.isascii() for piece in line)


def test_a_lost_broker_pushes_nothing_off_that_somebody_has_to_answer() -> None:
    for width in (60, 80, 100, 160):
        seen = text_of(render(Ui(), IN_DOUBT, Size(width, 24)))
        assert "✗ KQ302 redis://cache-1" in seen
        assert "▲ 2 side effects in doubt: kq effects ls --stage doubt" in seen


def test_long_names_are_told_from_each_other_and_leave_room_for_the_rest() -> None:
    for width in (80, 100, 160):
        seen = text_of(render(Ui(), LENGTHY, Size(width, 45)))
        for row in LENGTHY.shot.queues if LENGTHY.shot else ():
            (line,) = [
                line for line in seen.splitlines() if f"…{row.name[-5:]}" in line or f"{row.name[-5:]} " in line[:40]
            ]
            assert f"{row.ready:,}" in line
    page = Ui(opened=(Page("queue", LENGTHY.shot.queues[0].name if LENGTHY.shot else ""),), outer=("",))
    assert page.opened[0].name in text_of(render(page, LENGTHY, Size(100, 30)))


def test_old_numbers_are_never_shown_without_a_word() -> None:
    def head(scene: Scene) -> str:
        return text_of(render(Ui(), scene, Size(80, 24))).splitlines()[0]

    assert "● live 1s" in head(SCENE)
    assert "▲ stale 12s" in head(replace(SCENE, age=12.0))
    assert "✗ broker lost, again in 4s, numbers 12s old" in head(LOST)
    assert "■ frozen 7s" in head(replace(SCENE, age=7.0, frozen=True))
    assert "● live 12s" in head(replace(SCENE, age=12.0, every=10.0))


def test_numbers_of_a_broker_that_does_not_answer_are_not_told_as_none() -> None:
    lost = msgspec.structs.replace(
        SHOT, broker="it is away", queues=tuple(msgspec.structs.replace(row, ready=0, buried=0) for row in SHOT.queues)
    )
    seen = text_of(render(Ui(), replace(SCENE, shot=lost), Size(100, 30)))
    row = next(line for line in seen.splitlines() if "default " in line)
    assert row.split()[2:6] == ["default", "—", "—", "—"] or row.split()[1:5] == ["default", "—", "—", "—"]
    assert "ready —" in seen


def test_the_latest_wait_of_a_young_history_stands_at_the_right() -> None:
    drawn = waits(SHOT.queues[0], GROWS[-3:])
    assert (len(drawn.text), len(drawn.text.lstrip())) == (WAIT_CHART, 3)


def test_the_chosen_row_is_in_sight_among_many() -> None:
    many = tuple(msgspec.structs.replace(SHOT.queues[3], name=f"q{number:03}") for number in range(500))
    scene = replace(SCENE, shot=msgspec.structs.replace(SHOT, queues=many))
    seen = text_of(render(Ui(spots={"queues": Spot("q321", 321)}, sorts={"queues": "name"}), scene, Size(80, 24)))
    assert "▸ q321" in seen
    assert "queues 500" in seen


def test_a_worker_with_other_code_and_a_singletons_seat_are_seen() -> None:
    seen = text_of(render(Ui(), SCENE, Size(160, 45)))
    assert "app-2-1d20 ≠1.3.9" in seen
    assert "mail¹" in seen
    assert "→ reclaimed in 6s" in seen


def test_of_queues_that_do_not_fit_one_is_told_whole_and_how_many_others_there_are() -> None:
    seen = text_of(render(Ui(), SCENE, Size(120, 35)))
    assert "default +2" in seen
    assert "default imports" not in seen
    assert "default imports" in text_of(render(Ui(), SCENE, Size(220, 50)))


def test_what_is_cut_says_how_much_there_is_more() -> None:
    long = replace(SCENE, book=replace(BILL_BOOK, facts=tuple(("", f"line {number}") for number in range(100))))
    page = Ui(opened=(BILL,), outer=("",))

    def seen(ui: Ui, size: Size) -> str:
        return text_of(render(ui, long, size))

    assert "… 76 more lines: ↓" in seen(page, Size(100, 30))
    assert "… 66 more lines: ↓" in seen(replace(page, scroll=10), Size(100, 30))
    end = seen(replace(page, scroll=10**6), Size(100, 30))
    assert "line 99" in end
    assert "more lines" not in end
    chosen = Ui(pane="failures", spots={"failures": Spot(BILL.name)})
    assert "more lines: Enter" in seen(chosen, Size(160, 45))
    assert "more lines: ↓" in seen(Ui(helping=True), Size(80, 24))


@pytest.mark.parametrize(
    ("seconds", "n", "of", "told"),
    [(30.0, 25, 100, "25/100 ~1m30s"), (1.0, 25, 100, ""), (30.0, 9, 9, ""), (30.0, 9, 0, "")],
)
def test_how_long_the_rest_takes_is_told_when_it_can_be_said(seconds: float, n: float, of: float, told: str) -> None:
    job = running("1", "t", "q", seconds, Progress(n=n, of=of))
    seen = "".join(piece.text for piece in progress(job))
    assert seen.endswith(told) if told else "~" not in seen


def test_a_narrow_screen_tells_what_becomes_of_jobs_and_as_much_of_an_error_as_it_can() -> None:
    narrow = text_of(render(Ui(), SCENE, Size(80, 24)))
    assert "→ reclaimed in 6s" in narrow
    usual = text_of(render(Ui(), SCENE, Size(120, 35)))
    assert "ValueError: invoice 1042 has no customer" in usual
    assert "019e6f2b01" not in usual
    assert "019e6f2b01" in text_of(render(Ui(), SCENE, Size(160, 45)))


def test_a_long_line_is_broken_where_a_word_or_a_part_of_a_path_ends() -> None:
    path = f'File "/srv/{"a" * 40}/{"b" * 40}/jobs.py", line 4'
    lines = ["".join(piece.text for piece in line) for line in wrapped(path, 100)]
    assert lines == [path[: path.index("jobs.py")], 'jobs.py", line 4']
    assert [len(line[0].text) for line in wrapped("x" * 250, 100)] == [100, 100, 50]


def test_without_workers_or_control_the_screen_says_what_to_do() -> None:
    seen = text_of(render(Ui(), replace(SCENE, shot=Snapshot(at=1.0, missing=("nobody makes rounds",))), Size(80, 24)))
    assert "Start one: kq worker" in seen
    assert "nobody makes rounds" in seen


def test_what_was_done_to_a_job_from_here_is_seen_until_it_fails_again() -> None:
    def fate(done_at: float) -> str:
        ui = Ui(done={"019e6f2b01": Done("kicked", done_at)})
        seen = text_of(render(ui, SCENE, Size(100, 30)))
        return next(line for line in seen.splitlines() if "shop.bill" in line)

    assert "kicked" in fate(SHOT.at)
    assert "buried" in fate(SHOT.at - 20)


def test_a_long_reason_why_nothing_was_done_is_told_whole() -> None:
    told = Told(
        "KQ503 nothing was done to job 019e6f2b01: it is not there any more, has changed, or a worker has it " * 2,
        bad=True,
    )
    seen = text_of(render(Ui(told=told), SCENE, Size(100, 30)))
    assert "".join(seen.split()).endswith("".join(told.text.split()))
