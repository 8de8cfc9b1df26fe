"""Seats: who alone consumes a queue with x-single-active-consumer, and from when on another one may.

RabbitMQ gives such a queue to the next consumer as soon as the connection of the one before is gone. But who was cut
off, or is frozen, may not know that yet, and works on until his own lease ends. So who has the seat keeps a sign at it:
a queue that ends by itself (x-expires) when nobody declared it for as long as his lease, which he does with each beat.
What the next one is delivered is not handed to him before the sign is gone. Who leaves in good order takes it down.

To purge a queue tells whether it is there. To declare it passively would too, but lets it live on (seen on 4.0).
"""

from __future__ import annotations

import math
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from kq_transports.engine import Arguments, EngineError, LeaseLost, Mismatch, NotFound

if TYPE_CHECKING:
    from kq_transports.amqp.connection import Connection

SIGN = "kq.seat."
#: Seconds between two looks at a seat that is taken.
LOOK = 0.1


class Seats:
    """The seats of one connection, at those queues that it has declared."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._single: set[str] = set()
        self._ours: set[str] = set()
        #: When to look again at a seat that another has; monotonic.
        self._taken: dict[str, float] = {}
        #: A thread may beat while another leaves.
        self._signing = threading.Lock()

    def note(self, queue: str, arguments: Arguments) -> None:
        """What queue is declared with."""
        if arguments.get("x-single-active-consumer"):
            self._single.add(queue)

    @property
    def needed(self) -> bool:
        """Whether there are queues with seats."""
        return bool(self._single)

    @property
    def next_look(self) -> float:
        """When a seat that another has may be free; monotonic."""
        return min(self._taken.values(), default=math.inf)

    def may_open(self, queue: str) -> bool:
        """Whether there is a point in opening queue to its consumer."""
        return queue not in self._taken or time.monotonic() >= self._taken[queue]

    def opens(self, queue: str) -> bool:
        """Whether what was delivered of queue may be handed over: the seat is ours, or is from now on."""
        if queue not in self._single or queue in self._ours:
            return True
        if not self.may_open(queue):
            return False
        if self._is_taken(queue):
            self._taken[queue] = time.monotonic() + LOOK
            return False
        self._taken.pop(queue, None)
        with self._signing:
            self._hang_sign(queue)
            self._ours.add(queue)
        return True

    def renew(self) -> None:
        """Keep the seats that are ours for a whole lease from now."""
        try:
            with self._signing:
                for queue in self._ours:
                    self._hang_sign(queue)
        except Mismatch as error:  # somebody with a lease of another length has sat down
            raise self._connection.fail(LeaseLost(f"a seat is another's by now: {error}")) from error

    def leave(self, queue: str) -> None:
        """Let the next one have the seat at once."""
        self._taken.pop(queue, None)
        if queue not in self._ours:
            return
        with self._signing:
            self._ours.remove(queue)
            self._connection.topology.side.queue_delete(SIGN + queue)

    def leave_all(self) -> None:
        """The same with all of them, as far as the broker hears it."""
        with suppress(EngineError):
            for queue in list(self._ours):
                self.leave(queue)

    def _is_taken(self, queue: str) -> bool:
        try:
            self._connection.topology.side.queue_purge(SIGN + queue)
        except NotFound:
            return False
        return True

    def _hang_sign(self, queue: str) -> None:
        lasts = math.ceil(self._connection.options.lease * 1000)
        arguments = {"x-queue-type": "classic", "x-expires": lasts}
        self._connection.topology.side.queue_declare(SIGN + queue, durable=True, auto_delete=False, arguments=arguments)
