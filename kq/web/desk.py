"""Where questions are put to control: never two at a time, in threads, so that the page's own loop goes on.

Those who look and those who change have a control each: emptying a large queue takes its time, and others look
meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from queue import Empty, Full, Queue
from threading import Event, Lock, Thread
from typing import TypeVar

import anyio
from anyio import CapacityLimiter, to_thread

from kq.clock import SYSTEM
from kq.control import Control
from kq.event import Event as Happened
from kq.snapshot import Snapshot
from kq.standing import Hearing

T = TypeVar("T")

#: Seconds that a snapshot is shown to all who look before another is taken.
FRESH = 1.0
#: So many may listen to events at a time: each takes a connection to the broker, and a thread.
EARS = 8
#: Events that are kept for one who listens slowly, and seconds between two looks whether it is time to end.
KEPT, LOOK = 1000, 0.5


class Desk:
    """Puts questions to control. Close it."""

    def __init__(self, control: Control) -> None:
        self._looker = _Line(control)
        self._changer = _Line(None)
        self._control = control
        self._hearing = CapacityLimiter(EARS)
        self._shot: tuple[float, Snapshot] | None = None

    async def look(self, question: Callable[[Control], T]) -> T:
        """What control says."""
        return await self._looker.ask(question)

    async def change(self, deed: Callable[[Control], T]) -> T:
        """Let control do something."""
        if self._changer.control is None:
            self._changer.control = self._control.apart()
        done = await self._changer.ask(deed)
        self._shot = None  # who did it wants to see it
        return done

    async def snapshot(self) -> Snapshot:
        """Everything at one moment, at most FRESH seconds ago."""
        return await self.look(self._fresh)

    def _fresh(self, control: Control) -> Snapshot:
        now = SYSTEM.monotonic()
        if self._shot is None or now - self._shot[0] > FRESH:
            shot = control.snapshot()
            self._shot = (now, shot)
            return shot
        return self._shot[1]

    @property
    def deaf(self) -> bool:
        """Whether as many listen as may."""
        return self._hearing.available_tokens < 1

    async def events(
        self, what: Hearing, job: str, queue: str, type: str, seconds: float
    ) -> AsyncGenerator[Happened, None]:
        """Events from now on, for so long. Who does not take them in time misses the latest."""
        over, heard = Event(), Queue[Happened](KEPT)
        until = SYSTEM.monotonic() + seconds
        async with self._hearing:
            control = await to_thread.run_sync(self._control.apart)
            told = control.events(job=job, queue=queue, type=type, what=what, over=over)
            ear = Thread(target=_listen, args=(told, heard, control), name="kq-web-ear", daemon=True)
            ear.start()
            try:
                while (left := until - SYSTEM.monotonic()) > 0:
                    event = await to_thread.run_sync(_next, heard, min(left, LOOK))
                    if event is not None:
                        yield event
            finally:
                over.set()
                with anyio.CancelScope(shield=True):
                    await to_thread.run_sync(ear.join)

    def close(self) -> None:
        """End what was opened here; the control that was given stays open."""
        if self._changer.control is not None:
            self._changer.control.close()
            self._changer.control = None


class _Line:
    """Questions to one control, one after the other."""

    def __init__(self, control: Control | None) -> None:
        self.control = control
        self._limiter = CapacityLimiter(1)
        self._lock = Lock()  # the limiter waits without a thread; this holds over several event loops too

    async def ask(self, question: Callable[[Control], T]) -> T:
        return await to_thread.run_sync(self._asked, question, limiter=self._limiter)

    def _asked(self, question: Callable[[Control], T]) -> T:
        assert self.control is not None
        with self._lock:
            return question(self.control)


def _listen(told: Iterator[Happened], heard: Queue[Happened], control: Control) -> None:
    for event in told:
        with suppress(Full):
            heard.put_nowait(event)
    control.close()


def _next(heard: Queue[Happened], patience: float) -> Happened | None:
    with suppress(Empty):
        return heard.get(timeout=patience)
    return None
