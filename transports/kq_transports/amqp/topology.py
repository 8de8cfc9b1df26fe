"""Queues, exchanges and bindings of RabbitMQ, declared so that they keep the contract."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from amqp import exceptions, spec
from amqp.protocol import queue_declare_ok_t

from kq_transports.amqp.question import Request, Side, ask_all
from kq_transports.amqp.values import no_name
from kq_transports.engine import Arguments, EngineError, NotFound, Unsupported

if TYPE_CHECKING:
    from kq_transports.amqp.connection import Connection

#: Milliseconds, a year. RabbitMQ's own limit for an unacknowledged delivery is half an hour; leases are ours.
NO_CONSUMER_TIMEOUT = 365 * 86_400_000
#: More deliveries than any message has. By default RabbitMQ 4 drops a message of a quorum queue at the 21st, for
#: which a dead connection is enough; -1 would be no limit, but then what is given back goes behind all others.
NO_DELIVERY_LIMIT = 1_000_000_000


class Topology:
    """What exists at the broker. Asks on a channel of its own: a "no" closes that one and no other."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._side: Side | None = None

    @property
    def side(self) -> Side:
        """The channel to ask on."""
        if self._side is None or not self._side.usable:
            self._side = Side(self._connection)
        return self._side

    def queue(
        self, queue: str, arguments: Arguments, *, durable: bool, exclusive: bool, auto_delete: bool
    ) -> queue_declare_ok_t:
        """Create queue unless it exists. Raises Mismatch when it does with other arguments.

        One that is shared is durable always: RabbitMQ 4.3 refuses others, which would not survive it anyway.
        """
        if wrong := no_name(queue):  # before it is in the registry, where every later look would meet it
            raise EngineError(f"queue {queue[:20]!r}…: {wrong}; use another name")
        arguments = self._arguments(arguments, shared=not exclusive)
        self._connection.seats.note(queue, arguments)
        new = not exclusive and not auto_delete and bool(queue) and not self.has(queue)
        if new:
            self._connection.registry.add(queue, arguments)
        declared = self.side.queue_declare(
            queue,
            durable=durable or not exclusive,
            exclusive=exclusive,
            auto_delete=auto_delete,
            arguments=dict(arguments),
        )
        if new:
            self._connection.delays.lead(queue)
        return declared

    def _arguments(self, given: Arguments, *, shared: bool) -> Arguments:
        """What a queue is declared with when somebody asks for given."""
        if not shared:
            return given
        kind = given.get("x-queue-type") or self._connection.queue_type
        added: dict[str, object] = {"x-queue-type": kind}
        if kind == "quorum":
            if "x-max-priority" in given:
                raise Unsupported(
                    f"RabbitMQ {self._connection.version} keeps no strict priorities on quorum queues, or loses them "
                    "when a message is given back; use queue_type=classic, or declare queues without x-max-priority"
                )
            added["x-delivery-limit"] = NO_DELIVERY_LIMIT
        if kind != "stream":
            added["x-consumer-timeout"] = NO_CONSUMER_TIMEOUT
        if "x-max-length" in given:
            # By default the oldest message is dropped.
            added["x-overflow"] = "reject-publish"
        if "x-dead-letter-routing-key" in given:
            added["x-dead-letter-exchange"] = ""
        return {**added, **given}

    def find(self, queue: str) -> queue_declare_ok_t:
        """Its name, how many messages are ready, how many consumers it has; raises NotFound."""
        if wrong := no_name(queue):
            raise NotFound(f"there is no queue {queue[:20]!r}…: {wrong}")
        return self.side.queue_declare(queue, passive=True)

    def has(self, queue: str) -> bool:
        """Whether queue exists."""
        try:
            self.find(queue)
        except NotFound:
            return False
        return True

    def counts(self, queues: Iterable[str]) -> dict[str, int]:
        """How many messages are ready in each of queues, all asked at once; what does not exist is left out."""
        names = [name for name in queues if not no_name(name)]
        passively: list[Request] = [
            (spec.Queue.Declare, "BsbbbbbF", (0, name, True, *(False,) * 4, {})) for name in names
        ]
        try:
            found = ask_all(self.side, passively, [spec.Queue.DeclareOk]) if names else []
        except NotFound:  # at the first of those the broker closes the channel, and answers no more
            return {name: self.find(name).message_count for name in names if self.has(name)}
        return {name: ready for name, ready, _ in found}

    def delete(self, queue: str, *, if_unused: bool = False, if_empty: bool = False) -> int:
        """End queue with all that is in it or was to come; returns how many messages were ready or delayed."""
        if if_empty and self._connection.delays.count(queue):
            raise exceptions.PreconditionFailed(f"queue {queue!r} has delayed messages")
        ended: int = self.side.queue_delete(queue, if_unused, if_empty)
        waited = self._connection.delays.end(queue)
        self._connection.registry.forget(queue)
        return ended + waited

    def purge(self, queue: str) -> int:
        """Remove what is ready or delayed in queue; returns how many messages that was."""
        ended: int = self.side.queue_purge(queue)
        return ended + self._connection.delays.purge(queue)
