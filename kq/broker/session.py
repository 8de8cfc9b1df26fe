"""Taking messages and ending them: what a worker needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

from kq.broker.letters import Delivery, Settlement, say
from kq.broker.link import Broker, answer_time, establish
from kq.broker.queues import ORDERS, declare_missing, declare_to_consume
from kq.broker.translation import quietly, stored_by, translated
from kq_transports import engine

#: Characters of the token of a nudge, at most: it becomes part of a key.
TOKEN_LIMIT = 64


class Session:
    """A worker's connection to the broker, and its lease on all that is delivered through it.

    Not thread-safe but for beat(): the supervisor's loop owns it. Any verb may raise BrokerUnreachable (try again, as
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
        begun: Callable[[Session], None] | None = None,
    ) -> None:
        """closed: queues from which nothing is taken until resume(). nudged: called with each Inspector.nudge().

        begun: called when it is connected and is about to consume. From then on it may be beaten, which it is to be
        where answers take so long that the lease could end before it consumes.
        """
        self._broker = broker
        self._deliver = deliver
        self.name = name
        self.lease = lease
        self._declared: set[str] = set()
        self._channels: dict[str, Any] = {}
        self._consumers: dict[str, str] = {}
        #: Singleton queues of which something was delivered to us, and how much of it is not settled.
        self._seats: dict[str, int] = {}
        #: Those of them to be left when that has ended.
        self._leaving: set[str] = set()
        #: Queues that somebody deleted while we consumed them, until we do again.
        self._gone: set[str] = set()
        #: What a settle that failed had ended before it did, and those of it that were refused.
        self._ended: set[tuple[str, int]] = set()
        self._refused: list[Settlement] = []
        #: What a settle whose answer was lost may have ended.
        self._doubtful: set[tuple[str, int]] = set()
        #: Until when, on the monotonic clock, nobody else can have been given what we hold; span: seconds from the last
        #: beat until then, the lease at most.
        self.safe_until = self.span = 0.0
        self._connection = broker.connection(timeout=answer_time(broker, lease), lease=lease, name=name)
        try:
            self._begin(prefetch, closed, nudged, begun)
        except BaseException:
            self.close()  # nobody else knows of it: it would stay open, with what was delivered, for a while
            raise

    def _begin(
        self,
        prefetch: Mapping[str, int],
        closed: Collection[str],
        nudged: Callable[[str], None] | None,
        begun: Callable[[Session], None] | None,
    ) -> None:
        """Connect, consume and have the lease."""
        with translated(self._broker.address):
            establish(self._connection)
            self._established = self._connection.connection
            self._transport = self._connection.transport
            if begun is not None:
                begun(self)
            if nudged is not None:
                self._listen(nudged)
            for queue, limit in prefetch.items():
                self._open(queue, limit)
                if queue not in closed:
                    self.resume(queue)
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
        with translated(self._broker.address):
            if not self._declared.issuperset(queues):
                # On a channel of its own: a refusal ends it, and what is delivered on another must not go with it.
                with self._connection.channel() as channel:
                    declare_missing(channel, queues, self._declared, self._broker.singletons)

    def resume(self, queue: str, limit: int = 1) -> None:
        """Take jobs from queue (again). limit: as in prefetch(), of one that is new here, or that was left."""
        self._leaving.discard(queue)
        if queue in self._consumers:
            return
        if queue in self._gone and queue in self._broker.singletons:
            if self._seats.get(queue):
                return  # nobody is to begin beside what runs of it, and who consumes it first by now may be another
            self._leave(queue)
        with translated(self._broker.address):
            if queue not in self._channels:
                self._open(queue, limit)
            elif queue in self._gone:
                declare_to_consume(self._channels[queue], queue, self._broker.singletons)
            # Not Kombu's Consumer: it decompresses and decodes as a message's own headers say, and some would kill us.
            tag = self._channels[queue].basic_consume(
                queue, callback=self._on_message(queue), on_cancel=partial(self._deleted, queue)
            )
        self._consumers[queue] = tag
        self._gone.discard(queue)

    def _deleted(self, queue: str, tag: str) -> None:
        """Somebody deleted queue. What was delivered of it runs to its end; drain() makes it anew, and consumes it."""
        del self._consumers[queue]
        self._declared.discard(queue)
        self._gone.add(queue)
        raise engine.NotFound(f"queue {queue!r} was deleted while it was consumed")

    def stop(self, queue: str) -> None:
        """Take no more jobs from queue; what was delivered stays ours.

        A singleton queue is somebody else's as soon as we do not consume it, so it is left when what was delivered of
        it has ended (promise C12).
        """
        if queue not in self._consumers and queue not in self._gone:
            return
        if queue in self._broker.singletons:
            self._leaving.add(queue)
            self._leave_what_ended()
            return
        self._gone.discard(queue)
        if (tag := self._consumers.pop(queue, None)) is None:
            return
        with translated(self._broker.address):
            self._channels[queue].basic_cancel(tag)

    def _leave_what_ended(self) -> None:
        for queue in [queue for queue in self._leaving if not self._seats.get(queue)]:
            self._leave(queue)

    def _leave(self, queue: str) -> None:
        """Give back what is here of queue and let the next one consume it, in one step: so jobs keep their order."""
        self._leaving.discard(queue)
        self._gone.discard(queue)
        self._consumers.pop(queue, None)
        self._seats.pop(queue, None)
        channel = self._channels.pop(queue)
        with translated(self._broker.address):
            channel.close()

    @property
    def seats(self) -> list[str]:
        """The singleton queues that nobody else gets anything of, as far as that is known."""
        return sorted(self._seats)

    def prefetch(self, queue: str, limit: int) -> None:
        """Let up to limit deliveries of queue be unsettled at a time."""
        if queue in self._channels:
            with translated(self._broker.address):
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
        if self._gone:
            for queue in self._gone - self._leaving:
                self.resume(queue)
        with translated(self._broker.address):
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
        with translated(self._broker.address):
            descriptor, due = self._transport.watch(self._established)
        return descriptor, due

    def beat(self) -> None:
        """Renew the lease. Another thread may do that too, while a verb waits for its answer."""
        now = time.monotonic()
        with translated(self._broker.address):
            self._transport.heartbeat_check(self._established)
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
            if not self._ended or settlement.delivery.place not in self._ended:
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
        with translated(self._broker.address):
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
                if stored_by(error) != "no":
                    self._doubtful.update(settlement.delivery.place for settlement in group)
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
        if self._seats:
            for settlement in group:
                if settlement.delivery.queue in self._seats:
                    self._seats[settlement.delivery.queue] -= 1
        self._ended.update([settlement.delivery.place for settlement in group])
        if tags := set(refused):
            # As long as we hold them nobody else ends them: what was ended, and whose answer was lost, was ended by us.
            self._refused += [
                settlement
                for settlement in group
                if settlement.delivery.tag in tags and settlement.delivery.place not in self._doubtful
            ]
        if self._doubtful:
            self._doubtful.difference_update(settlement.delivery.place for settlement in group)

    @property
    def connected(self) -> bool:
        """Whether this connection may still be alive; False when only a new one can help."""
        return bool(self._transport.verify_connection(self._established))

    def close(self) -> None:
        """Give back all that is held and end the lease. Never raises."""
        quietly(self._connection.close)


def _token(body: bytes | str) -> str:
    """The token of a nudge; "" for what is none: a stranger may have sent it."""
    raw = body.encode(errors="replace") if isinstance(body, str) else bytes(body)
    return raw.decode() if len(raw) <= TOKEN_LIMIT and raw.isalnum() else ""
