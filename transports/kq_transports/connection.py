"""One connection: an engine, the lock that guards it, and what was delivered and not handed over yet.

The engine speaks to one thread at a time. The lock is held while it speaks and never while somebody
sleeps, so a thread may publish or acknowledge while another one waits for messages. Only a beat may
overtake a verb whose answer takes long.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import msgspec
from amqp import exceptions

from kq_transports.alarm import Alarm
from kq_transports.engine import (
    Action,
    Arguments,
    Delivery,
    Engine,
    LeaseLost,
    Mismatch,
    NotFound,
    Unreachable,
    Verdict,
    sleep_on,
)

if TYPE_CHECKING:
    from kq_transports.channel import Channel, Consumer

P = ParamSpec("P")
R = TypeVar("R")

#: So many acks may wait for the callbacks of one batch to end.
MOST_VERDICTS = 64
#: Seconds; after a callback that took longer, the acks that wait are sent before the next one begins.
SLOW = 0.005
#: A beat is skipped when the last one is younger than this part of the lease.
BEAT_AFTER = 0.1


class QueueMissing(NotFound, exceptions.NotFound):  # type: ignore[misc]
    """There is no such queue or exchange, in the engine's words and in AMQP's."""


class DeclaredOtherwise(Mismatch, exceptions.PreconditionFailed):  # type: ignore[misc]
    """It exists with other arguments, in the engine's words and in AMQP's."""


class Arrival(msgspec.Struct, frozen=True):
    """A delivery that waits for its consumer's callback."""

    consumer: Consumer
    tag: int
    delivery: Delivery


class Connection:
    """What Kombu calls a connection. client: the kombu.Connection that it belongs to.

    beats: whether its user renews the lease by heartbeat_check(); else the engine does.
    """

    def __init__(self, client: Any, engine: Engine, *, beats: bool) -> None:
        self.client = client
        self.engine = engine
        self.beats = beats
        self.channels: list[Channel] = []
        self.consumers: dict[str, list[Consumer]] = {}
        #: Rung when drain() may find more because of what was done on this side; watched: whether it wakes somebody.
        self.alarm = Alarm()
        self.watched = False
        #: Called before the descriptors go.
        self.on_close: Callable[[], object] | None = None
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._open = True
        self._lost: LeaseLost | None = None
        self._arrived: deque[Arrival] = deque()
        self._more = False  # whether the broker may have more than what arrived
        self._verdicts: deque[Verdict] = deque()
        self._arguments: dict[str, Arguments] = {}
        self._drainer = 0
        self._beaten = float("-inf")
        #: What the engine was armed for and has not been asked for since, its descriptor, and when something is due.
        self._armed: tuple[list[str], int, float | None] | None = None

    @property
    def connected(self) -> bool:
        """Whether it was neither closed nor left behind by a fork: Kombu silently replaces one that was.

        True for one that lost its lease, so that whoever uses it is told so and does not drain, for ever, a new
        connection on which nothing consumes.
        """
        return self._open and self._process == os.getpid()

    @property
    def alive(self) -> bool:
        """Whether there is a point in speaking to the broker."""
        return self.connected and self._lost is None

    def ask(self, verb: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Carry out one verb of the engine, while no other thread does."""
        self._check()
        with self._lock:
            return self._say(verb, *args, **kwargs)

    def _check(self) -> None:
        if self._process != os.getpid():
            raise Unreachable(
                f"this connection belongs to process {self._process}; open another one after a fork", sent=False
            )
        if self._lost is not None:
            raise LeaseLost(str(self._lost)) from self._lost
        if not self._open:
            raise exceptions.RecoverableConnectionError("the connection is closed")

    def _say(self, verb: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return verb(*args, **kwargs)
        except LeaseLost as error:
            self._lost = error
            raise
        except NotFound as error:
            raise QueueMissing(str(error)) from error
        except Mismatch as error:
            raise DeclaredOtherwise(str(error)) from error

    # The lease.

    def beat(self) -> None:
        """Renew the lease, unless that was just done."""
        self._check()
        now = time.monotonic()
        if now - self._beaten < self.engine.options.lease * BEAT_AFTER:
            return
        if self._lock.acquire(blocking=False):
            try:
                self._say(self.engine.beat)
            finally:
                self._lock.release()
        elif not self._say(self.engine.beat_beside):
            self.ask(self.engine.beat)
        self._beaten = max(now, self._beaten)  # another thread may have beaten since

    @property
    def assured(self) -> float:
        """Until when, on the monotonic clock, nobody else is given what it holds."""
        return self._beaten + self.engine.options.lease

    # Delivering.

    def drain(self, timeout: float | None) -> bool:
        """Hand over what there is, or wait for it; raises socket.timeout after timeout seconds.

        False when that was all: there was less than there was room for.
        """
        until = None if timeout is None else time.monotonic() + timeout
        watched, self.watched = self.watched, True
        try:
            while not self._arrived and not self._fetch():
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError("nothing was delivered in time")
                self._sleep(left)
        finally:
            self.watched = watched
        more = self._more
        self._hand_over()
        return more

    def watch(self) -> tuple[int, float | None]:
        """A descriptor that becomes readable when there may be something to drain, and the longest to wait for it."""
        queues, now = [queue for channel in self.channels for queue in channel.wanted()], time.monotonic()
        if self._armed is None or self._armed[0] != queues:
            descriptor = self.ask(self.engine.arm, queues)
            self._armed = queues, descriptor, None if self.engine.due is None else now + self.engine.due
        _, descriptor, due = self._armed
        return descriptor, None if due is None else max(0.0, due - now)

    def _sleep(self, left: float | None) -> None:
        self._check()
        descriptor, due = self.watch()
        if due is not None:
            left = due if left is None else min(left, due)
        sleep_on((descriptor, self.alarm.descriptor), left)
        if self._open:  # it may have been closed by another thread meanwhile
            self.alarm.quiet()

    def _fetch(self) -> bool:
        """Take what the channels have credit for, in one round trip; False when there was nothing."""
        asked = [channel for channel in self.channels if channel.wanted()]
        if not asked:
            self.flush()
            return False
        wants = [channel.want() for channel in asked]
        self._check()
        self._armed = None
        with self._lock:
            got = self._with_verdicts(lambda verdicts: self.engine.reserve(wants, verdicts))
            for delivery in got:
                self._file(delivery)
            # Who got as much as he had credit for has none left: only one without limits may want more.
            most = max((want.limit for channel, want in zip(asked, wants, strict=True) if channel.unlimited), default=0)
            self._more = 0 < most <= len(got)
        return bool(self._arrived)

    def _file(self, delivery: Delivery) -> None:
        """Let a consumer of the queue have it whose channel has credit; they take turns."""
        takers = self.consumers.get(delivery.queue)
        if not takers:  # the last one was cancelled by another thread meanwhile
            self._verdicts.append(Verdict(delivery.receipt, Action.GIVE_BACK))
            return
        consumer = takers[0]
        if len(takers) > 1:
            consumer = next((taker for taker in takers if taker.channel.credit > 0), consumer)
            takers.remove(consumer)
            takers.append(consumer)
        self._arrived.append(Arrival(consumer, consumer.channel.take(delivery), delivery))

    def _hand_over(self) -> None:
        outer, self._drainer = self._drainer, threading.get_ident()
        now = time.monotonic()
        try:
            while self._arrived:
                arrival = self._arrived.popleft()
                arrival.consumer.receive(arrival.tag, arrival.delivery)
                before, now = now, time.monotonic()
                if now - before > SLOW:
                    self.flush()
        finally:
            self._drainer = outer
            self.flush()

    # Consumers.

    def subscribe(self, consumer: Consumer) -> None:
        """Let consumer have what comes to its queue."""
        self.consumers.setdefault(consumer.queue, []).append(consumer)
        self.changed()

    def unsubscribe(self, consumer: Consumer) -> list[int]:
        """End that; returns the tags of what waited for consumer, which nobody was given."""
        takers = self.consumers[consumer.queue]
        takers.remove(consumer)
        if not takers:
            del self.consumers[consumer.queue]
            self.ask(self.engine.release, [consumer.queue])
        return self.recall(lambda other: other is consumer)

    def recall(self, whose: Callable[[Consumer], bool]) -> list[int]:
        """Take back what waits for some consumers; returns its tags."""
        found = [arrival for arrival in self._arrived if whose(arrival.consumer)]
        for arrival in found:
            self._arrived.remove(arrival)
        return [arrival.tag for arrival in found]

    def arguments(self, queue: str) -> Arguments:
        """What queue was declared with."""
        if queue not in self._arguments:
            self._arguments = self.ask(self.engine.queues)
        return self._arguments.get(queue, {})

    # Settling.

    def settle(self, verdicts: Sequence[Verdict]) -> None:
        """End deliveries; those of a batch of callbacks together.

        The last of a batch takes the others along at once and does not wait for its callback to return: that
        one may begin with the ack and then work for an hour.
        """
        self._verdicts.extend(verdicts)
        within = self._drainer == threading.get_ident() and self._arrived
        if not within or len(self._verdicts) >= MOST_VERDICTS:
            self.flush()

    def flush(self) -> None:
        """Send the verdicts that wait."""
        if self._verdicts:
            self._check()
            with self._lock:
                self._with_verdicts(self.engine.settle)

    def _with_verdicts(self, verb: Callable[[list[Verdict]], R]) -> R:
        """Let verb send the verdicts that wait; they wait on when it fails."""
        verdicts = [self._verdicts.popleft() for _ in range(len(self._verdicts))]
        try:
            return self._say(verb, verdicts)
        except Unreachable:
            # Said twice they are stale the second time, which does no harm.
            self._verdicts.extendleft(reversed(verdicts))
            raise

    def changed(self) -> None:
        """There is credit or a consumer that was not there before: wake who waits for deliveries."""
        if self.watched:
            self.alarm.ring()

    # The end.

    def part(self, channel: Channel) -> None:
        """One channel is closed."""
        with suppress(ValueError):
            self.channels.remove(channel)

    def close(self) -> None:
        """Give back all that is held. May be repeated. In a forked child: not a word, it is the parent's."""
        if self.alive:
            with suppress(Exception):  # what was not said in time is delivered again
                self.flush()
        if self._process == os.getpid():
            if self.on_close is not None:
                self.on_close()
            with self._lock:
                self.engine.close()
        self._forget()

    def _forget(self) -> None:
        """Let go of all that is on this side."""
        self._open = False
        self.changed()
        for channel in self.channels:
            channel.connection = None
        self.channels.clear()
        self._arrived.clear()
        # Who is about to sleep on it would not wake: its number may be another's by then. It ends with this connection.
        if not self.watched:
            self.alarm.close()
