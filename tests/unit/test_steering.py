"""What a job may ask for by raising."""

from __future__ import annotations

import math

import pytest

import kq


@pytest.mark.parametrize("delay", [-1.0, math.inf, math.nan, 1e300])
def test_a_retry_asks_for_a_delay_that_a_broker_can_keep(delay: float) -> None:
    with pytest.raises(ValueError, match="out of range"):
        kq.Retry(delay=delay)
