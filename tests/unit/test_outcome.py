"""What becomes of a job after an execution: the table of verdicts, and what holds for all of it (C7, C8)."""

from __future__ import annotations

import importlib
import random
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as some

from kq.job import Counters
from kq.outcome import (
    FINAL_ERRORS,
    HINDERED_POLICY,
    PASSING_ERRORS,
    Asked,
    Bury,
    Complete,
    Died,
    Done,
    Expire,
    Expired,
    Failure,
    GiveBack,
    GivenBack,
    Hindered,
    Outcome,
    Raised,
    Retry,
    Revoke,
    Rules,
    TimedOut,
    Unusable,
    Verdict,
    may_pass,
    verdict_after,
)
from kq.policy import Fixed, Never, by_error, error_name
from tests.unit.strategies import COUNTERS, ERRORS, TEXT, policies

BUG = Failure(("ValueError", "Exception", "BaseException"), "row 7 has no date")
GONE = Failure(("ConnectionError", "OSError", "Exception", "BaseException"), "reset by peer")
ODD = Failure(("shop.Odd", "Exception", "BaseException"), "who knows")
FULL = Failure(("kq.errors.BadStorage", "kq.errors.Steering"), "disk full")
SOFT = Failure(("kq.errors.SoftTimeout", "TimeoutError"), "ran past its timeout")

SILENT = Rules()
TWICE = Rules(retry_policy=Fixed(delay=7, retries=2))
NEVER = Rules(retry_policy=Never())

FRESH = Counters()
WORN = Counters(failed=2, lost=2, infrastructure=15)


def after(outcome: Outcome, counters: Counters = FRESH, rules: Rules = SILENT) -> Verdict:
    return verdict_after(outcome, counters, rules, random.Random(1))


def failed(counters: Counters) -> Counters:
    return replace(counters, failed=counters.failed + 1)


def lost(counters: Counters) -> Counters:
    return replace(counters, lost=counters.lost + 1)


def hindered(counters: Counters) -> Counters:
    return replace(counters, infrastructure=counters.infrastructure + 1)


TABLE: list[tuple[Outcome, Rules, Counters, Verdict]] = [
    (Done(b"5"), SILENT, FRESH, Complete(b"5")),
    (Done(b"5"), NEVER, WORN, Complete(b"5")),
    (GivenBack(), SILENT, FRESH, GiveBack()),
    (GivenBack(), NEVER, WORN, GiveBack()),
    (Expired(), SILENT, FRESH, Expire()),
    (Expired(), TWICE, WORN, Expire()),
    (Unusable("no JSON"), TWICE, WORN, Bury(Failure(("kq.errors.MessageError",), "no JSON"), WORN)),
    # A bug is not run again, whatever the policy.
    (Raised(BUG), SILENT, FRESH, Bury(BUG, failed(FRESH))),
    (Raised(BUG), TWICE, FRESH, Bury(BUG, failed(FRESH))),
    # What may pass is retried: by the policy, else by the default one.
    (Raised(GONE), TWICE, FRESH, Retry(7, failed(FRESH), GONE)),
    (Raised(GONE), TWICE, WORN, Bury(GONE, failed(WORN))),
    (Raised(GONE), NEVER, FRESH, Bury(GONE, failed(FRESH))),
    (Raised(GONE), SILENT, Counters(failed=5), Bury(GONE, Counters(failed=6))),
    # What nobody knows is retried where there is a policy.
    (Raised(ODD), SILENT, FRESH, Bury(ODD, failed(FRESH))),
    (Raised(ODD), TWICE, FRESH, Retry(7, failed(FRESH), ODD)),
    (Raised(ODD), TWICE, WORN, Bury(ODD, failed(WORN))),
    # What it asked for, it gets: a retry within what the policy allows, and in its own time.
    (Asked("bury", ODD), TWICE, FRESH, Bury(ODD, failed(FRESH))),
    (Asked("retry", BUG), TWICE, FRESH, Retry(7, failed(FRESH), BUG)),
    (Asked("retry", BUG, delay=0), TWICE, FRESH, Retry(0, failed(FRESH), BUG)),
    (Asked("retry", BUG, delay=90), SILENT, FRESH, Retry(90, failed(FRESH), BUG)),
    (Asked("retry", BUG, delay=90), TWICE, WORN, Bury(BUG, failed(WORN))),
    (Asked("retry", BUG, delay=90), NEVER, FRESH, Bury(BUG, failed(FRESH))),
    # Bad storage follows its own policy, and in the end is buried too.
    (Hindered(FULL), NEVER, WORN, Bury(FULL, hindered(WORN))),
    # An executor that died is counted apart and followed by another at once.
    (
        Died("signal 9"),
        NEVER,
        Counters(failed=9),
        Retry(
            0,
            Counters(failed=9, lost=1),
            Failure(("kq.errors.ExecutorDied",), "its executor died (signal 9), 1 of at most 3 times"),
        ),
    ),
    (
        Died("signal 9"),
        TWICE,
        WORN,
        Bury(Failure(("kq.errors.ExecutorDied",), "its executor died (signal 9), 3 of at most 3 times"), lost(WORN)),
    ),
    (
        Died("with its worker"),
        Rules(on_lost="bury"),
        FRESH,
        Bury(
            Failure(("kq.errors.ExecutorDied",), "its executor died (with its worker), 1 of at most 3 times"),
            lost(FRESH),
        ),
    ),
    # A timeout is a failure of the job's own, unless its type says otherwise.
    (TimedOut(30, killed=False, failure=SOFT), TWICE, FRESH, Retry(7, failed(FRESH), SOFT)),
    (TimedOut(30, killed=False, failure=SOFT), TWICE, WORN, Bury(SOFT, failed(WORN))),
    (
        TimedOut(30, killed=True),
        replace(TWICE, on_timeout="bury"),
        FRESH,
        Bury(
            Failure(("kq.errors.SoftTimeout", "TimeoutError"), "ran past its timeout of 30 s and was killed"),
            failed(FRESH),
        ),
    ),
    (
        TimedOut(0.5, killed=False),
        replace(TWICE, on_timeout="revoke"),
        FRESH,
        Revoke("SoftTimeout: ran past its timeout of 0.5 s and was interrupted"),
    ),
]


@pytest.mark.parametrize(("outcome", "rules", "counters", "verdict"), TABLE)
def test_an_outcome_has_this_verdict(outcome: Outcome, rules: Rules, counters: Counters, verdict: Verdict) -> None:
    assert after(outcome, counters, rules) == verdict


def test_the_table_knows_every_outcome() -> None:
    assert {type(outcome) for outcome, *_ in TABLE} == set(get_args(Outcome))


# What holds for every job.

NAMES = some.lists(
    some.sampled_from([*FINAL_ERRORS, *PASSING_ERRORS, "shop.Odd", "Exception"]), min_size=1, max_size=4
).map(tuple)
FAILURES = some.builds(Failure, names=NAMES, message=TEXT)
OUTCOMES: some.SearchStrategy[Outcome] = some.one_of(
    some.builds(Done, some.binary()),
    some.builds(Raised, FAILURES),
    some.builds(Asked, some.sampled_from(["retry", "bury"]), FAILURES, some.none() | some.floats(0, 1e6)),
    some.builds(Hindered, FAILURES),
    some.builds(TimedOut, some.floats(0.1, 1e6), some.booleans(), some.none() | FAILURES),
    some.builds(Died, TEXT),
    some.just(GivenBack()),
    some.builds(Unusable, TEXT),
    some.just(Expired()),
)
RULES = some.builds(
    Rules,
    retry_policy=some.none() | policies(),
    retry_on=some.frozensets(ERRORS, max_size=2),
    bury_on=some.frozensets(ERRORS, max_size=2),
    on_timeout=some.sampled_from(["retry", "bury", "revoke"]),
    on_lost=some.sampled_from(["retry", "bury"]),
    max_lost=some.integers(1, 5),
)
CHANCE = some.randoms(use_true_random=False)

#: The one counter that an outcome may touch.
BLAMES = {
    Raised: "failed",
    Asked: "failed",
    TimedOut: "failed",
    Died: "lost",
    Hindered: "infrastructure",
}


@given(OUTCOMES, COUNTERS, RULES, CHANCE)
def test_each_cause_adds_one_to_its_own_counter_and_leaves_the_others(
    outcome: Outcome, counters: Counters, rules: Rules, chance: random.Random
) -> None:
    verdict = verdict_after(outcome, counters, rules, chance)
    blamed = BLAMES.get(type(outcome))
    expected = replace(counters, **{blamed: getattr(counters, blamed) + 1}) if blamed else counters
    if isinstance(verdict, Retry | Bury):
        assert verdict.counters == expected
    else:
        assert blamed is None or isinstance(verdict, Revoke)


@given(COUNTERS, RULES, CHANCE)
def test_a_job_that_was_given_back_is_never_blamed(counters: Counters, rules: Rules, chance: random.Random) -> None:
    assert verdict_after(GivenBack(), counters, rules, chance) == GiveBack()


@given(FAILURES, COUNTERS, RULES, CHANCE)
def test_bad_storage_never_costs_an_attempt(
    failure: Failure, counters: Counters, rules: Rules, chance: random.Random
) -> None:
    verdict = verdict_after(Hindered(failure), counters, rules, chance)
    assert isinstance(verdict, Retry | Bury)
    assert (verdict.counters.failed, verdict.counters.lost) == (counters.failed, counters.lost)
    assert isinstance(verdict, Bury) == (counters.infrastructure >= HINDERED_POLICY.retries)


def test_bad_storage_is_borne_for_half_an_hour() -> None:
    whole = replace(HINDERED_POLICY, jitter=False)
    waits = [whole.delay_before(retry, random.Random(1)) or 0 for retry in range(1, HINDERED_POLICY.retries + 1)]
    assert sum(waits) == 4023  # seconds at most: full jitter halves it on average


@given(some.integers(1, 6), COUNTERS, RULES, CHANCE)
def test_a_job_is_buried_with_exactly_the_last_executor_that_may_die_under_it(
    max_lost: int, counters: Counters, rules: Rules, chance: random.Random
) -> None:
    counters, rules = replace(counters, lost=0), replace(rules, max_lost=max_lost, on_lost="retry")
    for _ in range(max_lost - 1):
        verdict = verdict_after(Died("signal 9"), counters, rules, chance)
        assert isinstance(verdict, Retry)
        assert verdict.delay == 0
        counters = verdict.counters
    verdict = verdict_after(Died("signal 9"), counters, rules, chance)
    assert isinstance(verdict, Bury)
    assert verdict.counters.lost == max_lost


@given(OUTCOMES, COUNTERS, RULES, CHANCE)
def test_no_retry_is_in_the_past(outcome: Outcome, counters: Counters, rules: Rules, chance: random.Random) -> None:
    verdict = verdict_after(outcome, counters, rules, chance)
    assert not isinstance(verdict, Retry) or verdict.delay >= 0


@given(some.integers(0, 20), CHANCE)
def test_a_failing_job_is_tried_once_more_than_its_policy_has_retries(retries: int, chance: random.Random) -> None:
    rules = Rules(retry_policy=Fixed(retries=retries))
    counters, attempts = Counters(), 0
    while True:
        attempts += 1
        verdict = verdict_after(Raised(ODD), counters, rules, chance)
        if isinstance(verdict, Bury):
            break
        assert isinstance(verdict, Retry)
        counters = verdict.counters
    assert attempts == verdict.counters.attempts == retries + 1


# Which errors may pass.


@pytest.mark.parametrize("name", [*FINAL_ERRORS, *PASSING_ERRORS])
def test_the_lists_name_classes_that_exist(name: str) -> None:
    module, _, class_name = name.rpartition(".")
    found = getattr(importlib.import_module(module or "builtins"), class_name)
    assert error_name(found) == name


def test_no_error_is_both_final_and_passing() -> None:
    assert not set(FINAL_ERRORS) & set(PASSING_ERRORS)


@pytest.mark.parametrize("name", FINAL_ERRORS)
def test_a_final_error_is_not_retried_with_or_without_a_policy(name: str) -> None:
    assert not may_pass([name, "Exception"], SILENT)
    assert not may_pass([name, "Exception"], TWICE)


@pytest.mark.parametrize("name", PASSING_ERRORS)
def test_a_passing_error_is_retried_with_or_without_a_policy(name: str) -> None:
    assert may_pass([name, "Exception"], SILENT)
    assert may_pass([name, "Exception"], TWICE)


def test_an_unknown_error_is_retried_only_where_there_is_a_policy() -> None:
    assert not may_pass(["shop.Odd", "Exception"], SILENT)
    assert may_pass(["shop.Odd", "Exception"], TWICE)


def test_the_nearest_class_decides_between_the_lists() -> None:
    # json.JSONDecodeError is a ValueError; a ConnectionError is an OSError.
    assert may_pass(["shop.Late", "TimeoutError", "OSError"], SILENT)
    assert not may_pass(["shop.Wrong", "ValueError", "ConnectionError"], TWICE)
    assert may_pass(["shop.Wrong", "ConnectionError", "ValueError"], SILENT)


def test_a_job_type_overrules_the_lists() -> None:
    assert may_pass(["ValueError", "Exception"], Rules(retry_on=frozenset({"ValueError"})))
    assert not may_pass(["ConnectionError", "OSError"], Rules(bury_on=frozenset({"ConnectionError"})))


def test_the_nearest_class_decides_between_what_a_job_type_says() -> None:
    rules = Rules(retry_on=frozenset({"OSError"}), bury_on=frozenset({"ConnectionError"}))
    assert not may_pass(["ConnectionResetError", "ConnectionError", "OSError"], rules)
    assert may_pass(["BrokenPipeError", "OSError"], rules)
    rules = Rules(retry_on=frozenset({"ConnectionResetError"}), bury_on=frozenset({"ConnectionError"}))
    assert may_pass(["ConnectionResetError", "ConnectionError"], rules)


def test_what_is_final_and_retried_by_the_same_name_is_final() -> None:
    both = frozenset({"OSError"})
    assert not may_pass(["OSError"], Rules(retry_on=both, bury_on=both))


def test_a_policy_that_names_a_final_error_is_followed() -> None:
    rules = Rules(retry_policy=by_error({ValueError: Fixed(delay=3)}))
    assert after(Raised(BUG), rules=rules) == Retry(3, Counters(failed=1), BUG)
    assert after(Raised(BUG), rules=replace(rules, bury_on=frozenset({"ValueError"}))) == Bury(BUG, Counters(failed=1))


def test_a_retry_follows_the_policy_for_its_error() -> None:
    rules = Rules(retry_policy=by_error({ConnectionError: Fixed(delay=3)}, otherwise=Fixed(delay=9)))
    assert after(Raised(GONE), rules=rules) == Retry(3, Counters(failed=1), GONE)
    assert after(Raised(ODD), rules=rules) == Retry(9, Counters(failed=1), ODD)


# Failures as people see them.


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (Failure(("KeyError", "LookupError"), "'x'"), "KeyError: 'x'"),
        (Failure(("KeyError",), ""), "KeyError"),
        (Failure((), "odd"), "Exception: odd"),
    ],
)
def test_a_failure_is_one_line(failure: Failure, text: str) -> None:
    assert str(failure) == text
