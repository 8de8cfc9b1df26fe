"""Listening: events as they happen, from all workers and programs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase

from kq.control.view import View
from kq.errors import BrokerError
from kq.event import Event
from kq.events import LEASE, Ear
from kq.record import encode
from kq.standing import Hearing, Kind, Order, caller, nudge, order_key
from kq.state.store import StoreUnreachable, Write

#: Seconds that it is known that somebody listens, when he does not say so again; he does three times in that.
KEEP = 2 * LEASE
#: Seconds between two tries to listen at a broker that does not answer.
AGAIN = 1.0


class Hears(View):
    """Listens."""

    def events(
        self,
        *,
        job: str = "",
        queue: str = "",
        type: str = "",
        what: Hearing = "events",
        over: threading.Event | None = None,
        on_outage: Callable[[BrokerError], object] = lambda error: None,
    ) -> Iterator[Event]:
        """Events from now on, until over is set; without it for ever. Workers tell them while somebody listens.

        job, queue, type: only what is about these; type may be a pattern with *. what: "events" or "logs", lines that
        are logged. on_outage: called when the broker does not answer; it is tried again, and what happens meanwhile is
        missed. May be used from a thread of its own, by an object of its own.
        """
        over = over or threading.Event()
        while not over.is_set():
            try:
                yield from self._heard(_keys(what, queue), what, over, _Filter(job, queue, type))
            except (BrokerError, StoreUnreachable) as error:
                on_outage(error if isinstance(error, BrokerError) else BrokerError(str(error)))
                over.wait(AGAIN)

    def _heard(self, keys: list[str], what: Hearing, over: threading.Event, wanted: _Filter) -> Iterator[Event]:
        heard: list[Event] = []
        ear = Ear(self._app.broker, keys, heard.append)
        order, said = order_key(Kind.LISTEN, f"{what}/{ear.name}"), 0.0
        try:
            while not over.is_set():
                if (now := time.monotonic()) - said >= LEASE / 3:
                    self._say(order)
                    if not said:
                        nudge(self._inspector)
                    ear.beat()
                    said = now
                ear.listen(0.2)
                found, heard[:] = [event for event in heard if wanted.fits(event)], []
                yield from found
        finally:
            ear.close()
            with suppress(StoreUnreachable, BrokerError):
                self._app.store.write([Write(order, None)])
                nudge(self._inspector)

    def _say(self, key: str) -> None:
        """Note that somebody listens."""
        store = self._app.store
        store.write([Write(key, encode(Order(at=store.now(), by=caller())), KEEP)])


class _Filter:
    def __init__(self, job: str, queue: str, type: str) -> None:
        self._job, self._queue, self._type = job, queue, type

    def fits(self, event: Event) -> bool:
        """Whether somebody wants to hear it."""
        if event.event == "lost":
            return True
        return (
            self._job in ("", event.job)
            and self._queue in ("", event.queue)
            and (not self._type or fnmatchcase(event.type, self._type) or fnmatchcase(event.type, f"*.{self._type}"))
        )


def _keys(what: Hearing, queue: str) -> list[str]:
    """The topic patterns to listen under."""
    if what == "logs":
        return [f"log.{queue}"] if queue else ["log.#"]
    return [f"job.{queue}"] if queue else ["job.#", "worker"]
