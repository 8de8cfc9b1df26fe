"""Conditions that scripts set: what is read, and when they hold."""

from __future__ import annotations

import click
import pytest

from kq.cli.condition import ConditionType
from kq.snapshot import QueueRow, Snapshot, Totals, WorkerRow

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
    "text", ["", "oldest", "oldest>", "oldest>soon", "oldst>60s", "mail:workes>1", "name>3", "ready>x"]
)
def test_what_is_no_condition_is_refused_with_what_would_be(text: str) -> None:
    with pytest.raises(click.BadParameter):
        ConditionType().convert(text, None, None)
