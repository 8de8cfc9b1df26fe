"""Publishes and acks that are gathered first and then carried out together."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from kq_transports.connection import Connection, QueueMissing
from kq_transports.engine import Message, Rider, Stale, Verdict

if TYPE_CHECKING:
    from kq_transports.channel import Channel
    from kq_transports.envelope import Outgoing


class Transaction(msgspec.Struct):
    """What a channel gathers between two commits. ends: delivery tags by the receipts that are to be settled.

    through: which of the messages went through an exchange, from where to where in their order, and what asks the
    exchange again. rider: of a transaction that only publishes. begun: see Gathering.
    """

    messages: list[Message] = msgspec.field(default_factory=list)
    through: list[tuple[int, int, Callable[[], list[Message]]]] = msgspec.field(default_factory=list)
    verdicts: list[Verdict] = msgspec.field(default_factory=list)
    ends: dict[str, int] = msgspec.field(default_factory=dict)
    rider: Rider | None = None
    begun: float | None = None

    def end(self, tag: int, verdict: Verdict) -> None:
        """Add the end of one delivery."""
        self.verdicts.append(verdict)
        self.ends[verdict.receipt] = tag

    def publish(self, messages: list[Message], again: Callable[[], list[Message]] | None = None) -> None:
        """Add messages. again: asks once more what they are, of those that go through an exchange."""
        begin = len(self.messages)
        self.messages += messages
        if again is not None:
            self.through.append((begin, len(self.messages), again))

    def commit(self, link: Connection) -> list[int]:
        """Carry all of it out, in one step of the engine; returns the tags that were no longer ours.

        Raises Stale when there are such tags and messages too: then nothing was done.
        """
        try:
            return self._commit(link)
        except QueueMissing:
            # One that was bound has gone since it was asked who is, such as a listener's own: the others get it.
            if not self._goes_elsewhere():
                raise
            return self._commit(link)

    def _goes_elsewhere(self) -> bool:
        """Ask exchanges again; whether that made a difference."""
        before, at = self.messages, 0
        self.messages = []
        for begin, end, again in self.through:
            self.messages += before[at:begin] + again()
            at = end
        self.messages += before[at:]
        self.through = []
        return [each.queue for each in self.messages] != [each.queue for each in before]

    def _commit(self, link: Connection) -> list[int]:
        if not self.verdicts:
            if self.messages:
                link.ask(link.engine.publish, self._due(), self.rider)
            return []
        stale = [self.ends[receipt] for receipt in link.ask(link.engine.settle, self.verdicts, self._due())]
        if stale and self.messages:
            raise Stale(stale)
        return stale

    def _due(self) -> list[Message]:
        """The messages, with what is left of their delays."""
        if self.begun is None:
            return self.messages
        over = time.monotonic() - self.begun
        return [replace(each, delay=max(0.0, each.delay - over)) if each.delay else each for each in self.messages]


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
