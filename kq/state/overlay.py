"""A state store to write to in vain: what is written stays here, and hides what the store below has."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from kq.clock import SYSTEM
from kq.state.store import Store, Write, summed, there


class Overlay(Store):
    """What below has, and what was written here. Never writes to below."""

    def __init__(self, below: Store) -> None:
        self.timeout = below.timeout
        self._below = below
        self._written: dict[str, tuple[bytes | None, float | None]] = {}  # the value, and when it ends, monotonic
        self._changed = threading.Condition()

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        with self._changed:
            others = [key for key in keys if key not in self._written]
            found = dict(zip(others, self._below.get(others), strict=True)) if others else {}
            return [found[key] if key in found else self._mine(key) for key in keys]

    def write(self, writes: Sequence[Write]) -> list[bool]:
        with self._changed:
            made = [self._make(write) for write in writes]
            self._changed.notify_all()
            return made

    def scan(self, prefix: str, limit: int = 1000) -> list[tuple[str, bytes]]:
        with self._changed:
            found = dict(self._below.scan(prefix, limit + len(self._written)))
            for key in self._written:
                value = self._mine(key)
                if value is None:
                    found.pop(key, None)
                elif key.startswith(prefix):
                    found[key] = value
            return sorted(found.items())[:limit]

    def wait_any(self, keys: Sequence[str], timeout: float) -> dict[str, bytes]:
        """See Store.wait_any(). Where one was never written here, only what comes below is waited for."""
        with self._changed:
            if found := there(keys, self.get(keys)):
                return found
            others = [key for key in keys if key not in self._written]
            if not others:
                self._changed.wait_for(lambda: any(self._mine(key) is not None for key in keys), timeout)
                return there(keys, self.get(keys))
        return self._below.wait_any(others, timeout)

    def now(self) -> float:
        return self._below.now()

    def close(self) -> None:
        self._below.close()

    def _mine(self, key: str) -> bytes | None:
        value, ends = self._written[key]
        return value if ends is None or SYSTEM.monotonic() < ends else None

    def _make(self, write: Write) -> bool:
        if write.is_refused(lambda key: self.get([key])[0]):
            return False
        ends = None if write.keep is None else SYSTEM.monotonic() + write.keep
        value = write.value
        if write.adds and value is not None:
            value = summed(self.get([write.key])[0], value)
        self._written[write.key] = value, ends
        return True
