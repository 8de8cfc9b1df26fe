"""Conditions that scripts set: what is read, and when they hold."""

from __future__ import annotations

import click
import pytest

from kq.cli.condition import ConditionType
from kq.values.snapshot import QueueRow, Snapshot, Totals, WorkerRow

SHOT = Snapshot(
    at=0.0,
    totals=Totals(ready=12, buried=0, workers=2, oldest=75.0, came=None),
    queues=(
        QueueRow(name="mail", ready=9, oldest=75.0, state="unserved"),
        QueueRow(name="eu:bulk", ready=3, oldest=0.5, state="growing"),
    ),
    workers=(WorkerRow(name="w", state="dead", beat_age=50.0, lease=15.0, lease_left=0.0),),
)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("oldest>60s", True),
        ("oldest > 2m", False),
        ("oldest>75", False),
        ("oldest>=75", True),
        ("ready=12", True),
        ("workers<3", True),
        ("workers<=1", False),
        ("buried>0", False),
        ("unserved>0", True),
        ("growing=1", True),
        ("paused>0", False),
        ("dead>=1", True),
        ("mail:ready>8", True),
        ("mail:oldest>2m", False),
        ("eu:bulk:ready=3", True),
        ("nowhere:ready>0", False),
        ("came>0", False),
    ],
)
def test_a_condition_holds_when_it_is_so(text: str, holds: bool) -> None:
    assert ConditionType().convert(text, None, None).holds(SHOT) is holds


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ("", 1, "the name of a number is missing; write for example 'oldest>60s' or 'mail:ready>1000'"),
        (">5", 1, "the name of a number is missing; write"),
        ("oldest", 7, "one of > < >= <= = is missing; write"),
        ("mail:oldest!60s", 12, "one of > < >= <= = is missing; write"),
        ("oldest>", 8, "a number is missing; write"),
        ("oldest>soon", 8, "'soon' is no duration; write 30 (seconds)"),
        ("oldst>60s", 1, "'oldst' is no number of all queues. Did you mean 'oldest'?"),
        ("mail:workes>1", 6, "'workes' is no number of queue 'mail'. Did you mean 'workers'?"),
        ("colour>3", 1, "'colour' is no number of all queues. There are ready, "),
        ("ready>x", 7, "'x' is no number; write for example ready>1000"),
        (" ready>>1", 8, "'>1' is no number; write"),
        ("ready>5 6", 7, "'5 6' is no number; write"),
        ("ready>nan", 7, "'nan' is no number; write"),
        ("burials>10/x", 9, "'10/x' is no rate; write 10/s, 100/m or 500/h"),
    ],
)
def test_what_is_no_condition_is_refused_with_the_place_and_what_would_be(text: str, place: int, what: str) -> None:
    with pytest.raises(click.BadParameter) as refused:
        ConditionType().convert(text, None, None)
    assert refused.value.message.startswith(f"{text!r} is no condition: at character {place} {what}")
    assert "\n" not in refused.value.message
