"""Retry policies: how long before which retry, and their way through JSON (promise C8)."""

from __future__ import annotations

import math
import random
import smtplib
from collections.abc import Callable, Mapping
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from kq.values.policy import (
    MOST_RETRIES,
    NESTING,
    YEAR,
    ByError,
    Delays,
    Exponential,
    Fixed,
    Never,
    Polynomial,
    RetryPolicy,
    by_error,
    error_name,
    from_data,
)
from tests.unit.strategies import RETRIES, SECONDS, policies

DAY = 86400.0


def delays(policy: RetryPolicy, limit: int = 1000) -> list[float]:
    """All waits of policy, until it gives up."""
    chance = random.Random(1)
    found: list[float] = []
    while len(found) < limit and (delay := policy.delay_before(len(found) + 1, chance)) is not None:
        found.append(delay)
    return found


def test_the_polynomial_waits_as_its_formula_says() -> None:
    assert delays(Polynomial()) == [n**4 + 15.0 for n in range(25)]


def test_the_polynomial_gives_up_after_25_retries_and_20_days() -> None:
    waits = delays(Polynomial())
    assert (len(waits), sum(waits)) == (25, 1_763_395.0)
    assert round(sum(waits) / DAY, 1) == 20.4


def test_the_polynomial_adds_more_jitter_before_later_retries() -> None:
    for retry, (wait, least) in enumerate(zip(delays(Polynomial(jitter=10)), delays(Polynomial()), strict=True), 1):
        assert least <= wait <= least + 10 * retry


def test_the_exponential_doubles_from_a_second_up_to_a_minute() -> None:
    assert delays(Exponential(retries=8, jitter=False)) == [1, 2, 4, 8, 16, 32, 60, 60]
    assert len(delays(Exponential())) == 5


def test_a_slow_exponential_gets_to_its_longest_wait_too() -> None:
    policy = Exponential(first=1, factor=1.1, longest=DAY, retries=1000, jitter=False)
    assert policy.delay_before(1000, random.Random(1)) == DAY


@given(SECONDS, some.floats(0, 100), SECONDS, RETRIES, some.randoms(use_true_random=False))
def test_full_jitter_is_between_nothing_and_the_whole_wait(
    first: float, factor: float, longest: float, retry: int, chance: random.Random
) -> None:
    policy = Exponential(first=first, factor=factor, longest=longest, retries=MOST_RETRIES)
    top = replace(policy, jitter=False).delay_before(retry, chance)
    wait = policy.delay_before(retry, chance)
    assert top is not None
    assert wait is not None
    assert 0 <= wait <= top <= longest


def test_full_jitter_spreads_over_the_whole_wait() -> None:
    chance = random.Random(1)
    waits = [Exponential(first=10).delay_before(1, chance) or 0.0 for _ in range(1000)]
    assert min(waits) < 0.5
    assert max(waits) > 9.5
    assert math.fsum(waits) / 1000 == pytest.approx(5, abs=0.5)


def test_fixed_and_listed_waits_are_what_was_written() -> None:
    assert delays(Fixed()) == [10, 10, 10]
    assert delays(Delays(delays=(1, 10, 60))) == [1, 10, 60]
    assert delays(Delays(delays=())) == delays(Never()) == []


@given(policies(), RETRIES, some.randoms(use_true_random=False))
def test_no_policy_waits_less_than_nothing_or_more_than_a_year(
    policy: RetryPolicy, retry: int, chance: random.Random
) -> None:
    wait = policy.delay_before(retry, chance)
    assert wait is None or 0 <= wait <= YEAR


@given(policies())
def test_retries_are_counted_from_one(policy: RetryPolicy) -> None:
    with pytest.raises(ValueError, match="retries are counted from 1, not from 0"):
        policy.delay_before(0, random.Random(1))


# By error.


def test_the_policy_of_the_nearest_class_is_used() -> None:
    policy = by_error({OSError: Fixed(delay=1), smtplib.SMTPException: Fixed(delay=2)}, otherwise=Fixed(delay=3))
    assert policy.for_error(names(smtplib.SMTPDataError)) == Fixed(delay=2)
    assert policy.for_error(names(ConnectionError)) == Fixed(delay=1)
    assert policy.for_error(names(KeyError)) == Fixed(delay=3)


def test_an_error_that_no_policy_names_is_not_retried_by_default() -> None:
    assert by_error({"OSError": Fixed()}).for_error(names(KeyError)) == Never()


def test_a_policy_by_error_may_stand_inside_another() -> None:
    inner = by_error({ConnectionResetError: Fixed(delay=1)}, otherwise=Fixed(delay=2))
    outer = by_error({ConnectionError: inner}, otherwise=by_error({KeyError: Fixed(delay=3)}))
    assert outer.for_error(names(ConnectionResetError)) == Fixed(delay=1)
    assert outer.for_error(names(ConnectionRefusedError)) == Fixed(delay=2)
    assert outer.for_error(names(KeyError)) == Fixed(delay=3)


def test_every_other_policy_is_the_same_for_every_error() -> None:
    assert Fixed().for_error(names(KeyError)) == Fixed()


def test_policies_by_error_may_not_stand_deeper_than_anybody_needs() -> None:
    policy: RetryPolicy = Never()
    for level in range(NESTING):
        policy = ByError(policies={"KeyError": policy}) if level % 2 else ByError(policies={}, otherwise=policy)
    assert from_data(policy.to_data()) == policy
    with pytest.raises(ValueError, match="9 deep inside each other; 8 are enough"):
        ByError(policies={}, otherwise=policy)
    never, deepest = Never().to_data(), policy.to_data()
    for named, otherwise in (({}, deepest), ({"KeyError": deepest}, never)):
        with pytest.raises(ValueError, match="more than 8 deep"):
            from_data({"kind": "by error", "policies": named, "otherwise": otherwise})


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (ConnectionError, "ConnectionError"),
        (smtplib.SMTPException, "smtplib.SMTPException"),
        ("shop.Late", "shop.Late"),
    ],
)
def test_an_error_is_known_by_its_dotted_name(error: type[Exception] | str, name: str) -> None:
    assert error_name(error) == name


# As data.


@given(policies())
def test_a_policy_survives_its_way_through_json(policy: RetryPolicy) -> None:
    assert from_data(policy.to_data()) == policy
    assert msgspec.json.decode(msgspec.json.encode(policy.to_data())) == policy.to_data()


def test_what_a_newer_version_says_besides_is_ignored() -> None:
    assert from_data({"kind": "fixed", "delay": 3, "retries": 2, "colour": "red"}) == Fixed(delay=3, retries=2)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({}, "unknown kind of retry policy: None"),
        ({"kind": "sometimes"}, "unknown kind of retry policy: 'sometimes'"),
        ({"kind": "x" * 1000}, "unknown kind of retry policy: 'xxxxx"),
        ({"kind": "fixed", "delay": "3"}, "kind 'fixed': Expected `float`, got `str`"),
        ({"kind": "fixed", "delay": -1}, "delay -1.0 is out of range"),
        ({"kind": "delays"}, "missing required field `delays`"),
        ({"kind": "by error"}, "needs policies, an object"),
        ({"kind": "by error", "policies": {}}, "is an object with a kind, not NoneType"),
        ({"kind": "by error", "policies": {"KeyError": 3}, "otherwise": {"kind": "never"}}, "not int"),
        ({"kind": "by error", "policies": [], "otherwise": {"kind": "never"}}, "needs policies, an object"),
    ],
)
def test_what_is_no_policy_is_refused(data: Mapping[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        from_data(data)
    assert len(str(caught.value)) < 200


JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KINDS = some.sampled_from(["exponential", "polynomial", "fixed", "delays", "never", "by error"])
FIELDS = some.sampled_from(
    ["first", "factor", "longest", "retries", "jitter", "power", "shift", "delay", "delays", "policies", "otherwise"]
)


@given(some.dictionaries(FIELDS, JSON, max_size=6), KINDS, some.randoms(use_true_random=False))
def test_data_of_any_kind_is_a_usable_policy_or_a_value_error(
    data: dict[str, object], kind: str, chance: random.Random
) -> None:
    try:
        policy = from_data({**data, "kind": kind})
    except ValueError:
        return
    policy.for_error(["KeyError"]).delay_before(1, chance)
    assert from_data(policy.to_data()) == policy


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (lambda: Exponential(first=-1), "first -1 is out of range; use 0 to 31622400"),
        (lambda: Exponential(factor=101), "factor 101 is out of range; use 0 to 100"),
        (lambda: Exponential(longest=math.inf), "longest inf is out of range"),
        (lambda: Exponential(retries=-1), "retries -1 is out of range"),
        (lambda: Polynomial(power=math.nan), "power nan is out of range"),
        (lambda: Polynomial(shift=-1), "shift -1 is out of range"),
        (lambda: Polynomial(jitter=-1), "jitter -1 is out of range"),
        (lambda: Fixed(delay=2 * YEAR), "delay 63244800.0 is out of range"),
        (lambda: Fixed(retries=2**31), "retries 2147483648 is out of range"),
        (lambda: Delays(delays=(1, -1)), "delay -1 is out of range"),
    ],
)
def test_a_number_out_of_range_is_refused_where_it_is_written(make: Callable[[], RetryPolicy], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        make()


def names(error: type[BaseException]) -> list[str]:
    return [error_name(each) for each in error.__mro__ if issubclass(each, BaseException)]
