"""A connection with all that hangs on it: channels, deliveries that were not handed over yet, acks that wait.

Deliveries go to the inbox, whoever reads them, and are handed over by drain() and nowhere else: nothing that waits for
an answer runs a consumer's callback.
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kq_transports.amqp.channel import Channel
from kq_transports.amqp.delay import Delays
from kq_transports.amqp.line import NOW, Address
from kq_transports.amqp.outlet import Publishing
from kq_transports.amqp.presence import Holder
from kq_transports.amqp.publisher import Publisher
from kq_transports.amqp.registry import Registry
from kq_transports.amqp.seat import Seats
from kq_transports.amqp.second import Second
from kq_transports.amqp.topology import Topology
from kq_transports.engine import EngineError, LeaseLost, Options, Unreachable

if TYPE_CHECKING:
    from kq_transports.amqp.message import Arrival

#: So many acks may wait for the callbacks of one batch to end.
MOST_ENDS = 64
#: Seconds; after a callback that took longer, the acks that wait are sent before the next one begins.
SLOW = 0.005

_living: weakref.WeakSet[Connection] = weakref.WeakSet()
_roll = threading.Lock()
# A child would wait for ever for a thread that it hasn't got.
os.register_at_fork(before=_roll.acquire, after_in_parent=_roll.release, after_in_child=_roll.release)


class Connection(Publisher):
    """What Kombu calls a connection. client: the kombu.Connection that it belongs to.

    queue_type: classic or quorum, for queues that do not say it themselves.

    One that holds messages publishes on its second line.
    """

    def __init__(self, client: Any, address: Address, options: Options, queue_type: str) -> None:
        super().__init__(address, options)
        self.client = client
        self.queue_type = queue_type
        self.inbox: deque[Arrival] = deque()
        #: Called when something came into the inbox while nobody drains.
        self.on_arrival: Callable[[], object] | None = None
        self.registry, self.topology, self.delays = Registry(self), Topology(self), Delays(self)
        self.seats = Seats(self)
        self._second: Second | None = None
        #: Whether it holds messages, or may.
        self.holds = False
        self._drainer = 0
        self._drains = 0
        self._unsent: set[Channel] = set()
        #: Acks that the broker did not take so far. None may be sent twice, and a thread may beat while another acks.
        self._late = b""
        self._flushing = threading.Lock()
        with _roll:
            _living.add(self)

    # Channels, and parts that are made when they are needed.

    def channel(self, channel_id: int | None = None, callback: None = None) -> Channel:
        """A new channel, open."""
        self.check()
        channel = Channel(self)
        channel.open()
        return channel

    def second(self) -> Second:
        """The second line."""
        with self._opening:
            return self._have_second()

    def hold(self) -> None:
        """Be listed as a holder of messages, from now on."""
        with self._opening:
            if not self.holds:
                self._have_second().attend(self)
                self.holds = True

    def _have_second(self) -> Second:
        if self._second is None or not self._second.alive:
            if self._second is not None:
                self._second.collect()
            self._second = Second(self)
            if self.holds:
                self._second.attend(self)
        return self._second

    # Publishing.

    def open_outlet(self) -> None:
        if self.holds:
            self.second().open_outlet()
        else:
            super().open_outlet()

    def publish(self, messages: Sequence[Publishing], until: float) -> list[Publishing]:
        if not self.holds:
            return super().publish(messages, until)
        self.check()
        self.look()  # what has lost its lease publishes nothing more
        return self.second().publish(messages, until)

    # Delivering.

    def deliver(self, arrived: Arrival) -> None:
        """Keep what arrived until somebody drains."""
        self.inbox.append(arrived)
        if self.on_arrival is not None and not self._drains:
            self.on_arrival()

    def drain(self, timeout: float | None) -> None:
        """Hand over what there is, or wait for it; raises socket.timeout after timeout seconds."""
        self.check()
        self._drains += 1
        try:
            until = math.inf if timeout is None else time.monotonic() + timeout if timeout > 0 else NOW
            while not self.wait_for(self._has_mail, _instant(min(until, self.seats.next_look))):
                if time.monotonic() >= until:
                    raise TimeoutError("nothing was delivered in time")
        finally:
            self._drains -= 1
        self._hand_over()

    def _has_mail(self) -> bool:
        """Whether something is there to hand over, or may be."""
        if self.seats.next_look == math.inf:
            return bool(self.inbox)
        return any(self.seats.may_open(arrived.queue) for arrived in list(self.inbox))

    def _hand_over(self) -> None:
        outer, self._drainer = self._drainer, threading.get_ident()
        now = time.monotonic()
        try:
            for _ in range(len(self.inbox)):
                arrived = self._next()
                if arrived is None:
                    break
                arrived.channel.hand_over(arrived)
                before, now = now, time.monotonic()
                if now - before > SLOW:
                    self.flush()
        finally:
            self._drainer = outer
            self.flush()

    def _next(self) -> Arrival | None:
        """Take the first out of the inbox that may be handed over; None when all wait for seats."""
        if not self.seats.needed:
            return self.inbox.popleft()
        for arrived in list(self.inbox):
            if self.seats.opens(arrived.queue):
                self.inbox.remove(arrived)
                return arrived
        return None

    def watch(self) -> tuple[int, float | None]:
        """A descriptor that becomes readable when there may be something to drain, and the longest to wait for it."""
        self.check()
        next_look = min(self._silent_until(), self.seats.next_look)
        patience = 0.0 if self._has_mail() else max(0.0, next_look - time.monotonic())
        return self._wire.sock.fileno(), patience

    def recall(self, whose: Callable[[Arrival], bool]) -> list[int]:
        """Take back what waits in the inbox; returns its tags."""
        found = [arrived for arrived in list(self.inbox) if whose(arrived)]
        for arrived in found:
            with suppress(ValueError):
                self.inbox.remove(arrived)
        return [arrived.tag for arrived in found]

    # Settling.

    def settled(self, channel: Channel, waiting: int) -> None:
        """A channel has so many ends to tell; those of a batch of callbacks go together."""
        self._unsent.add(channel)
        within = self._drainer == threading.get_ident() and self.inbox
        if not within or waiting >= MOST_ENDS:
            self.flush()

    def flush(self) -> None:
        """Send the acks that wait; when the broker takes no data at present, they go with the next ones or a beat."""
        with self._flushing:
            if self._unsent or self._late:
                self.check()
                self._late += b"".join([self._unsent.pop().ends() for _ in range(len(self._unsent))])
                try:
                    self.write(self._late, time.monotonic() + self.options.timeout)
                except Unreachable:
                    self.check()  # the line has ended, and perhaps a lease with it
                    return
                self._late = b""

    # Others.

    def beat(self) -> None:
        super().beat()
        self.seats.renew()
        self.flush()
        if self._second is not None and not self.holds:
            with suppress(EngineError):  # there will be another one
                self._second.beat()

    def holder(self) -> Holder:
        """How much this connection holds."""
        held = Counter(arrived.queue for arrived in self.holdings())
        return Holder(self.name, self.options.lease, dict(held))

    def holdings(self) -> list[Arrival]:
        """What this connection holds."""
        return [arrived for channel in self._users() for arrived in list(channel.unsettled.values())]

    @property
    def held(self) -> bool:
        return any(channel.consumes or channel.unsettled for channel in self._users())

    def _users(self) -> list[Channel]:
        return [channel for channel in list(self.channels.values()) if isinstance(channel, Channel)]

    def siblings(self) -> list[Connection]:
        """This process's connections to the same broker that hold messages."""
        with _roll:
            living = list(_living)
        where = (self.address.host, self.address.port, self.address.virtual_host)
        return [
            one
            for one in living
            if one.alive and one.holds and (one.address.host, one.address.port, one.address.virtual_host) == where
        ]

    # The end.

    def fail(self, error: EngineError) -> EngineError:
        super().fail(error)
        self.inbox.clear()
        if self._second is not None:
            self._second.fail(error)
        return error

    def close(self) -> None:
        if self.alive:
            with suppress(EngineError):  # what was not said in time is delivered again
                self.flush()
            self.seats.leave_all()
            if self._second is not None:
                self._second.close()
        super().close()

    def end(self) -> None:
        """End it at somebody else's wish."""
        self.fail(LeaseLost("this connection was ended from outside"))

    def collect(self) -> None:
        super().collect()
        self.inbox.clear()
        if self._second is not None:
            self._second.collect()


def _instant(moment: float) -> float | None:
    """A moment as wait_for() wants it: None for never."""
    return None if moment == math.inf else moment
