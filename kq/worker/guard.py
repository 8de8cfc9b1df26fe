"""A second pair of eyes: what must happen in time happens even while the loop waits for an answer.

Where a broker or a state store is far away each answer may take seconds, and a round of the loop needs several.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from kq.clock import Clock
from kq.thread import begin

#: Seconds between two looks, and the lateness that the loop is allowed before the guard acts for it; of a short lease,
#: a part of it.
LOOK = 0.25
LOOK_PART = 0.05


class Guard:
    """Calls act(now) and renew(), from threads of its own, when the loop is late for it.

    act: when the moment that was set has passed by a look. It must be safe beside the loop: it sends signals and
    sets flags. renew: when what due() returned has passed by as much. It may take long, and is called in a thread that
    is made for it, one at a time.
    """

    def __init__(
        self,
        lease: float,
        clock: Clock,
        act: Callable[[float], None],
        due: Callable[[], float],
        renew: Callable[[], None],
    ) -> None:
        self._look = min(LOOK, lease * LOOK_PART)
        self._clock = clock
        self._act = act
        self._due, self._renew = due, renew
        self._renewing: threading.Thread | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="kq-guard", daemon=True)
        #: When something is to be done, on the monotonic clock. Set by the loop on each round.
        self.moment = float("inf")

    def start(self) -> None:
        """Raises NotStarted where the system has no thread to give."""
        begin(self._thread)

    def stop(self) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(self._look):
            now = self._clock.monotonic()
            if now >= self.moment + self._look:
                self._act(now)
            if now >= self._due() + self._look and (self._renewing is None or not self._renewing.is_alive()):
                self._renewing = threading.Thread(target=self._renew, name="kq-beat", daemon=True)
                with contextlib.suppress(RuntimeError):  # the system has no thread to give: at the next look, then
                    self._renewing.start()
