"""Publishing: everything is confirmed, and a confirm is matched with its publish by number.

One channel of the connection is for publishes alone, of all threads and all of the user's channels: when the broker
closes it (an exchange that does not exist, a message that is too large), deliveries and their leases go on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, TypeAlias

from amqp import spec

from kq_transports.amqp.frames import BrokenStream, Method, message_frames
from kq_transports.amqp.question import Side
from kq_transports.connection import QueueMissing
from kq_transports.engine import EngineError, Full, Unreachable

if TYPE_CHECKING:
    from kq_transports.amqp.line import Line

#: Bytes that are written before we look for confirms; more would fill both sockets when the broker is slow.
PIECE = 262_144

#: How many delayed messages are on their way at a time: their delays begin when they are where they wait, some 0.1 ms
#: apart, and were reckoned when they were sent.
DELAYED = 64

_CONFIRM = Struct(">QB")

#: Tells by which exchange and key a message is to go that is sent now.
Aim: TypeAlias = Callable[[], tuple[str, str]]


@dataclass(slots=True, eq=False)
class Publishing:
    """One message on its way. mandatory: an exchange that knows no queue for it is an error.

    aim: asked for exchange and key when it is sent, where they change with time. returned: whether no queue wanted it.
    """

    exchange: str
    key: str
    mandatory: bool
    properties: bytes
    body: bytes
    aim: Aim | None = None
    returned: bool = False


class Batch:
    """Publishes that are waited for together. left: how many have no answer yet; refused: how many were refused."""

    __slots__ = ("left", "messages", "refused")

    def __init__(self, messages: Sequence[Publishing]) -> None:
        self.messages = messages
        self.left = len(messages)
        self.refused = 0


class Outlet(Side):
    """The channel on which a connection publishes."""

    def __init__(self, connection: Line) -> None:
        self._sending = threading.Lock()
        self._number = 0
        #: The highest number that may have been sent; it is known before the broker can answer.
        self._highest = 0
        #: Up to here all is answered.
        self._answered_to = 0
        #: Publishes without an answer, by number.
        self._waiting: dict[int, tuple[Batch, Publishing]] = {}
        super().__init__(connection)
        self.confirm_select()

    def store(self, messages: Sequence[Publishing], until: float) -> list[Publishing]:
        """Publish messages and wait, until an instant, for the broker to have all of them.

        Returns those that no queue wanted. Raises Full for those that their queue refused, Unreachable when
        not all was answered in time, and what the broker closed the channel for. Some may be stored then.
        """
        link, batch = self.link, Batch(messages)
        self._send(link, batch, until)
        if not link.wait_for(lambda: not batch.left or self.fault is not None, until):
            raise Unreachable(f"{link.peer} did not confirm in time{link.trouble}", sent=True)
        if batch.left:
            self.raise_fault()
        if batch.refused:
            raise Full(f"{batch.refused} of {len(messages)} messages were refused: their queue is full")
        return [message for message in messages if message.returned]

    def _send(self, link: Line, batch: Batch, until: float) -> None:
        unsent = len(batch.messages)
        for part in _parts(batch.messages, self.channel_id, link.frame_max):
            first = unsent == len(batch.messages)
            try:
                with self._sending:
                    self._send_part(link, batch, part, until)
            except Unreachable as error:
                error.sent = error.sent or not first
                raise
            unsent -= len(part.messages)
            if part.timed:
                self._wait_until_few(link, batch, unsent, until)
            elif not first:
                link.look()

    def _send_part(self, link: Line, batch: Batch, part: Part, until: float) -> None:
        numbers = range(self._number + 1, self._number + 1 + len(part.messages))
        for number, message in zip(numbers, part.messages, strict=True):
            self._waiting[number] = batch, message
        self._highest = numbers[-1]
        try:
            link.write(part.frames, until, self)
        except EngineError:
            for number in numbers:  # the broker did not count them
                del self._waiting[number]
            raise
        self._number = numbers[-1]

    def _wait_until_few(self, link: Line, batch: Batch, unsent: int, until: float) -> None:
        """Let most of what was sent of batch be stored, before more of it is reckoned."""
        link.wait_for(lambda: batch.left - unsent <= DELAYED // 2 or self.fault is not None, until)

    def take(self, method: Method) -> None:
        if method.name == spec.Basic.Ack:
            self._answered(method, refused=False)
        elif method.name == spec.Basic.Nack:
            self._answered(method, refused=True)
        else:
            super().take(method)

    def _answered(self, method: Method, *, refused: bool) -> None:
        number, multiple = _CONFIRM.unpack_from(method.payload, 4)
        if number > self._highest:
            raise BrokenStream(f"publish {number} is confirmed, and {self._highest} were sent")
        begin = self._answered_to + 1 if multiple & 1 else number
        if begin == self._answered_to + 1:
            self._answered_to = number
        for each in range(begin, number + 1):
            found = self._waiting.pop(each, None)
            if found is not None:
                found[0].left -= 1
                found[0].refused += refused

    def _on_basic_return(
        self, reply_code: int, reply_text: str, exchange: str, routing_key: str, message: Method
    ) -> None:
        """A message that no queue wanted; it is confirmed too, but later. It comes back without its number."""
        for _, waiting in list(self._waiting.values()):
            if (
                not waiting.returned
                and (waiting.exchange, waiting.key, waiting.body) == (exchange, routing_key, message.body)
                and waiting.mandatory
            ):
                waiting.returned = True
                return


@dataclass(slots=True)
class Part:
    """Messages and the bytes that carry them. timed: whether some are delayed."""

    messages: list[Publishing]
    frames: bytes
    timed: bool


def _parts(messages: Sequence[Publishing], channel: int, limit: int) -> Iterator[Part]:
    """messages, in portions of about PIECE bytes, and of few where some are delayed."""
    taken: list[Publishing] = []
    frames: list[bytes] = []
    size, timed = 0, False
    for message in messages:
        if message.aim is not None:
            message.exchange, message.key = message.aim()
            timed = True
        frame = message_frames(
            channel, message.exchange, message.key, message.mandatory, message.properties, message.body, limit
        )
        taken.append(message)
        frames.append(frame)
        size += len(frame)
        if size >= PIECE or (timed and len(taken) >= DELAYED // 2):
            yield Part(taken, b"".join(frames), timed)
            taken, frames = [], []
            size, timed = 0, False
    if taken:
        yield Part(taken, b"".join(frames), timed)


def missing(exchange: str, key: str) -> EngineError:
    """The error for a message that no queue wanted."""
    if not exchange:
        return QueueMissing(f"there is no queue {key!r}; declare it before you publish to it")
    return QueueMissing(f"no queue is bound to exchange {exchange!r} for {key!r}")
