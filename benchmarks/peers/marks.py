"""Instants that jobs leave for who measures them. Needs only the standard library: each peer's worker loads it."""

from __future__ import annotations

import functools
import os
import struct
import time

_MARK = struct.Struct("<dd")


def mark(began: float) -> None:
    """Tell when the job that was submitted at began has started."""
    os.write(_file(), _MARK.pack(began, time.time()))


@functools.cache
def _file() -> int:
    return os.open(os.environ["PEER_MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def read() -> list[tuple[float, float]]:
    """All marks so far: when each was submitted, and when it started."""
    with open(os.environ["PEER_MARKS"], "rb") as file:
        return list(_MARK.iter_unpack(file.read()))
