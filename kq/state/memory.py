"""The state store within one process: for tests, and for the memory broker.

Stores of one name share their facts for as long as the process lives. What expires does so by the
injected clock, which a test may move by hand; wait() sleeps in real time.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kq.clock import SYSTEM, Clock
from kq.state.store import Store, Write, summed, there


@dataclass(slots=True)
class _Fact:
    """ends: when it vanishes by the monotonic clock, or None."""

    value: bytes
    ends: float | None


@dataclass(slots=True)
class _Shared:
    """What all stores of one name have in common; changed is its lock as well."""

    clock: Clock = SYSTEM
    facts: dict[str, _Fact] = field(default_factory=dict)
    endings: list[tuple[float, str]] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)


_named: dict[str, _Shared] = {}


class MemoryStore(Store):
    """Facts in a dictionary.

    clock: from now on the clock of every store of that name; None leaves it as it is.
    """

    def __init__(self, name: str = "", *, timeout: float = 5.0, clock: Clock | None = None) -> None:
        self.timeout = timeout
        self._shared = _named.setdefault(name, _Shared())
        if clock is not None:
            self._shared.clock = clock

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        with self._shared.changed:
            return [self._value(key) for key in keys]

    def write(self, writes: Sequence[Write]) -> list[bool]:
        with self._shared.changed:
            self._forget_ended()
            made = [self._apply(write) for write in writes]
            self._shared.changed.notify_all()
            return made

    def rider(self, writes: Sequence[Write]) -> Callable[[], bool]:
        return lambda: self._all_or_none(writes)

    def scan(self, prefix: str, limit: int = 1000) -> list[tuple[str, bytes]]:
        with self._shared.changed:
            self._forget_ended()
            keys = sorted(key for key in self._shared.facts if key.startswith(prefix))
            return [(key, self._shared.facts[key].value) for key in keys[:limit]]

    def wait_any(self, keys: Sequence[str], timeout: float) -> dict[str, bytes]:
        with self._shared.changed:
            self._shared.changed.wait_for(lambda: any(self._value(key) is not None for key in keys), timeout)
            return there(keys, [self._value(key) for key in keys])

    def now(self) -> float:
        return self._shared.clock.now()

    def close(self) -> None:
        """Nothing to let go of: the facts stay for the other stores of this name."""

    def _all_or_none(self, writes: Sequence[Write]) -> bool:
        """Carry out writes; False when one of them is refused, and then none is made."""
        with self._shared.changed:
            self._forget_ended()
            agrees = not any(map(self._refuses, writes))
            if agrees:
                for write in writes:
                    self._make(write)
                self._shared.changed.notify_all()
            return agrees

    def _value(self, key: str) -> bytes | None:
        fact = self._shared.facts.get(key)
        if fact is None or self._ended(fact):
            return None
        return fact.value

    def _ended(self, fact: _Fact) -> bool:
        return fact.ends is not None and fact.ends <= self._shared.clock.monotonic()

    def _apply(self, write: Write) -> bool:
        if self._refuses(write):
            return False
        self._make(write)
        return True

    def _make(self, write: Write) -> None:
        if write.value is None:
            self._shared.facts.pop(write.key, None)
            return
        ends = None if write.keep is None else self._shared.clock.monotonic() + write.keep
        value = summed(self._value(write.key), write.value) if write.adds else write.value
        self._shared.facts[write.key] = _Fact(value, ends)
        if ends is not None:
            heapq.heappush(self._shared.endings, (ends, write.key))

    def _refuses(self, write: Write) -> bool:
        if write.alive is not None and self._value(write.alive) is None:
            return True
        if write.unless is not None and self._value(write.unless[0]) not in (None, write.unless[1]):
            return True
        return write.must is not None and self._value(write.must[0]) != write.must[1]

    def _forget_ended(self) -> None:
        """Drop what has ended, so that memory is bounded by what lives."""
        now = self._shared.clock.monotonic()
        while self._shared.endings and self._shared.endings[0][0] <= now:
            _, key = heapq.heappop(self._shared.endings)
            fact = self._shared.facts.get(key)
            if fact is not None and self._ended(fact):
                del self._shared.facts[key]
