"""Time, randomness and ids, injected so that tests and simulations own them.

The only module of kq that reads the computer's clock. Instants are seconds since the epoch
(UTC), spans are measured on the monotonic clock.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from typing import Protocol


class Clock(Protocol):
    """Where kq gets its time from."""

    def now(self) -> float:
        """The wall clock: seconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never steps."""


class SystemClock:
    """The computer's own clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


SYSTEM = SystemClock()
RANDOM = random.Random()


def made_at(id: str) -> float | None:
    """When an id was made by new_id(), to the millisecond; None for one of another make."""
    try:
        return int(id[:12], 16) / 1000 if len(id) == 28 else None
    except ValueError:
        return None


def new_id() -> str:
    """A fresh id of 28 hex digits: milliseconds since the epoch, then 64 random bits.

    Ids sort by the time they were made in, to the millisecond.
    """
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(8).hex()}"


def derived_id(parent: str, number: int) -> str:
    """The id of the number-th job that follows from another: the same however often that one runs.

    It sorts with its parent's, where new_id() made that.
    """
    digest = hashlib.blake2b(f"{parent}/{number}".encode("utf-8", "replace"), digest_size=14).hexdigest()
    return digest if made_at(parent) is None else parent[:12] + digest[12:]
