"""What a supervisor sleeps on."""

from __future__ import annotations

import time

from kq.clock import SYSTEM
from kq.worker.ears import NOBODY, Ears
from kq.worker.pool import Pool


def test_a_sleep_ends_in_less_than_a_millisecond_after_its_time() -> None:
    """A job that is due wakes nobody."""
    ears = Ears(Pool("app:app", "", "", "thread", 1, SYSTEM, lambda ended: None))
    begun, least = time.monotonic(), 1.0
    while least > 0.0005 and time.monotonic() - begun < 20:  # on a busy machine others come between
        before = time.monotonic()
        assert not ears.wait(0.0011, NOBODY)
        least = min(least, time.monotonic() - before - 0.0011)
    ears.close()
    assert 0 <= least <= 0.0005
