"""When a worker asks again, whom the broker or the state store did not answer."""

from __future__ import annotations

import random

from kq.clock import Clock

#: Seconds before the first time, twice as many before each that follows, and at most so many: work goes on within two
#: seconds of the first moment at which the broker would answer.
FIRST, LONGEST = 0.1, 1.5


class Backoff:
    """Grows until it is answered. lease: seconds; within one it asks several times, for the next beat waits as long."""

    def __init__(self, lease: float, clock: Clock, chance: random.Random) -> None:
        self._longest = min(LONGEST, lease / 8)
        self._clock = clock
        self._chance = chance
        self._failures = 0
        #: When to ask again, monotonic; in the past where there is nothing to wait for.
        self.until = 0.0

    def __bool__(self) -> bool:
        """Whether the last time was no answer."""
        return self._failures > 0

    @property
    def waits(self) -> bool:
        """Whether it is too early to ask."""
        return self._failures > 0 and self._clock.monotonic() < self.until

    def fail(self) -> None:
        """There was no answer."""
        pause = min(self._longest, FIRST * 2.0 ** min(self._failures, 9))
        self._failures += 1
        self.until = self._clock.monotonic() + pause * self._chance.uniform(0.5, 1.0)

    def end(self) -> None:
        """There was an answer."""
        self._failures = 0
