"""A channel of RabbitMQ: Kombu's verbs, with every publish confirmed and no delivery mistaken for another."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import amqp
from amqp import exceptions, spec
from amqp.protocol import queue_declare_ok_t
from kombu.utils.text import version_string_as_tuple

from kq_transports.amqp.errors import HeadersTooLarge, refusal
from kq_transports.amqp.frames import Method, ack_frame, drop_frame, give_back_frame, room_for_properties
from kq_transports.amqp.message import Arrival, Message, arrival, delay_of, packed, packed_to_fit, priority_of
from kq_transports.amqp.outlet import Publishing, missing
from kq_transports.amqp.question import Asking
from kq_transports.amqp.transaction import End, Letter, PublishBatch, Transaction
from kq_transports.connection import QueueMissing
from kq_transports.conversation import Conversation, ignore
from kq_transports.engine import Arguments, EngineError, TooLarge, Unreachable, given_id
from kq_transports.envelope import Outgoing

if TYPE_CHECKING:
    from kq_transports.amqp.connection import Connection

#: How many messages an unlimited consumer may have unsettled.
UNLIMITED = 1000
#: From this version on RabbitMQ refuses one credit for all consumers of a channel.
OWN_CREDITS = (4, 3)


@dataclass(frozen=True, slots=True)
class Consumer:
    """A subscription to a queue. callback: called with each Message."""

    queue: str
    callback: Callable[[Message], object]
    no_ack: bool
    exclusive: bool
    arguments: dict[str, Any] | None
    on_cancel: Callable[[str], object] | None


class Channel(Asking, Conversation[Transaction], amqp.Channel):  # type: ignore[misc]
    """One conversation on a connection: its consumers, its credit, and what it has not settled yet.

    When the broker closes it the whole connection is over: its deliveries belong to others then.
    """

    gathering = Transaction
    connection: Connection | None
    no_ack_consumers: set[str]  # type: ignore[assignment]

    def __init__(self, connection: Connection, channel_id: int | None = None, on_open: Any = None) -> None:
        #: Delivery tags that the last commit could not end. None ever: what is not ours is refused before.
        self.refused: list[int] = []
        #: The deliveries that are ours, by tag.
        self.unsettled: dict[int, Arrival] = {}
        self._consumers: dict[str, Consumer] = {}
        #: Queues that were deleted while we consumed them: their seats are ours as long as what we hold of them is.
        self._deleted: set[str] = set()
        self._prefetch = 0
        self._settling = threading.Lock()
        #: Ends that the broker was not told of yet.
        self._ended: list[tuple[int, End]] = []
        #: All deliveries up to this tag have ended, and these beyond.
        self._floor = 0
        self._beyond: set[int] = set()
        super().__init__(connection, channel_id, auto_decode=False, on_open=on_open)
        self._callbacks[spec.Basic.RecoverOk] = self._recovered

    # Queues and exchanges.

    def queue_declare(
        self,
        queue: str = "",
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = True,
        nowait: bool = False,
        arguments: Arguments | None = None,
        **_: Any,
    ) -> queue_declare_ok_t:
        """Create queue, or find it (passive)."""
        topology = self._checked.topology
        if passive:
            return topology.find(queue)
        return topology.queue(queue, arguments or {}, durable=durable, exclusive=exclusive, auto_delete=auto_delete)

    def queue_delete(self, queue: str = "", if_unused: bool = False, if_empty: bool = False, **_: Any) -> int:
        """End queue; returns how many messages it had."""
        return self._checked.topology.delete(queue, if_unused=if_unused, if_empty=if_empty)

    def queue_purge(self, queue: str = "", **_: Any) -> int:
        """Remove what waits in queue; returns how many messages that was."""
        return self._checked.topology.purge(queue)

    def exchange_declare(
        self,
        exchange: str = "",
        type: str = "direct",
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = True,
        arguments: Arguments | None = None,
        **_: Any,
    ) -> None:
        """Create exchange, or find it (passive)."""
        side = self._checked.topology.side
        side.exchange_declare(exchange, type, passive, durable, auto_delete, arguments=dict(arguments or {}))

    def exchange_delete(self, exchange: str = "", if_unused: bool = False, **_: Any) -> None:
        """End exchange and its bindings."""
        self._checked.topology.side.exchange_delete(exchange, if_unused)

    def queue_bind(
        self, queue: str = "", exchange: str = "", routing_key: str = "", arguments: Any = None, **_: Any
    ) -> None:
        """Let queue receive from exchange. Every queue is bound to the default exchange by its name already."""
        if exchange:
            self._checked.topology.side.queue_bind(queue, exchange, routing_key or "", arguments=arguments)

    def queue_unbind(
        self, queue: str = "", exchange: str = "", routing_key: str = "", arguments: Any = None, **_: Any
    ) -> None:
        """Undo queue_bind()."""
        self._checked.topology.side.queue_unbind(queue, exchange, routing_key or "", arguments=arguments)

    def exchange_bind(
        self, destination: str = "", source: str = "", routing_key: str = "", arguments: Any = None, **_: Any
    ) -> None:
        """Let one exchange receive from another."""
        self._checked.topology.side.exchange_bind(destination, source, routing_key or "", arguments=arguments)

    def exchange_unbind(
        self, destination: str = "", source: str = "", routing_key: str = "", arguments: Any = None, **_: Any
    ) -> None:
        """Undo exchange_bind()."""
        self._checked.topology.side.exchange_unbind(destination, source, routing_key or "", arguments=arguments)

    @property
    def link(self) -> Connection:
        """The connection; raises when the channel was closed."""
        if self.connection is None:
            raise exceptions.RecoverableConnectionError("the channel is closed")
        return self.connection

    @property
    def _checked(self) -> Connection:
        """The connection, after a look whether it is of any use."""
        link = self.link
        link.check()
        return link

    # Publishing.

    def basic_publish(
        self, message: Outgoing, exchange: str = "", routing_key: str = "", mandatory: bool = False, **_: Any
    ) -> None:
        """Let the broker store message; it has when this returns, unless in a transaction.

        exchange "": straight to the queue named by routing_key, which must exist.
        """
        letter = Letter(message, exchange or "", routing_key or "", mandatory)
        if self._transaction is not None:
            self._transaction.letters.append(letter)
        else:
            self.store([letter], self.link.options.max_message_size)

    def create_publish_batch(self, max_size: int) -> PublishBatch:
        """What Kombu's Producer.batch() publishes through."""
        return PublishBatch(self, max_size)

    def store(self, letters: Sequence[Letter], limit: float, begun: float | None = None) -> None:
        """Publish letters and wait until the broker has them; when this raises, some of them may be stored.

        Raises TooLarge when the body of one has more than limit bytes, or its headers have more than fit: then none is.
        Without a limit headers are cut to fit. begun: see Gathering.
        """
        begin = time.monotonic()
        begun, until = begun or begin, begin + 2 * self.link.options.timeout
        returned = self._publish(letters, begun, limit, until)
        delayed = [letter for letter in returned if delay_of(letter.message)]
        if delayed:
            # Somebody took their ladder away, or the queue, which is found out now.
            for letter in delayed:
                self.link.delays.forget(letter.key)
            again = self._publish(delayed, begun, limit, until)
            returned = [letter for letter in returned if letter not in delayed] + again
        for letter in returned:
            self._return(letter)

    def _publish(self, letters: Sequence[Letter], begun: float, limit: float, until: float) -> list[Letter]:
        """Store letters before until; returns those that no queue wanted.

        The confirm has the time of one answer for itself, however long it took to make the way of what is delayed.
        """
        link = self._checked
        try:
            sent = [publishing(link, letter, begun, until, cut=limit == math.inf) for letter in letters]
        except Unreachable as error:
            error.sent = False  # it was the way of a delayed message that could not be made
            raise
        for letter, each in zip(letters, sent, strict=True):
            if len(each.body) > limit:
                raise TooLarge(letter.key, len(each.body), limit)
        now = time.monotonic()
        if now >= until:  # it would be stored, and told as unknown
            raise Unreachable(f"{link.peer} did not answer in time", sent=False)
        returned = link.publish(sent, min(now + link.options.timeout, until))
        if not returned:
            return []
        return [letter for letter, publishing in zip(letters, sent, strict=True) if publishing.returned]

    def _return(self, letter: Letter) -> None:
        error = missing(letter.exchange, letter.key)
        callbacks = self.events.get("basic_return")
        if not letter.exchange or not callbacks:
            raise error
        for callback in list(callbacks):
            callback(error, letter.exchange, letter.key, letter.message)

    # Consuming.

    def basic_consume(
        self,
        queue: str = "",
        consumer_tag: str = "",
        no_local: bool = False,
        no_ack: bool = False,
        exclusive: bool = False,
        nowait: bool = False,
        callback: Callable[[Message], object] | None = None,
        arguments: dict[str, Any] | None = None,
        on_cancel: Callable[[str], object] | None = None,
        **_: Any,
    ) -> str:
        """Let callback have what comes to queue, in drain_events(). Returns the consumer's tag."""
        link = self._checked
        link.topology.find(queue)  # when there is none the broker would close this channel
        if not no_ack:
            link.hold()
        if not self._prefetch:
            self.basic_qos()
        tag = consumer_tag or f"ctag-{os.urandom(6).hex()}"
        self._consumers[tag] = Consumer(queue, callback or ignore, bool(no_ack), exclusive, arguments, on_cancel)
        if no_ack:
            self.no_ack_consumers.add(tag)
        self._subscribe(tag)
        return tag

    def _subscribe(self, tag: str) -> None:
        consumer = self._consumers[tag]
        super().basic_consume(
            consumer.queue, tag, False, consumer.no_ack, consumer.exclusive, arguments=consumer.arguments
        )

    def basic_cancel(self, consumer_tag: str, **_: Any) -> None:
        """End a subscription; what it was handed stays ours, what still waits for it goes back."""
        if consumer_tag not in self._consumers:
            return
        link = self._checked
        link.seats.leave(self._consumers[consumer_tag].queue)
        super().basic_cancel(consumer_tag)
        del self._consumers[consumer_tag]
        waiting = link.recall(lambda arrived: arrived.channel is self and arrived.consumer == consumer_tag)
        self._settle([(tag, End.GIVE_BACK) for tag in waiting])

    def basic_qos(self, prefetch_size: int = 0, prefetch_count: int = 0, a_global: bool = False, **_: Any) -> None:
        """Let at most prefetch_count deliveries of this channel be unsettled; 0 means UNLIMITED."""
        link = self._checked
        self._prefetch = min(0xFFFF, prefetch_count or UNLIMITED)
        shared = link.queue_type != "quorum" and version_string_as_tuple(link.version) < OWN_CREDITS
        super().basic_qos(0, self._prefetch, shared)
        if not shared:
            # A credit of their own is given to consumers when they subscribe.
            for tag in self._consumers:
                super().basic_cancel(tag)
                self._subscribe(tag)

    def basic_get(self, queue: str = "", no_ack: bool = False, **_: Any) -> Message | None:
        """One message of queue now, or None."""
        link = self._checked
        link.topology.find(queue)  # when there is none the broker would close this channel
        if not no_ack:
            link.hold()
        names = [spec.Basic.GetOk, spec.Basic.GetEmpty]
        got = self.send_method(spec.Basic.Get, "Bsb", (0, queue, no_ack), wait=names, returns_tuple=True)
        if len(got) < 2:
            return None
        tag, redelivered, exchange, key, _, method = got
        arrived = Arrival(self, queue, "", tag, redelivered, exchange, key, method.header, method.body)
        if no_ack:
            self._beyond.add(tag)
        else:
            self.unsettled[tag] = arrived
        return Message(arrived)

    @property
    def consumes(self) -> bool:
        """Whether it has consumers."""
        return bool(self._consumers)

    def take(self, method: Method) -> None:
        """What arrived for this channel."""
        if method.name != spec.Basic.Deliver:
            self.dispatch_method(method.name, method.payload, method if method.header else None)
        elif not self.is_closing:
            arrived = arrival(self, method)
            consumer = self._consumers[arrived.consumer]
            arrived.queue = consumer.queue
            if consumer.no_ack:
                self._beyond.add(arrived.tag)
            else:
                self.unsettled[arrived.tag] = arrived
            self.link.deliver(arrived)

    def hand_over(self, arrived: Arrival) -> None:
        """Give one delivery to its consumer."""
        consumer = self._consumers.get(arrived.consumer)
        if arrived.tag == CANCELLED:
            self._cancelled(arrived.consumer)
        elif consumer is not None:
            consumer.callback(Message(arrived))

    def _on_basic_cancel(self, consumer_tag: str) -> None:
        """The broker ended a subscription: its queue is gone. Told in drain_events(), in its turn."""
        self.link.deliver(Arrival(self, "", consumer_tag, CANCELLED, False, "", "", b"", b""))

    def _cancelled(self, tag: str) -> None:
        consumer = self._consumers.pop(tag, None)
        if consumer is None:
            return
        self._deleted.add(consumer.queue)
        if consumer.on_cancel is None:
            raise QueueMissing(f"queue {consumer.queue!r} was deleted while it was consumed")
        consumer.on_cancel(tag)

    # Settling.

    def basic_ack(self, delivery_tag: int, multiple: bool = False, **_: Any) -> None:
        """End a delivery for good; multiple: and all that were handed over before it (0: all)."""
        self._end(self._handed(delivery_tag) if multiple else [delivery_tag], End.DONE)

    def basic_reject(self, delivery_tag: int, requeue: bool = False, **_: Any) -> None:
        """Give a delivery back, or drop it: into its queue's dead letters if it has any."""
        self._end([delivery_tag], End.GIVE_BACK if requeue else End.DROP)

    def basic_recover(self, requeue: bool = False) -> None:
        """Give back all that is not settled, whether it was handed over or still waits."""
        self._checked.flush()
        self.send_method(spec.Basic.Recover, "b", (True,), wait=spec.Basic.RecoverOk)

    def _recovered(self) -> None:
        """All that was delivered up to here is the broker's again."""
        self.link.recall(lambda arrived: arrived.channel is self and arrived.tag != CANCELLED)
        with self._settling:
            self._beyond.update(self.unsettled)
            self.unsettled.clear()

    def _handed(self, last: int) -> list[int]:
        """The tags up to last of what was handed over and is not settled."""
        waiting = {arrived.tag for arrived in list(self.link.inbox) if arrived.channel is self}
        if self._transaction is not None:
            waiting.update(self._transaction.ends)
        return [tag for tag in list(self.unsettled) if (tag <= last or not last) and tag not in waiting]

    def _end(self, tags: Iterable[int], how: End) -> None:
        for tag in tags:
            self._known(tag)
            if self._transaction is not None:
                self._transaction.ends[tag] = how
        if self._transaction is None:
            self._settle([(tag, how) for tag in tags])

    def _known(self, tag: int) -> None:
        if tag not in self.unsettled or (self._transaction is not None and tag in self._transaction.ends):
            self.link.check()
            raise exceptions.PreconditionFailed(f"unknown delivery tag {tag}")

    def _settle(self, ends: Sequence[tuple[int, End]]) -> None:
        """End deliveries, whether the channel is in a transaction or not."""
        if ends:
            link = self._checked
            for tag, _ in ends:
                self.unsettled.pop(tag, None)
            self._ended.extend(ends)
            link.settled(self, len(self._ended))

    def ends(self) -> bytes:
        """The frames that tell the broker of what has ended."""
        with self._settling:
            ended, self._ended = self._ended, []
            self._beyond.update(tag for tag, _ in ended)
            while self._floor + 1 in self._beyond:
                self._floor += 1
                self._beyond.remove(self._floor)
            done = [tag for tag, how in ended if how is End.DONE]
            frames = [_FRAMES[how](self.channel_id, tag) for tag, how in ended if how is not End.DONE]
            frames += [ack_frame(self.channel_id, tag, False) for tag in done if tag > self._floor]
            if below := [tag for tag in done if tag <= self._floor]:
                # One frame for all: nothing up to there is unsettled. The tag must be one that is being ended.
                frames.append(ack_frame(self.channel_id, max(below), True))
            return b"".join(frames)

    # Transactions.

    def tx_commit(self) -> None:
        """Store what was published; when the broker has all of it, end the deliveries.

        When this raises no delivery has ended, but some of the publishes may be stored. They are forgotten here.
        """
        transaction = self._gathered()
        if transaction.letters:
            # What was delivered must get away, however large it is; see Engine.settle().
            limit = math.inf if transaction.ends else self.link.options.max_message_size
            self.store(transaction.letters, limit, transaction.begun)
        self._settle(list(transaction.ends.items()))
        self._checked.flush()

    # The end.

    def close(self, *_: Any) -> None:
        """End the channel's consumers and give back what it has not settled. May be repeated."""
        if self.connection is None:
            return
        link = self.link
        try:
            if link.alive:
                link.flush()
                for queue in self._deleted.union(consumer.queue for consumer in self._consumers.values()):
                    link.seats.leave(queue)
                super().close()
        finally:
            link.recall(lambda arrived: arrived.channel is self)
            self.unsettled.clear()
            self._consumers.clear()
            self.collect()

    def _on_close(self, reply_code: int, reply_text: str, class_id: int, method_id: int) -> None:
        self.link.fail(refusal(reply_code, reply_text, (class_id, method_id)))


def publishing(
    link: Connection, letter: Letter, begin: float, until: float = math.inf, *, cut: bool = False
) -> Publishing:
    """letter as it is sent. begin: when its delay began, by the monotonic clock. cut: what does not fit is cut.

    The way of a delayed one is there on return; it is made until an instant, or not. Raises NotFound when there is no
    such queue, and TooLarge.
    """
    message, exchange, key = letter.message, letter.exchange, letter.key
    if not message.properties.get("message_id"):
        # Kombu repeats a publish with the same properties: who consumes knows it again by its id.
        message.properties["message_id"] = given_id()
    due = aim = None
    if delay := delay_of(message):
        if exchange:
            raise EngineError(f"x-delay works on the default exchange only, not on {exchange!r}")
        due = int(time.time() * 1000) + delay
        aim = link.delays.aim(key, priority_of(message), begin + delay / 1000, until)
        exchange, key = aim()
    properties, body = packed(message, due)
    room = room_for_properties(link.frame_max)
    if len(properties) > room:
        if not cut:
            raise HeadersTooLarge(letter.key, len(properties), room)
        properties, body = packed_to_fit(message, due, room)
    return Publishing(exchange, key, letter.mandatory or not letter.exchange, properties, body, aim)


#: The tag of an Arrival that is none: the broker ended the subscription.
CANCELLED = 0

_FRAMES = {End.GIVE_BACK: give_back_frame, End.DROP: drop_frame}
