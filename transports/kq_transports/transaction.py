"""Publishes and acks that are gathered first and then carried out together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from kq_transports.connection import Connection
from kq_transports.engine import Message, Rider, Stale, Verdict

if TYPE_CHECKING:
    from kq_transports.channel import Channel
    from kq_transports.envelope import Outgoing


class Transaction(msgspec.Struct):
    """What a channel gathers between two commits. ends: delivery tags by the receipts that are to be settled.

    rider: of a transaction that only publishes.
    """

    messages: list[Message] = msgspec.field(default_factory=list)
    verdicts: list[Verdict] = msgspec.field(default_factory=list)
    ends: dict[str, int] = msgspec.field(default_factory=dict)
    rider: Rider | None = None

    def end(self, tag: int, verdict: Verdict) -> None:
        """Add the end of one delivery."""
        self.verdicts.append(verdict)
        self.ends[verdict.receipt] = tag

    def commit(self, link: Connection) -> list[int]:
        """Carry all of it out, in one step of the engine; returns the tags that were no longer ours.

        Raises Stale when there are such tags and messages too: then nothing was done.
        """
        if not self.verdicts:
            if self.messages:
                link.ask(link.engine.publish, self.messages, self.rider)
            return []
        stale = [self.ends[receipt] for receipt in link.ask(link.engine.settle, self.verdicts, self.messages)]
        if stale and self.messages:
            raise Stale(stale)
        return stale


class PublishBatch:
    """What Kombu's Producer.batch() gathers: stored together, max_size messages at a time."""

    def __init__(self, channel: Channel, max_size: int) -> None:
        self.channel = channel
        self._max_size = max_size
        self._messages: list[Message] = []

    def publish(
        self, message: Outgoing, exchange: str = "", routing_key: str = "", mandatory: bool = False, **_: Any
    ) -> None:
        self._messages += self.channel.routed(message, exchange, routing_key, mandatory)
        if len(self._messages) >= self._max_size:
            self.flush()

    def flush(self) -> None:
        """Store what was gathered, all or nothing; may be repeated after a failure."""
        self.channel.store(self._messages)
        self._messages.clear()

    def discard(self) -> None:
        self._messages.clear()

    close = discard
