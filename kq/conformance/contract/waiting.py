"""Waiting in tests: for an event, with a deadline, instead of for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE = 20.0  # seconds until a test gives up
LOOK = 0.01  # seconds between two looks


def eventually(look: Callable[[], T], what: str, within: float = DEADLINE, *, more: Callable[[], str] = str) -> T:
    """What look() returns as soon as that is true; fails with what it last saw when it is not true in time.

    more: what else is to be told then.
    """
    until = time.monotonic() + within
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() >= until:
            raise AssertionError(f"{what}: not within {within:g} s; last seen: {seen!r}{more()}")
        time.sleep(LOOK)
