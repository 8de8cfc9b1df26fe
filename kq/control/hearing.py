"""Listening: events as they happen, from all workers and programs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from kq.coming import Coming
from kq.control.sight import is_named
from kq.control.view import View
from kq.errors import BrokerError
from kq.events import remembered
from kq.handles.following import moves
from kq.handles.handle import PATIENCE
from kq.handles.listening import heard
from kq.handles.standing import Hearing
from kq.state.store import StoreUnreachable
from kq.values.event import Event

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
        over, wanted = over or threading.Event(), _Filter(job, queue, type)
        while not over.is_set():
            try:
                for event in heard(self._app, self._inspector, what, _keys(what, queue), over):
                    if event is not None and wanted.fits(event):
                        yield event
            except (BrokerError, StoreUnreachable) as error:
                on_outage(error if isinstance(error, BrokerError) else BrokerError(str(error)))
                over.wait(AGAIN)

    def past(self, since: float, *, job: str = "", queue: str = "", type: str = "") -> list[Event]:
        """Events since an instant, in the order of their time, as far as workers remember them: `events:` in kq.yaml.

        job, queue, type: as for events().
        """
        wanted = _Filter(job, queue, type)
        return [event for event in remembered(self._app.store, since) if wanted.fits(event)]

    def follow(
        self, id: str, queue: str = "", *, timeout: float | None = None, over: threading.Event | None = None
    ) -> Coming[Event]:
        """What happens to one job, until it has ended; see Handle.events(). over: when set, ends it before.

        queue: that it was submitted to; looked for when it is not said.
        """
        if not queue and (job := self.job(id)) is not None:
            queue = job.queue
        lasts = PATIENCE if timeout is None else timeout
        return Coming(moves(self._app, id, queue, lasts, over or threading.Event()))


class _Filter:
    def __init__(self, job: str, queue: str, type: str) -> None:
        self._job, self._queue, self._type = job, queue, type

    def fits(self, event: Event) -> bool:
        """Whether somebody wants to hear it."""
        if event.event == "lost":
            return True
        return self._job in ("", event.job) and self._queue in ("", event.queue) and is_named(event.type, self._type)


def _keys(what: Hearing, queue: str) -> list[str]:
    """The topic patterns to listen under."""
    if what == "logs":
        return [f"log.{queue}"] if queue else ["log.#"]
    return [f"job.{queue}"] if queue else ["job.#", "worker"]
