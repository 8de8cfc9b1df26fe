"""The state store: small facts that must outlive a process, by name.

Results, worker records, unique keys, start records, pauses. Not for jobs: those live in the
broker. Keys are short text with a family before the first colon (`job:…`, `worker:…`); values are
bytes that the store never looks inside. Time is the store's own, in seconds since the epoch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec

#: What a broker in the same place does with a publish, in one step: only that broker knows how to.
Rider: TypeAlias = Any


class StoreUnreachable(ConnectionError):
    """The store did not answer in time; the write may have been done."""


class Write(msgspec.Struct, frozen=True, array_like=True):
    """One conditional write, atomic by itself.

    value: None deletes the key.
    keep: seconds until the key vanishes by itself; None means never.
    alive: a key that must exist, or the write is refused (a worker's lease: promise C4).
    unless: (key, value): when key exists its value must be this, or the write is refused.
    must: (key, value): key must exist with this value, or must be absent when value is None;
        else the write is refused (compare and set).
    adds: value is a whole number, which is added to the one that is there; what else is there counts as 0.
    replaces: what stands under key is replaced only when it begins with this or is value already; else the write is
        refused. None: whatever stands there is replaced.
    durable: False for what a loss of power may undo, where that is told of all writes of a call: it saves the wait for
        a disk.
    """

    key: str
    value: bytes | None
    keep: float | None = None
    alive: str | None = None
    unless: tuple[str, bytes] | None = None
    must: tuple[str, bytes | None] | None = None
    durable: bool = True
    adds: bool = False
    replaces: bytes | None = None

    def is_refused(self, value_of: Callable[[str], bytes | None]) -> bool:
        """Whether one of its conditions does not hold. value_of: what stands under a key, None where nothing does."""
        if self.alive is not None and value_of(self.alive) is None:
            return True
        if self.unless is not None and value_of(self.unless[0]) not in (None, self.unless[1]):
            return True
        if self.replaces is not None:
            known = value_of(self.key)
            if known is not None and known != self.value and not known.startswith(self.replaces):
                return True
        return self.must is not None and value_of(self.must[0]) != self.must[1]


def summed(known: bytes | None, more: bytes) -> bytes:
    """What is known when more is added to it, as text. What is no number counts as 0."""
    number = int(known) if known is not None and known.isdigit() and len(known) < 16 else 0
    return str(number + int(more)).encode()


class Gathered(msgspec.Struct, frozen=True):
    """Facts of several families. now: the store's clock. found: for each prefix its keys and their values."""

    now: float
    found: tuple[dict[str, bytes], ...]


def there(keys: Sequence[str], values: Sequence[bytes | None]) -> dict[str, bytes]:
    """Those of keys that have a value, with it."""
    return {key: value for key, value in zip(keys, values, strict=True) if value is not None}


class Store(ABC):
    """A store of small facts, shared by producers, workers and control.

    May be used by several threads. Every verb may raise StoreUnreachable within `timeout` seconds.
    """

    timeout: float = 5.0

    @abstractmethod
    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values of keys, None for each that does not exist. One round trip."""

    @abstractmethod
    def write(self, writes: Sequence[Write]) -> list[bool]:
        """Carry out writes in order, in one transaction and one round trip.

        True for each that was made, False for each that was refused; a refused one does not stop
        the others, and a later write sees the earlier ones. Wakes who waits for the keys.
        """

    def rider(self, writes: Sequence[Write]) -> Rider | None:
        """What carries writes out, all of them or none, in the step of a publish at a broker in the same place.

        writes: of different keys. None where there can be no such step. Its publish raises Declined when one of them is
        refused, and may be repeated.
        """
        return None

    def add(self, key: str, value: bytes, keep: float | None = None) -> bool:
        """Set key unless it exists; False when it does."""
        return self.write([Write(key, value, keep, must=(key, None))])[0]

    @abstractmethod
    def scan(self, prefix: str, limit: int = 1000) -> list[tuple[str, bytes]]:
        """Keys that start with prefix and their values, in order of key."""

    def gather(self, prefixes: Sequence[str], limit: int = 1000) -> Gathered:
        """What starts with each of prefixes, in one round trip and as of one moment where the store can.

        limit: of each prefix, no more than so many are found; which, is not said. Each prefix has its family's colon.
        """
        found = tuple(dict(self.scan(prefix, limit)) for prefix in prefixes)
        return Gathered(self.now(), found)

    def wait(self, key: str, timeout: float) -> bytes | None:
        """The value of key as soon as it exists; None after timeout seconds. Never polls."""
        return self.wait_any([key], timeout).get(key)

    @abstractmethod
    def wait_any(self, keys: Sequence[str], timeout: float) -> dict[str, bytes]:
        """The values of those of keys that exist, as soon as one does; nothing after timeout seconds. Never polls."""

    @abstractmethod
    def now(self) -> float:
        """The store's clock: seconds since the epoch."""

    @abstractmethod
    def close(self) -> None:
        """Let go of connections and files. May be repeated; never raises."""
