"""A session at the monitor: keys go to `press`, what comes of them to `render`; acts are done beside the screen."""

from __future__ import annotations

import io
import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType

from kq.cli.monitor import pages, verbs
from kq.cli.monitor.board import DETAIL_HEIGHT, LEAST_WIDTH, Size, render
from kq.cli.monitor.press import press
from kq.cli.monitor.scene import Page, Scene
from kq.cli.monitor.source import Source
from kq.cli.monitor.state import Act, Copy, Do, Done, Quit, Redraw, Show, Step, Told, Ui
from kq.cli.monitor.terminal import Terminal
from kq.control.commands import Words

#: At most so many pictures a second are drawn of what comes by itself; a key draws at once.
FRAMES = 4.0
#: The clock on the screen, and the age of the numbers, move at least so often.
TICK = 1.0
#: Seconds after which is read again what was opened, and what only the detail on the board is about.
PAGE_EVERY, DETAIL_EVERY = 1.0, 5.0


@dataclass(frozen=True, slots=True)
class Said:
    """What a command line printed, and whether it ended well."""

    text: str
    good: bool


@dataclass(frozen=True, slots=True)
class Hands:
    """How command lines of kq are carried out. quietly: here, and what it prints is caught. openly: on the terminal."""

    quietly: Callable[[Words], Said]
    openly: Callable[[Words], None]


class Session:
    """One terminal, one source. ascii: draw with ASCII only."""

    def __init__(self, terminal: Terminal, source: Source, hands: Hands, ui: Ui, *, ascii: bool = False) -> None:
        self._terminal, self._source, self._hands, self._ascii = terminal, source, hands, ascii
        self._ui = ui
        self._scene = source.scene()
        self._drawn = 0.0
        self._said: queue.SimpleQueue[tuple[Do, Said]] = queue.SimpleQueue()
        self._busy = threading.Lock()

    def run(self) -> None:
        """Until somebody quits."""
        self._source.changed = self._terminal.wake
        self._source.start()
        try:
            self._draw()
            while self._turn():
                pass
        finally:
            self._source.stop()

    def _turn(self) -> bool:
        """Wait for something to happen, and see to it; False when somebody quits."""
        keys = self._terminal.wait(max(0.0, self._drawn + TICK - time.monotonic()))
        self._hear()
        for key in keys:
            if not self._press(key):
                return False
        soonest = self._drawn + 1 / FRAMES
        if not keys and time.monotonic() < soonest:
            time.sleep(max(0.0, soonest - time.monotonic()))
        self._draw()
        return True

    def _press(self, key: str) -> bool:
        if key == ":" and not self._ui.verbs:
            self._ui = replace(self._ui, verbs=MappingProxyType(verbs.tree()))
        self._ui, act = press(self._ui, key, self._scene)
        if isinstance(act, Quit):
            return False
        if act is not None:
            self._carry_out(act)
        return True

    def _draw(self) -> None:
        self._source.every, self._source.frozen = self._ui.every, self._ui.frozen
        scene = self._source.scene()
        self._scene = self._held(scene) if self._ui.frozen and not scene.replay else scene
        size = self._terminal.size()
        self._source.want(*_wanted(self._ui, self._scene, size))
        self._terminal.paint(render(self._ui, self._scene, size, ascii=self._ascii))
        self._drawn = time.monotonic()

    def _held(self, scene: Scene) -> Scene:
        """The picture as it was, and how old it is by now; what was opened since is read all the same."""
        held = self._scene
        age = held.age + max(0.0, scene.now - held.now)
        return replace(held, now=scene.now, age=age, frozen=True, book=scene.book or held.book)

    # Acts.

    def _carry_out(self, act: Act) -> None:
        match act:
            case Do():
                self._begin(act)
            case Show():
                with self._terminal.lent():
                    self._hands.openly(act.command)
                self._source.hurry()
            case Copy():
                self._terminal.copy(act.text)
                told = f"copied {act.text}" if act.text else "there is nothing to copy"
                self._ui = replace(self._ui, told=Told(told))
            case Step():
                self._source.step(act.by)
            case Redraw():
                self._terminal.forget()

    def _begin(self, act: Do) -> None:
        if not self._busy.acquire(blocking=False):
            self._ui = replace(self._ui, told=Told("one thing after the other: something is being done", bad=True))
            return
        threading.Thread(target=self._do, args=(act,), name="kq-monitor-act", daemon=True).start()

    def _do(self, act: Do) -> None:
        said = [self._hands.quietly(words) for words in act.commands]
        bad = [each for each in said if not each.good]
        self._busy.release()
        self._said.put((act, bad[0] if bad else said[-1]))
        self._terminal.wake()

    def _hear(self) -> None:
        """What became of acts."""
        while not self._said.empty():
            act, said = self._said.get()
            at = self._scene.shot.at if self._scene.shot is not None else 0.0
            new = dict.fromkeys(act.jobs, Done(act.done, at)) if said.good else {}
            told = Told(" ".join(said.text.split()), bad=not said.good)
            self._ui = replace(self._ui, told=told, done=MappingProxyType({**self._ui.done, **new}))
            self._source.hurry()


def _wanted(ui: Ui, scene: Scene, size: Size) -> tuple[Page | None, float]:
    """What is to be read of, and how often: the page that was opened, or what the detail is about."""
    if ui.page is not None:
        return ui.page, PAGE_EVERY
    has_detail = size.height >= DETAIL_HEIGHT and size.width >= LEAST_WIDTH and not ui.helping
    return (pages.chosen_page(ui, scene) if has_detail else None), DETAIL_EVERY


@contextmanager
def nothing_else_writes() -> Iterator[None]:
    """What libraries print or log would smear the screen: it is kept, and told when the screen is gone."""
    kept, usual = io.StringIO(), sys.stderr
    quiet = logging.NullHandler()
    logging.getLogger("kq").addHandler(quiet)
    sys.stderr = kept
    try:
        yield
    finally:
        sys.stderr = usual
        logging.getLogger("kq").removeHandler(quiet)
        usual.write(kept.getvalue()[-4096:])
