"""What an execution was, and what settling it says. Pure: no clock, no broker, no I/O.

`verdict_after` is the one table that decides what becomes of a job. The supervisor carries its
verdicts out; a simulation drives the same function.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, get_args

import msgspec
from msgspec.structs import replace

from kq.values.failure import FAILURES, Failure, FailureClass
from kq.values.job import Counter, Counters
from kq.values.message import Envelope
from kq.values.policy import MOST_RETRIES, ByError, Exponential, Never, RetryPolicy

OnTimeout: TypeAlias = Literal["retry", "fallback", "bury", "revoke"]
OnLost: TypeAlias = Literal["retry", "fallback", "bury"]

#: How an attempt ended that did not complete its job, in the words of its history, and the counter that it counts to.
How: TypeAlias = Literal["raised", "timed out", "died", "out of memory", "bad storage", "bad network"]
COUNTED: Mapping[How, Counter] = {
    "raised": "failed",
    "timed out": "failed",
    "died": "lost",
    "out of memory": "lost",
    "bad storage": "infra",
    "bad network": "infra",
}

#: Those in which the job may have had no last word: it was interrupted, and killed if it did not heed that, or it died.
CUT_OFF: Sequence[How] = ("timed out", "died", "out of memory")

#: Those that are an executor's death, in which the job had no say.
DEATHS = [how for how, counter in COUNTED.items() if counter == "lost"]


class Done(msgspec.Struct, frozen=True):
    """It returned; value is JSON. staged: jobs that it wants submitted now that it has."""

    value: bytes
    staged: tuple[Envelope, ...] = ()


class Raised(msgspec.Struct, frozen=True):
    """It raised."""

    failure: Failure


class Asked(msgspec.Struct, frozen=True):
    """It raised kq.Retry. delay: None for its policy's."""

    failure: Failure
    delay: float | None = None


class TimedOut(msgspec.Struct, frozen=True):
    """It ran past its timeout. killed: it ignored the interruption, so its executor was killed. log: see Died."""

    after: float
    killed: bool
    failure: Failure | None = None
    log: str = ""


class Died(msgspec.Struct, frozen=True):
    """Its executor died under it. how: "signal 9", "exit code 3", or "with its worker", whose lease ran out.

    log: the last lines that were logged there.
    """

    how: str
    log: str = ""


class OutOfMemory(msgspec.Struct, frozen=True):
    """Its executor was ended because of the memory that it took. how: a line for people. log: see Died."""

    how: str
    log: str = ""


class GivenBack(msgspec.Struct, frozen=True):
    """It did not start, or was stopped by its worker's end: nothing is known against it."""


class Unusable(msgspec.Struct, frozen=True):
    """It cannot be run as it is: undecodable, unknown type, wrong arguments (promise C19)."""

    reason: str


class Expired(msgspec.Struct, frozen=True):
    """Its deadline passed before it started."""


Outcome: TypeAlias = Done | Raised | Asked | TimedOut | Died | OutOfMemory | GivenBack | Unusable | Expired


class Complete(msgspec.Struct, frozen=True):
    """It is over; value is JSON. staged: see Done."""

    value: bytes
    staged: tuple[Envelope, ...] = ()


class Retry(msgspec.Struct, frozen=True):
    """It goes back to its queue with new counters, after delay seconds."""

    delay: float
    counters: Counters
    failure: Failure
    how: How


class Bury(msgspec.Struct, frozen=True):
    """It is set aside for a human, with new counters. how: None when there was no attempt."""

    failure: Failure
    counters: Counters
    how: How | None = None


class FallBack(msgspec.Struct, frozen=True):
    """Its job type gives up, and the next one runs instead: the same job, counted anew. counters: as they are now."""

    failure: Failure
    counters: Counters
    how: How


class Revoke(msgspec.Struct, frozen=True):
    """It ends without a result."""

    reason: str


class GiveBack(msgspec.Struct, frozen=True):
    """It goes back to its old place as if it had not been delivered."""


class Park(msgspec.Struct, frozen=True):
    """It waits aside, whole, because jobs of its type are not to start now."""


class PassOn(msgspec.Struct, frozen=True):
    """It is offered to all workers, unchanged, after delay seconds. why: for people."""

    delay: float
    why: str = "left to another worker"


class Expire(msgspec.Struct, frozen=True):
    """It ends unstarted because its deadline is over."""


class Drop(msgspec.Struct, frozen=True):
    """It is an extra copy of a job that runs or ended elsewhere: take it away, record nothing.

    staged: what that job had staged, and its worker did not live to release.
    """

    staged: tuple[Envelope, ...] = ()


Verdict: TypeAlias = Complete | Retry | Bury | FallBack | Revoke | GiveBack | Park | PassOn | Expire | Drop


class Rules(msgspec.Struct, frozen=True):
    """What a job type says about failure.

    retry_policy: None when neither the type nor the app names one: then only what is known to pass is retried.
    failures: the classes of errors, by dotted name, where the type or the app differs from FAILURES.
    max_lost: when so many executors have died under it, it is buried (promise C7).
    max_infra: when bad storage or a bad network have ended so many attempts, it is buried.
    most_retries: how many retries the policy may grant, whatever it says itself.
    fallback: whether another job type runs instead of this one where it would be buried for its failures.
    on_timeout: None for the fallback where there is one, else a retry.
    """

    retry_policy: RetryPolicy | None = None
    failures: Mapping[str, FailureClass] = msgspec.field(default_factory=dict)
    on_timeout: OnTimeout | None = None
    on_lost: OnLost = "retry"
    max_lost: int = 3
    max_infra: int = 15
    fallback: bool = False
    most_retries: int = MOST_RETRIES

    def but(self, retry_policy: RetryPolicy | None, fallback: bool | None, most_retries: int) -> Rules:
        """These rules, where a job's message does not say otherwise. most_retries: of a policy of the message."""
        if retry_policy is None and fallback is None:
            return self
        return replace(
            self,
            retry_policy=retry_policy or self.retry_policy,
            most_retries=self.most_retries if retry_policy is None else most_retries,
            fallback=self.fallback if fallback is None else fallback,
        )

    @property
    def starts_once(self) -> bool:
        """Whether the job must not start again when its executor or its worker was lost under it."""
        return self.on_lost != "retry"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("on_timeout", self.on_timeout, get_args(OnTimeout)),
            ("on_lost", self.on_lost, get_args(OnLost)),
        ):
            if value is not None and value not in known:
                raise ValueError(f"{name} {value!r} is none; use one of {', '.join(known)}")
        for name, limit in (("max_lost", self.max_lost), ("max_infra", self.max_infra)):
            if limit < 1:
                raise ValueError(f"{name} {limit} is out of range; use 1 or more")


DEFAULT_POLICY = Exponential()

#: From this retry on, none comes sooner than LEAST_WAIT seconds after the attempt before it.
SLOW_FROM = 20
LEAST_WAIT = 1.0

#: The waits of jobs that bad storage or a bad network ended: by the 15th time half an hour in all, on average.
HINDERED_WAITS = Exponential(first=1.0, factor=2.0, longest=600.0, retries=MOST_RETRIES)


def verdict_after(outcome: Outcome, counters: Counters, rules: Rules, chance: random.Random) -> Verdict:
    """What becomes of a job after one execution.

    counters: as they were before it. Each attempt that did not complete the job adds one to one of them, and each
    of them has a limit of its own: failed the retry policy, lost max_lost, infra max_infra.
    """
    match outcome:
        case Done(value, staged):
            return Complete(value, staged)
        case GivenBack():
            return GiveBack()
        case Expired():
            return Expire()
        case Unusable(reason):
            return Bury(Failure(("kq.errors.MessageError",), reason), counters)
        case Died(how, log):
            return _after_death("died", how, log, counters, rules)
        case OutOfMemory(how, log):
            return _after_death("out of memory", how, log, counters, rules)
        case Raised(failure):
            return _after_error(failure, counters, rules, chance)
        case Asked(failure, delay):
            return _by_policy("raised", failure, counters, _rules_for_asking(failure, rules), chance, delay)
        case TimedOut():
            return _after_timeout(outcome, counters, rules, chance)


def class_of(names: Sequence[str], rules: Rules) -> FailureClass:
    """The class of an error with these names, nearest first.

    The nearest name that anybody speaks of decides: the job type or its app, then a policy by error, then FAILURES.
    What nobody speaks of may pass where there is a policy, for somebody thought of retries there.
    """
    policy = rules.retry_policy
    for name in names:
        if name in rules.failures:
            return rules.failures[name]
        if policy is not None and policy.speaks_of(name):
            return "passing"
        if name in FAILURES:
            return FAILURES[name]
    return "final" if policy is None else "passing"


def _after_error(failure: Failure, counters: Counters, rules: Rules, chance: random.Random) -> Verdict:
    match class_of(failure.names, rules):
        case "final":
            return _gives_up(failure, counters.plus("failed"), "raised", rules)
        case "passing":
            return _by_policy("raised", failure, counters, rules, chance)
        case "storage":
            return _after_hindrance("bad storage", failure, counters, rules, chance)
        case "network":
            return _after_hindrance("bad network", failure, counters, rules, chance)


def asks_a_human(failure: Failure) -> bool:
    """Whether the job itself wanted to be buried, by kq.Bury or a side effect in doubt: nothing runs instead then."""
    return "kq.errors.Bury" in failure.names


def _gives_up(failure: Failure, counters: Counters, how: How, rules: Rules) -> Verdict:
    """No further attempt of this job type."""
    if rules.fallback and not asks_a_human(failure):
        return FallBack(failure, counters, how)
    return Bury(failure, counters, how)


def _rules_for_asking(failure: Failure, rules: Rules) -> Rules:
    """A policy that says which errors are retried says nothing of a job that asks to run again."""
    policy = rules.retry_policy
    never = isinstance(policy, ByError) and policy.for_error(failure.names) == Never()
    is_said = policy is not None and any(map(policy.speaks_of, failure.names))
    return replace(rules, retry_policy=None) if never and not is_said else rules


def _by_policy(
    how: How,
    failure: Failure,
    counters: Counters,
    rules: Rules,
    chance: random.Random,
    delay: float | None = None,
) -> Verdict:
    """Retry as the policy says, after delay where the job asked for one, until the policy gives up.

    A job that fails at once and is retried without a wait would fill a slot, the broker and the log for ever.
    """
    failed = counters.plus("failed")
    policy = (rules.retry_policy or DEFAULT_POLICY).for_error(failure.names)
    wait = policy.delay_before(failed.failed, chance)
    if wait is None or failed.failed > rules.most_retries:
        return _gives_up(failure, failed, how, rules)
    wait = wait if delay is None else delay
    return Retry(max(wait, LEAST_WAIT) if failed.failed >= SLOW_FROM else wait, failed, failure, how)


def _after_hindrance(how: How, failure: Failure, counters: Counters, rules: Rules, chance: random.Random) -> Verdict:
    """Its own attempts are not touched; the waits grow, because storage and networks take their time."""
    hindered = counters.plus("infra")
    wait = HINDERED_WAITS.delay_before(hindered.infra, chance)
    if wait is None or hindered.infra >= rules.max_infra:
        return _gives_up(failure, hindered, how, rules)
    return Retry(wait, hindered, failure, how)


def _after_death(how: How, why: str, log: str, counters: Counters, rules: Rules) -> Verdict:
    """Again at once: the next executor may live. Counted apart, so that a job can't kill executors for ever."""
    lost = counters.plus("lost")
    message = f"its executor died ({why}), {lost.lost} of at most {rules.max_lost} times"
    failure = Failure(("kq.errors.ExecutorDied",), message, log=log)
    if rules.on_lost == "bury":
        return Bury(failure, lost, how)
    if rules.on_lost == "fallback" or lost.lost >= rules.max_lost:
        return _gives_up(failure, lost, how, rules)
    return Retry(0.0, lost, failure, how)


def _after_timeout(outcome: TimedOut, counters: Counters, rules: Rules, chance: random.Random) -> Verdict:
    how = "killed" if outcome.killed else "interrupted"
    failure = outcome.failure or Failure(
        ("kq.errors.SoftTimeout", "TimeoutError"),
        f"ran past its timeout of {outcome.after:g} s and was {how}",
        log=outcome.log,
    )
    match rules.on_timeout or ("fallback" if rules.fallback else "retry"):
        case "fallback":
            return _gives_up(failure, counters.plus("failed"), "timed out", rules)
        case "bury":
            return Bury(failure, counters.plus("failed"), "timed out")
        case "revoke":
            return Revoke(str(failure))
    return _by_policy("timed out", failure, counters, rules, chance)
