"""The broker in memory: queues, exchanges and leases that the connections of one process share."""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import ClassVar, Protocol

from kq_transports.engine import (
    EXPELLED,
    Action,
    Arguments,
    Binding,
    Full,
    Message,
    NotFound,
    Verdict,
)
from kq_transports.memory.queue import Entry, Queue


class Clock(Protocol):
    """Where a broker gets its time from."""

    def now(self) -> float:
        """Seconds since the epoch."""


class SystemClock:
    """The computer's own clock, from where it was on without its steps: they end no lease and make nothing due.

    It goes on while the machine sleeps, where the system tells that (Linux).
    """

    def __init__(self) -> None:
        self._base = time.time() - _steady()

    def now(self) -> float:
        return self._base + _steady()


def _steady() -> float:
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Sleeper(Protocol):
    """One who waits for messages."""

    def ring(self) -> None:
        """Wake it up. Called under the broker's lock."""


class Exchange:
    """kind: direct, topic or fanout. bindings: each once, in order; the values say nothing."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.bindings: dict[Binding, None] = {}


class Holder:
    """A connection that has a lease. until: when that ends. held: what it holds, by receipt."""

    def __init__(self, name: str, sleeper: Sleeper, until: float) -> None:
        self.name = name
        self.sleeper = sleeper
        self.until = until
        self.held: dict[str, Entry] = {}
        self.seats: set[Queue] = set()


class MemoryBroker:
    """The queues that several connections of this process share.

    A broker that is made by hand is nobody else's; named() gives the one that `kq-memory://name` means.
    """

    _named: ClassVar[dict[str, MemoryBroker]] = {}

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.lock = threading.Lock()
        self.queues: dict[str, Queue] = {}
        self.expiring: set[Queue] = set()
        self.exchanges: dict[str, Exchange] = {}
        self.holders: dict[str, Holder] = {}
        self.sleepers: dict[str, set[Sleeper]] = {}
        self.places = itertools.count()
        self.deliveries = itertools.count(1)
        #: No lease ends before; never later than the truth.
        self._next_end = math.inf

    @classmethod
    def named(cls, name: str, clock: Clock | None = None) -> MemoryBroker:
        """The broker of that name, made with clock when it is not there yet."""
        if name not in cls._named:
            cls._named.setdefault(name, cls(clock))
        return cls._named[name]

    @classmethod
    def forget(cls, name: str) -> None:
        """Let the next connection to that name find an empty broker."""
        cls._named.pop(name, None)

    def clock_moved(self) -> None:
        """Wake all sleepers: what they wait for may be due. To be called when a clock was moved by hand."""
        with self.lock:
            for name in list(self.sleepers):
                self.wake(name)

    # What the engines do, under the lock.

    def queue(self, name: str) -> Queue:
        """The queue of that name, with what is due by now made ready."""
        try:
            queue = self.queues[name]
        except KeyError:
            raise NotFound(f"there is no queue {name!r}") from None
        queue.promote(self.clock.now())
        return queue

    def seen(self, name: str) -> Queue:
        """The same; where there is none an empty one, which nobody else sees."""
        return self.queue(name) if name in self.queues else Queue(name, {})

    def create(self, name: str, arguments: Arguments) -> Queue:
        """A new queue."""
        queue = self.queues[name] = Queue(name, arguments)
        if queue.expires is not None:
            self.expiring.add(queue)
        return queue

    def exchange(self, name: str) -> Exchange:
        try:
            return self.exchanges[name]
        except KeyError:
            raise NotFound(f"there is no exchange {name!r}") from None

    def delete(self, name: str) -> int:
        """End a queue and its bindings; returns how many messages went."""
        queue = self.queues.pop(name, None)
        if queue is not None:
            self.expiring.discard(queue)
        for exchange in self.exchanges.values():
            exchange.bindings = {each: None for each in exchange.bindings if each.queue != name}
        return len(queue.entries) if queue else 0

    def check(self, messages: Sequence[Message], leaving: Collection[Entry] = ()) -> None:
        """Raise NotFound or Full unless all of messages can be stored when what is leaving, and waits, is gone."""
        more: Counter[str] = Counter()
        more.subtract(entry.queue.name for entry in leaving)
        for message in messages:
            queue = self.queues.get(message.queue)
            if queue is None:
                raise NotFound(f"there is no queue {message.queue!r}")
            if queue.limit is not None:
                known = queue.entries.get(message.id)
                more[queue.name] += known is None or known in leaving
        for name, number in more.items():
            if number > 0 and not self.queues[name].has_room(number):
                raise Full(f"queue {name!r} may have {self.queues[name].limit} messages waiting and has them")

    def store(self, messages: Sequence[Message]) -> None:
        """Put messages into their queues; an id that is there is skipped."""
        now = self.clock.now()
        touched = set()
        for message in messages:
            queue = self.queues[message.queue]
            if message.id not in queue.entries:
                queue.add(Entry(queue, message, next(self.places)), now, message.delay)
                touched.add(message.queue)
        for name in touched:
            self.wake(name)

    def end(self, holder: Holder, verdicts: Iterable[Verdict]) -> None:
        """Settle those of verdicts that are about something that holder has."""
        for verdict in verdicts:
            entry = holder.held.pop(verdict.receipt, None)
            if entry is None:
                continue
            if verdict.action is Action.DONE:
                entry.queue.end(entry)
            else:
                self.put_back(entry)

    def put_back(self, entry: Entry) -> None:
        entry.queue.put_back(entry)
        self.wake(entry.queue.name)

    def lend(self, holder: Holder) -> None:
        """Begin or renew a lease; a namesake's ends."""
        namesake = self.holders.get(holder.name)
        if namesake is not None and namesake is not holder:
            self.bury(namesake)
        self.holders[holder.name] = holder
        self._next_end = min(self._next_end, holder.until)

    def reap(self) -> None:
        """End the leases that are over, and the queues that nobody used for as long as they said."""
        now = self.clock.now()
        for name in [queue.name for queue in self.expiring if queue.is_over(now) and not self.sleepers.get(queue.name)]:
            self.delete(name)
        if now < self._next_end:
            return
        for holder in [holder for holder in self.holders.values() if holder.until <= now]:
            self.bury(holder)
        self._next_end = min((holder.until for holder in self.holders.values()), default=math.inf)

    def bury(self, holder: Holder) -> None:
        """End a lease: what it held goes back, its seats are free, what was mortal ends."""
        del self.holders[holder.name]
        for entry in holder.held.values():
            self.put_back(entry)
        for queue in holder.seats:
            self.free(queue)
        self.delete_mortal(holder.name)
        holder.sleeper.ring()  # so that one who sleeps learns it

    def expel(self, holder: Holder) -> None:
        """End a lease from outside. Its seats stay taken until it would have ended."""
        if holder.seats and holder.until < math.inf:
            rest = Holder(holder.name + EXPELLED, holder.sleeper, holder.until)
            rest.seats, holder.seats = holder.seats, set()
            for queue in rest.seats:
                queue.seat = rest.name
            self.lend(rest)
        self.bury(holder)

    def free(self, queue: Queue) -> None:
        """Leave the seat of a queue to the next."""
        queue.seat = ""
        self.wake(queue.name)

    def delete_mortal(self, owner: str) -> None:
        for name in [queue.name for queue in self.queues.values() if queue.owner == owner]:
            self.delete(name)

    def wake(self, queue: str) -> None:
        """Ring those who sleep until something comes to queue."""
        for sleeper in self.sleepers.pop(queue, ()):
            sleeper.ring()

    def next_end(self, but: str) -> float:
        """When the first lease ends that keeps something from others."""
        return min(
            (each.until for each in self.holders.values() if each.name != but and (each.held or each.seats)),
            default=math.inf,
        )


# A broker's lock may be held by a thread that the child has not got; and the child's jobs are not the parent's.
os.register_at_fork(after_in_child=MemoryBroker._named.clear)
