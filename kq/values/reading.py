"""Reading what stands in the state store: whoever reaches it may have written there, and nobody may fall over that.

What can't be read counts as not there, and is told once. The ledger alone is stricter: an effect of which it can't read
whether it happened is not begun.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import msgspec

from kq.values.redaction import one_line

T = TypeVar("T")

log = logging.getLogger("kq.state")

#: What counts and instants stay below.
LARGEST = 2.0**53

#: Tells each thing once, and the oldest again when there have been so many others.
_tell_once = lru_cache(maxsize=256)(log.warning)


def reader(kind: type[T]) -> Callable[[bytes | None], T | None]:
    """What makes a kind of its JSON; None where there is none, or what is there is none."""
    decode = msgspec.json.Decoder(kind).decode

    def read(value: bytes | None) -> T | None:
        if value is None:
            return None
        try:
            found: T = decode(value)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            what = getattr(kind, "__name__", "value").lower()
            _tell_once("a %s in the state store can't be read and is left out: %s", what, one_line(error))
            return None
        return found

    return read


def number(value: bytes | None) -> float:
    """value as a number from 0 on; 0.0 where there is none, or what is there is none."""
    try:
        found = float(value or 0)
    except ValueError:
        return 0.0
    return found if 0.0 <= found < LARGEST else 0.0


def text(value: bytes) -> str:
    """value as text, whatever is in it."""
    return value.decode(errors="backslashreplace")
