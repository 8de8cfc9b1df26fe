"""What an execution was, and what settling it says. Pure: no clock, no broker, no I/O.

`verdict_after` is the one table that decides what becomes of a job. The supervisor carries its
verdicts out; a simulation drives the same function.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from kq.job import Counters
from kq.policy import Exponential, RetryPolicy

OnTimeout: TypeAlias = Literal["retry", "bury", "revoke"]
OnLost: TypeAlias = Literal["retry", "bury"]

#: Errors that a second run cannot mend: bugs and bad input. Not retried unless a type's `retry_on` names them.
FINAL_ERRORS = (
    "TypeError",
    "ValueError",
    "LookupError",
    "AttributeError",
    "NameError",
    "ImportError",
    "SyntaxError",
    "AssertionError",
    "NotImplementedError",
    "ArithmeticError",
    "RecursionError",
    "msgspec.ValidationError",
)

#: Errors that may pass by themselves. Retried even where a job type names no retry policy.
PASSING_ERRORS = (
    "ConnectionError",
    "TimeoutError",
    "BlockingIOError",
    "InterruptedError",
    "sqlite3.OperationalError",
    "socket.gaierror",
    "http.client.HTTPException",
    "smtplib.SMTPServerDisconnected",
    "smtplib.SMTPConnectError",
    "urllib.error.URLError",
)


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception as data.

    names: dotted names of its class and base classes, nearest first.
    """

    names: tuple[str, ...]
    message: str
    traceback: str = ""

    @property
    def name(self) -> str:
        return self.names[0] if self.names else "Exception"

    def __str__(self) -> str:
        name = self.name.removeprefix("kq.errors.")
        return f"{name}: {self.message}" if self.message else name


@dataclass(frozen=True, slots=True)
class Done:
    """It returned; value is JSON."""

    value: bytes


@dataclass(frozen=True, slots=True)
class Raised:
    """It raised."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Asked:
    """It raised a steering exception: kq.Retry, kq.Bury or kq.BadJob. delay: None for the policy's."""

    wish: Literal["retry", "bury"]
    failure: Failure
    delay: float | None = None


@dataclass(frozen=True, slots=True)
class Hindered:
    """Nothing is wrong with it: storage or a network that it needs failed (kq.BadStorage, kq.BadNetwork)."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class TimedOut:
    """It ran past its timeout. killed: it ignored the interruption, so its executor was killed."""

    after: float
    killed: bool
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Died:
    """Its executor died under it. how: "signal 9", "exit code 3", or "with its worker"."""

    how: str


@dataclass(frozen=True, slots=True)
class GivenBack:
    """It did not start, or was stopped by its worker's end: nothing is known against it."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """It cannot be run as it is: undecodable, unknown type, wrong arguments (promise C19)."""

    reason: str


@dataclass(frozen=True, slots=True)
class Expired:
    """Its deadline passed before it started."""


Outcome: TypeAlias = Done | Raised | Asked | Hindered | TimedOut | Died | GivenBack | Unusable | Expired


@dataclass(frozen=True, slots=True)
class Complete:
    """It is over; value is JSON."""

    value: bytes


@dataclass(frozen=True, slots=True)
class Retry:
    """It goes back to its queue with new counters, after delay seconds."""

    delay: float
    counters: Counters
    failure: Failure


@dataclass(frozen=True, slots=True)
class Bury:
    """It is set aside for a human, with new counters."""

    failure: Failure
    counters: Counters


@dataclass(frozen=True, slots=True)
class Revoke:
    """It ends without a result."""

    reason: str


@dataclass(frozen=True, slots=True)
class GiveBack:
    """It goes back to its old place as if it had not been delivered."""


@dataclass(frozen=True, slots=True)
class Expire:
    """It ends unstarted because its deadline is over."""


@dataclass(frozen=True, slots=True)
class Drop:
    """It is an extra copy of a job that runs or ended elsewhere: take it away, record nothing."""


Verdict: TypeAlias = Complete | Retry | Bury | Revoke | GiveBack | Expire | Drop


@dataclass(frozen=True, slots=True)
class Rules:
    """What a job type says about failure.

    retry_policy: None when neither the type nor the app names one: then only PASSING_ERRORS are retried.
    retry_on, bury_on: dotted names of errors that are retried, or final, whatever the lists above say;
        the name nearest to the error's own class wins.
    max_lost: when so many executors have died under it, it is buried (promise C7).
    """

    retry_policy: RetryPolicy | None = None
    retry_on: frozenset[str] = frozenset()
    bury_on: frozenset[str] = frozenset()
    on_timeout: OnTimeout = "retry"
    on_lost: OnLost = "retry"
    max_lost: int = 3


DEFAULT_POLICY = Exponential()

#: For jobs that bad storage or a bad network ended: half an hour in all on average, 67 minutes at most.
HINDERED_POLICY = Exponential(first=1.0, factor=2.0, longest=600.0, retries=15)


def verdict_after(outcome: Outcome, counters: Counters, rules: Rules, chance: random.Random) -> Verdict:
    """What becomes of a job after one execution.

    counters: as they were before it. The one exception to "failed attempts follow the policy" is
    a death of the executor: that is counted apart and repeated at once, up to rules.max_lost.
    """
    match outcome:
        case Done(value):
            return Complete(value)
        case GivenBack():
            return GiveBack()
        case Expired():
            return Expire()
        case Unusable(reason):
            return Bury(Failure(("kq.errors.MessageError",), reason), counters)
        case Died(how):
            return _after_death(how, counters, rules)
        case Raised(failure):
            failed = _failed(counters)
            if not may_pass(failure.names, rules):
                return Bury(failure, failed)
            return _by_policy(failure, failed, rules, chance)
        case Asked(wish, failure, delay):
            if wish == "bury":
                return Bury(failure, _failed(counters))
            return _by_policy(failure, _failed(counters), rules, chance, delay)
        case Hindered(failure):
            return _after_hindrance(failure, counters, chance)
        case TimedOut():
            return _after_timeout(outcome, counters, rules, chance)


def may_pass(names: Sequence[str], rules: Rules) -> bool:
    """Whether an error with these class names (nearest first) may be gone on a second run.

    The nearest name that anybody speaks of decides. What is said of it in person goes before the lists:
    bury_on, then retry_on and a policy by error, then PASSING_ERRORS and FINAL_ERRORS.
    """
    policy = rules.retry_policy
    for name in names:
        if name in rules.bury_on:
            return False
        if name in rules.retry_on or name in PASSING_ERRORS or (policy is not None and policy.speaks_of(name)):
            return True
        if name in FINAL_ERRORS:
            return False
    return policy is not None


def _failed(counters: Counters) -> Counters:
    return Counters(counters.failed + 1, counters.lost, counters.infrastructure)


def _by_policy(
    failure: Failure, failed: Counters, rules: Rules, chance: random.Random, delay: float | None = None
) -> Verdict:
    """Retry as the policy says, after delay where the job asked for one; bury when the policy gives up."""
    policy = (rules.retry_policy or DEFAULT_POLICY).for_error(failure.names)
    wait = policy.delay_before(failed.failed, chance)
    if wait is None:
        return Bury(failure, failed)
    return Retry(wait if delay is None else delay, failed, failure)


def _after_hindrance(failure: Failure, counters: Counters, chance: random.Random) -> Verdict:
    """Its own attempts are not touched; the waits grow, because storage and networks take their time."""
    hindered = Counters(counters.failed, counters.lost, counters.infrastructure + 1)
    wait = HINDERED_POLICY.delay_before(hindered.infrastructure, chance)
    return Bury(failure, hindered) if wait is None else Retry(wait, hindered, failure)


def _after_death(how: str, counters: Counters, rules: Rules) -> Verdict:
    lost = Counters(counters.failed, counters.lost + 1, counters.infrastructure)
    failure = Failure(
        ("kq.errors.ExecutorDied",), f"its executor died ({how}), {lost.lost} of at most {rules.max_lost} times"
    )
    if rules.on_lost == "bury" or lost.lost >= rules.max_lost:
        return Bury(failure, lost)
    return Retry(0.0, lost, failure)


def _after_timeout(outcome: TimedOut, counters: Counters, rules: Rules, chance: random.Random) -> Verdict:
    how = "killed" if outcome.killed else "interrupted"
    failure = outcome.failure or Failure(
        ("kq.errors.SoftTimeout", "TimeoutError"), f"ran past its timeout of {outcome.after:g} s and was {how}"
    )
    failed = _failed(counters)
    if rules.on_timeout == "bury":
        return Bury(failure, failed)
    if rules.on_timeout == "revoke":
        return Revoke(str(failure))
    return _by_policy(failure, failed, rules, chance)
