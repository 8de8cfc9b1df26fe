"""Who is there: connections that hold messages can be listed, and ended from outside.

AMQP lets nobody ask about another connection. So each that consumes has a mailbox, an exclusive queue that is called
after it. `leave` in the mailbox ends the connection, from inside; a roll call goes to all mailboxes, and they answer
with what they hold. One more queue, which nobody writes to, is consumed by all: how many consumers it has tells how
many answers there will be. A connection whose process is frozen does not answer and does not leave; the broker ends it
when its lease is over. Connections of this process are asked without the broker: they may be waiting for the very
thread that asks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kq_transports.amqp.frames import Method, message_frames
from kq_transports.amqp.outlet import Publishing
from kq_transports.amqp.question import Side
from kq_transports.amqp.values import packed_properties, unpacked_properties
from kq_transports.engine import EngineError, LeaseLost

if TYPE_CHECKING:
    from kq_transports.amqp.connection import Connection
    from kq_transports.amqp.line import Line

MAILBOX = "kq.connection."
ROLL_CALL = "kq.rollcall"
PRESENT = "kq.present"
#: RabbitMQ's own queue for answers to the channel that asked.
ANSWERS = "amq.rabbitmq.reply-to"
#: What a mailbox understands.
LEAVE, WHO = b"leave", b"who"
#: Seconds to wait for those who do not answer a roll call.
PATIENCE = 0.25


@dataclass(frozen=True, slots=True)
class Holder:
    """A connection and how many messages of each queue it holds. lease: seconds."""

    name: str
    lease: float
    held: dict[str, int]


class Presence(Side):
    """The mailbox of a connection, under its name. Raises when there is one of that name."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        super().__init__(connection)
        mailbox = MAILBOX + connection.name
        self.queue_declare(mailbox, exclusive=True, auto_delete=True)
        _declare(self)
        self.queue_bind(mailbox, ROLL_CALL)
        self.basic_consume(mailbox, no_ack=True)
        self.basic_consume(PRESENT, no_ack=True)

    def take(self, method: Method) -> None:
        if not method.header:
            super().take(method)
        elif method.body == LEAVE:
            self.link.fail(LeaseLost("this connection was ended from outside"))
        elif method.body == WHO:
            self._connection.asked.append(unpacked_properties(method.header, 12)["reply_to"])


def answer(holder: Holder, side: Side, to: str) -> None:
    """Tell who asked, on side. Not on the mailbox's own line: publishes there may stop it when the broker is short."""
    if not side.link.blocked:
        body = json.dumps({"name": holder.name, "lease": holder.lease, "held": holder.held}).encode()
        _say(side, "", to, {}, body)


class RollCall(Side):
    """Asks every mailbox who it is, on a line for publishing."""

    def __init__(self, connection: Line) -> None:
        self._answers: dict[str, Holder] = {}
        super().__init__(connection)
        self.basic_consume(ANSWERS, no_ack=True)

    def holders(self, known: Set[str]) -> list[Holder]:
        """The connections that answer, without those that are known already, by name."""
        link, present = self.link, _declare(self)
        if present > len(known):
            _say(self, ROLL_CALL, "", {"reply_to": ANSWERS}, WHO)
            until = time.monotonic() + PATIENCE
            link.wait_for(lambda: len(known | self._answers.keys()) >= present or self.fault is not None, until)
        return [holder for name, holder in list(self._answers.items()) if name not in known]

    def take(self, method: Method) -> None:
        if method.header:
            said = json.loads(method.body)
            self._answers[said["name"]] = Holder(said["name"], said["lease"], said["held"])
        else:
            super().take(method)


def roll_call(line: Line, known: Set[str]) -> list[Holder]:
    """The connections that answer, without those that are known already. None when the broker takes no messages."""
    if line.blocked:
        line.look()
        return []
    caller = RollCall(line)
    holders = caller.holders(known)
    if not line.blocked:  # else it would not hear us
        caller.close()
    return holders


def expel(connection: Connection, name: str) -> bool:
    """End the connection called name from outside, through connection; False when there is none.

    Raises EngineError when it does not leave in time.
    """
    until = time.monotonic() + connection.options.timeout
    if not _put(connection, name, LEAVE, until):
        return False
    while _put(connection, name, b"", until):
        if time.monotonic() > until:
            raise EngineError(
                f"connection {name!r} does not read what it is told; the broker ends it when its lease is over"
            )
        connection.wait_for(lambda: False, time.monotonic() + 0.01)
    return True


def _put(connection: Connection, name: str, word: bytes, until: float) -> bool:
    """Put word into the mailbox of name; False when there is none."""
    return not connection.second().publish([Publishing("", MAILBOX + name, True, packed_properties({}), word)], until)


def _declare(side: Side) -> int:
    """See to it that a roll call can be held; returns how many connections are there."""
    side.exchange_declare(ROLL_CALL, "fanout", durable=True, auto_delete=False)
    declared = side.queue_declare(PRESENT, durable=True, auto_delete=False, arguments={"x-queue-type": "classic"})
    count: int = declared.consumer_count
    return count


def _say(side: Side, exchange: str, key: str, properties: dict[str, Any], body: bytes) -> None:
    """Publish without waiting: who does not get it in time is not there."""
    link = side.link
    frames = message_frames(side.channel_id, exchange, key, False, packed_properties(properties), body, link.frame_max)
    link.write(frames, time.monotonic() + link.options.timeout, side)
