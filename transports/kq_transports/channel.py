"""A Kombu channel on any engine: AMQP's verbs, in the engine's words.

Written on Kombu's base classes and not on its `virtual` ones: consumers, credit and unsettled deliveries are
kept per channel, as AMQP has them. Exchanges are resolved here; the engine knows queues only.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec
from amqp import exceptions
from amqp.protocol import queue_declare_ok_t

from kq_transports import engine
from kq_transports.connection import Connection, QueueMissing
from kq_transports.conversation import Conversation, ignore
from kq_transports.engine import Action, Binding, Delivery, Stale, TooLarge, Unreachable, Verdict, Want
from kq_transports.envelope import Message, Outgoing
from kq_transports.routing import KINDS, route
from kq_transports.transaction import PublishBatch, Transaction

#: How many messages an unlimited consumer takes in one round trip.
UNLIMITED = 1000
DEAD_LETTERS = "x-dead-letter-routing-key"

_numbers = itertools.count(1)


class Consumer(msgspec.Struct, eq=False):
    """A subscription of a channel to a queue. callback: called with each Message."""

    channel: Channel
    tag: str
    queue: str
    callback: Callable[[Message], object]
    no_ack: bool

    def receive(self, tag: int, delivery: Delivery) -> None:
        """Hand one delivery over; one that needs no ack is settled before."""
        if self.no_ack:
            self.channel.settle([tag], Action.DONE)
        self.callback(Message(self.channel, tag, self.tag, delivery))


class Held(msgspec.Struct, frozen=True):
    """A delivery that is not settled yet, without its body: who was handed that need not keep it so long."""

    receipt: str
    id: str
    queue: str


class Channel(Conversation[Transaction]):
    """One conversation on a connection: its consumers, its credit, and what it has not settled yet."""

    gathering = Transaction

    def __init__(self, connection: Connection) -> None:
        self.connection: Connection | None = connection
        self.channel_id = next(_numbers)
        self.prefetch_count = 0
        #: Callbacks by event, as py-amqp has them; "basic_return" gets mandatory messages that no queue wanted.
        self.events: dict[str, set[Callable[..., object]]] = defaultdict(set)
        #: Delivery tags that the last commit could not end because they were no longer ours.
        self.refused: list[int] = []
        #: Tags of consumers whose messages Kombu must not acknowledge.
        self.no_ack_consumers: Any = set()
        self._flowing = True
        self._consumers: dict[str, Consumer] = {}
        self._queues: deque[str] = deque()
        self._unsettled: dict[int, Held] = {}
        self._tags = itertools.count(1)

    @property
    def _link(self) -> Connection:
        if self.connection is None:
            raise exceptions.RecoverableConnectionError("the channel is closed")
        return self.connection

    @property
    def closed(self) -> bool:
        return self.connection is None

    # Queues and exchanges.

    def queue_declare(
        self,
        queue: str = "",
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = True,
        nowait: bool = False,
        arguments: engine.Arguments | None = None,
        **_: Any,
    ) -> queue_declare_ok_t:
        """Create queue, or find it (passive); one that is exclusive or auto_delete ends with the connection."""
        link = self._link
        queue = queue or f"amq.gen-{os.urandom(12).hex()}"
        if not passive:
            link.ask(link.engine.declare, queue, arguments or {}, mortal=exclusive or auto_delete)
        ready = 0 if nowait else link.ask(link.engine.count, queue).ready
        return queue_declare_ok_t(queue, ready, 0)

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **_: Any) -> int:
        """End queue; returns how many messages it had."""
        link = self._link
        if if_unused and link.consumers.get(queue):
            raise exceptions.PreconditionFailed(f"queue {queue!r} has consumers")
        try:
            return link.ask(link.engine.delete, queue, if_empty=if_empty)
        except engine.NotEmpty as error:
            raise exceptions.PreconditionFailed(str(error)) from error

    def queue_purge(self, queue: str, **_: Any) -> int:
        """Remove what waits in queue; returns how many messages that was."""
        link = self._link
        return link.ask(link.engine.purge, queue)

    def exchange_declare(self, exchange: str = "", type: str = "direct", passive: bool = False, **_: Any) -> None:
        """Create exchange, or find it (passive)."""
        link = self._link
        if passive:
            link.ask(link.engine.bindings, exchange)
            return
        if type not in KINDS:
            raise exceptions.PreconditionFailed(
                f"exchange {exchange!r} is of type {type!r}; there are {', '.join(sorted(KINDS))}"
            )
        link.ask(link.engine.declare_exchange, exchange, type)

    def exchange_delete(self, exchange: str, if_unused: bool = False, **_: Any) -> None:
        """End exchange and its bindings."""
        link = self._link
        if if_unused and link.ask(link.engine.bindings, exchange)[1]:
            raise exceptions.PreconditionFailed(f"exchange {exchange!r} has queues bound to it")
        link.ask(link.engine.delete_exchange, exchange)

    def queue_bind(self, queue: str, exchange: str = "", routing_key: str = "", **_: Any) -> None:
        """Let queue receive from exchange. Every queue is bound to the default exchange by its name already."""
        link = self._link
        if exchange:
            link.ask(link.engine.bind, exchange, Binding(queue, routing_key or ""))

    def queue_unbind(self, queue: str, exchange: str = "", routing_key: str = "", **_: Any) -> None:
        """Undo queue_bind()."""
        link = self._link
        link.ask(link.engine.unbind, exchange, Binding(queue, routing_key or ""))

    # Publishing.

    def basic_publish(
        self, message: Outgoing, exchange: str = "", routing_key: str = "", mandatory: bool = False, **_: Any
    ) -> None:
        """Store message in the queues that want it; stored on return, unless in a transaction.

        exchange "": straight to the queue named by routing_key, which must exist.
        """
        if self._transaction is None:
            limit = self._link.engine.options.max_message_size
            if len(message.body) > limit:  # before it is copied
                raise TooLarge(routing_key or exchange, len(message.body), limit)
        messages = self.routed(message, exchange, routing_key, mandatory)
        if self._transaction is not None:
            again = partial(self.routed, message, exchange, routing_key, mandatory) if exchange else None
            self._transaction.publish(messages, again)
            return
        try:
            try:
                self.store(messages)
            except QueueMissing:
                # One that was bound has gone since it was asked who is, such as a listener's own: the others get it.
                left = self.routed(message, exchange, routing_key, mandatory) if exchange else messages
                if [each.queue for each in left] == [each.queue for each in messages]:
                    raise
                self.store(left)
        except Unreachable:
            # Kombu repeats a publish with the same properties: under the same id it is stored once.
            message.properties.setdefault("message_id", messages[0].id)
            raise

    def create_publish_batch(self, max_size: int) -> PublishBatch:
        """What Kombu's Producer.batch() publishes through."""
        return PublishBatch(self, max_size)

    def routed(self, message: Outgoing, exchange: str, key: str | None, mandatory: bool) -> list[engine.Message]:
        """What is to be stored for message."""
        key = key or ""
        if not exchange:
            return message.stored("", key, [key])
        link = self._link
        queues = route(*link.ask(link.engine.bindings, exchange), key)
        if mandatory and not queues:
            self._return(message, exchange, key)
        return message.stored(exchange, key, queues)

    def store(self, messages: Sequence[engine.Message]) -> None:
        """Put messages into their queues, all or nothing."""
        link = self._link
        if messages:
            link.ask(link.engine.publish, messages)

    def _return(self, message: Outgoing, exchange: str, key: str) -> None:
        error = QueueMissing(f"no queue is bound to exchange {exchange!r} for {key!r}")
        if not self.events["basic_return"]:
            raise error
        for callback in self.events["basic_return"]:
            callback(error, exchange, key, message)

    # Consuming.

    def basic_consume(
        self,
        queue: str,
        no_ack: bool = False,
        consumer_tag: str = "",
        callback: Callable[[Message], object] | None = None,
        **_: Any,
    ) -> str:
        """Let callback have what comes to queue, in drain_events(). Returns the consumer's tag."""
        link = self._link
        link.ask(link.engine.count, queue)  # to learn now, and not never, that it does not exist
        consumer = Consumer(
            self, consumer_tag or f"ctag-{os.urandom(6).hex()}", queue, callback or ignore, bool(no_ack)
        )
        self._consumers[consumer.tag] = consumer
        if no_ack:
            self.no_ack_consumers.add(consumer.tag)
        if queue not in self._queues:
            self._queues.append(queue)
        link.subscribe(consumer)
        return consumer.tag

    def basic_cancel(self, consumer_tag: str, **_: Any) -> None:
        """End a subscription; what it was handed stays ours, what still waits for it goes back."""
        consumer = self._consumers.pop(consumer_tag, None)
        if consumer is None:
            return
        if all(other.queue != consumer.queue for other in self._consumers.values()):
            self._queues.remove(consumer.queue)
        if self.connection is not None:
            self.settle(self.connection.unsubscribe(consumer), Action.GIVE_BACK)

    def basic_qos(self, prefetch_size: int = 0, prefetch_count: int = 0, a_global: bool = False, **_: Any) -> None:
        """Let at most prefetch_count deliveries of this channel be unsettled; 0 means no limit."""
        self.prefetch_count = prefetch_count
        self._link.changed()

    def basic_get(self, queue: str, no_ack: bool = False, **_: Any) -> Message | None:
        """One message of queue now, or None."""
        link = self._link
        got = link.ask(link.engine.reserve, [Want((queue,), 1)])
        if not got:
            return None
        tag = self.take(got[0])
        if no_ack:
            self.settle([tag], Action.DONE)
        return Message(self, tag, "", got[0])

    def flow(self, active: bool) -> None:
        """Stop deliveries to this channel, or let them come again."""
        self._flowing = active
        self._link.changed()

    @property
    def credit(self) -> int:
        """How many more deliveries this channel may have."""
        return UNLIMITED if self.unlimited else self.prefetch_count - len(self._unsettled)

    @property
    def unlimited(self) -> bool:
        """Whether it may have as many as there are."""
        return not self.prefetch_count

    def wanted(self) -> tuple[str, ...]:
        """The queues that this channel may have something of."""
        return tuple(self._queues) if self._flowing and self.credit > 0 else ()

    def want(self) -> Want:
        """What to reserve for this channel. Its queues take turns at being the first."""
        self._queues.rotate(-1)
        return Want(tuple(self._queues), self.credit)

    def take(self, delivery: Delivery) -> int:
        """Count delivery as this channel's; returns its tag."""
        tag = next(self._tags)
        self._unsettled[tag] = Held(delivery.receipt, delivery.id, delivery.queue)
        return tag

    # Settling.

    def basic_ack(self, delivery_tag: int, multiple: bool = False) -> None:
        """End a delivery for good; multiple: and all before it (0: all)."""
        if self._transaction is not None and not multiple:
            self._transaction.end(delivery_tag, Verdict(self._known(delivery_tag).receipt, Action.DONE))
            return
        tags = [delivery_tag]
        if multiple:
            tags = [tag for tag in list(self._unsettled) if tag <= delivery_tag or not delivery_tag]
        self._end(tags, Action.DONE)

    def basic_reject(self, delivery_tag: int, requeue: bool = False) -> None:
        """Give a delivery back, or drop it: into its queue's dead-letter queue if there is one."""
        if requeue:
            self._end([delivery_tag], Action.GIVE_BACK)
            return
        link, held = self._link, self._known(delivery_tag)
        grave = link.arguments(held.queue).get(DEAD_LETTERS)
        if not grave:
            self._end([delivery_tag], Action.DONE)
            return
        found = link.ask(link.engine.find, held.queue, [held.id])
        with self._gathering() as transaction:
            transaction.end(delivery_tag, Verdict(held.receipt, Action.DONE))
            transaction.messages += [engine.Message(each.id, str(grave), each.body, each.priority) for each in found]

    def basic_recover(self, requeue: bool = False) -> None:
        """Give back all that is not settled, whether it was handed over or still waits."""
        self._link.recall(lambda consumer: consumer.channel is self)
        self.settle(list(self._unsettled), Action.GIVE_BACK)

    def settle(self, tags: Sequence[int], action: Action) -> None:
        """End deliveries, whether the channel is in a transaction or not."""
        link, full = self._link, self.credit <= 0
        ended = {tag: self._unsettled.pop(tag) for tag in tags}
        try:
            link.settle([Verdict(held.receipt, action) for held in ended.values()])
        except Unreachable:
            self._unsettled |= ended
            raise
        if full:
            link.changed()

    def _end(self, tags: Sequence[int], action: Action) -> None:
        if self._transaction is None:
            for tag in tags:
                self._known(tag)
            self.settle(tags, action)
        else:
            for tag in tags:
                self._transaction.end(tag, Verdict(self._known(tag).receipt, action))

    def _known(self, tag: int) -> Held:
        held = self._unsettled.get(tag)
        if held is None or (self._transaction and held.receipt in self._transaction.ends):
            raise exceptions.PreconditionFailed(f"unknown delivery tag {tag}")
        return held

    # Transactions.

    def tx_commit(self) -> None:
        """Carry out what was gathered, as one step: all of it or, when this raises, nothing.

        Raises Stale when a delivery is no longer ours and there was something to publish. Without
        publishes the other deliveries are settled and `refused` has the tags of those that were not.
        After an error the deliveries are unsettled as before and the publishes are forgotten.
        """
        transaction = self._gathered()
        if transaction.ends:
            self._commit(transaction)
        else:
            self.refused = transaction.commit(self._link)

    def carry(self, rider: engine.Rider) -> None:
        """Let the next commit, which only publishes, carry rider. It raises Declined when that refuses."""
        assert self._transaction is not None, "tx_select() comes first"
        self._transaction.rider = rider

    @contextmanager
    def _gathering(self) -> Iterator[Transaction]:
        """The running transaction, or one of its own that is committed at the end."""
        if self._transaction is not None:
            yield self._transaction
        else:
            transaction = Transaction()
            yield transaction
            self._commit(transaction)

    def _commit(self, transaction: Transaction) -> None:
        link, full = self._link, self.credit <= 0
        try:
            self.refused = transaction.commit(link)
        except Stale as error:
            self._forget(error.tags)
            raise
        self._forget(transaction.ends.values())
        if full:
            link.changed()

    def _forget(self, tags: Iterable[int]) -> None:
        for tag in tags:
            self._unsettled.pop(tag, None)

    # The end.

    def close(self) -> None:
        """Give back what the channel has not settled and end its consumers. May be repeated."""
        link = self.connection
        if link is None:
            return
        try:
            if link.alive:
                # In this order: who gets a seat next finds what was held here at its place.
                link.recall(lambda consumer: consumer.channel is self)
                self.settle(list(self._unsettled), Action.GIVE_BACK)
                link.flush()
                for tag in list(self._consumers):
                    self.basic_cancel(tag)
        finally:
            self.connection = None
            link.part(self)
