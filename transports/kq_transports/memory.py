"""Queues in the memory of one process: for tests, and for programs that need no more than themselves.

`kq-memory://name`: all connections of a process to one name share a broker, which lives as long as the process. The
clock is the broker's own and may be moved by hand, so that a test of days takes milliseconds.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import ClassVar, Protocol, cast

from kq_transports.alarm import Alarm
from kq_transports.engine import (
    Action,
    Arguments,
    Binding,
    Counts,
    Delivery,
    Engine,
    Full,
    Lease,
    LeaseLost,
    Message,
    Mismatch,
    NotFound,
    Options,
    Seen,
    State,
    Traits,
    Verdict,
    Want,
)
from kq_transports.memory_queue import Entry, Queue
from kq_transports.transport import EngineTransport

TRAITS = Traits("memory", durable=False, shared=False)


class Clock(Protocol):
    """Where a broker gets its time from."""

    def now(self) -> float:
        """Seconds since the epoch."""


class SystemClock:
    """The computer's own clock."""

    def now(self) -> float:
        return time.time()


class Exchange:
    """kind: direct, topic or fanout. bindings: each once, in order; the values say nothing."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.bindings: dict[Binding, None] = {}


class Holder:
    """A connection that has a lease. until: when that ends. held: what it holds, by receipt."""

    def __init__(self, engine: MemoryEngine, until: float) -> None:
        self.name = engine.options.name
        self.engine = engine
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
        self.exchanges: dict[str, Exchange] = {}
        self.holders: dict[str, Holder] = {}
        self.sleepers: dict[str, set[MemoryEngine]] = {}
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

    def exchange(self, name: str) -> Exchange:
        try:
            return self.exchanges[name]
        except KeyError:
            raise NotFound(f"there is no exchange {name!r}") from None

    def delete(self, name: str) -> int:
        """End a queue and its bindings; returns how many messages went."""
        queue = self.queues.pop(name, None)
        for exchange in self.exchanges.values():
            exchange.bindings = {each: None for each in exchange.bindings if each.queue != name}
        return len(queue.entries) if queue else 0

    def check(self, messages: Sequence[Message]) -> None:
        """Raise NotFound or Full unless all of messages can be stored."""
        more: dict[str, int] = {}
        for message in messages:
            queue = self.queues.get(message.queue)
            if queue is None:
                raise NotFound(f"there is no queue {message.queue!r}")
            if queue.limit is not None and message.id not in queue.entries:
                more[queue.name] = more.get(queue.name, 0) + 1
        for name, number in more.items():
            if not self.queues[name].has_room(number):
                raise Full(f"queue {name!r} may have {self.queues[name].limit} messages waiting and has them")

    def store(self, messages: Sequence[Message]) -> None:
        """Put messages into their queues; an id that is there is skipped."""
        now = self.clock.now()
        touched = set()
        for message in messages:
            queue = self.queues[message.queue]
            if message.id not in queue.entries:
                queue.add(Entry(queue, message, next(self.places)), now + message.delay if message.delay > 0 else None)
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
        """End the leases that are over."""
        now = self.clock.now()
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
        holder.engine.ring()  # so that one who sleeps learns it

    def free(self, queue: Queue) -> None:
        """Leave the seat of a queue to the next."""
        queue.seat = ""
        self.wake(queue.name)

    def delete_mortal(self, owner: str) -> None:
        for name in [queue.name for queue in self.queues.values() if queue.owner == owner]:
            self.delete(name)

    def wake(self, queue: str) -> None:
        """Ring those who sleep until something comes to queue."""
        for engine in self.sleepers.pop(queue, ()):
            engine.ring()

    def next_end(self, but: str) -> float:
        """When the first lease ends that keeps something from others."""
        return min(
            (each.until for each in self.holders.values() if each.name != but and (each.held or each.seats)),
            default=math.inf,
        )


# A broker's lock may be held by a thread that the child has not got; and the child's jobs are not the parent's.
os.register_at_fork(after_in_child=MemoryBroker._named.clear)


class MemoryEngine(Engine):
    """One connection to a MemoryBroker."""

    traits = TRAITS

    def __init__(self, broker: MemoryBroker, options: Options) -> None:
        self.options = options
        options.name = options.name or f"memory-{os.getpid()}-{os.urandom(4).hex()}"
        self._broker = broker
        self._alarm = Alarm()
        self._rung = False
        self._holder: Holder | None = None
        self._armed: tuple[str, ...] = ()
        self._closed = False

    # The topology.

    def declare(self, queue: str, arguments: Arguments, *, mortal: bool = False) -> None:
        with self._broker.lock:
            found = self._broker.queues.get(queue)
            if found is None:
                found = self._broker.queues[queue] = Queue(queue, arguments, "")
            elif found.arguments != dict(arguments):
                raise Mismatch(f"queue {queue!r} has the arguments {found.arguments}, not {dict(arguments)}")
            if mortal:
                found.owner = self.options.name

    def queues(self) -> dict[str, Arguments]:
        with self._broker.lock:
            self._broker.reap()
            return {queue.name: dict(queue.arguments) for queue in self._broker.queues.values()}

    def delete(self, queue: str) -> int:
        with self._broker.lock:
            return self._broker.delete(queue)

    def purge(self, queue: str) -> int:
        with self._broker.lock:
            return self._broker.queue(queue).purge()

    def declare_exchange(self, exchange: str, kind: str) -> None:
        with self._broker.lock:
            found = self._broker.exchanges.setdefault(exchange, Exchange(kind))
            if found.kind != kind:
                raise Mismatch(f"exchange {exchange!r} is of kind {found.kind}, not {kind}")

    def delete_exchange(self, exchange: str) -> None:
        with self._broker.lock:
            self._broker.exchanges.pop(exchange, None)

    def bind(self, exchange: str, binding: Binding) -> None:
        with self._broker.lock:
            self._broker.queue(binding.queue)
            self._broker.exchange(exchange).bindings[binding] = None

    def unbind(self, exchange: str, binding: Binding) -> None:
        with self._broker.lock:
            self._broker.exchange(exchange).bindings.pop(binding, None)

    def bindings(self, exchange: str) -> tuple[str, Sequence[Binding]]:
        with self._broker.lock:
            self._broker.reap()
            found = self._broker.exchange(exchange)
            return found.kind, list(found.bindings)

    # The life of a message.

    def publish(self, messages: Sequence[Message]) -> None:
        with self._broker.lock:
            self._broker.reap()
            self._broker.check(messages)
            self._broker.store(messages)

    def reserve(self, wants: Sequence[Want], verdicts: Sequence[Verdict] = ()) -> list[Delivery]:
        with self._broker.lock:
            self._quiet()
            holder = self._hold()
            self._broker.end(holder, verdicts)
            deliveries = [delivery for want in wants for delivery in self._take(holder, want)]
            self._look_ahead([queue for want in wants for queue in want.queues])
            return deliveries

    def settle(self, verdicts: Sequence[Verdict], messages: Sequence[Message] = ()) -> list[str]:
        with self._broker.lock:
            self._broker.reap()
            self._check_alive()
            held = self._holder.held if self._holder else {}
            stale = [verdict.receipt for verdict in verdicts if verdict.receipt not in held]
            if messages:
                if stale:
                    return stale
                self._broker.check(messages)
            if self._holder:
                self._broker.end(self._holder, verdicts)
            self._broker.store(messages)
            return stale

    def release(self, queues: Iterable[str]) -> None:
        with self._broker.lock:
            for queue in [self._broker.queues[name] for name in queues if name in self._broker.queues]:
                if self._holder and queue in self._holder.seats:
                    self._holder.seats.remove(queue)
                    self._broker.free(queue)

    def beat(self) -> None:
        with self._broker.lock:
            holder = self._hold()
            holder.until = self._lease_end()
            self._broker.lend(holder)

    def _hold(self) -> Holder:
        """This connection's lease, begun now if it was not yet; raises LeaseLost when it is over."""
        self._broker.reap()
        self._check_alive()
        if self._holder is None:
            self._holder = Holder(self, self._lease_end())
            self._broker.lend(self._holder)
        return self._holder

    def _check_alive(self) -> None:
        if self._holder is not None and self._broker.holders.get(self.options.name) is not self._holder:
            raise LeaseLost(f"the lease of connection {self.options.name} is over; what it held went back")

    def _lease_end(self) -> float:
        # A thread that beats would die with its process only, and so does the whole broker.
        return math.inf if self.options.keep_alive else self._broker.clock.now() + self.options.lease

    def _take(self, holder: Holder, want: Want) -> list[Delivery]:
        deliveries: list[Delivery] = []
        for name in want.queues:
            queue = self._broker.queues.get(name)
            if queue is None or not self._may_sit(holder, queue):
                continue
            queue.promote(self._broker.clock.now())
            for entry in queue.take(want.limit - len(deliveries), holder.name, self._broker.deliveries):
                receipt = str(entry.delivery)
                holder.held[receipt] = entry
                deliveries.append(Delivery(receipt, entry.id, name, entry.body, entry.priority, entry.count - 1))
        return deliveries

    def _may_sit(self, holder: Holder, queue: Queue) -> bool:
        """Whether holder may consume queue; it takes the seat if that is free."""
        if queue.single and not queue.seat:
            queue.seat = holder.name
            holder.seats.add(queue)
        return queue.seat in ("", holder.name)

    # Waiting.

    def arm(self, queues: Sequence[str]) -> int:
        with self._broker.lock:
            self._broker.reap()
            if self._may_find(queues):
                self.ring()
            else:
                self._fall_asleep(tuple(queues))
            self._look_ahead(queues)
        return self._alarm.descriptor

    def ring(self) -> None:
        """Wake who sleeps on the descriptor. Called under the broker's lock."""
        if not self._rung and not self._closed:
            self._rung = True
            self._alarm.ring()

    def _may_find(self, queues: Sequence[str]) -> bool:
        """Whether reserve() has something to give, or to say."""
        name = self.options.name
        if self._holder is not None and self._broker.holders.get(name) is not self._holder:
            return True
        return any(
            self._broker.queue(queue.name).ready and queue.seat in ("", name)
            for queue in map(self._broker.queues.get, queues)
            if queue is not None
        )

    def _fall_asleep(self, queues: tuple[str, ...]) -> None:
        if queues != self._armed:
            self._wake_up()
        for queue in queues:
            self._broker.sleepers.setdefault(queue, set()).add(self)
        self._armed = queues

    def _wake_up(self) -> None:
        self._quiet()
        for queue in self._armed:
            self._broker.sleepers.get(queue, set()).discard(self)

    def _quiet(self) -> None:
        if self._rung:
            self._rung = False
            self._alarm.quiet()

    def _look_ahead(self, queues: Iterable[str]) -> None:
        """Set `due`: when the next message of queues comes by itself, be it delayed or another's."""
        dues = [queue.due for queue in map(self._broker.queues.get, queues) if queue is not None]
        first = min((due for due in dues if due is not None), default=math.inf)
        first = min(first, self._broker.next_end(but=self.options.name))
        self.due = None if first == math.inf else max(0.0, first - self._broker.clock.now())

    def close(self) -> None:
        with self._broker.lock:
            if self._closed:
                return
            self._closed = True
            self._wake_up()
            if self._holder is not None and self._broker.holders.get(self.options.name) is self._holder:
                self._broker.bury(self._holder)
            self._broker.delete_mortal(self.options.name)
        self._alarm.close()

    # Management.

    def count(self, queue: str) -> Counts:
        with self._broker.lock:
            self._broker.reap()
            return self._broker.queue(queue).counts()

    def browse(self, queue: str, state: State = "ready", limit: int = 100, offset: int = 0) -> list[Seen]:
        with self._broker.lock:
            self._broker.reap()
            return [entry.seen() for entry in islice(self._broker.queue(queue).browse(state), offset, offset + limit)]

    def find(self, queue: str, ids: Sequence[str]) -> list[Seen]:
        with self._broker.lock:
            self._broker.reap()
            entries = map(self._broker.queue(queue).entries.get, dict.fromkeys(ids))
            return [entry.seen() for entry in entries if entry is not None]

    def remove(self, queue: str, ids: Sequence[str]) -> list[str]:
        with self._broker.lock:
            return self._broker.queue(queue).remove(ids)

    def leases(self) -> list[Lease]:
        with self._broker.lock:
            return [Lease(each.name, each.until, len(each.held)) for each in self._broker.holders.values()]

    def expel(self, connection: str) -> bool:
        with self._broker.lock:
            holder = self._broker.holders.get(connection)
            if holder is not None:
                self._broker.bury(holder)
            return holder is not None


class Transport(EngineTransport):
    """`kq-memory://name`. transport_options: clock, for the broker that is made by the first connection."""

    traits = TRAITS
    driver_name = "kq-memory"

    def open_engine(self, options: Options) -> Engine:
        name = self.client.hostname or self.client.virtual_host.strip("/") or "default"
        return MemoryEngine(MemoryBroker.named(name, cast("Clock | None", options.extra.get("clock"))), options)
