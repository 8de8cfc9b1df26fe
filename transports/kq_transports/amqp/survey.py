"""All queues at one look, on a broker that has no such verb.

How many messages are ready is asked for all queues at once, each time. What costs more is remembered for FRESH seconds:
which queues there are, what is delayed on their ladders, what connections hold, and since when the first message of
each queue has been ready. AMQP tells nobody when a message came, so it carries that (the property timestamp, in
seconds), and the first one is taken to read it, and given back in the same breath: who consumes beside it would be
delivered the second before the first. A queue with one consumer at a time, whose order is a promise, is left alone
while it has one. Of a queue with priorities the first is the next to be delivered, so the oldest may be older.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from amqp import spec

from kq_transports.amqp.delay import rung, rungs
from kq_transports.amqp.errors import Refused
from kq_transports.amqp.message import DUE_HEADER, Arrival, properties_of
from kq_transports.amqp.presence import Answer, Question
from kq_transports.amqp.question import Request, Side, ask_all
from kq_transports.engine import Load, NotFound

if TYPE_CHECKING:
    from kq_transports.amqp.connection import Connection

#: Seconds for which what was seen is taken to be so still.
FRESH = 5.0
#: A queue that is there while somebody looks at the one that it is named after.
TURN = "kq.look."

#: Returns the first message of each of those queues that nobody else looks at now; see heads().
Peeks = Callable[[Sequence[str], Container[str]], Mapping[str, Arrival]]


@dataclass(slots=True)
class Known:
    """What was seen. until: when to look again; by the monotonic clock. since: instants."""

    until: float = 0.0
    queues: Sequence[str] = ()
    single: Container[str] = ()
    delayed: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, int] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)


class Surveyor:
    """Looks at the queues of one broker, again and again."""

    def __init__(self) -> None:
        self._known = Known()

    def survey(self, link: Connection, ask: Callable[[Question], Answer], first: Peeks) -> dict[str, Load]:
        """Every queue that was declared through this transport."""
        stale = time.monotonic() >= self._known.until
        if stale:
            self._known = _looked(link, ask)
        known = self._known
        ready = link.topology.counts(known.queues)
        if stale:
            quiet = [
                queue for queue in ready if ready[queue] and not (queue in known.single and _consumed(link, queue))
            ]
            known.since = {queue: _since(head) for queue, head in first(quiet, known.single).items()}
        return {queue: self._load(queue, number) for queue, number in ready.items()}

    def _load(self, queue: str, ready: int) -> Load:
        known, oldest = self._known, self._oldest(queue, ready)
        return Load(ready, known.delayed.get(queue, 0), known.held.get(queue, 0), oldest, queue in known.single)

    def _oldest(self, queue: str, ready: int) -> float | None:
        if not ready:
            self._known.since.pop(queue, None)
            return 0.0
        since = self._known.since.get(queue)
        return None if since is None else max(0.0, time.time() - since)


def _looked(link: Connection, ask: Callable[[Question], Answer]) -> Known:
    """All but the first messages."""
    queues, ladders = link.registry.names()
    rungs_of = {rung(each, *step): each.queue for each in ladders for step in rungs(each)}
    delayed, held = Counter[str](), Counter[str]()
    for name, number in link.topology.counts(rungs_of).items():
        delayed[rungs_of[name]] += number
    for holder in ask(Question()).holders:
        held.update(holder.held)
    single = {name for name, arguments in queues.items() if arguments.get("x-single-active-consumer")}
    return Known(time.monotonic() + FRESH, sorted(queues), single, delayed, held)


def turn(connection: Connection, queue: str) -> None:
    """Be the one who looks at queue until connection ends; raises Refused when somebody else is."""
    connection.topology.side.queue_declare(f"{TURN}{queue}"[:255], exclusive=True)


def _consumed(connection: Connection, queue: str) -> bool:
    try:
        return bool(connection.topology.find(queue).consumer_count)
    except NotFound:
        return False


def heads(connection: Connection, queues: Iterable[str], single: Container[str]) -> dict[str, Arrival]:
    """The first message of each of queues, which is back already. Those that others look at are left out.

    Left out is also one of single that has a consumer. That is asked again immediately before the message is taken: a
    consumer that comes between the two is delivered the second message before the first.
    """
    side, found = Side(connection), dict[str, Arrival]()
    for queue in queues:
        # Refused: somebody else looks there. A quorum queue with one consumer at a time lets nobody look, ever.
        with suppress(Refused):
            turn(connection, queue)
            side = side if side.usable else Side(connection)
            if queue in single and _consumed(connection, queue):
                continue
            for head in got(side, queue, 1, then=[GIVE_BACK]):
                found[queue] = head
    return found


#: Give back all that was taken on a channel; where that is nothing it is no error, as a reject would be.
GIVE_BACK: Request = (spec.Basic.Recover, "b", (True,))


def got(side: Side, queue: str, number: int, then: Sequence[Request] = ()) -> list[Arrival]:
    """Take the first messages of queue, at most so many, as deliveries of side; then: what is asked with it."""
    ask: list[Request] = [(spec.Basic.Get, "Bsb", (0, queue, False))] * number
    answers = ask_all(side, [*ask, *then], [spec.Basic.GetOk, spec.Basic.GetEmpty, spec.Basic.RecoverOk])
    return [
        Arrival(side, queue, "", tag, redelivered, exchange, key, method.header, method.body)
        for tag, redelivered, exchange, key, _, method in (answer for answer in answers if len(answer) > 1)
    ]


def _since(arrived: Arrival) -> float:
    """When a message became ready: an instant, and now when it does not say."""
    properties = properties_of(arrived)
    due = properties.get("application_headers", {}).get(DUE_HEADER)
    if isinstance(due, int):
        return due / 1000
    stamp = properties.get("timestamp")
    return float(stamp) if isinstance(stamp, int) else time.time()
