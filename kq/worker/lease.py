"""A worker's right to what is delivered to it: at the broker, and as its nursery and the state store know of it.

The broker is told first: nobody may believe in it for longer than the broker does (promise C4).
"""

from __future__ import annotations

from collections.abc import Callable

from kq.broker import Session
from kq.clock import Clock
from kq.errors import LeaseLost
from kq.state.store import Write
from kq.values.record import lease_key
from kq.worker.lapse import Lapse

#: Seconds before the end of the lease at which executors are killed, so that none outlives it; of a short lease,
#: a part of it, so that there is time for a second beat when the first is late.
MARGIN = 1.0
MARGIN_PART = 0.25
#: The part of what is left of a lease for which the state store keeps its key.
KEPT = 0.9


class Lease:
    """That of one session, from its first beat on."""

    def __init__(self, session: Session, lapse: Lapse, clock: Clock) -> None:
        self.session = session
        self._lapse = lapse
        self._clock = clock
        self._margin = 0.0
        #: When the next beat is due, monotonic.
        self.next_beat = 0.0
        #: When it is to be renewed, monotonic, by whoever comes to it first.
        self.renewal = 0.0
        #: Whether it was given up, and what ran under it killed: a beat after that is too late.
        self.given_up = False

    @property
    def until(self) -> float:
        """When nothing may run under it any more, monotonic; a margin before it ends. From any thread."""
        return self.session.safe_until - self._margin

    @property
    def is_over(self) -> bool:
        return self.given_up or self._clock.monotonic() >= self.until

    def beat(self, write: Callable[..., object]) -> None:
        """Renew it, in the loop, unless that was just done. write: makes writes in the state store, such as the fence.

        Raises LeaseLost.
        """
        began = self._clock.monotonic()
        if began < self.renewal:
            write()
        else:
            self.renew(write)
        self.next_beat = began + self.session.span / 3

    def renew(self, write: Callable[..., object]) -> None:
        """The same in any case and from any thread, also beside a beat of the loop's that takes long."""
        began = self._clock.monotonic()
        self.session.beat()
        self._margin = min(MARGIN, self.session.span * MARGIN_PART)
        if self.given_up:
            raise LeaseLost("this worker gave its lease up meanwhile")
        if not self._lapse.extend(self.session.safe_until - self._margin / 2, self._clock):
            self.given_up = True
            raise LeaseLost("this worker was not awake when its lease was about to end")
        # Of what is left: where the answer took long, so will this, and it must not be kept for longer than the lease.
        left = self.session.safe_until - self._clock.monotonic()
        write(Write(lease_key(self.session.name), b"1", max(0.001, left * KEPT)))
        self.renewal = began + self.session.span / 3

    def close(self) -> Write:
        """Give back all that is held under it; returns what the state store is to know of that."""
        self.given_up = True
        self.session.close()
        return Write(lease_key(self.session.name), None)
