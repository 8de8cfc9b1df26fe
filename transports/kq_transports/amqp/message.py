"""A message as it is published, as it arrives, and as Kombu's consumers expect it."""

from __future__ import annotations

import struct
import time
from collections.abc import Container
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import msgspec
from kombu.transport import base

from kq_transports.amqp.frames import BrokenStream, Method
from kq_transports.amqp.values import packed_properties, unpacked_properties
from kq_transports.envelope import COUNT_HEADER, DEEPEST, DELAY_HEADER, Outgoing, is_deep

if TYPE_CHECKING:
    from kq_transports.amqp.channel import Channel

#: Exchanges and queues of this transport; what comes through them was delayed.
OURS = "kq.delay."
#: When a delayed message becomes ready: milliseconds since the epoch, for people who look at it.
DUE_HEADER = "x-due"
#: What dead-lettering leaves in the headers of a message that was delayed.
_TRACES = {"x-death", DUE_HEADER, COUNT_HEADER} | {
    f"x-{which}-death-{what}" for which in ("first", "last") for what in ("exchange", "queue", "reason")
}
#: Characters of a header that is not cut any further.
CUT = 1000
_TAG = struct.Struct(">QB")
#: Where the properties begin in a header frame.
_PROPERTIES = 12


def delay_of(message: Outgoing) -> int:
    """Milliseconds for which message is to wait."""
    return max(0, int(message.headers.get(DELAY_HEADER) or 0))


def priority_of(message: Outgoing) -> int:
    """Its priority, 0 to 9."""
    return min(9, max(0, message.properties.get("priority", message.priority) or 0))


def packed(message: Outgoing, due: int | None) -> tuple[bytes, bytes]:
    """Properties and body of message, as they are sent. due: milliseconds since the epoch, if it is delayed.

    It is persistent unless it says otherwise and always has a priority: RabbitMQ's own default differs among queues.
    """
    headers, body = message.headers, message.body
    if DELAY_HEADER in headers:
        headers = {key: value for key, value in headers.items() if key != DELAY_HEADER}
        if due is not None:
            headers[DUE_HEADER] = due
    properties = {
        "delivery_mode": 2,
        "timestamp": ceil(time.time()),  # never before now; by it survey() knows how long it waits
        **message.properties,
        "content_type": message.content_type,
        "content_encoding": message.content_encoding,
        "application_headers": headers,
        "priority": priority_of(message),
    }
    return packed_properties(properties), body.encode() if isinstance(body, str) else bytes(body)


def packed_to_fit(message: Outgoing, due: int | None, room: int) -> tuple[bytes, bytes]:
    """The same, of so many bytes of properties at most: the largest headers are cut to half, or left out if no text."""
    headers = dict(message.headers)
    while True:
        properties, body = packed(msgspec.structs.replace(message, headers=headers), due)
        if len(properties) <= room or not headers:
            return properties, body
        name = max(headers, key=lambda each: len(packed_properties({"application_headers": {each: headers[each]}})))
        text = headers[name]
        if isinstance(text, str) and len(text) > CUT:
            headers[name] = f"{text[: len(text) // 2]}…"
        else:
            del headers[name]


def properties_of(arrived: Arrival, without: Container[str] = ()) -> dict[str, Any]:
    """The properties of a delivery as they came, headers among them as application_headers. without: those headers.

    None at all when they make no sense, and no headers when those are nested too deep: whoever published them, nobody
    who consumes may fall over them.
    """
    header = arrived.header
    try:
        properties = unpacked_properties(header, _PROPERTIES, without)
    except (ValueError, ArithmeticError, LookupError, RecursionError, OSError, struct.error):
        return {}
    if header.count(b"F") + header.count(b"A") > DEEPEST and is_deep([properties.get("application_headers")]):
        del properties["application_headers"]
    return properties


@dataclass(slots=True, eq=False)
class Arrival:
    """A delivery as it came: nothing of its properties is read yet. queue: filled in by who knows it."""

    channel: Channel
    queue: str
    consumer: str
    tag: int
    redelivered: bool
    exchange: str
    key: str
    header: bytes
    body: bytes


def arrival(channel: Channel, method: Method) -> Arrival:
    """What a Basic.Deliver says."""
    payload = method.payload
    at = 5 + payload[4]
    consumer = payload[5:at].decode()
    tag, redelivered = _TAG.unpack_from(payload, at)
    end = at + 10 + payload[at + 9]
    # Text as a rule, but nothing makes a publisher keep to it.
    exchange = payload[at + 10 : end].decode(errors="replace")
    key = payload[end + 1 : end + 1 + payload[end]].decode(errors="replace")
    if end + 1 + payload[end] != len(payload):
        raise BrokenStream("a delivery's names are longer or shorter than its frame")
    return Arrival(channel, "", consumer, tag, bool(redelivered), exchange, key, method.header, method.body)


class Message(base.Message):
    """A delivered message."""

    __slots__ = ()

    #: Kombu makes a list for each message; most never need one.
    errors: Any = ()

    def __init__(self, arrived: Arrival) -> None:
        exchange, key = arrived.exchange, arrived.key
        waited = exchange.startswith(OURS)
        properties = properties_of(arrived, _TRACES if waited else ())
        if waited:
            exchange, key = "", arrived.queue
        self.channel = arrived.channel
        self.delivery_tag = arrived.tag
        self.body = arrived.body
        self.content_type = properties.pop("content_type", None)
        self.content_encoding = properties.pop("content_encoding", None)
        self.headers = properties.pop("application_headers", None) or {}
        if DUE_HEADER in self.headers:  # it was delayed on its way to an exchange
            self.headers = {name: value for name, value in self.headers.items() if name not in _TRACES}
        self.properties = properties
        self.accept = None
        self._decoded_cache = None
        self._state = "RECEIVED"
        if arrived.redelivered:
            # Classic queues keep no count, but say that it was delivered; quorum queues count.
            self.headers.setdefault(COUNT_HEADER, 1)
        self.delivery_info = {
            "consumer_tag": arrived.consumer,
            "exchange": exchange,
            "routing_key": key,
            "priority": properties.get("priority", 0),
            "queue": arrived.queue,
            "redelivered": arrived.redelivered,
        }
