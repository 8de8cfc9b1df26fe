"""Listening: events as they come, and that those who tell them know of it.

Who listens says so by an order in the state store, again and again, and nudges the workers when he begins.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Sequence
from contextlib import suppress

from kq.broker import Inspector
from kq.errors import BrokerError
from kq.events import LEASE, Ear
from kq.handles.standing import Kind, Order, caller, give, nudge, withdraw
from kq.handles.whereabouts import Looks
from kq.state.store import StoreUnreachable
from kq.values.event import Event

#: Seconds that it is known that somebody listens, when he does not say so again; he does three times in that.
KEEP = 2 * LEASE
#: Seconds after which who listens is told that nothing came.
WORD = 0.2


def heard(
    app: Looks, inspector: Inspector, what: str, keys: Sequence[str], over: threading.Event
) -> Generator[Event | None, None, None]:
    """Events from now on, until over is set; None while none comes, and first of all, when one begins to listen.

    what: what is listened for, as in an order of it. keys: topic patterns. Raises BrokerError and StoreUnreachable.
    """
    events: list[Event] = []
    ear = Ear(app.broker, keys, events.append)
    about, said = f"{what}/{ear.name}", 0.0
    try:
        while not over.is_set():
            if (now := time.monotonic()) - said >= LEASE / 3:
                give(app.store, Kind.LISTEN, about, Order(by=caller()), KEEP)
                if not said:
                    nudge(inspector)
                ear.beat()
                said = now
            yield None
            ear.listen(WORD)
            found, events[:] = events[:], []
            yield from found
    finally:
        ear.close()
        with suppress(StoreUnreachable, BrokerError):
            withdraw(app.store, Kind.LISTEN, about)
            nudge(inspector)
