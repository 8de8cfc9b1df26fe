"""By how much a worker's clock differs from the state store's, whose instants are told to others."""

from __future__ import annotations

from kq.clock import Clock
from kq.state.store import Store


class Skew:
    """Measured with each beat; in between nobody asks the store what time it is."""

    def __init__(self, clock: Clock, store: Store) -> None:
        self._clock = clock
        self._store = store
        #: Seconds by which our clock is behind the state store's.
        self.behind = 0.0

    def measure(self) -> float:
        """Ask the store what time it is there."""
        now = self._store.now()
        self.behind = now - self._clock.now()
        return now

    def now(self) -> float:
        """What time it is there."""
        return self._clock.now() + self.behind
