"""kq's only door to the broker: publishing, consuming, looking. The only module that knows Kombu.

What a broker can do is read from its transport's traits; nothing here asks which one it is.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, cast

import kombu
from kombu.exceptions import ChannelError, OperationalError
from kombu.exceptions import ConnectionError as KombuConnectionError

import kq_transports
from kq.errors import BrokerError, BrokerFull, BrokerUnreachable, LeaseLost, Stored, Unsupported
from kq.message import CONTENT_TYPE, Envelope, replacing
from kq.url import Address
from kq_transports import engine, seen
from kq_transports.engine import Load as Load

kq_transports.register()

#: Every queue of kq is declared like this, so that all of them keep promise C5; and a singleton queue with this too.
QUEUE_ARGUMENTS = {"x-max-priority": 9}
SINGLE = {"x-single-active-consumer": True}
BURIED = ".buried"
#: Where jobs of a type that is paused wait, beside their queue.
PARKED = ".paused"
#: The fanout exchange through which workers are told to look at their orders.
ORDERS = "kq.orders"
#: Characters of the token of a nudge, at most: it becomes part of a key.
TOKEN_LIMIT = 64


@dataclass(frozen=True, slots=True)
class PublishPolicy:
    """How often and how fast a publish that failed is repeated: Kombu's retry_policy, within submit_timeout."""

    max_retries: int = 50
    interval_start: float = 0.05
    interval_step: float = 0.2
    interval_max: float = 1.0

    def waits(self) -> Iterator[float]:
        """Seconds to wait before each repetition."""
        for number in range(self.max_retries):
            yield min(self.interval_max, self.interval_start + number * self.interval_step)


@dataclass(slots=True)
class Delivery:
    """One handing-over of a message to this worker.

    tag: names it on its queue's channel. id: the message_id that its publisher gave it, or "".
    """

    tag: int
    queue: str
    id: str
    headers: Mapping[str, Any]
    body: bytes
    priority: int
    redelivered: bool
    content_type: str

    @property
    def place(self) -> tuple[str, int]:
        """What tells it from all other deliveries to this worker."""
        return self.queue, self.tag


@dataclass(frozen=True, slots=True)
class Settlement:
    """How one delivery ends: taken off its queue after its follow-ups are stored, or given back."""

    delivery: Delivery
    publish: tuple[Envelope, ...] = ()
    give_back: bool = False


class Broker:
    """An address and how to talk to it. Cheap: connections are made by what it returns.

    singletons: the queues of which one job runs at a time (promise C12); whoever knows job types adds theirs.
    """

    def __init__(
        self,
        address: Address,
        *,
        submit_timeout: float = 5.0,
        publishing: PublishPolicy | None = None,
        singletons: set[str] | None = None,
    ) -> None:
        self.address = address
        self.submit_timeout = submit_timeout
        self.publishing = publishing or PublishPolicy()
        self.singletons: set[str] = set() if singletons is None else singletons

    @property
    def traits(self) -> engine.Traits:
        """What this broker can do beyond the contract."""
        traits: engine.Traits = self.connection().get_transport_cls().traits
        return traits

    @cached_property
    def carries(self) -> bool:
        """Whether what its state store writes can ride on a publish."""
        return self.address.keeps_state and self.traits.carries

    def connection(
        self, *, timeout: float | None = None, lease: float | None = None, **options: Any
    ) -> kombu.Connection:
        """A Kombu connection, not yet established.

        timeout: seconds that connecting, and each verb, may take; submit_timeout by default. lease: seconds; None for
        one that holds nothing.
        """
        timeout = timeout or self.submit_timeout
        return kombu.Connection(
            self.address.kombu,
            heartbeat=lease or 0,
            connect_timeout=timeout,
            transport_options={"timeout": timeout, **self.address.options, **options},
        )

    def reach(self) -> None:
        """Connect and let go again; where the broker is a file this makes it. Raises BrokerUnreachable."""
        with translated(self), self.connection() as connection:
            establish(connection)

    def publisher(self) -> Publisher:
        return Publisher(self)

    def inspector(self) -> Inspector:
        return Inspector(self)


class Publishes(Protocol):
    """What stores messages: a Publisher, or something that passes them on to one."""

    def publish(self, envelopes: Sequence[Envelope], until: float, rider: engine.Rider | None = None) -> bool:
        """Store envelopes, all or none, before until (monotonic).

        rider: of the state store, where the broker carries it; False when it refused, and then nothing was stored.
        """

    def replace(self, id: str, envelope: Envelope, now: float, until: float) -> bool:
        """Put envelope in the place of the job of that id, in one step, under that one's id and with its past.

        False when that does not wait. now: by the state store's clock. until: monotonic. Raises as publish does.
        """

    def has(self, queues: Sequence[str], id: str, until: float) -> bool:
        """Whether one of queues, looked through in this order, has a message of that id, as far as can be seen."""

    def close(self) -> None:
        """End the connection."""


class Publisher:
    """Puts messages into queues, all or nothing. May be shared by threads and survives a fork."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._begin()
        _publishers.add(self)

    def _begin(self) -> None:
        """Be without a connection."""
        self._lock = threading.Lock()
        self._connection: kombu.Connection | None = None
        self._channel: Any = None
        self._declared: set[str] = set()

    def publish(self, envelopes: Sequence[Envelope], until: float, rider: engine.Rider | None = None) -> bool:
        """Store envelopes before until (monotonic); on return they are in the broker (promise C1).

        Repeats after a failure; an id that is already there is stored once. Raises BrokerUnreachable, whose .stored
        says what is known, or BrokerFull. rider: see Publishes.publish.
        """
        if not self._lock.acquire(timeout=max(0.0, until - time.monotonic())):
            raise BrokerUnreachable(f"{self._where} is busy with another submit; stored: no", stored="no")
        try:
            return self._publish(envelopes, until, rider)
        finally:
            self._lock.release()

    def replace(self, id: str, envelope: Envelope, now: float, until: float) -> bool:
        """See Publishes.replace."""
        with closing(Inspector(self._broker, max(0.05, until - time.monotonic()))) as inspector:
            for queue in inspector.probable(envelope.queue):
                for seen in inspector.find(queue, [id]):
                    swap = Swap(seen, (replacing(seen.headers, envelope, now),))
                    return inspector.swap(queue, [swap])[0]
        return False

    def has(self, queues: Sequence[str], id: str, until: float) -> bool:
        """See Publishes.has; where there is no broker yet there is none."""
        with closing(Inspector(self._broker, max(0.05, until - time.monotonic()))) as inspector:
            return any(inspector.has(queue, id) for queue in queues)

    def close(self) -> None:
        """End the connection. Publishing again opens another."""
        with self._lock:
            self._discard()

    @property
    def _where(self) -> str:
        return self._broker.address.redacted

    def _publish(self, envelopes: Sequence[Envelope], until: float, rider: engine.Rider | None) -> bool:
        stored: Stored = "no"
        waits = self._broker.publishing.waits()
        while True:
            try:
                self._attempt(envelopes, until, rider)
                return True
            except engine.Declined as error:
                if stored == "no":
                    return False
                # The attempt that was not answered may have stored them, and they may have ended since.
                raise BrokerUnreachable(
                    f"{self._where} did not answer, and then: {error}; stored: {stored}", stored=stored
                ) from error
            except engine.Full as error:
                raise BrokerFull(f"{self._where} refuses to store more: {error}; nothing was stored") from error
            except CONNECTION_ERRORS as error:
                self._discard()
                if _stored(error) != "no":
                    stored = "unknown"
                    envelopes = [envelope.again() for envelope in envelopes]
                wait = next(waits, None)
                if wait is None or time.monotonic() + wait >= until:
                    raise BrokerUnreachable(
                        f"could not submit to {self._where}: {_one_line(error)}; stored: {stored}", stored=stored
                    ) from error
                time.sleep(wait)
            except (engine.EngineError, ChannelError) as error:
                # What another attempt cannot mend: a wrong password, an unknown option, another declaration.
                self._discard()
                raise BrokerError(f"could not submit to {self._where}: {_one_line(error)}") from error
            except BaseException:
                # Half of the envelopes may lie in the channel's transaction: they must not go with the next ones.
                self._discard()
                raise

    def _attempt(self, envelopes: Sequence[Envelope], until: float, rider: engine.Rider | None) -> None:
        channel = self._open(until)
        declare_missing(channel, {envelope.queue for envelope in envelopes}, self._declared, self._broker.singletons)
        try:
            for envelope in envelopes:
                put(channel, envelope)
            if rider is not None:
                channel.carry(rider)
            channel.tx_commit()
        except engine.NotFound:
            # The queue was deleted behind our back: declare it again and let the caller repeat.
            self._declared.clear()
            raise

    def _open(self, until: float) -> Any:
        if self._channel is None:
            # Half of the time that is left for connecting, half for publishing.
            self._connection = self._broker.connection(timeout=max(0.05, (until - time.monotonic()) / 2))
            establish(self._connection)
            self._channel = self._connection.channel()
            self._channel.tx_select()
            self._declared.clear()
        return self._channel

    def _discard(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        self._declared.clear()
        if connection is not None:
            quietly(connection.close)


_publishers: weakref.WeakSet[Publisher] = weakref.WeakSet()


def _after_fork() -> None:
    """A child must not speak on its parent's socket, nor wait for a thread that it hasn't got: it begins anew."""
    for publisher in list(_publishers):
        publisher._begin()


os.register_at_fork(after_in_child=_after_fork)


class Session:
    """A worker's connection to the broker, and its lease on all that is delivered through it.

    Not thread-safe: the supervisor's loop owns it. Any verb may raise BrokerUnreachable (try again, as
    long as the lease may still live) or LeaseLost (all that was delivered belongs to others now).
    """

    def __init__(
        self,
        broker: Broker,
        name: str,
        lease: float,
        prefetch: Mapping[str, int],
        deliver: Callable[[Delivery], None],
        *,
        closed: Collection[str] = (),
        nudged: Callable[[str], None] | None = None,
    ) -> None:
        """closed: queues from which nothing is taken until resume(). nudged: called with each Inspector.nudge()."""
        self._broker = broker
        self._deliver = deliver
        self.name = name
        self.lease = lease
        with translated(broker):
            self._connection = broker.connection(timeout=answer_time(broker, lease), lease=lease, name=name)
            establish(self._connection)
            self._established = self._connection.connection
            self._transport = self._connection.transport
            self._declared: set[str] = set()
            self._channels: dict[str, Any] = {}
            self._consumers: dict[str, str] = {}
            #: Singleton queues of which something was delivered to us, and how much of it is not settled.
            self._seats: dict[str, int] = {}
            #: Those of them to be left when that has ended.
            self._leaving: set[str] = set()
            #: What a settle that failed had ended before it did, and those of it that were refused.
            self._ended: set[tuple[str, int]] = set()
            self._refused: list[Settlement] = []
            if nudged is not None:
                self._listen(nudged)
            for queue, limit in prefetch.items():
                self._open(queue, limit)
                if queue not in closed:
                    self.resume(queue)
        #: Until when, on the monotonic clock, nobody else can have been given what we hold; span: seconds from the last
        #: beat until then, the lease at most.
        self.safe_until = self.span = 0.0
        self.beat()

    def _open(self, queue: str, limit: int) -> None:
        channel = self._connection.channel()
        declare_to_consume(channel, queue, self._broker.singletons)
        self._declared.add(queue)
        channel.basic_qos(0, limit, False)
        channel.tx_select()
        self._channels[queue] = channel

    def _listen(self, nudged: Callable[[str], None]) -> None:
        channel = self._connection.channel()
        channel.exchange_declare(ORDERS, "fanout", durable=True, auto_delete=False)
        queue = f"{ORDERS}.{self.name}"
        channel.queue_declare(queue, exclusive=True, auto_delete=True)
        channel.queue_bind(queue, ORDERS)
        channel.basic_consume(queue, no_ack=True, callback=lambda message: nudged(_token(message.body)))

    def declare(self, queues: Collection[str]) -> None:
        """Make queues that are not there yet. Raises BrokerError for one that is there in another form."""
        with translated(self._broker):
            if not self._declared.issuperset(queues):
                # On a channel of its own: a refusal ends it, and what is delivered on another must not go with it.
                with self._connection.channel() as channel:
                    declare_missing(channel, queues, self._declared, self._broker.singletons)

    def resume(self, queue: str) -> None:
        """Take jobs from queue (again)."""
        self._leaving.discard(queue)
        if queue in self._consumers:
            return
        with translated(self._broker):
            if queue not in self._channels:
                self._open(queue, 1)  # a singleton queue that was left
            # Not Kombu's Consumer: it decompresses and decodes as a message's own headers say, and some would kill us.
            tag = self._channels[queue].basic_consume(queue, callback=self._on_message(queue))
        self._consumers[queue] = tag

    def stop(self, queue: str) -> None:
        """Take no more jobs from queue; what was delivered stays ours.

        A singleton queue is somebody else's as soon as we do not consume it, so it is left when what was delivered of
        it has ended (promise C12).
        """
        if queue not in self._consumers:
            return
        if queue in self._broker.singletons:
            self._leaving.add(queue)
            self._leave_what_ended()
            return
        tag = self._consumers.pop(queue)
        with translated(self._broker):
            self._channels[queue].basic_cancel(tag)

    def _leave_what_ended(self) -> None:
        for queue in [queue for queue in self._leaving if not self._seats.get(queue)]:
            self._leave(queue)

    def _leave(self, queue: str) -> None:
        """Give back what is here of queue and let the next one consume it, in one step: so jobs keep their order."""
        self._leaving.discard(queue)
        self._consumers.pop(queue)
        self._seats.pop(queue, None)
        channel = self._channels.pop(queue)
        with translated(self._broker):
            channel.close()

    @property
    def seats(self) -> list[str]:
        """The singleton queues that nobody else gets anything of, as far as that is known."""
        return sorted(self._seats)

    def prefetch(self, queue: str, limit: int) -> None:
        """Let up to limit deliveries of queue be unsettled at a time."""
        with translated(self._broker):
            self._channels[queue].basic_qos(0, limit, False)

    def _on_message(self, queue: str) -> Callable[[Any], None]:
        deliver, single = self._deliver, queue in self._broker.singletons

        def on_message(message: Any) -> None:
            if single:
                self._seats[queue] = self._seats.get(queue, 0) + 1
            info, properties = message.delivery_info, message.properties
            body, id = message.body, str(properties.get("message_id") or "")
            deliver(
                Delivery(
                    message.delivery_tag,
                    queue,
                    "" if id.startswith(engine.GIVEN) else id,
                    message.headers,
                    body.encode() if isinstance(body, str) else bytes(body),
                    properties.get("priority") or 0,
                    bool(info.get("redelivered")),
                    message.content_type or "",
                )
            )

        return on_message

    def drain(self) -> bool:
        """Deliver what is there, without waiting; False when there is no more, and watch() may follow."""
        return self._drain()[1]

    def _drain(self) -> tuple[bool, bool]:
        """Whether something was delivered, and whether there may be more."""
        with translated(self._broker):
            try:
                return True, bool(self._connection.drain_events(timeout=0))
            except TimeoutError:
                return False, False

    def next(self, timeout: float) -> bool:
        """Deliver what is there, or what comes within timeout seconds; False when nothing did."""
        until = time.monotonic() + timeout
        while not self._drain()[0]:
            descriptor, due = self.watch()
            left = until - time.monotonic()
            if left <= 0:
                return False
            engine.sleep_on([descriptor], left if due is None else min(left, due))
        return True

    def watch(self) -> tuple[int, float | None]:
        """A descriptor that is readable when drain() may find something; seconds after which to try anyway."""
        with translated(self._broker):
            descriptor, due = self._transport.watch(self._established)
        return descriptor, due

    def beat(self) -> None:
        """Renew the lease."""
        now = time.monotonic()
        with translated(self._broker):
            self._connection.heartbeat_check()
            self.safe_until = self._transport.assured(self._established)
        self.span = min(self.lease, self.safe_until - now)

    def settle(self, settlements: Iterable[Settlement]) -> list[Settlement]:
        """End deliveries; returns those that were refused because they are no longer ours.

        All that belongs to one queue goes in one transaction. A settlement's follow-ups are stored with
        its ack or not at all where the broker can; else they are stored first (promises C2, C16). After an
        error say all of it again, and more if there is more: what was done is not done twice.
        """
        by_queue: dict[str, list[Settlement]] = {}
        for settlement in settlements:
            if settlement.delivery.place not in self._ended:
                by_queue.setdefault(settlement.delivery.queue, []).append(settlement)
        for queue, group in by_queue.items():
            if queue in self._leaving and all(settlement.give_back for settlement in group):
                self._note(group, ())
                self._leave(queue)
            else:
                self._settle(self._channels[queue], group)
        self._leave_what_ended()
        refused, self._refused = self._refused, []
        self._ended.clear()
        return refused

    def _settle(self, channel: Any, group: list[Settlement]) -> None:
        follow_ups = {envelope.queue for settlement in group for envelope in settlement.publish}
        with translated(self._broker):
            declare_missing(channel, follow_ups, self._declared, self._broker.singletons)
            try:
                for settlement in group:
                    say(channel, settlement)
                channel.tx_commit()
                self._note(group, channel.refused)
            except engine.Stale as stale:
                self._settle_apart(channel, group, stale)
            except BaseException as error:
                # Whoever calls again says all of it again.
                quietly(channel.tx_rollback)
                if isinstance(error, engine.NotFound):
                    self._declared.clear()  # somebody deleted a queue; the next time it is declared again
                raise

    def _settle_apart(self, channel: Any, group: list[Settlement], stale: engine.Stale) -> None:
        """Nothing of the group was done because some of it is stale: do the rest."""
        rest = [settlement for settlement in group if settlement.delivery.tag not in stale.tags]
        if len(rest) == len(group):
            raise stale
        self._note([settlement for settlement in group if settlement not in rest], stale.tags)
        if rest:
            self._settle(channel, rest)

    def _note(self, group: Collection[Settlement], refused: Iterable[int]) -> None:
        """The deliveries of group have ended; refused: the tags of those that were not ours."""
        tags = set(refused)
        for settlement in group:
            if settlement.delivery.queue in self._seats:
                self._seats[settlement.delivery.queue] -= 1
        self._ended.update(settlement.delivery.place for settlement in group)
        self._refused += [settlement for settlement in group if settlement.delivery.tag in tags]

    @property
    def connected(self) -> bool:
        """Whether this connection may still be alive; False when only a new one can help."""
        return bool(self._transport.verify_connection(self._established))

    def close(self) -> None:
        """Give back all that is held and end the lease. Never raises."""
        quietly(self._connection.close)


class Inspector:
    """Looks at queues and moves messages by id, without taking part. Not thread-safe.

    It makes no broker where there is none: every verb raises BrokerUnreachable then.
    """

    def __init__(self, broker: Broker, timeout: float | None = None) -> None:
        """timeout: seconds that connecting, and each verb, may take; submit_timeout by default."""
        self._broker = broker
        self._timeout = timeout
        self._connection: kombu.Connection | None = None

    @property
    def traits(self) -> engine.Traits:
        """What this broker can do beyond the contract."""
        return self._broker.traits

    @property
    def _connected(self) -> kombu.Connection:
        if self._connection is None:
            self._connection = self._broker.connection(timeout=self._timeout, look=True)
            establish(self._connection)
        return self._connection

    @property
    def _manager(self) -> Any:
        return self._connected.manager

    def queues(self) -> dict[str, bool]:
        """Names of all queues, in order, and whether each is a singleton queue."""
        with translated(self._broker):
            found = sorted(self._manager.queues().items())
            return {queue: bool(arguments.get("x-single-active-consumer")) for queue, arguments in found}

    def probable(self, queue: str) -> Iterator[str]:
        """queue, and then all other queues, for who looks for a job that waits and may have gone to another."""
        yield queue
        for name in self.queues():
            if name != queue and not name.startswith(("kq.", "amq.")) and not name.endswith(BURIED):
                yield name

    def count(self, queue: str) -> engine.Counts:
        """How many messages of queue are ready, delayed and held; zeros when there is no such queue."""
        with translated(self._broker):
            try:
                counts: engine.Counts = self._manager.count(queue)
            except (engine.NotFound, ChannelError):
                return engine.Counts()
            return counts

    def survey(self) -> dict[str, Load]:
        """What waits in every queue, and how long the oldest job of each has been ready, in one round trip."""
        with translated(self._broker):
            return dict(self._manager.survey())

    def browse(self, queue: str, state: engine.State, limit: int = 100, offset: int = 0) -> list[Seen]:
        """Messages of queue in the order of delivery."""
        with translated(self._broker):
            try:
                return list(self._manager.browse(queue, state, limit, offset))
            except (engine.NotFound, ChannelError):
                return []

    def find(self, queue: str, ids: Sequence[str]) -> list[Seen]:
        """Those messages of queue that have one of ids."""
        with translated(self._broker):
            try:
                return list(self._manager.find(queue, ids))
            except (engine.NotFound, ChannelError):
                return []

    def has(self, queue: str, id: str) -> bool:
        """Whether queue has a message of that id; where there is no broker yet there is none."""
        with translated(self._broker):
            try:
                return bool(self._manager.find(queue, [id]))
            except (engine.NotFound, engine.Absent, ChannelError):
                return False

    def remove(self, queue: str, ids: Sequence[str]) -> list[str]:
        """Take waiting or delayed messages out for good; returns the ids that were removed."""
        with translated(self._broker):
            try:
                return list(self._manager.remove(queue, ids))
            except (engine.NotFound, ChannelError):
                return []

    def delete(self, queue: str) -> bool:
        """End a queue that has no messages; False when it has some, or somebody consumes it."""
        with translated(self._broker):
            try:
                self._connected.default_channel.queue_delete(queue, if_unused=True, if_empty=True)
            except engine.NotFound:
                return True
            except ChannelError:
                return False
            return True

    def swap(self, queue: str, swaps: Sequence[Swap]) -> list[bool]:
        """Take messages off queue that wait and are still as they were seen, and store others instead, in one step.

        False for each that is gone, is held, or has changed. Raises BrokerUnreachable, whose .stored says whether it
        may have been done, or BrokerFull.
        """
        with translated(self._broker):
            channel = self._connected.default_channel
            queues = {each.queue for swap in swaps for each in swap.publish}
            declare_missing(channel, queues, set(), self._broker.singletons)
            asked = [
                seen.Swap(
                    cast(Any, swap.seen),
                    [(each.queue, prepared(channel, each)) for each in swap.publish],
                    swap.keeps_due,
                )
                for swap in swaps
            ]
            return list(self._manager.swap(queue, asked))

    def misfits(self, queues: Iterable[str]) -> list[BrokerError]:
        """What is wrong with those of queues that are there, and were declared otherwise than kq declares them."""
        found: list[BrokerError] = []
        for queue in sorted(set(queues)):
            try:
                with translated(self._broker), self._connected.channel() as channel:
                    if self._is_there(queue) and queue in self._broker.singletons:
                        declare_to_consume(channel, queue, self._broker.singletons)
                    elif self._is_there(queue):
                        declare_missing(channel, [queue], set())
            except BrokerUnreachable:
                raise
            except BrokerError as error:
                found.append(error)
        return found

    def _is_there(self, queue: str) -> bool:
        try:
            self._manager.count(queue)
        except (engine.NotFound, ChannelError):
            return False
        return True

    def leases(self) -> list[engine.Lease]:
        with translated(self._broker):
            return list(self._manager.leases())

    def expel(self, name: str) -> bool:
        """End a worker's connection from outside: its jobs go back in the same step."""
        with translated(self._broker):
            return bool(self._manager.expel(name))

    def nudge(self, token: str) -> None:
        """Tell all workers that live to look at their orders, and to answer under token (promise C15)."""
        with translated(self._broker), self._connected.channel() as channel:
            channel.exchange_declare(ORDERS, "fanout", durable=True, auto_delete=False)
            channel.basic_publish(channel.prepare_message(token), exchange=ORDERS)

    def facts(self) -> dict[str, str]:
        """What the server says of itself, for people."""
        with translated(self._broker):
            return dict(self._manager.facts())

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            quietly(connection.close)


class Seen(Protocol):
    """A message that was looked at, with its headers decoded. stamp: what tells it from one that was changed."""

    id: str
    queue: str
    body: bytes
    headers: Mapping[str, Any]
    priority: int
    state: engine.State
    count: int
    due: float | None
    holder: str
    stamp: bytes


@dataclass(frozen=True, slots=True)
class Swap:
    """A message that was looked at, and what is to take its place; nothing removes it.

    keeps_due: what takes its place becomes ready when it would have.
    """

    seen: Seen
    publish: tuple[Envelope, ...] = ()
    keeps_due: bool = False


CONNECTION_ERRORS: tuple[type[BaseException], ...] = (
    engine.Unreachable,
    engine.NotFound,
    OperationalError,
    KombuConnectionError,
    OSError,
)


def answer_time(broker: Broker, lease: float) -> float:
    """Seconds that a worker waits for one answer: a part of its lease, so that it can ask again while that lasts."""
    return min(broker.submit_timeout, lease / 4)


def establish(connection: kombu.Connection) -> None:
    """Connect, trying each of the connection's URLs once. Kombu's connect() sleeps for two seconds and tries again."""
    tries = max(1, len(connection.alt))
    connection.ensure_connection(
        max_retries=tries - 1, interval_start=0, interval_step=0, interval_max=0, reraise_as_library_errors=False
    )


def declare_missing(
    channel: Any, queues: Iterable[str], declared: set[str], singletons: Container[str] = frozenset()
) -> None:
    """Declare those of queues that were not declared before, as kq declares its queues.

    Who publishes may not know which are singletons: a queue that is there as the other kind stays so.
    """
    for queue in queues:
        if queue not in declared:
            try:
                declare(channel, queue, single=queue in singletons)
            except engine.Mismatch as error:
                if not _is_there(channel, queue, single=queue not in singletons):
                    raise error from None
            declared.add(queue)


def declare_to_consume(channel: Any, queue: str, singletons: Container[str]) -> None:
    """Declare queue, in which who consumes must not be mistaken. Raises BrokerError when it is of the other kind."""
    single = queue in singletons
    try:
        declare(channel, queue, single=single)
    except engine.Mismatch as error:
        if not _is_there(channel, queue, single=not single):
            raise
        kinds = ["is an ordinary queue of the broker, but here singleton=True says that one job of it runs at a time"]
        kinds += ["is a singleton queue of the broker, but no job type here says singleton=True of it"]
        raise BrokerError(
            f"queue {queue!r} {kinds[not single]}",
            fix=f"When nothing is left in it: kq queues rm {queue}. Or give the job types another queue=.",
        ) from error


def declare(channel: Any, queue: str, *, single: bool) -> None:
    """Declare queue as kq declares its queues."""
    arguments = {**QUEUE_ARGUMENTS, **SINGLE} if single else QUEUE_ARGUMENTS
    channel.queue_declare(queue, durable=True, auto_delete=False, arguments=arguments)


def _is_there(channel: Any, queue: str, *, single: bool) -> bool:
    """Whether a queue that exists is of that kind."""
    try:
        declare(channel, queue, single=single)
    except engine.Mismatch:
        return False
    return True


def put(channel: Any, envelope: Envelope) -> None:
    """Add envelope to channel's transaction."""
    channel.basic_publish(prepared(channel, envelope), exchange="", routing_key=envelope.queue, mandatory=True)


def prepared(channel: Any, envelope: Envelope) -> Any:
    """envelope as Kombu publishes it."""
    headers = dict(envelope.headers)
    if envelope.delay > 0:
        headers["x-delay"] = max(1, round(envelope.delay * 1000))
    properties = {"message_id": envelope.id, "delivery_mode": 2}
    return channel.prepare_message(envelope.body, envelope.priority, CONTENT_TYPE, "utf-8", headers, properties)


def say(channel: Any, settlement: Settlement) -> None:
    """Add settlement to channel's transaction."""
    for envelope in settlement.publish:
        put(channel, envelope)
    if settlement.give_back:
        channel.basic_reject(settlement.delivery.tag, requeue=True)
    else:
        channel.basic_ack(settlement.delivery.tag)


@contextmanager
def translated(broker: Broker) -> Iterator[None]:
    """Turn what transports raise into kq's errors."""
    try:
        yield
    except engine.LeaseLost as error:
        raise LeaseLost(f"the lease at {broker.address.redacted} is lost: {_one_line(error)}") from error
    except engine.Unsupported as error:
        raise Unsupported(f"{broker.address.redacted}: {_one_line(error)}") from error
    except engine.Full as error:
        raise BrokerFull(f"{broker.address.redacted} refuses to store more: {error}") from error
    except engine.Absent as error:
        fix = "kq worker, or the first kq submit, makes one there. Is this the right folder?"
        raise BrokerUnreachable(f"there is no broker yet: {error}", stored="no", fix=fix) from error
    except (engine.Unreachable, OperationalError, KombuConnectionError, OSError) as error:
        message = f"{broker.address.redacted} does not answer: {_one_line(error)}"
        raise BrokerUnreachable(message, stored=_stored(error)) from error
    except (engine.EngineError, ChannelError) as error:
        raise BrokerError(f"{broker.address.redacted}: {_one_line(error)}") from error


def quietly(call: Callable[[], object]) -> None:
    """call(), whatever becomes of it: for ending what may be broken already."""
    with suppress(Exception):
        call()


def _stored(error: BaseException) -> Stored:
    """Whether what failed with error may have been done all the same."""
    return "unknown" if getattr(error, "sent", True) else "no"


def _token(body: bytes | str) -> str:
    """The token of a nudge; "" for what is none: a stranger may have sent it."""
    raw = body.encode(errors="replace") if isinstance(body, str) else bytes(body)
    return raw.decode() if len(raw) <= TOKEN_LIMIT and raw.isalnum() else ""


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
