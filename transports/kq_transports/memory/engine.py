"""One connection to a broker in memory."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from itertools import islice

from kq_transports.alarm import Alarm
from kq_transports.engine import (
    Arguments,
    Binding,
    Counts,
    Declined,
    Delivery,
    Engine,
    Lease,
    LeaseLost,
    Load,
    Message,
    Mismatch,
    NotEmpty,
    Options,
    Rider,
    Seen,
    State,
    Swap,
    Traits,
    Verdict,
    Want,
)
from kq_transports.memory.broker import Exchange, Holder, MemoryBroker
from kq_transports.memory.queue import Queue

TRAITS = Traits("memory", durable=False, shared=False, carries=True)


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
            self._broker.reap()
            found = self._broker.queues.get(queue)
            lasts = found is not None and not found.owner
            found = found or self._broker.create(queue, arguments)
            found.used = self._broker.clock.now()
            if found.arguments != dict(arguments):
                raise Mismatch(f"queue {queue!r} has the arguments {found.arguments}, not {dict(arguments)}")
            if mortal and not lasts:
                found.owner = self.options.name

    def queues(self) -> dict[str, Arguments]:
        with self._broker.lock:
            self._broker.reap()
            return {queue.name: dict(queue.arguments) for queue in self._broker.queues.values()}

    def delete(self, queue: str, *, if_empty: bool = False) -> int:
        with self._broker.lock:
            if if_empty and queue in self._broker.queues and self._broker.queues[queue].entries:
                raise NotEmpty(f"queue {queue!r} has messages")
            return self._broker.delete(queue)

    def purge(self, queue: str) -> int:
        with self._broker.lock:
            return self._broker.seen(queue).purge()

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

    def publish(self, messages: Sequence[Message], rider: Rider | None = None) -> None:
        """rider: called under the broker's lock; returns whether it agrees, and has done what it does."""
        self.fit(messages)
        with self._broker.lock:
            self._broker.reap()
            self._broker.check(messages)
            if rider is not None and not rider():
                raise Declined("nothing was stored: the rider refused")
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
            self._holder = Holder(self.options.name, self, self._lease_end())
            self._broker.lend(self._holder)
        return self._holder

    def _check_alive(self) -> None:
        if self._holder is not None and self._broker.holders.get(self.options.name) is not self._holder:
            raise LeaseLost(f"the lease of connection {self.options.name} is over; what it held went back")

    def _lease_end(self) -> float:
        # A thread that beats would die with its process only, and so does the whole broker.
        return math.inf if self.options.keep_alive else self._broker.clock.now() + self.options.lease

    def _take(self, holder: Holder, want: Want) -> list[Delivery]:
        now = self._broker.clock.now()
        deliveries: list[Delivery] = []
        for name in want.queues:
            queue = self._broker.queues.get(name)
            if queue is None or not self._may_sit(holder, queue):
                continue
            queue.used = now
            queue.promote(now)
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

    def survey(self) -> dict[str, Load]:
        with self._broker.lock:
            self._broker.reap()
            now = self._broker.clock.now()
            return {name: self._broker.queue(name).load(now) for name in self._broker.queues}

    def browse(self, queue: str, state: State = "ready", limit: int = 100, offset: int = 0) -> list[Seen]:
        with self._broker.lock:
            self._broker.reap()
            return [entry.seen() for entry in islice(self._broker.seen(queue).browse(state), offset, offset + limit)]

    def find(self, queue: str, ids: Sequence[str]) -> list[Seen]:
        with self._broker.lock:
            self._broker.reap()
            entries = map(self._broker.seen(queue).entries.get, dict.fromkeys(ids))
            return [entry.seen() for entry in entries if entry is not None]

    def remove(self, queue: str, ids: Sequence[str]) -> list[str]:
        with self._broker.lock:
            return self._broker.seen(queue).remove(ids)

    def swap(self, queue: str, swaps: Sequence[Swap]) -> list[bool]:
        with self._broker.lock:
            self._broker.reap()
            found = self._broker.queue(queue)
            leaving = [found.waiting(swap.id, swap.body) for swap in swaps]
            now = self._broker.clock.now()
            messages = [
                message
                for swap, entry in zip(swaps, leaving, strict=True)
                if entry is not None
                for message in swap.published(0.0 if entry.due is None else entry.due - now)
            ]
            gone = {entry for entry in leaving if entry is not None}
            self._broker.check(messages, gone)
            found.remove(entry.id for entry in gone)
            self._broker.store(messages)
            return [entry is not None for entry in leaving]

    def leases(self) -> list[Lease]:
        with self._broker.lock:
            return [Lease(each.name, each.until, len(each.held)) for each in self._broker.holders.values()]

    def expel(self, connection: str) -> bool:
        with self._broker.lock:
            holder = self._broker.holders.get(connection)
            if holder is not None:
                self._broker.expel(holder)
            return holder is not None
