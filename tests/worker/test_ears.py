"""What a supervisor sleeps on, and what coroutines do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from kq.clock import SYSTEM
from kq.worker.ears import NOBODY, Ears
from kq.worker.pool import Pool
from kq.worker.sleep import new_loop

SHORT = 0.0011


def late(sleep: Callable[[], object]) -> float:
    """Seconds by which sleep() ends later than SHORT, at least."""
    begun, least = time.monotonic(), 1.0
    while least > 0.0005 and time.monotonic() - begun < 20:  # on a busy machine others come between
        before = time.monotonic()
        sleep()
        least = min(least, time.monotonic() - before - SHORT)
    return least


def test_a_sleep_ends_in_less_than_a_millisecond_after_its_time() -> None:
    """A job that is due wakes nobody."""
    ears = Ears(Pool("app:app", "", "", "thread", 1, SYSTEM, lambda ended: None))
    assert 0 <= late(lambda: ears.wait(SHORT, NOBODY)) <= 0.0005
    ears.close()


def test_so_does_that_of_a_coroutine() -> None:
    loop = new_loop()
    assert 0 <= late(lambda: loop.run_until_complete(asyncio.sleep(SHORT))) <= 0.0005
    loop.close()


def test_an_event_loop_of_the_applications_own_kind_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(asyncio.SelectorEventLoop):
        pass

    monkeypatch.setattr(asyncio, "new_event_loop", Own)
    loop = new_loop()
    assert type(loop) is Own
    loop.close()
