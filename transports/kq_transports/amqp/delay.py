"""Delays, kept in the broker: each delayed message climbs a ladder of queues whose messages expire.

A rung is a queue in which every message waits equally long, 20 ms, 300 ms, 7 s, 40 s…; what expires is dead-lettered.
A delay is rounded up to 20 ms and written in digits, 7,320 ms as 20 + 300 + 7000; the message waits on one rung for
each digit that is not 0, the shortest first, so that most of a long delay is one wait that an outage of the broker does
not prolong. Its routing key is the name of its ladder and these waits, "c0f1….20ms.300ms.7000ms"; one exchange for each
level sends it to the next rung, or when no wait is left to its queue.

Why like this (measured on RabbitMQ 4.0.5, two cores):

* Only queues with one waiting time for all are on time: RabbitMQ looks at the head of a queue only, so of messages with
  times of their own the longest holds up the rest. One queue for each delay would need millions of them to be as exact.
* The rungs are quorum queues that dead-letter at least once. Classic queues take a message off before its next queue
  has stored it: in 8 kills of a broker with 10,000 delayed messages each they lost 15,268; these none (some came
  twice).
* A quorum queue looks at the head of its higher priorities first, so each priority has a ladder of its own. Each queue
  too, so that its delayed messages are counted, looked at and removed without reading those of others.
* A key has one word for the ladder and no more for waits than there are: RabbitMQ looks up three things for each word
  of a key at each exchange. A key of 13 words cost it 46 µs at each, one of 4 costs 20; the hop itself costs some 70.
* A delay is counted from when its message is sent, and RabbitMQ counts it from when the message is in its first rung:
  when 500 were sent together the last was late by the 70 ms that it took to put the others there. So few are on their
  way at a time, and each is given its key as it is sent (outlet.py).
* A broker that is killed forgets the newest quorum queue, with all that is in it, for some 3 seconds after it was
  made, or until another one is made. So one more is made last, and deleted.
* A server with Mnesia starts its queues before its exchanges (rabbit_vhost:recover/1). What expires in between finds
  no exchange; the rung's own dead-letter worker holds it, where no client reaches it, and tries again after 180 s
  (dead_letter_worker_publisher_confirm_timeout). It holds 32; what expires behind them waits for them.

A ladder is built up to the level that is needed, when it first is: 13 queues (60 KB each) and 30 ms for delays under a
second, 40 for a quarter of an hour, 85 and 200 ms for a year. Never early; late by up to 20 ms, and some 2 ms for each
rung.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from hashlib import blake2b
from math import ceil
from typing import TYPE_CHECKING

from amqp import spec

from kq_transports.amqp.message import OURS
from kq_transports.amqp.outlet import Aim
from kq_transports.amqp.question import Request, side_by_side
from kq_transports.amqp.registry import Ladder
from kq_transports.amqp.topology import NO_DELIVERY_LIMIT
from kq_transports.engine import Arguments, EngineError

if TYPE_CHECKING:
    from kq_transports.amqp.connection import Connection

#: Milliseconds that a message waits for one step of each level.
UNITS = (20, *(10**exponent for exponent in range(2, 12)))
#: The highest level.
HIGHEST = len(UNITS) - 2
#: Milliseconds, three years: the rest of the digits.
LONGEST = UNITS[-1] - UNITS[0]
#: How many rungs are made at a time: the broker waits for its disk for each.
WIDTH = 16

#: Seconds for which what was seen is taken to be so still.
FRESH = 1.0


@dataclass(frozen=True, slots=True)
class Path:
    """A message's way. It enters at the exchange of level first; top is the highest level it waits on."""

    first: int
    top: int
    key: str


def path(queue: str, priority: int, delay_ms: int) -> Path:
    """The way of a message that is to be in queue after delay_ms (more than 0)."""
    if delay_ms > LONGEST:
        raise EngineError(f"a delay of {delay_ms} ms is longer than RabbitMQ is asked to keep ({LONGEST} ms)")
    steps = -(-delay_ms // UNITS[0])
    rest, fine = divmod(steps, UNITS[1] // UNITS[0])
    digits = [fine, *(rest // 10**level % 10 for level in range(HIGHEST))]
    used = [level for level, digit in enumerate(digits) if digit]
    waits = [_wait(level, digit) for level, digit in enumerate(digits[: used[-1] + 1])]
    return Path(used[0], used[-1], ".".join((_word(queue, priority), *waits)))


def rungs(ladder: Ladder) -> Iterator[tuple[int, int]]:
    """Level and digit of each rung, the shortest first."""
    for level in range(ladder.top + 1):
        yield from ((level, digit) for digit in range(1, UNITS[level + 1] // UNITS[level]))


def rung(ladder: Ladder, level: int, digit: int) -> str:
    """The name of a rung's queue."""
    return f"{OURS}{ladder.queue}.{ladder.priority}.{_wait(level, digit)}"


def mark(ladder: Ladder) -> str:
    """The name of an empty queue: when it exists, so does all of ladder."""
    return f"{OURS}{ladder.queue}.{ladder.priority}.to{ladder.top}"


def _former_mark(ladder: Ladder) -> str:
    """The same for the longer keys of version 0.1."""
    return f"{OURS}{ladder.queue}.{ladder.priority}.{ladder.top}"


def exchange(level: int) -> str:
    """The name of the exchange that sends messages to the rungs of level."""
    return f"{OURS}{level}"


class Delays:
    """The ladders at the broker of one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        #: Up to which level the ladder for a queue and a priority is known to stand.
        self._standing: dict[tuple[str, int], int] = {}
        self._names: dict[str, tuple[float, dict[str, float]]] = {}
        self._checked: dict[str, float] = {}

    def aim(self, queue: str, priority: int, due: float, until: float = math.inf) -> Aim:
        """What tells by which exchange and key a message that is sent now gets into queue at due (monotonic).

        What it needs on its way is there on return, which is made until an instant. Raises NotFound when there is no
        such queue.
        """
        self._stand(Ladder(queue, priority, path(queue, priority, _left(due)).top), until)
        return partial(_aimed, queue, priority, due)

    def lead(self, queue: str) -> None:
        """Let ladders that were left over from a queue of this name lead to the new one."""
        for ladder in self._connection.registry.ladders(queue):
            side_by_side(self._connection, [list(_leads(ladder))], 1)

    def forget(self, queue: str) -> None:
        """Take nothing for granted about the ladders of queue."""
        for known in [known for known in self._standing if known[0] == queue]:
            self._standing.pop(known, None)

    def names(self, queue: str) -> dict[str, float]:
        """The queues in which messages for queue wait, and for how many seconds; the shortest first, as messages go."""
        ladders = self._connection.registry.ladders(queue)
        steps = sorted((step, ladder.priority, ladder) for ladder in ladders for step in rungs(ladder))
        return {rung(ladder, level, digit): digit * UNITS[level] / 1000 for (level, digit), _, ladder in steps}

    def count(self, queue: str) -> int:
        """How many messages wait for queue. A ladder that is younger than a second may be overlooked."""
        now = time.monotonic()
        known = self._names.get(queue)
        if known is None or now - known[0] > FRESH:
            known = self._names[queue] = now, self.names(queue)
        return sum(self._connection.topology.counts(known[1]).values())

    def purge(self, queue: str) -> int:
        """Remove what waits for queue; returns how many messages that was."""
        side = self._connection.topology.side
        return sum(side.queue_purge(name) for name in self.names(queue))

    def end(self, queue: str) -> int:
        """End the ladders of queue; returns how many messages waited there."""
        self.forget(queue)
        waiting = self.count(queue)
        ladders = self._connection.registry.ladders(queue)
        names = [rung(ladder, *step) for ladder in ladders for step in rungs(ladder)]
        # The marks first: without them a ladder is built anew.
        lower = [replace(ladder, top=top) for ladder in ladders for top in range(ladder.top + 1)]
        marks = [name(each) for each in lower for name in (mark, _former_mark)]
        for ended in (marks, names):
            if ended:
                side_by_side(self._connection, [[_deleted(name)] for name in ended], WIDTH)
        return waiting

    def _stand(self, ladder: Ladder, until: float) -> None:
        """See to it that ladder stands and leads to its queue."""
        known, link = (ladder.queue, ladder.priority), self._connection
        if self._standing.get(known, -1) >= ladder.top:
            self._check(ladder.queue)
            return
        if link.topology.has(mark(ladder)):
            side_by_side(link, [list(_leads(ladder))], 1, until)
        else:
            side_by_side(link, [[*_exchanges(), *_passes(ladder), *_leads(ladder)]], 1, until)
            link.registry.add_ladder(ladder)
            side_by_side(link, [_made(ladder, *step) for step in rungs(ladder)], WIDTH, until)
            side_by_side(link, [[*_last(), _declared(mark(ladder), {"x-queue-type": "classic"})]], 1, until)
        self._standing[known] = ladder.top

    def _check(self, queue: str) -> None:
        """Raise NotFound when there is no such queue; what climbs towards it would find no way off its ladder."""
        now = time.monotonic()
        if now - self._checked.get(queue, 0.0) > FRESH:
            self._connection.topology.find(queue)
            self._checked[queue] = now


def _aimed(queue: str, priority: int, due: float) -> tuple[str, str]:
    way = path(queue, priority, _left(due))
    return exchange(way.first), way.key


def _exchanges() -> Iterator[Request]:
    """The exchanges of all levels."""
    for level in range(HIGHEST + 2):
        yield spec.Exchange.Declare, "BssbbbbbF", (0, exchange(level), "topic", False, True, False, False, True, {})


def _passes(ladder: Ladder) -> Iterator[Request]:
    """From each level's exchange, what does not wait there goes to the next."""
    for level in range(ladder.top):
        pattern = _pattern(ladder, level, _wait(level, 0), "#")
        yield spec.Exchange.Bind, "BsssbF", (0, exchange(level + 1), exchange(level), pattern, True, {})


def _leads(ladder: Ladder) -> Iterator[Request]:
    """From each level's exchange, what has no wait left goes to the queue."""
    for level in range(1, ladder.top + 2):
        yield spec.Queue.Bind, "BsssbF", (0, ladder.queue, exchange(level), _pattern(ladder, level), True, {})


def _made(ladder: Ladder, level: int, digit: int) -> list[Request]:
    """One rung, bound to the exchange of its level."""
    name = rung(ladder, level, digit)
    arguments = {
        "x-queue-type": "quorum",
        "x-message-ttl": digit * UNITS[level],
        "x-dead-letter-exchange": exchange(level + 1),
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        "x-delivery-limit": NO_DELIVERY_LIMIT,
    }
    pattern = _pattern(ladder, level, _wait(level, digit), "#")
    return [_declared(name, arguments), (spec.Queue.Bind, "BsssbF", (0, name, exchange(level), pattern, True, {}))]


def _last() -> list[Request]:
    """Make the newest quorum queue, and end it."""
    name = f"{OURS}last.{os.urandom(6).hex()}"
    return [_declared(name, {"x-queue-type": "quorum", "x-expires": 60_000}), _deleted(name)]


def _declared(queue: str, arguments: Arguments) -> Request:
    return spec.Queue.Declare, "BsbbbbbF", (0, queue, False, True, False, False, True, arguments)


def _deleted(queue: str) -> Request:
    return spec.Queue.Delete, "Bsbbb", (0, queue, False, False, True)


def _left(due: float) -> int:
    """Milliseconds until an instant of the monotonic clock, at least one."""
    return max(1, ceil((due - time.monotonic()) * 1000))


def _wait(level: int, digit: int) -> str:
    """The word of a key for a wait on level. Version 0.1, whose bindings a broker may have still, wrote a digit."""
    return f"{digit * UNITS[level]}ms"


@lru_cache(4096)
def _word(queue: str, priority: int) -> str:
    """The word of a key for a ladder, whatever the queue is called."""
    return blake2b(f"{priority}.{queue}".encode(), digest_size=12).hexdigest()


def _pattern(ladder: Ladder, level: int, *rest: str) -> str:
    """Keys of ladder with any waits below level, then rest."""
    return ".".join((_word(ladder.queue, ladder.priority), *("*",) * level, *rest))
