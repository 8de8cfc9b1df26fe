"""What goes to the broker and what comes from it, as kq has it and as Kombu does."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any, Protocol

import msgspec

from kq.values.message import CONTENT_TYPE, Envelope
from kq_transports import engine


class Delivery(msgspec.Struct):
    """One handing-over of a message to this worker.

    tag: names it on its queue's channel. id: the message_id that its publisher gave it, or "".
    """

    tag: int
    queue: str
    id: str
    headers: Mapping[str, Any]
    body: bytes
    priority: int
    redelivered: bool
    content_type: str

    @property
    def place(self) -> tuple[str, int]:
        """What tells it from all other deliveries to this worker."""
        return self.queue, self.tag


class Settlement(msgspec.Struct, frozen=True):
    """How one delivery ends: taken off its queue after its follow-ups are stored, or given back."""

    delivery: Delivery
    publish: tuple[Envelope, ...] = ()
    give_back: bool = False


class Seen(Protocol):
    """A message that was looked at, with its headers decoded. stamp: what tells it from one that was changed."""

    id: str
    queue: str
    body: bytes
    headers: Mapping[str, Any]
    priority: int
    state: engine.State
    count: int
    due: float | None
    holder: str
    stamp: bytes


class Swap(msgspec.Struct, frozen=True):
    """A message that was looked at, and what is to take its place; nothing removes it.

    keeps_due: what takes its place becomes ready when it would have.
    """

    seen: Seen
    publish: tuple[Envelope, ...] = ()
    keeps_due: bool = False


def put(channel: Any, envelope: Envelope) -> None:
    """Add envelope to channel's transaction."""
    channel.basic_publish(prepared(channel, envelope), exchange="", routing_key=envelope.queue, mandatory=True)


def prepared(channel: Any, envelope: Envelope) -> Any:
    """envelope as Kombu publishes it."""
    headers = envelope.headers
    if envelope.delay > 0:
        wait = max(1, ceil(round(envelope.delay * 1000, 6)))  # never early (promise C6)
        headers = {**headers, "x-delay": wait}
    properties = {"message_id": envelope.id, "delivery_mode": 2}
    return channel.prepare_message(envelope.body, envelope.priority, CONTENT_TYPE, "utf-8", headers, properties)


def say(channel: Any, settlement: Settlement) -> None:
    """Add settlement to channel's transaction."""
    for envelope in settlement.publish:
        put(channel, envelope)
    if settlement.give_back:
        channel.basic_reject(settlement.delivery.tag, requeue=True)
    else:
        channel.basic_ack(settlement.delivery.tag)
