"""The monitor's keys: what a terminal sends, what they do, and which command lines they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from kq.cli.monitor import filtering, keys, listing, steer, verbs
from kq.cli.monitor.press import READ_ONLY, press
from kq.cli.monitor.scene import Page, Scene
from kq.cli.monitor.state import Act, Copy, Do, Quit, Redraw, Show, Spot, Step, Told, Typing, Ui
from kq.values.snapshot import QueueRow
from tests.unit.scenes import BILL, BILL_BOOK, DEFAULT, DEFAULT_BOOK, SCENE, SHOT

#: How somebody begins.
START = Ui()
ON_DEFAULT = replace(SCENE, book=DEFAULT_BOOK)
ON_BILL = replace(SCENE, book=BILL_BOOK)


def pressed(*pressing: str, ui: Ui = START, scene: Scene = SCENE) -> tuple[Ui, Act | None]:
    """What comes of pressing keys one after the other, and the last act."""
    act: Act | None = None
    for key in pressing:
        ui, act = press(ui, key, scene)
    return ui, act


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        (b"pK", ["p", "K"]),
        (b"\x1b[A\x1b[B\x1bOA\x1b[5~\x1b[Z", ["up", "down", "up", "page up", "back tab"]),
        (b"\r\n\t\x7f\x0c", ["enter", "enter", "tab", "backspace", "redraw"]),
        ("é東🙂".encode(), ["é", "東", "🙂"]),
        (b"\x1b[200~K\ny\x1b[201~q", ["paste K\ny", "q"]),
        (b"\x1b[99;5uq\x01", ["q"]),
        (b"\xff\xfe\xc3q", ["q"]),
    ],
)
def test_bytes_of_a_terminal_are_keys(typed: bytes, found: list[str]) -> None:
    assert keys.read(typed) == (found, b"")


@pytest.mark.parametrize("begun", [b"\x1b", b"\x1b[", b"\x1b[1", "é".encode()[:1], b"\x1b[200~half"])
def test_a_key_that_has_begun_waits_for_its_rest(begun: bytes) -> None:
    assert keys.read(b"q" + begun) == (["q"], begun)
    assert keys.read(begun, whole=True)[1] == b""


def test_escape_alone_is_a_key_when_nothing_follows() -> None:
    assert keys.read(b"\x1b", whole=True) == (["esc"], b"")


@pytest.mark.parametrize(
    ("pressing", "pane"),
    [(["tab"], "workers"), (["tab"] * 3, "queues"), (["back tab"], "failures"), (["3"], "failures")],
)
def test_panes_are_reached(pressing: Sequence[str], pane: str) -> None:
    assert pressed(*pressing)[0].pane == pane


@pytest.mark.parametrize(
    ("pressing", "name"),
    [
        ([], "imports"),
        (["down"], "default"),
        (["j", "j", "k"], "default"),
        (["end"], "reports"),
        (["page down", "home"], "imports"),
        (["s", "home"], "default"),  # by ready
    ],
)
def test_rows_are_chosen(pressing: Sequence[str], name: str) -> None:
    ui, _ = pressed(*pressing)
    row = listing.chosen(ui, SCENE)
    assert row is not None
    assert listing.key_of(row) == name


def test_where_no_queue_waits_those_that_need_a_look_come_first() -> None:
    rows = (
        QueueRow(name="a"),
        QueueRow(name="b", buried=3),
        QueueRow(name="c", state="paused"),
        QueueRow(name="d", ready=1, oldest=None),
    )
    shown = listing.queues(START, msgspec.structs.replace(SHOT, queues=rows))
    assert [row.name for row in shown] == ["d", "c", "b", "a"]


def test_the_chosen_row_stays_chosen_when_others_overtake_it_and_its_neighbour_when_it_goes() -> None:
    ui, _ = pressed("down")
    older = [msgspec.structs.replace(row, oldest=999.0) if row.name == "mail" else row for row in SHOT.queues]
    moved = replace(SCENE, shot=msgspec.structs.replace(SHOT, queues=tuple(older)))
    assert listing.chosen(ui, moved) == next(row for row in older if row.name == "default")
    gone = replace(
        SCENE, shot=msgspec.structs.replace(SHOT, queues=tuple(row for row in older if row.name != "default"))
    )
    row = listing.chosen(ui, gone)
    assert row is not None
    assert listing.key_of(row) == "imports"


@pytest.mark.parametrize(
    ("pressing", "scene", "command"),
    [
        (["p"], SCENE, "kq queues resume imports"),
        (["j", "p"], SCENE, "kq queues pause default"),
        (["j", "j", "K"], SCENE, "kq jobs kick --queue mail --yes"),
        (["3", "x"], SCENE, "kq jobs revoke 019e6f2a01"),
        (["3", "b"], SCENE, "kq jobs bury 019e6f2a01"),
        (["3", "R"], SCENE, "kq jobs edit 019e6f2a01 --set delay=0 --unchecked"),
        (["3", "j", "K"], SCENE, "kq jobs kick 019e6f2b01 --yes"),
        (["3", "j", "e"], SCENE, "kq jobs edit 019e6f2b01"),
        (["3", "j", "r"], SCENE, "kq jobs rehearse 019e6f2b01"),
        (["3", "j", "p"], SCENE, "kq queues pause default"),
        (["3", " ", " ", " ", "K"], SCENE, "kq jobs kick 019e6f2b01 019e6f2c01 --yes"),
        (
            ["g", "j", "K"],
            SCENE,
            "kq jobs kick --queue default --type shop.bill --error ValueError --place billing.py:bill --yes",
        ),
        (["2", "D"], SCENE, "kq workers retire mailer-4c1e"),
        (["2", "x"], SCENE, "kq jobs revoke 019e6f1d01 --interrupt"),
        (["2", "enter", "D"], SCENE, "kq workers retire mailer-4c1e"),
        (["2", "end", "enter"], SCENE, None),
        (["j", "enter", "x"], ON_DEFAULT, "kq jobs revoke 019e6f1a01 --interrupt"),
        (["j", "enter", "j", "b"], ON_DEFAULT, "kq jobs bury 019e6f3a01"),
        (["j", "enter", "p"], ON_DEFAULT, "kq queues pause default"),
        (["j", "enter", "end", "K"], ON_DEFAULT, "kq jobs kick 019e6f2b01 --yes"),
        (["3", "j", "enter", "K"], ON_BILL, "kq jobs kick 019e6f2b01 --yes"),
        (["3", "j", "enter", "e"], ON_BILL, "kq jobs edit 019e6f2b01"),
    ],
)
def test_a_key_asks_for_the_command_line_that_does_the_same(
    pressing: Sequence[str], scene: Scene, command: str | None
) -> None:
    ui, act = pressed(*pressing, scene=scene)
    assert (ui.asks and ui.asks.told) == command
    assert act is None


@pytest.mark.parametrize(
    ("pressing", "told"),
    [
        (["K"], "nothing lies buried in imports"),
        (["g", "K"], "nothing of shop.send_email lies buried"),
        (["3", "K"], "K kicks jobs that are buried; R runs one now that is delayed; this is retrying"),
        (["3", "j", "b"], "b buries jobs that wait or are delayed; this is buried"),
        (
            ["3", "j", "x"],
            "x revokes jobs that wait, are delayed or run; kq jobs rm deletes buried ones; this is buried",
        ),
        (["x"], "choose a job first"),
        (["D"], "D lets a worker finish"),
        (["2", "p"], "p pauses a queue"),
        (["2", "K"], "K kicks buried jobs"),
    ],
)
def test_a_key_that_means_nothing_here_says_so(pressing: Sequence[str], told: str) -> None:
    ui, act = pressed(*pressing)
    assert (ui.asks, act) == (None, None)
    assert ui.told is not None
    assert ui.told.bad
    assert ui.told.text.startswith(told)


def test_nothing_is_done_without_a_yes() -> None:
    asked, _ = pressed("p")
    for key in ("n", "esc", "q"):
        ui, act = press(asked, key, SCENE)
        assert (ui.asks, act, ui.told) == (None, None, Told("nothing was done"))
    for key in ("enter", " ", "p", "K", "paste y"):
        assert press(asked, key, SCENE) == (asked, None)
    ui, act = press(asked, "y", SCENE)
    assert act == Do((("queues", "resume", "imports"),))
    assert ui.asks is None


def test_a_reason_goes_with_it() -> None:
    ui, _ = pressed("p", "r", *"it's late", "enter")
    assert ui.asks is not None
    assert ui.asks.told == "kq queues resume imports --reason 'it'\"'\"'s late'"
    assert press(ui, "y", SCENE)[1] == Do((("queues", "resume", "imports", "--reason", "it's late"),))


@pytest.mark.parametrize("key", sorted(steer.KEYS))
def test_who_only_looks_changes_nothing(key: str) -> None:
    for pane in ("1", "2", "3"):
        ui, act = pressed(pane, key, ui=Ui(read_only=True))
        assert (ui.asks, act, ui.told) == (None, None, Told(READ_ONLY, bad=True))


def typed(text: str, ui: Ui = START) -> tuple[Ui, Act | None]:
    return pressed(":", *text, "enter", ui=ui)


def test_a_command_line_is_run_as_it_is_typed() -> None:
    assert typed("jobs show 'a b'")[1] == Show(("jobs", "show", "a b"))
    assert typed("kq status")[1] == Show(("status",))
    assert typed("jobs 'a")[0].told == Told("jobs 'a: No closing quotation", bad=True)
    assert typed("")[1] is None


def test_who_only_looks_may_run_what_only_looks() -> None:
    looking = Ui(read_only=True)
    for text in ("queues", "queues ls", "jobs show x", "status -w", "effects --stage doubt", "events -f"):
        assert (typed(text, looking)[1] is not None) == (text != "effects --stage doubt"), text
    for text in (
        "queues pause mail",
        "jobs --url ls kick x",
        "--url jobs jobs kick x",
        "submit x",
        "worker",
        "jobs rm x",
    ):
        ui, act = typed(text, looking)
        assert (act, ui.told) == (None, Told(READ_ONLY, bad=True)), text


def test_what_only_looks_is_a_verb_of_kq_and_no_other_verb_is_forgotten() -> None:
    known = {words for words in verbs.tree() if words}
    assert known >= verbs.LOOKING
    programs = {"demo", "init", "worker", "dev", "control", "submit", "bench", "monitor", "web"}
    changing = {
        *(("jobs", name) for name in ("edit", "kick", "bury", "revoke", "rm", "complete", "rehearse")),
        *(("queues", name) for name in ("pause", "resume", "purge", "rm")),
        *(("workers", name) for name in ("retire", "set")),
        ("effects", "lift"),
    }
    assert known - verbs.LOOKING == {(name,) for name in programs} | changing


def test_before_a_queue_is_emptied_its_name_must_be_typed() -> None:
    ui, act = typed("queues purge mail")
    assert act is None
    assert ui.asks is not None
    assert pressed(*"mai", "enter", ui=ui)[1] is None
    assert pressed(*"mail", "enter", ui=ui)[1] == Show(("queues", "purge", "mail", "--yes"))
    assert not isinstance(pressed("esc", "y", ui=ui)[1], Show)


def test_tab_completes_verbs_and_names() -> None:
    ui = Ui(verbs=verbs.tree())
    assert typing(pressed(":", *"que", "tab", ui=ui)[0]).text == "queues "
    begun = typing(pressed(":", *"queues pa", "tab", *"ma", "tab", ui=ui)[0])
    assert begun.text == "queues pause mail "
    assert typing(pressed(":", *"workers retire ", "tab", ui=ui)[0]).offers[:2] == ("app-1-9f3c", "app-2-1d20")
    assert typing(pressed(":", *"jobs kick --er", "tab", ui=ui)[0]).text == "jobs kick --error "
    assert typing(pressed(":", *"nonsense x", "tab", ui=ui)[0]).text == "nonsense x"


def typing(ui: Ui) -> Typing:
    assert ui.typing is not None
    return ui.typing


def test_a_filter_is_seen_while_it_is_typed_and_taken_back_by_escape() -> None:
    ui, _ = pressed("/", *"queue:mail")
    assert [row.name for row in listing.queues(ui, SHOT)] == ["mail"]
    assert [row.name for row in listing.workers(ui, SHOT)] == ["mailer-4c1e"]
    assert pressed("esc", ui=ui)[0].filter == ""
    kept, _ = pressed("enter", ui=ui)
    assert (kept.filter, kept.typing) == ("queue:mail", None)
    assert pressed("esc", ui=kept)[0].filter == ""
    assert pressed("/", "backspace", "enter", ui=kept)[0].filter == "queue:mai"
    assert pressed("/", "clear", "paste bury\nx", "enter", ui=kept)[0].filter == "bury x"


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", ["019e6f2a01", "019e6f2b01", "019e6f2c01"]),
        ("err:smtp", ["019e6f2a01", "019e6f2c01"]),
        ("state:buried err:SMTP", ["019e6f2c01"]),
        ("bill", ["019e6f2b01"]),
        ("id:2b", ["019e6f2b01"]),
        ("http://x", []),
    ],
)
def test_failures_are_filtered(text: str, ids: list[str]) -> None:
    assert [row.id for row in listing.failures(Ui(filter=text), SHOT)] == ids


def test_a_field_that_rows_have_not_got_chooses_nothing_among_them() -> None:
    assert filtering.fits(filtering.parse("err:x"), {"queue": "mail"})
    assert not filtering.fits(filtering.parse("queue:x"), {"queue": "mail"})


def test_pages_open_and_close_one_above_the_other() -> None:
    ui, _ = pressed("j", "enter", scene=ON_DEFAULT)
    assert ui.page == DEFAULT
    ui, _ = pressed("end", "enter", ui=ui, scene=ON_DEFAULT)
    assert ui.page == Page("job", BILL.name, BILL.queue, BILL.type)
    assert pressed("esc", ui=ui)[0].page == DEFAULT
    assert pressed("esc", "esc", ui=ui)[0].page is None
    assert pressed("j", "j", "k", ui=ui, scene=ON_BILL)[0].scroll == 1


def test_a_page_has_a_filter_of_its_own_and_the_board_keeps_its() -> None:
    ui, _ = pressed("/", *"grow", "enter", "enter", scene=ON_DEFAULT)
    assert (ui.page, ui.filter) == (DEFAULT, "")
    ui, _ = pressed("/", *"bill", "enter", ui=ui, scene=ON_DEFAULT)
    assert [job.type for job in listing.jobs(ui, ON_DEFAULT, DEFAULT)] == ["shop.bill"]
    assert pressed("esc", ui=ui)[0].page == DEFAULT
    for keys_back in (["esc", "esc"], ["1"], ["tab"], ["g"]):
        back, _ = pressed(*keys_back, ui=ui)
        assert (back.page, back.filter) == (None, "grow")


@pytest.mark.parametrize(
    ("key", "act"), [("q", Quit()), ("redraw", Redraw()), ("y", Copy("imports")), ("left", None), ("z", None)]
)
def test_keys_that_act_outside(key: str, act: Act | None) -> None:
    assert pressed(key)[1] == act


def test_t_shows_where_a_running_job_is_also_where_nothing_may_be_changed() -> None:
    ui, _ = pressed("j", "enter", ui=replace(START, read_only=True), scene=ON_DEFAULT)
    assert pressed("t", ui=ui, scene=ON_DEFAULT)[1] == Show(("jobs", "stack", "019e6f1a01"))
    told = pressed("end", "t", ui=ui, scene=ON_DEFAULT)[0].told
    assert told is not None
    assert told.text.startswith("t tells where one job is that runs")


def test_a_recording_is_stepped_through() -> None:
    assert pressed("right", scene=replace(SCENE, replay="1/9"))[1] == Step(1)


def test_what_is_pasted_presses_nothing() -> None:
    assert pressed("paste p\ny") == (START, None)


def test_looking_and_freezing() -> None:
    assert pressed("-", "-")[0].every == 5.0
    assert pressed("-", "+", "+")[0].every == 1.0
    assert pressed("f")[0].frozen
    assert pressed("?")[0].helping
    assert not pressed("?", "K")[0].helping
    assert pressed("?", "down")[0].scroll == 1
    assert pressed("g")[0].list == "groups"


def test_each_key_that_the_help_names_does_something() -> None:
    names = {
        "↑": "up",
        "↓": "down",
        "←": "left",
        "→": "right",
        "Tab": "tab",
        "Enter": "enter",
        "Esc": "esc",
        "Space": " ",
    }
    before = Ui(filter="i", typing=None)
    scene = replace(ON_DEFAULT, replay="1/2")
    for key in keys.KEYS:
        for name in key.keys.split():
            ui, act = press(replace(before, pane="workers"), names.get(name, name), scene)
            start = replace(before, pane="failures" if name == "3" else before.pane)
            moved = press(replace(before, spots={"queues": Spot("mail", 1)}), names.get(name, name), scene)
            assert act is not None or ui != before or moved[0] != start, name
            assert key.changes == (name in steer.KEYS), name


def test_the_docs_name_each_key() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    for key in keys.KEYS:
        assert f"| {' '.join(f'`{name}`' for name in key.keys.split())} | {key.does} |" in page
