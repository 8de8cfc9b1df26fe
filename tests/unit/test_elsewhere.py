"""A job that its place failed goes to a better one, while one lives and for so long."""

from __future__ import annotations

import pytest

from kq.values.elsewhere import LONGEST, PATIENCE, SHORTEST, Place, failed_here, wait_for_another
from kq.values.message import Attempt

HERE = Place("web1-10-aaaaaaaa", "web1")
AGAIN = Place("web1-10-bbbbbbbb", "web1")  # the same process after it lost its lease
BESIDE = Place("web1-11-cccccccc", "web1")
AWAY = Place("web2-10-dddddddd", "web2")


def attempt(place: Place, outcome: str = "bad storage", ended: float = 100.0) -> Attempt:
    return Attempt(1, place.worker, ended - 1, ended, outcome, host=place.host)


@pytest.mark.parametrize(
    ("failed", "others", "goes"),
    [
        ([HERE], [AWAY], True),
        ([HERE], [BESIDE], True),
        ([AGAIN], [BESIDE], True),
        ([HERE], [], False),
        ([BESIDE], [AWAY], True),  # the same host is no better
        ([BESIDE], [Place("web1-12-eeeeeeee", "web1")], False),  # here is as good as there
        ([HERE, AWAY], [AWAY], False),
        ([HERE, AWAY], [Place("web2-11-ffffffff", "web2")], True),
        ([AWAY], [BESIDE], False),
        ([], [AWAY], False),
    ],
)
def test_a_job_is_passed_on_while_a_better_place_lives(failed: list[Place], others: list[Place], goes: bool) -> None:
    wait = wait_for_another([attempt(each) for each in failed], HERE, others, now=101.0)
    assert (wait is not None) == goes


def test_only_endings_of_the_place_count() -> None:
    for outcome in ("raised", "timed out", "died", "bad network"):
        assert wait_for_another([attempt(HERE, outcome)], HERE, [AWAY], now=101.0) is None
    assert wait_for_another([attempt(HERE, "out of memory")], HERE, [AWAY], now=101.0)


def test_a_job_that_nobody_takes_runs_here_after_all_and_is_passed_on_a_bounded_number_of_times() -> None:
    history, now, passed = [attempt(HERE)], 100.0, 0
    while (wait := wait_for_another(history, HERE, [AWAY], now)) is not None:
        assert SHORTEST <= wait <= LONGEST
        now, passed = now + wait, passed + 1
    assert PATIENCE <= now - 100.0 <= PATIENCE + LONGEST
    assert passed <= 50


def test_the_last_failure_on_this_host_counts() -> None:
    history = [attempt(BESIDE, ended=50), attempt(HERE, ended=70), attempt(AWAY, ended=90)]
    assert failed_here(history, HERE) == 70
    assert failed_here([attempt(AWAY)], HERE) is None
