"""Publishes and ends of deliveries that are gathered first and then carried out together."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from kq_transports.envelope import Outgoing

if TYPE_CHECKING:
    from kq_transports.amqp.channel import Channel


class End(Enum):
    """How one delivery ends."""

    DONE = "done"
    GIVE_BACK = "give back"  # ready again, at its old place
    DROP = "drop"  # into the queue's dead letters, if it has any


@dataclass(slots=True, eq=False)
class Letter:
    """A message and where it is to go. mandatory: a named exchange that knows no queue for it is an error."""

    message: Outgoing
    exchange: str
    key: str
    mandatory: bool


@dataclass(slots=True)
class Transaction:
    """What a channel gathers between two commits. ends: by delivery tag. begun: see Gathering."""

    letters: list[Letter] = field(default_factory=list)
    ends: dict[int, End] = field(default_factory=dict)
    begun: float | None = None


class PublishBatch:
    """What Kombu's Producer.batch() gathers: stored together, max_size messages at a time."""

    def __init__(self, channel: Channel, max_size: int) -> None:
        self.channel = channel
        self._max_size = max_size
        self._letters: list[Letter] = []

    def publish(
        self, message: Outgoing, exchange: str = "", routing_key: str = "", mandatory: bool = False, **_: Any
    ) -> None:
        self._letters.append(Letter(message, exchange, routing_key or "", mandatory))
        if len(self._letters) >= self._max_size:
            self.flush()

    def flush(self) -> None:
        """Store what was gathered; after a failure some of it may be stored, and may be stored again."""
        if self._letters:
            self.channel.store(self._letters, self.channel.link.options.max_message_size)
        self._letters.clear()

    def discard(self) -> None:
        self._letters.clear()

    close = discard
