"""Who is there: connections that hold messages can be listed, looked into, and ended from outside.

AMQP lets nobody ask about another connection. So each that consumes has a mailbox, an exclusive queue that is called
after it. `leave` in the mailbox ends the connection, from inside; a roll call goes to all mailboxes, and they answer
with what they hold. One more queue, which nobody writes to, is consumed by all: how many consumers it has tells how
many answers there will be. A connection whose process is frozen does not answer and does not leave; the broker ends it
when its lease is over. Connections of this process are asked without the broker: they may be waiting for the very
thread that asks.
"""

from __future__ import annotations

import json
import struct
import time
import weakref
from collections.abc import Collection, Iterator, Set
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from kq_transports.amqp.frames import Method, message_frames
from kq_transports.amqp.message import Arrival, arrival, properties_of
from kq_transports.amqp.outlet import Publishing
from kq_transports.amqp.question import Side
from kq_transports.amqp.values import packed_properties, unpacked_properties
from kq_transports.engine import EngineError

if TYPE_CHECKING:
    from kq_transports.amqp.connection import Connection
    from kq_transports.amqp.line import Line

MAILBOX = "kq.connection."
ROLL_CALL = "kq.rollcall"
PRESENT = "kq.present"
#: RabbitMQ's own queue for answers to the channel that asked.
ANSWERS = "amq.rabbitmq.reply-to"
LEAVE = b"leave"
#: In the headers of an answer that is a held message: who holds it.
HOLDER = "x-holder"
#: Seconds to wait for those who do not answer a roll call.
PATIENCE = 0.25


@dataclass(frozen=True, slots=True)
class Question:
    """What a roll call wants to see beside the numbers: held messages of queue, limit at most.

    ids: only those with one of these; empty: any.
    """

    queue: str = ""
    limit: int = 0
    ids: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Holder:
    """A connection and how many messages of each queue it holds. lease: seconds."""

    name: str
    lease: float
    held: dict[str, int]


@dataclass(frozen=True, slots=True)
class Held:
    """A message that a connection holds."""

    holder: str
    arrived: Arrival


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a roll call."""

    holders: list[Holder]
    messages: list[Held]


class Presence(Side):
    """The mailbox of a connection, under its name, on another line. Raises when there is one of that name."""

    def __init__(self, line: Line, connection: Connection) -> None:
        self._connection = weakref.ref(connection)
        super().__init__(line)
        mailbox = MAILBOX + connection.name
        self.queue_declare(mailbox, exclusive=True, auto_delete=True)
        _declare(self)
        self.queue_bind(mailbox, ROLL_CALL)
        self.basic_consume(mailbox, no_ack=True)
        self.basic_consume(PRESENT, no_ack=True)

    def take(self, method: Method) -> None:
        connection = self._connection()
        if not method.header:
            super().take(method)
        elif connection is None or not connection.alive:
            return
        elif method.body == LEAVE:
            connection.end()
        elif method.body:
            try:
                to, question = unpacked_properties(method.header, 12)["reply_to"], Question(**json.loads(method.body))
            except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, struct.error):
                return  # no question of ours; anybody can write to a mailbox
            self._answer(connection, question, to)

    def _answer(self, connection: Connection, question: Question, to: str) -> None:
        holder = connection.holder()
        for arrived in chosen(question, connection.holdings()):
            properties = properties_of(arrived)
            properties["application_headers"] = {**properties.get("application_headers", {}), HOLDER: holder.name}
            _say(self, "", to, properties, arrived.body)
        _say(self, "", to, {}, json.dumps(asdict(holder)).encode())


def chosen(question: Question, held: list[Arrival]) -> Iterator[Arrival]:
    """Those of held that question wants to see, the oldest first."""
    of_queue = (arrived for arrived in held if arrived.queue == question.queue)
    if question.ids:
        of_queue = (arrived for arrived in of_queue if properties_of(arrived).get("message_id") in question.ids)
    return islice(of_queue, question.limit)


class RollCall(Side):
    """Asks every mailbox, on a line for publishing. An answer is the messages that are held, and last the numbers."""

    def __init__(self, line: Line) -> None:
        self._holders: dict[str, Holder] = {}
        self._messages: list[Held] = []
        super().__init__(line)
        self.basic_consume(ANSWERS, no_ack=True)

    def ask(self, question: Question, known: Set[str]) -> Answer:
        """What the connections answer, but for those that are known already, by name."""
        present = _declare(self)
        if present > len(known):
            _say(self, ROLL_CALL, "", {"reply_to": ANSWERS}, json.dumps(asdict(question)).encode())
            until = time.monotonic() + PATIENCE
            self.link.wait_for(lambda: len(known | self._holders.keys()) >= present or self.fault is not None, until)
        holders = [holder for name, holder in list(self._holders.items()) if name not in known]
        return Answer(holders, [held for held in list(self._messages) if held.holder not in known])

    def take(self, method: Method) -> None:
        if not method.header:
            super().take(method)
            return
        arrived = arrival(self, method)
        holder = properties_of(arrived).get("application_headers", {}).get(HOLDER)
        if holder is None:
            said = Holder(**json.loads(method.body))
            self._holders[said.name] = said
        else:
            self._messages.append(Held(holder, arrived))


def roll_call(line: Line, question: Question, known: Set[str]) -> Answer:
    """The answer of all but those who are known already. Of nobody when the broker takes no messages."""
    if line.blocked:
        line.look()
        return Answer([], [])
    caller = RollCall(line)
    said = caller.ask(question, known)
    if not line.blocked:  # else it would not hear us
        caller.close()
    return said


def expel(connection: Connection, name: str) -> bool:
    """End the connection called name from outside, through connection; False when there is none.

    Raises EngineError when it does not leave in time.
    """
    until = time.monotonic() + connection.options.timeout
    if not _put(connection, name, LEAVE):
        return False
    while _put(connection, name, b""):
        if time.monotonic() > until:
            raise EngineError(
                f"connection {name!r} does not read what it is told; the broker ends it when its lease is over"
            )
        connection.wait_for(lambda: False, time.monotonic() + 0.01)
    return True


def _put(connection: Connection, name: str, word: bytes) -> bool:
    """Put word into the mailbox of name; False when there is none."""
    until = time.monotonic() + connection.options.timeout
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
