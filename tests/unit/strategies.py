"""Values for hypothesis: policies, counters, heads, and what JSON can hold."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as some

from kq.values.job import FALLBACKS, LATEST, Counters
from kq.values.message import Attempt, First, Head, Stage
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
)

SECONDS = some.floats(0, YEAR)
RETRIES = some.integers(1, MOST_RETRIES)
COUNTS = some.integers(0, MOST_RETRIES)
INSTANTS = some.floats(0, LATEST)
#: Text that UTF-8 can carry.
TEXT = some.text(some.characters(exclude_categories=["Cs"]), max_size=40)
#: Names of jobs and job types: any text but one with a segment `.` or `..`, which is refused.
NAMES = some.text(some.characters(exclude_categories=["Cs"]), min_size=1, max_size=255).filter(
    lambda name: not {".", ".."} & set(name.split("/"))
)
ERRORS = some.sampled_from(["KeyError", "OSError", "ConnectionError", "smtplib.SMTPException", "shop.Late"])

SIMPLE_POLICIES: some.SearchStrategy[RetryPolicy] = some.one_of(
    some.builds(
        Exponential,
        first=SECONDS,
        factor=some.floats(0, 100),
        longest=SECONDS,
        retries=COUNTS,
        jitter=some.booleans(),
    ),
    some.builds(Polynomial, power=some.floats(0, 100), shift=SECONDS, retries=COUNTS, jitter=SECONDS),
    some.builds(Fixed, delay=SECONDS, retries=COUNTS),
    some.builds(Delays, delays=some.lists(SECONDS, max_size=5).map(tuple)),
    some.just(Never()),
)


def policies() -> some.SearchStrategy[RetryPolicy]:
    """Every kind of policy, those by error nested too."""
    return some.recursive(SIMPLE_POLICIES, _by_error, max_leaves=8).filter(lambda policy: policy.depth <= NESTING)


def _by_error(inner: some.SearchStrategy[RetryPolicy]) -> some.SearchStrategy[RetryPolicy]:
    few = inner.filter(lambda policy: policy.depth < NESTING)
    return some.builds(ByError, policies=some.dictionaries(ERRORS, few, max_size=3), otherwise=few)


COUNTERS = some.builds(Counters, COUNTS, COUNTS, COUNTS)
ATTEMPTS = some.builds(
    Attempt,
    number=COUNTS,
    worker=TEXT,
    started=INSTANTS,
    ended=INSTANTS,
    outcome=some.sampled_from(["raised", "timed out", "died", "bad storage", "kicked"]),
    error=TEXT,
    counter=some.sampled_from(["failed", "lost", "infra", ""]),
    host=TEXT,
    code=TEXT,
    type=TEXT,
)
TIMEOUTS = some.none() | some.floats(0, YEAR, exclude_min=True)
POLICIES = some.none() | policies().map(lambda policy: policy.to_data())
STAGES = some.builds(Stage, NAMES, some.none() | TEXT, TIMEOUTS, POLICIES)
FIRSTS = some.builds(First, NAMES, some.none() | TEXT, TIMEOUTS, POLICIES, some.booleans())
HEADS = some.builds(
    Head,
    id=NAMES,
    type=NAMES,
    submitted=INSTANTS,
    due=some.none() | INSTANTS,
    again=some.booleans(),
    parent=some.none() | NAMES,
    held=some.booleans(),
    repaired=COUNTS,
    failed=COUNTS,
    lost=COUNTS,
    infra=COUNTS,
    timeout=TIMEOUTS,
    deadline=some.none() | INSTANTS,
    unique=some.none() | TEXT,
    unique_until=some.sampled_from([None, "start", "turn", "gone"]),
    unique_at_least=some.none() | INSTANTS,
    unique_at_most=some.none() | INSTANTS,
    unique_late=some.booleans(),
    retry_policy=POLICIES,
    degraded_by=some.integers(0, FALLBACKS),
    fallback=some.none() | some.lists(STAGES, max_size=3).map(tuple),
    first=some.none() | FIRSTS,
    history=some.lists(ATTEMPTS, max_size=4).map(tuple),
    error=some.none() | TEXT,
    traceback=some.none() | TEXT,
    log=some.none() | TEXT,
    buried=some.none() | INSTANTS,
    queue=some.none() | TEXT,
)

#: What JSON can hold and gives back as it was.
JSON: some.SearchStrategy[Any] = some.recursive(
    some.none()
    | some.booleans()
    | some.integers(-(2**63), 2**64 - 1)
    | some.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(TEXT, inner, max_size=4),
    max_leaves=15,
)
