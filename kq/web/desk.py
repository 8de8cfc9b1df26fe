"""Where questions are put to control: never two at a time, in threads, so that the page's own loop goes on.

Those who look and those who change have a control each: emptying a large queue takes its time, and others look
meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from queue import Empty, Full, Queue
from threading import Event, Lock, Thread
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import anyio
from anyio import CapacityLimiter, to_thread

from kq.clock import SYSTEM
from kq.control import Control
from kq.errors import Busy, ResultTimeout, StreamCut
from kq.handles.standing import Hearing
from kq.handles.stream import Chunk
from kq.values.event import Event as Happened
from kq.values.snapshot import Snapshot

T = TypeVar("T")

#: Seconds that a snapshot is shown to all who look before another is taken.
FRESH = 1.0
#: So many may listen to events at a time: each takes a connection to the broker, and a thread. A user has half of them.
EARS = 8
#: So many at a time may wait for a job's end, or do what takes its time; each takes a connection and a thread too.
WAITS, SLOW = 16, 2
#: Events that are kept for one who listens slowly, and seconds between two looks whether it is time to end.
KEPT, LOOK = 1000, 0.5


class Desk:
    """Puts questions to control. Close it."""

    def __init__(self, control: Control) -> None:
        self._looker = _Line(control)
        self._changer = _Line(None)
        self._control = control
        self._hearing, self._waiting, self._slow = map(_Places, (EARS, WAITS, SLOW))
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

    async def slowly(self, deed: Callable[[Control], T]) -> T:
        """Let control do something that takes its time, beside all else. Raises Busy when too many do that."""
        done = await self._beside(self._slow, "", deed)
        self._shot = None
        return done

    async def ended(self, who: str, id: str, seconds: float, over: Event) -> None:
        """Wait until the job has ended or was buried, seconds have passed, or over is set. Raises Busy.

        who: waits; "" where nobody knows.
        """
        until = SYSTEM.monotonic() + seconds

        def wait(control: Control) -> None:
            while not over.is_set() and (left := until - SYSTEM.monotonic()) > 0:
                if control.wait(id, min(left, LOOK)) is not None:
                    return

        await self._beside(self._waiting, who, wait)

    async def _beside(self, places: _Places, who: str, question: Callable[[Control], T]) -> T:
        """Ask a control of its own, in a thread of its own."""

        def ask() -> T:
            with self._apart() as control:
                return question(control)

        places.must_have_room(who)
        async with places.place(who):
            return await to_thread.run_sync(ask, limiter=CapacityLimiter(1), abandon_on_cancel=True)

    @contextmanager
    def _apart(self) -> Iterator[Control]:
        """A control with connections of its own, which end with the block."""
        control = self._control.apart()
        try:
            yield control
        finally:
            control.close()
            if control.app is not self._control.app:
                control.app.close()

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

    def must_hear(self, who: str) -> None:
        """Raise Busy when as many listen as may, or as many for him. who: "" where nobody knows."""
        self._hearing.must_have_room(who)

    # What is heard is written in the thread that hears it, by `write`: a long text takes its time to be looked through.

    async def events(
        self,
        who: str,
        what: Hearing,
        job: str,
        queue: str,
        type: str,
        seconds: float,
        write: Callable[[Happened], bytes],
    ) -> AsyncGenerator[bytes, None]:
        """Events from now on, for so long. Who does not take them in time misses the latest."""
        wanted: dict[str, Any] = {"job": job, "queue": queue, "type": type, "what": what}

        def hear(control: Control, over: Event) -> Iterator[bytes]:
            return map(write, control.events(**wanted, over=over))

        async with aclosing(self._told(who, hear, seconds)) as told:
            async for event in told:
                if event is not None:
                    yield event

    def moves(
        self, who: str, job: str, seconds: float, write: Callable[[Happened], bytes]
    ) -> AsyncGenerator[bytes | None, None]:
        """How a job stands, and what happens to it to its end, or for so long; None now and then while nothing does."""

        def follow(control: Control, over: Event) -> Iterator[bytes]:
            with suppress(ResultTimeout):
                yield from map(write, control.follow(job, timeout=seconds, over=over))

        return self._told(who, follow, seconds)

    def chunks(
        self, who: str, job: str, offset: int, seconds: float, write: Callable[[Chunk | str], bytes]
    ) -> AsyncGenerator[bytes | None, None]:
        """What a job emits, to its end or for so long; None now and then while nothing comes.

        Last, when it has ended, text: what is wrong with its stream, or nothing.
        """

        def read(control: Control, over: Event) -> Iterator[bytes]:
            try:
                yield from map(write, control.stream(job, offset, timeout=seconds, over=over))
                yield write("")
            except StreamCut as cut:
                yield write(cut.message)
            except ResultTimeout:
                return

        return self._told(who, read, seconds, misses=False)

    async def _told(
        self, who: str, source: Callable[[Control, Event], Iterator[T]], seconds: float, *, misses: bool = True
    ) -> AsyncGenerator[T | None, None]:
        """What comes of source in a thread of its own, to its end or for so long; None now and then.

        misses: who does not take it in time misses some; else source waits for him.
        """
        over, heard = Event(), Queue[T](KEPT)
        until = SYSTEM.monotonic() + seconds

        def listen() -> None:
            with self._apart() as control:
                for each in source(control, over):
                    _put(heard, each, over, misses=misses)

        async with self._hearing.place(who):
            ear = Thread(target=listen, name="kq-web-ear", daemon=True)
            ear.start()
            try:
                while (left := until - SYSTEM.monotonic()) > 0 and (ear.is_alive() or not heard.empty()):
                    yield await to_thread.run_sync(_next, heard, min(left, LOOK))
            finally:
                over.set()
                with anyio.CancelScope(shield=True):
                    await to_thread.run_sync(ear.join)

    def close(self) -> None:
        """End what was opened here; the control that was given stays open."""
        if self._changer.control is not None:
            self._changer.control.close()
            self._changer.control = None


class _Places:
    """Places for so many at a time, of which one user has half at most: so others are served whatever he does."""

    def __init__(self, number: int) -> None:
        self._all, self._half = CapacityLimiter(number), max(1, number // 2)
        self._of = WeakValueDictionary[str, CapacityLimiter]()

    def must_have_room(self, who: str) -> None:
        """Raise Busy where there is none for him. who: "" for those of whom nobody knows who they are."""
        mine = self._of.get(who)
        if self._all.available_tokens < 1:
            raise Busy("as many do that already as may", fix="Try again later, or use the command line.")
        if who and mine is not None and mine.available_tokens < 1:
            raise Busy(f"{who} does that {self._half} times already, as often as one may", fix="End one of them first.")

    @asynccontextmanager
    async def place(self, who: str) -> AsyncGenerator[None, None]:
        """Have one of them, as soon as one is free."""
        if not who:
            async with self._all:
                yield
            return
        mine = self._of.setdefault(who, CapacityLimiter(self._half))
        async with mine, self._all:
            yield


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


def _put(heard: Queue[T], each: T, over: Event, *, misses: bool) -> None:
    while not over.is_set():
        with suppress(Full):
            heard.put(each, not misses, LOOK)
            return
        if misses:
            return


def _next(heard: Queue[T], patience: float) -> T | None:
    with suppress(Empty):
        return heard.get(timeout=patience)
    return None
