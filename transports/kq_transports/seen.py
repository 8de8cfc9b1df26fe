"""Messages that were looked at, as values. Imports no Kombu, so that who names them need not wait for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from kq_transports.engine import State

if TYPE_CHECKING:
    from kq_transports.envelope import Outgoing


class Browsed(msgspec.Struct, frozen=True):
    """A message that was looked at, its envelope opened.

    count: how many times it was delivered. due: when it becomes ready, in seconds since the epoch (delayed),
    else None. holder: the name of the connection that has it (held), else "". stamp: what tells it from a message of
    the same id with other headers, properties or body.
    """

    id: str
    queue: str
    body: bytes
    headers: dict[str, Any]
    properties: dict[str, Any]
    content_type: str
    content_encoding: str
    priority: int
    state: State
    count: int
    due: float | None
    holder: str
    stamp: bytes


class Swap(msgspec.Struct, frozen=True):
    """A message that was looked at, and what is to take its place if it is still the same.

    messages: each with the queue that it goes to, as Channel.prepare_message() made it; none, and it is removed.
    keeps_due: they become ready when it would have, whatever their own x-delay says.
    """

    seen: Browsed
    messages: Sequence[tuple[str, Outgoing]] = ()
    keeps_due: bool = False
