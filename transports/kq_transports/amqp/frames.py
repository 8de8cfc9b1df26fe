"""Frames: what travels on an AMQP connection, cut out of the stream and put together.

A frame is a kind, a channel's number, a size, so many bytes, and 0xCE. A message is a method frame, a header
frame and any number of body frames, which other channels' frames may come between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct

from amqp import spec

from kq_transports.amqp.values import packed_short

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
END = 0xCE
#: Bytes of a frame around its payload.
AROUND = 8

BEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"

_FRAME = Struct(">BHI")
_METHOD = Struct(">HH")
_CONTENT = Struct(">HHQ")
_SIZE = Struct(">Q")
_SETTLE = Struct(">BHIHHQBB")

_KINDS = frozenset((METHOD, HEADER, BODY, HEARTBEAT))

#: Methods that are followed by a message.
_WITH_CONTENT = frozenset((spec.Basic.Deliver, spec.Basic.GetOk, spec.Basic.Return))


#: Bytes of the largest frame that is agreed upon, and of the largest before anything is (RabbitMQ's own default).
LARGEST_FRAME, FIRST_FRAMES = 1 << 20, 131072
#: Bytes of the smallest frame that AMQP lets a peer ask for.
SMALLEST_FRAME = 4096
#: Bytes of all messages that have begun to arrive on a connection: the most that RabbitMQ takes as one message.
LARGEST_CONTENT = 512 << 20


class BrokenStream(Exception):
    """What came is no AMQP; nothing that follows can be trusted."""


@dataclass(slots=True)
class Method:
    """One whole method as it arrived. arguments: from the fifth byte of its payload on.

    header: the payload of the header frame, whose properties begin at the twelfth byte.
    """

    channel: int
    name: tuple[int, int]
    payload: bytes
    header: bytes = b""
    body: bytes = b""


class Incoming:
    """Cuts what is fed to it into methods and tells take of each, in order.

    limit: bytes that a frame may have at most, as agreed with the peer.
    """

    def __init__(self, take: Callable[[Method], object], limit: int = FIRST_FRAMES) -> None:
        self._take = take
        self.limit = limit
        self._content = 0  # bytes of bodies that are not complete
        self._rest = b""
        self._waiting: dict[int, tuple[Method, int, list[bytes]]] = {}

    def feed(self, data: bytes) -> None:
        """Take in what was read. Raises BrokenStream, and what take raises."""
        buffer = self._rest + data if self._rest else data
        position, length = 0, len(buffer)
        try:
            while length - position >= AROUND:
                kind, channel, size = _FRAME.unpack_from(buffer, position)
                if kind not in _KINDS:  # a server of another kind: what looks like a size says nothing
                    raise BrokenStream(f"a frame is of kind {kind}")
                if size > self.limit - AROUND:
                    raise BrokenStream(f"a frame says that it has {size:,} bytes; at most {self.limit:,} were agreed")
                end = position + 7 + size
                if end >= length:
                    break
                if buffer[end] != END:
                    raise BrokenStream(f"a frame ends with {buffer[end]:#04x}")
                payload = buffer[position + 7 : end]
                position = end + 1
                self._frame(kind, channel, payload)
        finally:
            self._rest = buffer[position:]

    def _frame(self, kind: int, channel: int, payload: bytes) -> None:
        if kind == METHOD:
            name = _METHOD.unpack_from(payload)
            method = Method(channel, name, payload)
            if channel in self._waiting:
                raise BrokenStream(f"a method came before the end of a message on channel {channel}")
            if name in _WITH_CONTENT:
                self._waiting[channel] = method, 0, []
            else:
                self._take(method)
        elif kind == BODY:
            method, left, chunks = self._begun(channel)
            if not payload:
                raise BrokenStream(f"a frame of a message's body is empty on channel {channel}")
            chunks.append(payload)
            self._content += len(payload)
            if self._content > LARGEST_CONTENT:
                raise BrokenStream(f"messages of more than {LARGEST_CONTENT:,} bytes arrive")
            self._go_on(channel, method, left - len(payload), chunks)
        elif kind == HEADER:
            method, _, chunks = self._begun(channel)
            method.header = payload
            self._go_on(channel, method, _SIZE.unpack_from(payload, 4)[0], chunks)

    def _begun(self, channel: int) -> tuple[Method, int, list[bytes]]:
        try:
            return self._waiting[channel]
        except KeyError:
            raise BrokenStream(f"a message's content came without its method on channel {channel}") from None

    def _go_on(self, channel: int, method: Method, left: int, chunks: list[bytes]) -> None:
        if left > 0:
            self._waiting[channel] = method, left, chunks
            return
        if left:
            raise BrokenStream(f"a message on channel {channel} has more bytes than its header says")
        del self._waiting[channel]
        method.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._content -= len(method.body)
        self._take(method)


def method_frame(channel: int, name: tuple[int, int], arguments: bytes) -> bytes:
    """A method without content."""
    return _FRAME.pack(METHOD, channel, 4 + len(arguments)) + _METHOD.pack(*name) + arguments + b"\xce"


@lru_cache(maxsize=1024)
def _publish_frame(channel: int, exchange: str, key: str, mandatory: bool) -> bytes:
    """Basic.Publish; the same queues come again and again."""
    arguments = b"\x00\x00" + packed_short(exchange) + packed_short(key) + (b"\x01" if mandatory else b"\x00")
    return method_frame(channel, spec.Basic.Publish, arguments)


def message_frames(
    channel: int, exchange: str, key: str, mandatory: bool, properties: bytes, body: bytes, limit: int
) -> bytes:
    """All frames of one publish. limit: the most bytes that a frame may have."""
    size = len(body)
    parts = [
        _publish_frame(channel, exchange, key, mandatory),
        _FRAME.pack(HEADER, channel, 12 + len(properties)),
        _CONTENT.pack(spec.Basic.CLASS_ID, 0, size),
        properties,
        b"\xce",
    ]
    if size <= limit - AROUND:
        if size:
            parts += (_FRAME.pack(BODY, channel, size), body, b"\xce")
    else:
        for begin in range(0, size, limit - AROUND):
            chunk = body[begin : begin + limit - AROUND]
            parts += (_FRAME.pack(BODY, channel, len(chunk)), chunk, b"\xce")
    return b"".join(parts)


def room_for_properties(limit: int) -> int:
    """Bytes that the properties of a message may have. limit: the most bytes that a frame may have."""
    return limit - AROUND - _CONTENT.size


def ack_frame(channel: int, tag: int, multiple: bool) -> bytes:
    """Basic.Ack: a delivery, or all up to it, is done."""
    return _SETTLE.pack(METHOD, channel, 13, *spec.Basic.Ack, tag, multiple, END)


def give_back_frame(channel: int, tag: int) -> bytes:
    """Basic.Reject with requeue."""
    return _SETTLE.pack(METHOD, channel, 13, *spec.Basic.Reject, tag, 1, END)


def drop_frame(channel: int, tag: int) -> bytes:
    """Basic.Reject without requeue: the queue's dead letters may have it."""
    return _SETTLE.pack(METHOD, channel, 13, *spec.Basic.Reject, tag, 0, END)
