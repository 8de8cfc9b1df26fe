"""How a Kombu message is stored in an engine's opaque body, and what a consumer gets of it.

One line of JSON and the body as it is, so that any language can read and write it:

    {"h": headers, "p": properties, "t": content type, "e": content encoding, "x": exchange, "k": routing key}
    …body…

A field that is empty is left out; so are the exchange and the key of what went straight to its queue. Id, priority
and delay are the engine's own fields. What most messages have alike is not written, which halves what one takes at
rest: a line that begins with + is its headers alone. Such a message is of JSON in UTF-8 and persistent, went straight
to its queue, and its id is its message_id, and its header id, which is left out too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec
from kombu.compression import decompress
from kombu.transport import base

from kq_transports import engine

#: Milliseconds to wait before a message becomes ready; the header does not travel further.
DELAY_HEADER = "x-delay"
#: How many times a message was delivered before; absent at the first delivery.
COUNT_HEADER = "x-delivery-count"

#: What a line begins with that is headers alone, and what that stands for.
ALONE = b"+"
USUAL = ("application/json", "utf-8")
PERSISTENT = 2

#: Headers that are nested deeper are not taken for headers: Python could not write again what it just could read.
DEEPEST = 64

AnyMessage = TypeVar("AnyMessage", bound=base.Message)


class Head(msgspec.Struct, omit_defaults=True, gc=False):
    """The line before the body."""

    h: dict[str, Any] = {}
    p: dict[str, Any] = {}
    t: str | None = None
    e: str | None = None
    x: str = ""
    k: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Head).decode
_decode_alone = msgspec.json.Decoder(dict[str, Any]).decode


class Outgoing(msgspec.Struct, eq=False):
    """What Kombu's Producer prepared and will publish; encoded when its exchange and key are known."""

    body: bytes | str
    priority: int | None
    content_type: str | None
    content_encoding: str | None
    headers: dict[str, Any]
    properties: dict[str, Any]

    def stored(self, exchange: str, key: str, queues: list[str]) -> list[engine.Message]:
        """One engine message, under one id, for each of queues."""
        headers, properties = self.headers, self.properties
        delay = 0.0
        if DELAY_HEADER in headers:
            headers = dict(headers)
            delay = max(0, int(headers.pop(DELAY_HEADER))) / 1000
        id = str(properties.get("message_id") or engine.given_id())
        if not exchange and self._is_usual(id):
            headers = dict(headers)
            del headers["id"]
            line = ALONE + _encode(headers)
        else:
            head = Head(headers, properties, self.content_type, self.content_encoding)
            if exchange:
                head.x, head.k = exchange, key
            line = _encode(head)
        body = self.body.encode() if isinstance(self.body, str) else self.body
        stored = b"%b\n%b" % (line, body)
        priority = properties.get("priority", self.priority) or 0
        if not 0 <= priority <= 9:
            priority = 9 if priority > 9 else 0
        if len(queues) == 1:
            return [engine.Message(id, queues[0], stored, priority, delay)]
        return [engine.Message(id, queue, stored, priority, delay) for queue in queues]

    def _is_usual(self, id: str) -> bool:
        """Whether its headers alone say all, under that id."""
        kind = self.content_type, self.content_encoding
        return self.headers.get("id") == id and self.properties == _usual(id) and kind == USUAL


def _usual(id: str) -> dict[str, Any]:
    return {"message_id": id, "delivery_mode": PERSISTENT}


def opened(id: str, stored: bytes) -> tuple[Head, bytes]:
    """Head and body of what is stored under id. What no client of ours wrote is a body without a head."""
    cut = max(stored.find(b"\n"), 0)
    line = stored[:cut]
    alone = line[:1] == ALONE
    try:
        head = Head(_decode_alone(line[1:]), _usual(id), *USUAL) if alone else _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Head(), stored
    # The usual head is so short, or has so few brackets, that nobody need look how deep they stand.
    if cut > DEEPEST and line.count(b"{") + line.count(b"[") > DEEPEST and is_deep([head.h, head.p]):
        return Head(), stored
    if alone:
        head.h["id"] = id
    return head, stored[cut + 1 :]


def is_deep(values: Iterable[Any]) -> bool:
    """Whether lists and dicts stand more than DEEPEST levels deep in one of values. Does not recurse."""
    level = [value for value in values if isinstance(value, dict | list)]
    for _ in range(DEEPEST):
        inner = [each for value in level for each in (value.values() if isinstance(value, dict) else value)]
        level = [value for value in inner if isinstance(value, dict | list)]
    return bool(level)


class Message(base.Message):
    """A delivered message, as Kombu's consumers expect it."""

    __slots__ = ()

    #: Kombu makes a list for each message; most never need one.
    errors: Any = ()

    def __init__(self, channel: Any, tag: int, consumer_tag: str, delivery: engine.Delivery) -> None:
        head, body = opened(delivery.id, delivery.body)
        self.channel = channel
        self.delivery_tag = tag
        self.body = body
        self.content_type = head.t
        self.content_encoding = head.e
        self.headers = head.h
        self.properties = head.p
        self.accept = None
        self._decoded_cache = None
        self._state = "RECEIVED"
        head.p["priority"] = delivery.priority
        if delivery.count:
            head.h[COUNT_HEADER] = delivery.count
        self.delivery_info = {
            "consumer_tag": consumer_tag,
            "exchange": head.x,
            "routing_key": head.k if head.x else delivery.queue,
            "priority": delivery.priority,
            "queue": delivery.queue,
            "redelivered": delivery.count > 0,
        }


def decompressed(message: AnyMessage) -> AnyMessage:
    """message with its body as it was before its publisher compressed it.

    For Kombu's Consumer, which asks for it. Who reads a body as it came need not trust what it would grow to.
    """
    how = message.headers.get("compression")
    if how is not None:
        try:
            message.body = decompress(message.body, how)
        except Exception:  # the codec's own errors; the consumer's on_decode_error gets them
            message.errors = [sys.exc_info()]
    return message
