"""Tallies: quantiles of buckets, and what happened since."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from kq.values import tally
from kq.values.tally import BOUNDS, Spread, Tally, Work, quantile


def spread(*seconds: float) -> Spread:
    made = Spread()
    for each in seconds:
        made.add(each)
    return made


def test_nothing_has_no_quantile() -> None:
    assert quantile([], 0.5) is None
    assert quantile([Spread(), Spread()], 0.95) is None


@given(some.lists(some.floats(0, 80_000), min_size=1, max_size=50), some.sampled_from([0.5, 0.95]))
def test_a_quantile_is_right_but_for_the_width_of_its_bucket(seconds: list[float], part: float) -> None:
    found = quantile([spread(*seconds[::2]), spread(*seconds[1::2])], part)
    assert found is not None
    exact = sorted(seconds)[min(len(seconds) - 1, int(part * len(seconds) - 1e-9))]
    place = next(index for index, bound in enumerate(BOUNDS) if exact <= bound)
    assert (BOUNDS[place - 1] if place else 0.0) - 1e-9 <= found <= BOUNDS[place] + 1e-9


def test_what_takes_longer_than_all_bounds_counts_as_the_last() -> None:
    assert quantile([spread(1e9)], 0.5) == BOUNDS[-1]


def test_what_happened_since_leaves_out_what_did_before() -> None:
    work = Work("mail", "send", started=3, completed=2, waited=spread(0.2), ran=spread(1.0))
    before = {("mail", "send"): work.copy()}
    work.completed += 1
    work.ran.add(7.0)
    idle, fresh = Work("mail", "idle"), Work("mail", "fresh", buried=1)
    more, new = tally.since([work, idle, fresh], before)
    assert (more.completed, more.started, more.gone) == (1, 0, 1)
    assert (sum(more.ran.counts), more.ran.seconds, sum(more.waited.counts)) == (1, 7.0, 0)
    assert new is fresh
    assert before["mail", "send"].completed == 2


@pytest.mark.parametrize("word", ["completed", "buried", "revoked", "expired"])
def test_a_job_that_left_for_good_is_gone(word: str) -> None:
    assert Work("q", "t", **{word: 4}).gone == 4  # type: ignore[arg-type]


def test_a_tally_comes_back_as_it_was() -> None:
    one = Tally("w", 2.0, 1.0, [Work("q", "t", waited=spread(0.1))], returning={"q": [(5.0, 2)]})
    assert tally.decode(tally.encode(one)) == one
