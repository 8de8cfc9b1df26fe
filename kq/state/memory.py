"""The state store within one process: for tests, and for the memory broker.

Stores of one name share their facts for as long as the process lives. What expires does so by the
injected clock, which a test may move by hand; wait() sleeps in real time.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from kq.clock import SYSTEM, Clock
from kq.state.store import Store, Write, summed, there


class _Fact(msgspec.Struct, frozen=True, gc=False):
    """ends: when it vanishes by the monotonic clock, or None. It holds nothing that could be garbage to look for."""

    value: bytes
    ends: float | None

    def has_ended(self, now: float) -> bool:
        return self.ends is not None and self.ends <= now


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
            return self._values(keys)

    def write(self, writes: Sequence[Write]) -> list[bool]:
        with self._shared.changed:
            now = self._forget_ended()
            made = [self._apply(write, now) for write in writes]
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
            self._shared.changed.wait_for(lambda: any(value is not None for value in self._values(keys)), timeout)
            return there(keys, self._values(keys))

    def now(self) -> float:
        return self._shared.clock.now()

    def close(self) -> None:
        """Nothing to let go of: the facts stay for the other stores of this name."""

    def _all_or_none(self, writes: Sequence[Write]) -> bool:
        """Carry out writes; False when one of them is refused, and then none is made."""
        with self._shared.changed:
            now = self._forget_ended()
            agrees = not any(write.is_refused(lambda key: self._value(key, now)) for write in writes)
            if agrees:
                for write in writes:
                    self._make(write, now)
                self._shared.changed.notify_all()
            return agrees

    # All that follows is done under the lock. now: by the monotonic clock.

    def _values(self, keys: Sequence[str]) -> list[bytes | None]:
        now = self._shared.clock.monotonic()
        return [self._value(key, now) for key in keys]

    def _value(self, key: str, now: float) -> bytes | None:
        fact = self._shared.facts.get(key)
        return None if fact is None or fact.has_ended(now) else fact.value

    def _apply(self, write: Write, now: float) -> bool:
        if write.is_refused(lambda key: self._value(key, now)):
            return False
        self._make(write, now)
        return True

    def _make(self, write: Write, now: float) -> None:
        if write.value is None:
            self._shared.facts.pop(write.key, None)
            return
        ends = None if write.keep is None else now + write.keep
        value = summed(self._value(write.key, now), write.value) if write.adds else write.value
        self._shared.facts[write.key] = _Fact(value, ends)
        if ends is not None:
            heapq.heappush(self._shared.endings, (ends, write.key))

    def _forget_ended(self) -> float:
        """Drop what has ended, so that memory is bounded by what lives; returns what the time is."""
        now, endings, facts = self._shared.clock.monotonic(), self._shared.endings, self._shared.facts
        while endings and endings[0][0] <= now:
            _, key = heapq.heappop(endings)
            fact = facts.get(key)
            if fact is not None and fact.has_ended(now):
                del facts[key]
        return now
