from __future__ import annotations

import dataclasses
import random
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as some
from msgspec.structs import replace

from kq.values.failure import FAILURES, Failure, names_of
from kq.values.job import Counters
from kq.values.outcome import (
    COUNTED,
    HINDERED_WAITS,
    LEAST_WAIT,
    SLOW_FROM,
    Asked,
    Bury,
    Complete,
    Died,
    Done,
    Expire,
    Expired,
    FallBack,
    GiveBack,
    GivenBack,
    How,
    Outcome,
    OutOfMemory,
    Raised,
    Retry,
    Revoke,
    Rules,
    TimedOut,
    Unusable,
    Verdict,
    class_of,
    verdict_after,
)
from kq.values.policy import MOST_RETRIES, Fixed, Never, RetryPolicy, by_error
from tests.unit.strategies import COUNTERS, ERRORS, TEXT, policies

BUG = Failure(("ValueError", "Exception", "BaseException"), "row 7 has no date")
GONE = Failure(("ConnectionError", "OSError", "Exception", "BaseException"), "reset by peer")
ODD = Failure(("shop.Odd", "Exception", "BaseException"), "who knows")
BAD = Failure(("kq.errors.BadJob", "kq.errors.Steering"), "not a date")
DOUBT = Failure(("kq.errors.InDoubt", "kq.errors.Bury", "kq.errors.Steering"), "nobody knows")
FULL = Failure(("OSError.ENOSPC", "OSError", "Exception"), "no space left on device")
OFFLINE = Failure(("kq.errors.BadNetwork", "kq.errors.Steering"), "no route")
SOFT = Failure(("kq.errors.SoftTimeout", "TimeoutError"), "ran past its timeout")

SILENT = Rules()
TWICE = Rules(retry_policy=Fixed(delay=7, retries=2))
NEVER = Rules(retry_policy=Never())

FRESH = Counters()
WORN = Counters(failed=5, lost=2, infra=14)


def after(outcome: Outcome, counters: Counters = FRESH, rules: Rules = SILENT) -> Verdict:
    return verdict_after(outcome, counters, rules, random.Random(1))


def in_words(verdict: Verdict, before: Counters) -> str:
    """A verdict as the specification has it: what becomes of the job, and the counter that is one higher."""
    words = {Complete: "complete", Retry: "again", Bury: "bury", Revoke: "revoke", GiveBack: "back", Expire: "expire"}
    words[FallBack] = "next"
    if not isinstance(verdict, Retry | Bury | FallBack):
        return words[type(verdict)]
    more = [name for name in ("failed", "lost", "infra") if verdict.counters == before.plus(name)]
    assert more or verdict.counters == before
    return " ".join([words[type(verdict)], *(f"{name}+" for name in more)])


#: How an execution ended, and how its type says that is to be taken.
ENDINGS: dict[str, tuple[Outcome, dict[str, object]]] = {
    "done": (Done(b"5"), {}),
    "given back": (GivenBack(), {}),
    "expired": (Expired(), {}),
    "undecodable": (Unusable("no JSON"), {}),
    "raised a bug": (Raised(BUG), {}),
    "raised what may pass": (Raised(GONE), {}),
    "raised what nobody knows": (Raised(ODD), {}),
    "raised BadJob": (Raised(BAD), {}),
    "raised Bury": (Raised(DOUBT), {}),
    "asked for a retry": (Asked(BUG), {}),
    "asked for it in 90 s": (Asked(BUG, delay=90), {}),
    "bad storage": (Raised(FULL), {}),
    "bad network": (Raised(OFFLINE), {}),
    "interrupted": (TimedOut(30, killed=False, failure=SOFT), {}),
    "killed": (TimedOut(30, killed=True), {}),
    "interrupted, retry": (TimedOut(30, killed=False, failure=SOFT), {"on_timeout": "retry"}),
    "killed, fallback": (TimedOut(30, killed=True), {"on_timeout": "fallback"}),
    "interrupted, bury": (TimedOut(30, killed=False, failure=SOFT), {"on_timeout": "bury"}),
    "killed, bury": (TimedOut(30, killed=True), {"on_timeout": "bury"}),
    "interrupted, revoke": (TimedOut(30, killed=False, failure=SOFT), {"on_timeout": "revoke"}),
    "killed, revoke": (TimedOut(30, killed=True), {"on_timeout": "revoke"}),
    "signal": (Died("signal 9"), {}),
    "exit code": (Died("exit code 3"), {}),
    "out of memory": (OutOfMemory("2 GiB"), {}),
    "lease lost": (Died("with its worker"), {}),
    "signal, bury": (Died("signal 9"), {"on_lost": "bury"}),
    "signal, fallback": (Died("signal 9"), {"on_lost": "fallback"}),
    "out of memory, bury": (OutOfMemory("2 GiB"), {"on_lost": "bury"}),
    "lease lost, bury": (Died("with its worker"), {"on_lost": "bury"}),
}

#: The policies: none; one of 2 retries, 7 s apart; and none at all. Each met by a job at its first attempt, and by one
#: whose counters are one below what its type and the default policy allow.
COLUMNS = [(rules, counters) for rules in (SILENT, TWICE, NEVER) for counters in (FRESH, WORN)]

SPECIFICATION = """
                         | no policy   | worn        | 2 retries   | worn        | never       | worn
done                     | complete    | complete    | complete    | complete    | complete    | complete
given back               | back        | back        | back        | back        | back        | back
expired                  | expire      | expire      | expire      | expire      | expire      | expire
undecodable              | bury        | bury        | bury        | bury        | bury        | bury
raised a bug             | bury failed+ | bury failed+ | bury failed+ | bury failed+ | bury failed+ | bury failed+
raised what may pass     | again failed+ | bury failed+ | again failed+ | bury failed+ | bury failed+ | bury failed+
raised what nobody knows | bury failed+ | bury failed+ | again failed+ | bury failed+ | bury failed+ | bury failed+
raised BadJob            | bury failed+ | bury failed+ | bury failed+ | bury failed+ | bury failed+ | bury failed+
raised Bury              | bury failed+ | bury failed+ | bury failed+ | bury failed+ | bury failed+ | bury failed+
asked for a retry        | again failed+ | bury failed+ | again failed+ | bury failed+ | bury failed+ | bury failed+
asked for it in 90 s     | again failed+ | bury failed+ | again failed+ | bury failed+ | bury failed+ | bury failed+
bad storage              | again infra+ | bury infra+ | again infra+ | bury infra+ | again infra+ | bury infra+
bad network              | again infra+ | bury infra+ | again infra+ | bury infra+ | again infra+ | bury infra+
interrupted              | again failed+ | bury failed+ | again failed+ | bury failed+ | bury failed+ | bury failed+
killed                   | again failed+ | bury failed+ | again failed+ | bury failed+ | bury failed+ | bury failed+
interrupted, retry       | again failed+ | bury failed+ | again failed+ | bury failed+ | bury failed+ | bury failed+
killed, fallback         | bury failed+ | bury failed+ | bury failed+ | bury failed+ | bury failed+ | bury failed+
interrupted, bury        | bury failed+ | bury failed+ | bury failed+ | bury failed+ | bury failed+ | bury failed+
killed, bury             | bury failed+ | bury failed+ | bury failed+ | bury failed+ | bury failed+ | bury failed+
interrupted, revoke      | revoke      | revoke      | revoke      | revoke      | revoke      | revoke
killed, revoke           | revoke      | revoke      | revoke      | revoke      | revoke      | revoke
signal                   | again lost+ | bury lost+  | again lost+ | bury lost+  | again lost+ | bury lost+
exit code                | again lost+ | bury lost+  | again lost+ | bury lost+  | again lost+ | bury lost+
out of memory            | again lost+ | bury lost+  | again lost+ | bury lost+  | again lost+ | bury lost+
lease lost               | again lost+ | bury lost+  | again lost+ | bury lost+  | again lost+ | bury lost+
signal, bury             | bury lost+  | bury lost+  | bury lost+  | bury lost+  | bury lost+  | bury lost+
signal, fallback         | bury lost+  | bury lost+  | bury lost+  | bury lost+  | bury lost+  | bury lost+
out of memory, bury      | bury lost+  | bury lost+  | bury lost+  | bury lost+  | bury lost+  | bury lost+
lease lost, bury         | bury lost+  | bury lost+  | bury lost+  | bury lost+  | bury lost+  | bury lost+
"""
#: The same where another job type may run instead: the rows that differ.
WITH_A_FALLBACK = """
                         | no policy   | worn        | 2 retries   | worn        | never       | worn
raised a bug             | next failed+ | next failed+ | next failed+ | next failed+ | next failed+ | next failed+
raised what may pass     | again failed+ | next failed+ | again failed+ | next failed+ | next failed+ | next failed+
raised what nobody knows | next failed+ | next failed+ | again failed+ | next failed+ | next failed+ | next failed+
raised BadJob            | next failed+ | next failed+ | next failed+ | next failed+ | next failed+ | next failed+
asked for a retry        | again failed+ | next failed+ | again failed+ | next failed+ | next failed+ | next failed+
asked for it in 90 s     | again failed+ | next failed+ | again failed+ | next failed+ | next failed+ | next failed+
bad storage              | again infra+ | next infra+ | again infra+ | next infra+ | again infra+ | next infra+
bad network              | again infra+ | next infra+ | again infra+ | next infra+ | again infra+ | next infra+
interrupted              | next failed+ | next failed+ | next failed+ | next failed+ | next failed+ | next failed+
killed                   | next failed+ | next failed+ | next failed+ | next failed+ | next failed+ | next failed+
interrupted, retry       | again failed+ | next failed+ | again failed+ | next failed+ | next failed+ | next failed+
killed, fallback         | next failed+ | next failed+ | next failed+ | next failed+ | next failed+ | next failed+
signal                   | again lost+ | next lost+  | again lost+ | next lost+  | again lost+ | next lost+
exit code                | again lost+ | next lost+  | again lost+ | next lost+  | again lost+ | next lost+
out of memory            | again lost+ | next lost+  | again lost+ | next lost+  | again lost+ | next lost+
lease lost               | again lost+ | next lost+  | again lost+ | next lost+  | again lost+ | next lost+
signal, fallback         | next lost+  | next lost+  | next lost+  | next lost+  | next lost+  | next lost+
"""


def rows(specification: str) -> dict[str, list[str]]:
    """The cells of a specification, by ending."""
    lines = specification.strip().splitlines()[1:]
    return {line.partition("|")[0].strip(): [cell.strip() for cell in line.split("|")[1:]] for line in lines}


ROWS = rows(SPECIFICATION)


@pytest.mark.parametrize("ending", ENDINGS)
def test_each_ending_has_its_verdict_under_each_policy_and_with_all_counters(ending: str) -> None:
    outcome, said = ENDINGS[ending]
    found = [in_words(after(outcome, counters, replace(rules, **said)), counters) for rules, counters in COLUMNS]
    assert found == ROWS[ending]


@pytest.mark.parametrize("ending", ENDINGS)
def test_where_another_job_type_may_run_instead_it_does_so_rather_than_the_job_is_buried(ending: str) -> None:
    outcome, said = ENDINGS[ending]
    found = [
        in_words(after(outcome, counters, replace(rules, fallback=True, **said)), counters)
        for rules, counters in COLUMNS
    ]
    assert found == {**ROWS, **rows(WITH_A_FALLBACK)}[ending]


def test_the_specification_knows_every_ending() -> None:
    assert list(ROWS) == list(ENDINGS)
    assert {type(outcome) for outcome, _ in ENDINGS.values()} == set(get_args(Outcome))


#: What the specification leaves out: waits, and what people read.
VERDICTS: list[tuple[Outcome, Rules, Counters, Verdict]] = [
    (Done(b"5"), SILENT, FRESH, Complete(b"5")),
    (Unusable("no JSON"), TWICE, WORN, Bury(Failure(("kq.errors.MessageError",), "no JSON"), WORN)),
    (Raised(GONE), TWICE, FRESH, Retry(7, Counters(failed=1), GONE, "raised")),
    (Raised(BUG), TWICE, FRESH, Bury(BUG, Counters(failed=1), "raised")),
    # What it asked for, it gets: a retry in its own time.
    (Asked(BUG), TWICE, FRESH, Retry(7, Counters(failed=1), BUG, "raised")),
    (Asked(BUG, delay=0), TWICE, FRESH, Retry(0, Counters(failed=1), BUG, "raised")),
    (Asked(BUG, delay=90), SILENT, FRESH, Retry(90, Counters(failed=1), BUG, "raised")),
    (Raised(FULL), NEVER, WORN, Bury(FULL, WORN.plus("infra"), "bad storage")),
    (Raised(OFFLINE), NEVER, WORN, Bury(OFFLINE, WORN.plus("infra"), "bad network")),
    # An executor that died is followed by another at once.
    (
        Died("signal 9"),
        NEVER,
        Counters(failed=9),
        Retry(
            0,
            Counters(failed=9, lost=1),
            Failure(("kq.errors.ExecutorDied",), "its executor died (signal 9), 1 of at most 3 times"),
            "died",
        ),
    ),
    (
        OutOfMemory("2 GiB of at most 1 GiB"),
        TWICE,
        WORN,
        Bury(
            Failure(("kq.errors.ExecutorDied",), "its executor died (2 GiB of at most 1 GiB), 3 of at most 3 times"),
            WORN.plus("lost"),
            "out of memory",
        ),
    ),
    (TimedOut(30, killed=False, failure=SOFT), TWICE, FRESH, Retry(7, Counters(failed=1), SOFT, "timed out")),
    (
        TimedOut(30, killed=True),
        replace(TWICE, on_timeout="bury"),
        FRESH,
        Bury(
            Failure(("kq.errors.SoftTimeout", "TimeoutError"), "ran past its timeout of 30 s and was killed"),
            Counters(failed=1),
            "timed out",
        ),
    ),
    (
        TimedOut(0.5, killed=False),
        replace(TWICE, on_timeout="revoke"),
        FRESH,
        Revoke("SoftTimeout: ran past its timeout of 0.5 s and was interrupted"),
    ),
]


@pytest.mark.parametrize(("outcome", "rules", "counters", "verdict"), VERDICTS)
def test_an_outcome_has_this_verdict(outcome: Outcome, rules: Rules, counters: Counters, verdict: Verdict) -> None:
    assert after(outcome, counters, rules) == verdict


# What holds for every job.

NAMES = some.lists(some.sampled_from([*FAILURES, "shop.Odd", "Exception"]), min_size=1, max_size=4).map(tuple)
FAILED = some.builds(Failure, names=NAMES, message=TEXT)
OUTCOMES: some.SearchStrategy[Outcome] = some.one_of(
    some.builds(Done, some.binary()),
    some.builds(Raised, FAILED),
    some.builds(Asked, FAILED, some.none() | some.floats(0, 1e6)),
    some.builds(TimedOut, some.floats(0.1, 1e6), some.booleans(), some.none() | FAILED),
    some.builds(Died, TEXT),
    some.builds(OutOfMemory, TEXT),
    some.just(GivenBack()),
    some.builds(Unusable, TEXT),
    some.just(Expired()),
)
RULES = some.builds(
    Rules,
    retry_policy=some.none() | policies(),
    failures=some.dictionaries(ERRORS, some.sampled_from(["passing", "final", "storage", "network"]), max_size=3),
    on_timeout=some.sampled_from([None, "retry", "fallback", "bury", "revoke"]),
    on_lost=some.sampled_from(["retry", "fallback", "bury"]),
    max_lost=some.integers(1, 5),
    max_infra=some.integers(1, 20),
    fallback=some.booleans(),
)
CHANCE = some.randoms(use_true_random=False)


@given(OUTCOMES, COUNTERS, RULES, CHANCE)
def test_an_attempt_adds_one_to_one_counter_and_none_ever_goes_down(
    outcome: Outcome, counters: Counters, rules: Rules, chance: random.Random
) -> None:
    verdict = verdict_after(outcome, counters, rules, chance)
    if isinstance(verdict, Retry | Bury | FallBack):
        assert verdict.counters == (counters if verdict.how is None else counters.plus(COUNTED[verdict.how]))


@given(OUTCOMES, COUNTERS, RULES, CHANCE)
def test_a_job_that_did_not_start_is_never_blamed(
    outcome: Outcome, counters: Counters, rules: Rules, chance: random.Random
) -> None:
    verdict = verdict_after(outcome, counters, rules, chance)
    if isinstance(outcome, GivenBack | Expired | Unusable):
        assert not isinstance(verdict, Retry | FallBack)
        assert not isinstance(verdict, Bury) or (verdict.counters, verdict.how) == (counters, None)


@given(OUTCOMES, COUNTERS, RULES, CHANCE)
def test_how_it_ended_is_told_by_the_counter_that_it_counts_to(
    outcome: Outcome, counters: Counters, rules: Rules, chance: random.Random
) -> None:
    verdict = verdict_after(outcome, counters, rules, chance)
    if isinstance(verdict, Retry | Bury | FallBack) and isinstance(outcome, Died | OutOfMemory | TimedOut | Asked):
        told = {Died: "died", OutOfMemory: "out of memory", TimedOut: "timed out", Asked: "raised"}
        assert verdict.how == told[type(outcome)]


def test_every_word_of_the_history_counts_to_one_counter() -> None:
    assert set(COUNTED) == set(get_args(How))


@given(some.lists(OUTCOMES, max_size=60), RULES, CHANCE)
def test_attempts_are_bounded_by_the_three_limits(outcomes: list[Outcome], rules: Rules, chance: random.Random) -> None:
    counters = Counters()
    for outcome in outcomes:
        verdict = verdict_after(outcome, counters, rules, chance)
        if not isinstance(verdict, Retry | GiveBack):
            return
        counters = verdict.counters if isinstance(verdict, Retry) else counters
        assert counters.lost < rules.max_lost
        assert counters.infra < rules.max_infra


@given(COUNTERS, RULES, CHANCE)
def test_bad_storage_never_costs_an_attempt(counters: Counters, rules: Rules, chance: random.Random) -> None:
    verdict = verdict_after(Raised(FULL), counters, replace(rules, failures={}), chance)
    assert isinstance(verdict, Retry | Bury | FallBack)
    assert (verdict.counters.failed, verdict.counters.lost) == (counters.failed, counters.lost)
    assert isinstance(verdict, Retry) == (counters.infra + 1 < rules.max_infra)


def test_bad_storage_is_borne_for_half_an_hour() -> None:
    whole = dataclasses.replace(HINDERED_WAITS, jitter=False)
    waits = [whole.delay_before(retry, random.Random(1)) or 0 for retry in range(1, Rules().max_infra)]
    assert sum(waits) == 3423  # seconds at most: full jitter halves it on average


@given(some.integers(1, 6), COUNTERS, RULES, CHANCE)
def test_a_job_is_buried_with_exactly_the_last_executor_that_may_die_under_it(
    max_lost: int, counters: Counters, rules: Rules, chance: random.Random
) -> None:
    counters, rules = replace(counters, lost=0), replace(rules, max_lost=max_lost, on_lost="retry", fallback=False)
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


# Which error is of which class.


class Late(TimeoutError):
    """A user's own, of a kind that may pass."""


@pytest.mark.parametrize("name", FAILURES)
def test_a_public_class_holds_with_and_without_a_policy(name: str) -> None:
    for rules in (SILENT, TWICE, NEVER):
        assert class_of([name, "Exception"], rules) == FAILURES[name]


def test_an_unknown_error_may_pass_only_where_there_is_a_policy() -> None:
    assert class_of(["shop.Odd", "Exception"], SILENT) == "final"
    assert class_of(["shop.Odd", "Exception"], TWICE) == "passing"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Late("slow"), "passing"),
        (OSError(28, "No space left on device"), "storage"),
        (FileNotFoundError(2, "No such file"), "final"),
        (ConnectionResetError(104, "reset"), "passing"),
        (OSError(101, "Network is unreachable"), "network"),
        (UnicodeError("bad"), "final"),
    ],
)
def test_the_nearest_name_decides(error: BaseException, expected: str) -> None:
    assert class_of(names_of(error), SILENT) == expected


@given(OUTCOMES, COUNTERS, RULES, CHANCE)
def test_nothing_runs_instead_where_there_is_nothing_or_where_a_human_was_asked_for(
    outcome: Outcome, counters: Counters, rules: Rules, chance: random.Random
) -> None:
    verdict = verdict_after(outcome, counters, rules, chance)
    if isinstance(verdict, FallBack):
        assert rules.fallback
        assert "kq.errors.Bury" not in verdict.failure.names


def test_an_app_or_a_type_overrules_the_list() -> None:
    assert class_of(["ValueError", "Exception"], Rules(failures={"ValueError": "passing"})) == "passing"
    assert class_of(["ConnectionError", "OSError"], Rules(failures={"ConnectionError": "network"})) == "network"
    rules = Rules(failures={"OSError": "passing", "ConnectionError": "final"})
    assert class_of(["ConnectionResetError", "ConnectionError", "OSError"], rules) == "final"
    assert class_of(["BrokenPipeError", "OSError"], rules) == "passing"


def test_a_policy_that_names_a_final_error_is_followed() -> None:
    rules = Rules(retry_policy=by_error({ValueError: Fixed(delay=3)}))
    assert after(Raised(BUG), rules=rules) == Retry(3, Counters(failed=1), BUG, "raised")
    final = replace(rules, failures={"ValueError": "final"})
    assert after(Raised(BUG), rules=final) == Bury(BUG, Counters(failed=1), "raised")


def test_a_job_that_asks_to_run_again_does_so_under_a_policy_that_speaks_of_errors() -> None:
    asked = Asked(Failure(("kq.errors.Retry", "kq.errors.Steering", "Exception"), "not yet"), delay=30)
    rules = Rules(retry_policy=by_error({ConnectionError: Fixed(delay=3)}))
    assert after(asked, rules=rules) == Retry(30, Counters(failed=1), asked.failure, "raised")
    assert isinstance(after(asked, Counters(failed=5), rules), Bury)
    for said in (Never(), by_error({Exception: Never()}), by_error({"kq.errors.Retry": Never()})):
        assert isinstance(after(asked, rules=Rules(retry_policy=said)), Bury)


def test_a_retry_follows_the_policy_for_its_error() -> None:
    rules = Rules(retry_policy=by_error({ConnectionError: Fixed(delay=3)}, otherwise=Fixed(delay=9)))
    assert after(Raised(GONE), rules=rules) == Retry(3, Counters(failed=1), GONE, "raised")
    assert after(Raised(ODD), rules=rules) == Retry(9, Counters(failed=1), ODD, "raised")


@given(policies(), some.integers(SLOW_FROM - 1, 3000), some.sampled_from([Raised(GONE), Asked(GONE, delay=0.0)]))
def test_no_retry_comes_sooner_than_a_second_after_the_20th_attempt(
    policy: RetryPolicy, failed: int, outcome: Outcome
) -> None:
    verdict = after(outcome, Counters(failed=failed), Rules(retry_policy=policy))
    assert isinstance(verdict, Bury) or (isinstance(verdict, Retry) and verdict.delay >= LEAST_WAIT)


def test_a_policy_of_a_message_has_a_limit_and_one_of_the_app_has_none() -> None:
    endless = Fixed(delay=5, retries=MOST_RETRIES)
    for failed, rules, verdict in (
        (9, SILENT.but(endless, None, 10), Retry),
        (10, SILENT.but(endless, None, 10), Bury),
        (10_000, Rules(retry_policy=endless).but(None, None, 10), Retry),
        (10_000, Rules(retry_policy=endless).but(None, False, 10), Retry),
    ):
        assert isinstance(after(Raised(GONE), Counters(failed=failed), rules), verdict)
