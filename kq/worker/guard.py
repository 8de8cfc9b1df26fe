"""A second pair of eyes: what must happen in time happens even while the loop waits for a broker that is silent."""

from __future__ import annotations

import threading
from collections.abc import Callable

from kq.clock import Clock

#: Seconds between two looks, and the lateness that the loop is allowed before the guard acts for it.
LOOK = 0.25


class Guard:
    """Calls act(now), from a thread of its own, whenever the moment that was set has passed by LOOK seconds.

    act must be safe beside the loop: it sends signals and sets flags.
    """

    def __init__(self, clock: Clock, act: Callable[[float], None]) -> None:
        self._clock = clock
        self._act = act
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="kq-guard", daemon=True)
        #: When something is to be done, on the monotonic clock. Set by the loop on each round.
        self.moment = float("inf")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(LOOK):
            now = self._clock.monotonic()
            if now >= self.moment + LOOK:
                self._act(now)
