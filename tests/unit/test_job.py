"""Settings of a job, and the table of its moves."""

from __future__ import annotations

import datetime as dt
import math

import pytest
from hypothesis import given
from hypothesis import strategies as some
from msgspec.structs import fields

from kq.values.job import ENDED, LATEST, MOVES, Counters, Settings, State
from kq.values.policy import YEAR, Fixed
from tests.unit.strategies import COUNTERS


def settings() -> some.SearchStrategy[Settings]:
    """Settings that say this and that; never both delay and at."""
    return some.builds(
        lambda when, **others: Settings(**when, **others),
        some.sampled_from([{}, {"delay": 3.0}, {"at": 7.0}]),
        queue=some.sampled_from([None, "mail", "images"]),
        priority=some.none() | some.integers(0, 9),
        timeout=some.none() | some.floats(1, 100),
        deadline=some.none() | some.floats(1, 100),
        unique=some.sampled_from([None, "cat"]),
        retry_policy=some.sampled_from([None, Fixed()]),
    )


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"priority": 10}, r"priority 10 is out of range; use 0 \(low\) to 9 \(high\)"),
        ({"priority": -1}, "priority -1 is out of range"),
        ({"priority": 2.5}, "priority 2.5 is out of range"),
        ({"delay": -0.1}, "delay -0.1 is out of range; use 0 s to a year"),
        ({"delay": YEAR + 1}, "delay 31622401.0 is out of range"),
        ({"delay": math.nan}, "delay nan is out of range"),
        ({"delay": 1, "at": 2}, "give delay or at, not both"),
        ({"timeout": 0}, "timeout 0 is out of range; use more than 0 s, at most a year"),
        ({"timeout": math.inf}, "timeout inf is out of range"),
        ({"timeout": math.nan}, "timeout nan is out of range"),
        ({"at": -1}, "at -1 is no instant; use seconds since the epoch"),
        ({"at": LATEST + 1}, "at 253402300800.0 is no instant"),
        ({"deadline": math.nan}, "deadline nan is no instant"),
        ({"queue": ""}, "queue is empty; leave it out or give it a name"),
        ({"unique": ""}, "unique is empty"),
    ],
)
def test_a_setting_out_of_range_is_refused(said: dict[str, float], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Settings(**said)  # type: ignore[arg-type]


def test_the_ends_of_the_ranges_are_inside() -> None:
    assert Settings(priority=0, delay=0, timeout=0.001).priority == 0
    assert Settings(priority=9, delay=YEAR, timeout=YEAR, deadline=LATEST).priority == 9
    assert Settings(at=0).at == 0


@given(settings(), settings())
def test_settings_over_others_say_what_they_say_and_what_the_others_say_besides(one: Settings, other: Settings) -> None:
    both = one.over(other)
    timed = one.delay is not None or one.at is not None
    for field in fields(Settings):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        silent = timed and field.name in ("delay", "at")
        assert getattr(both, field.name) == (mine if mine is not None or silent else theirs)


@given(settings())
def test_settings_over_none_or_over_themselves_are_themselves(some_settings: Settings) -> None:
    assert some_settings.over(Settings()) == Settings().over(some_settings) == some_settings.over(some_settings)
    assert some_settings.over(Settings()) == some_settings


def test_a_delay_goes_before_an_instant_that_the_type_names_and_the_other_way_round() -> None:
    assert Settings(delay=3).over(Settings(at=7)) == Settings(delay=3)
    assert Settings(at=7).over(Settings(delay=3)) == Settings(at=7)


# The life of a job.


def test_every_state_has_its_row_in_the_table() -> None:
    assert set(MOVES) == set(State)


def test_every_state_is_reachable_from_those_in_which_a_job_is_born() -> None:
    reached = {State.READY, State.DELAYED}
    while following := {state for known in reached for state in MOVES[known]} - reached:
        reached |= following
    assert reached == set(State)


def test_what_has_ended_stays_ended() -> None:
    assert {State.COMPLETED, State.REVOKED, State.EXPIRED, State.DELETED} == ENDED
    assert all(not MOVES[state] for state in ENDED)


@pytest.mark.parametrize("state", sorted(set(State) - ENDED))
def test_every_other_state_can_end(state: State) -> None:
    reached = {state}
    while following := {each for known in reached for each in MOVES[known]} - reached:
        reached |= following
    assert reached & ENDED


def test_nothing_runs_that_was_not_reserved_and_nothing_is_retried_that_did_not_run() -> None:
    assert [state for state, following in MOVES.items() if State.RUNNING in following] == [State.RESERVED]
    assert [state for state, following in MOVES.items() if State.RETRYING in following] == [State.RUNNING]


def test_a_buried_job_leaves_only_by_the_hand_of_a_human() -> None:
    assert MOVES[State.BURIED] == {State.READY, State.DELETED, State.COMPLETED}


@given(COUNTERS)
def test_every_attempt_that_ended_is_counted_once(counters: Counters) -> None:
    assert counters.attempts == counters.failed + counters.lost + counters.infra


@pytest.mark.parametrize("name", ["kq.events", "amq.topic", "mail.buried"])
def test_a_queue_may_not_have_a_name_that_means_something_else(name: str) -> None:
    with pytest.raises(ValueError, match="is not free"):
        Settings(queue=name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ma\nil", r"queue 'ma\\nil' can't be named so; use characters that can be seen"),
        ("\ud800", "can't be named so"),
        ("mail\u200b", "can't be named so"),
        ("mail\ufe0f", "can't be named so"),
        ("mail\u3164", "can't be named so"),
        ("é" * 101, "has a name of 202 bytes; use 200 at most"),
    ],
)
def test_a_queue_has_a_name_that_every_broker_can_carry(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Settings(queue=name)
    assert Settings(queue="é" * 100).queue


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"timeout": "5"}, "timeout '5' is no number; use seconds"),
        ({"at": dt.datetime(2030, 1, 1, tzinfo=dt.UTC)}, "is no number; use seconds since the epoch, as time.time()"),
        ({"unique": 5}, "unique 5 is no key"),
        ({"queue": b"mail"}, "queue b'mail' is no text"),
        ({"retry_policy": 3}, r"retry_policy 3 is none; use for example kq.Exponential\(retries=5\)"),
    ],
)
def test_a_setting_of_the_wrong_kind_is_refused_where_it_is_written(said: dict[str, object], reason: str) -> None:
    with pytest.raises(TypeError, match=reason):
        Settings(**said)  # type: ignore[arg-type]
