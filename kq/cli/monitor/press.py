"""What a key does to what somebody is doing: `press`. Pure; what is to be done outside comes back as an act."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TypeAlias

from kq.cli.monitor import listing, pages, steer, verbs
from kq.cli.monitor.keys import PASTE
from kq.cli.monitor.scene import Scene
from kq.cli.monitor.state import (
    PANES,
    PAUSES,
    SORTS,
    Act,
    Ask,
    Copy,
    Do,
    Quit,
    Redraw,
    Show,
    Spot,
    Step,
    Told,
    Typing,
    Ui,
)
from kq.control.commands import Words, written

_Simple: TypeAlias = Callable[[Ui, Scene], Ui]

#: Rows that a page has, for PgUp and PgDn.
PAGE = 10
_MOVES = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -PAGE, "page down": PAGE, "home": -(10**9), "end": 10**9}
READ_ONLY = "this monitor only looks: start it with --no-read-only to change something"


def press(ui: Ui, key: str, scene: Scene) -> tuple[Ui, Act | None]:
    """ui after key, and what is to be done."""
    if ui.typing is not None:
        return _type(ui, ui.typing, key, scene)
    if key.startswith(PASTE):
        return ui, None
    if ui.asks is not None:
        return _answer(ui, ui.asks, key)
    if ui.helping and key not in _MOVES:
        return replace(ui, helping=False, scroll=0), None
    ui = replace(ui, told=None)
    if key in _MOVES:
        return _move(ui, _MOVES[key], scene), None
    if key in steer.KEYS:
        return _steer(ui, key, scene), None
    if key == "t":
        return _where(ui, scene)
    if key in _SIMPLE:
        return _SIMPLE[key](ui, scene), None
    return ui, _act(ui, key, scene)


def _act(ui: Ui, key: str, scene: Scene) -> Act | None:
    match key:
        case "q":
            return Quit()
        case "redraw":
            return Redraw()
        case "left" | "right" if scene.replay:
            return Step(-1 if key == "left" else 1)
        case "y":
            return Copy(steer.named(ui, scene))
    return None


def _where(ui: Ui, scene: Scene) -> tuple[Ui, Act | None]:
    found = steer.whereabouts(ui, scene)
    return (replace(ui, told=Told(found, bad=True)), None) if isinstance(found, str) else (ui, Show(found))


# Moving and looking.


def _move(ui: Ui, by: int, scene: Scene) -> Ui:
    if ui.helping or (ui.page is not None and ui.page.kind == "job"):
        return replace(ui, scroll=max(0, ui.scroll + by) if by < 10**9 else 10**6)
    found = listing.rows(ui, scene)
    if not found:
        return ui
    here = listing.place(ui.spots.get(ui.list, Spot()), found)
    index = max(0, min(len(found) - 1, here + by))
    return _put(ui, Spot(listing.key_of(found[index]), index))


def _put(ui: Ui, spot: Spot) -> Ui:
    return replace(ui, spots=MappingProxyType({**ui.spots, ui.list: spot}))


def _pane(ui: Ui, index: int) -> Ui:
    return replace(_closed(ui), pane=PANES[index % len(PANES)], marks=frozenset())


def _closed(ui: Ui) -> Ui:
    """The board again, with its filter."""
    return replace(ui, opened=(), outer=(), filter=ui.outer[0], scroll=0) if ui.opened else ui


def _tab(by: int) -> _Simple:
    return lambda ui, scene: _pane(ui, PANES.index(ui.pane) + by)


def _to(index: int) -> _Simple:
    return lambda ui, scene: _pane(ui, index)


def _open(ui: Ui, scene: Scene) -> Ui:
    page = pages.chosen_page(ui, scene)
    if page is None or (ui.page is not None and ui.page.kind == "job"):
        return ui
    outer = (*ui.outer, ui.filter)
    opened = replace(ui, opened=(*ui.opened, page), outer=outer, filter="", marks=frozenset(), scroll=0)
    return opened if page.kind == "job" else _put(opened, Spot())


def _back(ui: Ui, scene: Scene) -> Ui:
    if ui.marks:
        return replace(ui, marks=frozenset())
    if ui.filter or not ui.opened:
        return replace(ui, filter="")
    return replace(ui, opened=ui.opened[:-1], outer=ui.outer[:-1], filter=ui.outer[-1], scroll=0)


def _mark(ui: Ui, scene: Scene) -> Ui:
    row = listing.chosen(ui, scene)
    if row is None:
        return ui
    return _move(replace(ui, marks=ui.marks ^ {listing.key_of(row)}), 1, scene)


def _sort(ui: Ui, scene: Scene) -> Ui:
    choices = SORTS[ui.list]
    after = choices[(choices.index(ui.sort(ui.list)) + 1) % len(choices)]
    return replace(ui, sorts=MappingProxyType({**ui.sorts, ui.list: after}), told=Told(f"sorted by {after}"))


def _group(ui: Ui, scene: Scene) -> Ui:
    return replace(_closed(ui), grouped=not ui.grouped, pane="failures", marks=frozenset())


def _freeze(ui: Ui, scene: Scene) -> Ui:
    return replace(ui, frozen=not ui.frozen)


def _pace(by: int) -> _Simple:
    def paced(ui: Ui, scene: Scene) -> Ui:
        near = min(range(len(PAUSES)), key=lambda index: abs(PAUSES[index] - ui.every))
        every = PAUSES[max(0, min(len(PAUSES) - 1, near + by))]
        return replace(ui, every=every, told=Told(f"looks every {every:g} s"))

    return paced


def _help(ui: Ui, scene: Scene) -> Ui:
    return replace(ui, helping=True, scroll=0)


def _begin(typing: Typing) -> _Simple:
    def begun(ui: Ui, scene: Scene) -> Ui:
        before = replace(typing, text=ui.filter, before=ui.filter) if typing.kind == "filter" else typing
        return replace(ui, typing=before)

    return begun


# Changing.


def _steer(ui: Ui, key: str, scene: Scene) -> Ui:
    if ui.read_only:
        return replace(ui, told=Told(READ_ONLY, bad=True))
    found = steer.asks(key, ui, scene)
    return replace(ui, told=Told(found, bad=True)) if isinstance(found, str) else replace(ui, asks=found)


def _answer(ui: Ui, asks: Ask, key: str) -> tuple[Ui, Act | None]:
    if key == "y":
        return _do(ui, asks.act)
    if key == "r":
        return replace(ui, typing=Typing("reason")), None
    if key in ("n", "esc", "q"):
        return replace(ui, asks=None, told=Told("nothing was done")), None
    return ui, None


def _do(ui: Ui, act: Do | Show) -> tuple[Ui, Act]:
    ui = replace(ui, asks=None, typing=None, marks=frozenset())
    return (replace(ui, told=Told(f"… {written(act.commands[0])}")) if isinstance(act, Do) else ui), act


def with_reason(act: Do | Show, reason: str) -> Do | Show:
    """The same, and why."""
    words = ("--reason", reason)
    if isinstance(act, Show):
        return replace(act, command=(*act.command, *words))
    return replace(act, commands=tuple((*command, *words) for command in act.commands))


# Typing.


def _type(ui: Ui, typing: Typing, key: str, scene: Scene) -> tuple[Ui, Act | None]:
    match key:
        case "esc":
            return _given_up(ui, typing), None
        case "enter":
            return _entered(ui, typing)
        case "tab" if typing.kind == "verb":
            text, offers = verbs.completed(typing.text, ui.verbs, scene)
            return replace(ui, typing=replace(typing, text=text, offers=offers)), None
        case "backspace" if not typing.text:
            return _given_up(ui, typing), None
        case "backspace":
            text = typing.text[:-1]
        case "clear":
            text = ""
        case _ if key.startswith(PASTE):
            text = typing.text + " ".join(key.removeprefix(PASTE).split())
        case _ if len(key) == 1:
            text = typing.text + key
        case _:
            return ui, None
    ui = replace(ui, typing=replace(typing, text=text, offers=()))
    return (replace(ui, filter=text) if typing.kind == "filter" else ui), None


def _given_up(ui: Ui, typing: Typing) -> Ui:
    ui = replace(ui, typing=None)
    if typing.kind == "filter":
        return replace(ui, filter=typing.before)
    return replace(ui, asks=None) if typing.kind == "name" else ui


def _entered(ui: Ui, typing: Typing) -> tuple[Ui, Act | None]:
    ui = replace(ui, typing=None)
    match typing.kind:
        case "reason" if ui.asks is not None:
            act = with_reason(ui.asks.act, typing.text) if typing.text else ui.asks.act
            return replace(ui, asks=replace(ui.asks, act=act)), None
        case "name" if ui.asks is not None:
            if typing.text == ui.asks.name:
                return _do(ui, ui.asks.act)
            return replace(ui, asks=None, told=Told("that is not its name: nothing was done", bad=True)), None
        case "verb":
            return _command(ui, typing.text)
    return ui, None


def _command(ui: Ui, text: str) -> tuple[Ui, Act | None]:
    try:
        words: Words = tuple(shlex.split(text.removeprefix("kq ")))
    except ValueError as error:
        return replace(ui, told=Told(f"{text}: {error}", bad=True)), None
    if not words:
        return ui, None
    if ui.read_only and not verbs.only_looks(words):
        return replace(ui, told=Told(READ_ONLY, bad=True)), None
    if name := verbs.purged(words):
        asks = Ask(f"End all jobs of queue {name}, for good", Show((*words, "--yes")), name)
        return replace(ui, asks=asks, typing=Typing("name")), None
    return ui, Show(words)


#: The keys that only change what is seen.
_SIMPLE: Mapping[str, _Simple] = {
    "tab": _tab(1),
    "back tab": _tab(-1),
    **{str(index + 1): _to(index) for index in range(len(PANES))},
    "enter": _open,
    "4": _open,
    "esc": _back,
    " ": _mark,
    "s": _sort,
    "g": _group,
    "f": _freeze,
    "+": _pace(-1),
    "-": _pace(1),
    "?": _help,
    "/": _begin(Typing("filter")),
    ":": _begin(Typing("verb")),
}
