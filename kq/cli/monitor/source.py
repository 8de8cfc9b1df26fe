"""Where scenes come from: a broker that is looked at again and again, in a thread of its own; or a file of snapshots.

The broker is asked by nobody but this thread, so a slow one keeps no key waiting.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from kq.cli.failing import describe
from kq.cli.monitor.book import read_page
from kq.cli.monitor.scene import Book, Page, Scene
from kq.clock import SYSTEM
from kq.control import Control
from kq.errors import BadArguments
from kq.values import snapshot
from kq.values.snapshot import Snapshot

#: Seconds that an end waits for a look that is under way.
PATIENCE = 1.0
#: A pause in a recording is not waited for longer than this.
LONGEST_PAUSE = 5.0


class Source(ABC):
    """Gives scenes. every: seconds between two looks. frozen: nobody wants to see what comes by itself."""

    def __init__(self) -> None:
        self.every = 1.0
        self.frozen = False
        self.changed: Callable[[], None] = lambda: None

    @abstractmethod
    def start(self) -> None:
        """Begin; changed() is called when there is something new."""

    @abstractmethod
    def stop(self) -> None:
        """End."""

    @abstractmethod
    def scene(self) -> Scene:
        """What is known by now. Raises what makes it impossible to look at all."""

    @abstractmethod
    def want(self, page: Page | None, every: float) -> None:
        """Read of page too from now on, every so many seconds, or more seldom."""

    @abstractmethod
    def hurry(self) -> None:
        """Look again at once: something was changed."""

    def step(self, by: int) -> None:  # noqa: B027
        """Go so many snapshots on, where that means something."""


class Live(Source):
    """A broker. open: gives control over it. see: what is said of each snapshot; record: where each goes too."""

    def __init__(
        self,
        open: Callable[[], AbstractContextManager[Control]],
        app: str,
        see: Callable[[Snapshot], tuple[str, ...]],
        record: BinaryIO | None = None,
    ) -> None:
        super().__init__()
        self._open, self._app, self._see, self._record = open, app, see, record
        self._scene = Scene(now=SYSTEM.now(), app=app)
        self._seen = time.monotonic()
        self._next = 0.0
        self._page: Page | None = None
        self._read, self._page_every = 0.0, 0.0
        self._broken: Exception | None = None
        self._over, self._soon = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="kq-monitor-look", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._soon.set()
        self._thread.join(PATIENCE)

    def want(self, page: Page | None, every: float) -> None:
        self._page_every = every
        if page != self._page:
            self._page, self._read = page, 0.0
            self._soon.set()

    def hurry(self) -> None:
        self._next = self._read = 0.0
        self._soon.set()

    def scene(self) -> Scene:
        if self._broken is not None:
            raise self._broken
        now = time.monotonic()
        age = now - self._seen if self._scene.shot is not None else 0.0
        retry = max(0.0, self._next - now)
        return replace(self._scene, now=SYSTEM.now(), age=age, retry=retry, every=self.every)

    def _run(self) -> None:
        try:
            with self._open() as control:
                while not self._over.is_set():
                    self._look(control)
                    self.changed()
                    self._soon.wait(max(0.05, self._next - time.monotonic()))
                    self._soon.clear()
        except Exception as error:  # with settings or the application: the screen is no place for it
            self._broken = error
            self.changed()

    def _look(self, control: Control) -> None:
        began = time.monotonic()
        if began >= self._next - 0.01 or self._scene.shot is None:
            self._take(control)
            self._next = began + self.every
        page = self._page
        if page is not None and not self._over.is_set() and began - self._read >= self._page_every - 0.01:
            self._read = began
            self._scene = replace(self._scene, book=self._book(control, page))

    def _take(self, control: Control) -> None:
        try:
            shot = control.snapshot()
        except Exception as error:  # the loop's guard: told on the screen, and asked again
            self._failed(error)
            return
        self._seen = time.monotonic()
        self._scene = replace(self._scene, shot=shot, trouble="", met=self._see(shot))
        if self._record is not None:
            self._record.write(snapshot.encode(shot) + b"\n")

    def _failed(self, error: Exception) -> None:
        told = describe(error)
        self._scene = replace(self._scene, trouble=" ".join(filter(None, (told["code"], told["message"], told["fix"]))))

    def _book(self, control: Control, page: Page) -> Book:
        try:
            return read_page(control, page)
        except Exception as error:  # the same
            told = describe(error)
            return Book(page, trouble=f"{told['code']} {told['message']}".strip())


class Replay(Source):
    """A file that --record wrote. Played at its own pace; + and - are a faster and a slower one."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._lines = [line for line in path.read_bytes().splitlines() if line.strip()]
        if not self._lines:
            raise BadArguments(f"{path} holds no snapshot", fix="kq monitor --record FILE writes one.")
        self._path, self._index = path, 0
        self._shot = self._decoded(0)
        self._due = float("inf")

    @property
    def latest(self) -> Snapshot:
        """The last of all."""
        return self._decoded(len(self._lines) - 1)

    def start(self) -> None:
        self._due = time.monotonic() + self._pause()

    def stop(self) -> None:
        """Nothing runs."""

    def want(self, page: Page | None, every: float) -> None:
        """There is nothing but snapshots."""

    def hurry(self) -> None:
        """Nothing changes."""

    def step(self, by: int) -> None:
        self._go(max(0, min(len(self._lines) - 1, self._index + by)))

    def scene(self) -> Scene:
        if not self.frozen and time.monotonic() >= self._due and self._index + 1 < len(self._lines):
            self._go(self._index + 1)
        told = f"{self._index + 1}/{len(self._lines)}"
        return Scene(now=self._shot.at, shot=self._shot, every=self.every, replay=told, frozen=self.frozen)

    def _go(self, index: int) -> None:
        self._index, self._shot = index, self._decoded(index)
        self._due = time.monotonic() + self._pause()

    def _pause(self) -> float:
        if self._index + 1 >= len(self._lines):
            return float("inf")
        span = self._decoded(self._index + 1).at - self._shot.at
        return max(0.0, min(LONGEST_PAUSE, span)) * self.every

    def _decoded(self, index: int) -> Snapshot:
        try:
            return snapshot.decode(self._lines[index])
        except ValueError as error:
            raise BadArguments(
                f"line {index + 1} of {self._path} is no snapshot: {error}", fix="kq monitor --record FILE writes them."
            ) from error
