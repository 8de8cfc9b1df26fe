"""Rules: what is told of a condition, when, and how often."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kq.control.bell import LOOKED, Told, watching
from kq.control.rule import Watched, watched
from kq.values.condition import Condition, parse_condition
from kq.values.config import Alerts
from kq.values.snapshot import Paused, QueueRow, Snapshot, Totals, WorkerRow

AFTER, MOST = 120.0, 12
OLDEST = parse_condition("oldest>15m")


def shot(at: float, oldest: float | None = 0.0, *queues: QueueRow, workers: tuple[WorkerRow, ...] = ()) -> Snapshot:
    return Snapshot(at=at, control="somebody", totals=Totals(oldest=oldest), queues=queues, workers=workers)


def heard(looks: list[Snapshot], *rules: Condition, most: int = MOST, told: Told | None = None) -> list[str]:
    """The subjects of what is told in the course of looks."""
    told, subjects = told or Told(), list[str]()
    for look in looks:
        while (after := watching(told, rules, look, "shop", AFTER, most)) is not None:
            told = after
            if told.pending is not None:
                subjects.append(told.pending.subject)
                told = Told(told.counts, told.sent, told.window, None, told.rules, told.looked)
    return subjects


def test_what_is_so_for_a_moment_is_no_news() -> None:
    assert heard([shot(0, 1000.0), shot(60, 1000.0), shot(70, 0.0), shot(130, 1000.0), shot(240, 1000.0)], OLDEST) == []


def test_what_lasts_is_told_once_and_so_is_its_end() -> None:
    so = [shot(at, 1000.0) for at in range(0, 600, 10)]
    over = [shot(at, 0.0) for at in range(600, 1000, 10)]
    assert heard(so, OLDEST) == ["[shop] oldest>15m"]
    assert heard([*so, *over], OLDEST) == ["[shop] oldest>15m", "[shop] over: oldest>15m"]


def test_what_ends_for_a_moment_is_not_over_and_not_told_again() -> None:
    looks = [shot(at, 0.0 if at % 100 == 50 else 1000.0) for at in range(0, 2000, 10)]
    assert watched(Watched(0.0, 50.0, told=True), True, 60.0, AFTER) == (Watched(0.0, told=True), None)
    steady = [shot(at, 1000.0) for at in range(-200, 0, 10)]
    assert heard([*steady, *looks], OLDEST) == ["[shop] oldest>15m"]


def test_what_nobody_knows_changes_nothing() -> None:
    so = [shot(at, 1000.0) for at in range(0, 200, 10)]
    unknown = [shot(at, None) for at in range(200, 1000, 10)]
    assert heard([*so, *unknown], OLDEST) == ["[shop] oldest>15m"]


@given(st.lists(st.sampled_from([True, False, None]), max_size=300))
def test_so_and_over_take_turns(seen: list[bool | None]) -> None:
    stands: Watched | None = None
    told = list[str]()
    for step, met in enumerate(seen):
        stands, news = watched(stands, met, 10.0 * step, 25.0)
        told += [news] if news else []
    assert told[:1] in ([], ["so"])
    assert all(before != after for before, after in pairwise(told))


def test_it_is_told_where_and_what_else_is_known() -> None:
    rows = [
        QueueRow(name="mail", oldest=1000.0, ready=4, paused=Paused(what="mail", at=0.0, by="ann"), state="paused"),
        QueueRow(name="images", oldest=2.0, ready=1, workers=2),
    ]
    told: Told | None = Told()
    for at in (0.0, AFTER):
        assert told is not None
        told = watching(told, [OLDEST], shot(at, 1000.0, *rows), "shop", AFTER, MOST)
    assert told is not None
    assert told.pending is not None
    assert told.pending.subject == "[shop] oldest>15m: mail"
    assert "queue mail: the oldest waits for 16m40s, 4 ready" in told.pending.text
    assert "paused by ann" in told.pending.text
    assert "images" not in told.pending.text
    assert told.pending.rule == {"rule": "oldest>15m", "state": "so", "since": 0.0, "until": None, "queues": ["mail"]}


def test_workers_are_named_too() -> None:
    dead = WorkerRow(name="web1", state="dead", beat_age=90.0, lease=15.0, lease_left=0.0)
    looks = [shot(at, 0.0, workers=(dead,)) for at in (0.0, AFTER)]
    assert heard(looks, parse_condition("dead>0")) == ["[shop] dead>0: web1"]


def test_an_hour_has_so_many_alerts_and_what_is_too_much_comes_later() -> None:
    rules = [parse_condition(f"ready>={number}") for number in range(5)]
    looks = [Snapshot(at=at, totals=Totals(ready=9)) for at in (0.0, AFTER)]
    assert len(heard(looks, *rules, most=2)) == 2
    later = [*looks, Snapshot(at=3600 + AFTER + 1, totals=Totals(ready=9))]
    assert len(heard(later, *rules, most=2)) == 4


def test_control_that_was_gone_is_told_of_once() -> None:
    control = parse_condition("control<1")
    looks = [shot(1000.0 + at) for at in (0.0, 10.0, 11.0 + AFTER + LOOKED, 21.0 + AFTER + LOOKED)]
    assert heard(looks, control, OLDEST) == ["[shop] control was gone for 2m41s"]
    assert heard(looks, OLDEST) == []
    assert heard([shot(1000.0 + at) for at in range(0, 400, 40)], control) == []


def test_the_usual_rules_are_conditions() -> None:
    for text in Alerts().rules:
        assert parse_condition(text).text == text


@pytest.mark.parametrize(("text", "value"), [("burials>30/m", 0.5), ("burials>0.5", 0.5), ("mail:came<36/h", 0.01)])
def test_what_is_so_many_a_second_is_written_by_minute_or_hour_too(text: str, value: float) -> None:
    assert parse_condition(text).value == value
