"""Policies: how long to wait before which retry, of a job or of a submit, and when to give up.

Values: they read no clock, do not sleep and know no broker. A policy travels between processes and in
messages as plain data (`to_data`, `from_data`). Which errors are retried at all is decided
in `outcome.py`.
"""

from __future__ import annotations

import random
import reprlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, ClassVar, TypeAlias, TypeVar

import msgspec

Data: TypeAlias = dict[str, object]

#: No broker keeps a message back for longer, so no policy waits longer. In seconds.
YEAR = 366 * 86400.0

#: More retries than this are a mistake; the counters on the wire end here too.
MOST_RETRIES = 2**31 - 1

#: The most retries that a policy in a message may grant, unless worker.max_retries says otherwise.
MESSAGE_RETRIES = 1000

#: So deep may a ByError stand inside another.
NESTING = 8


class PublishPolicy(msgspec.Struct, frozen=True):
    """How a submit that the broker did not take is repeated: Kombu's retry_policy, within submit_timeout.

    max_retries: how often at most. interval_start: seconds before the first time. interval_step: seconds by which each
    further wait is longer. interval_max: seconds that the longest wait takes.
    """

    max_retries: Annotated[int, msgspec.Meta(ge=0)] = 50
    interval_start: float = 0.05
    interval_step: float = 0.2
    interval_max: float = 1.0

    def waits(self) -> Iterator[float]:
        """Seconds to wait before each repetition."""
        for number in range(self.max_retries):
            yield min(self.interval_max, self.interval_start + number * self.interval_step)


@dataclass(frozen=True, kw_only=True)
class RetryPolicy(ABC):
    """When to try a failed job again."""

    kind: ClassVar[str]

    @abstractmethod
    def delay_before(self, retry: int, chance: random.Random) -> float | None:
        """Seconds to wait before a retry, or None when the policy gives up.

        retry: 1 for the first retry, so the second attempt. Raises ValueError for retry < 1.
        """

    def for_error(self, names: Sequence[str]) -> RetryPolicy:
        """The policy for an error whose class and base classes have these dotted names."""
        return self

    def speaks_of(self, name: str) -> bool:
        """Whether it says something about errors of this dotted name in particular."""
        return False

    @property
    def depth(self) -> int:
        """How many ByErrors stand inside each other here."""
        return 0

    def to_data(self) -> Data:
        """Plain data, as JSON has it, that from_data() turns back into this policy."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class Exponential(RetryPolicy):
    """Waits that grow by a factor, with full jitter.

    The n-th retry waits a random time between 0 and min(longest, first * factor**(n-1)) seconds:
    "full jitter", which spreads a crowd that failed together best (AWS Architecture Blog,
    "Exponential Backoff And Jitter", 2015). jitter=False waits the whole time.
    Defaults: first 1 s, doubled, at most 60 s, 5 retries. Raises ValueError for what is out of range.
    """

    kind: ClassVar[str] = "exponential"
    first: float = 1.0
    factor: float = 2.0
    longest: float = 60.0
    retries: int = 5
    jitter: bool = True

    def __post_init__(self) -> None:
        _within("first", self.first, YEAR)
        _within("factor", self.factor, 100)
        _within("longest", self.longest, YEAR)
        _within("retries", self.retries, MOST_RETRIES)

    def delay_before(self, retry: int, chance: random.Random) -> float | None:
        if _checked(retry) > self.retries:
            return None
        top = min(self.longest, self.first * _power(self.factor, retry - 1))
        return chance.uniform(0, top) if self.jitter else top


@dataclass(frozen=True, kw_only=True)
class Polynomial(RetryPolicy):
    """Waits of (n - 1)**power + shift seconds before the n-th retry, a year at most.

    The defaults, n**4 + 15 with 25 retries, take 20.4 days in all: time to mend the code and
    deploy it (the curve that Sidekiq made known). jitter: the n-th retry waits up to n * jitter
    seconds more, by chance. Raises ValueError for what is out of range.
    """

    kind: ClassVar[str] = "polynomial"
    power: float = 4.0
    shift: float = 15.0
    retries: int = 25
    jitter: float = 0.0

    def __post_init__(self) -> None:
        _within("power", self.power, 100)
        _within("shift", self.shift, YEAR)
        _within("retries", self.retries, MOST_RETRIES)
        _within("jitter", self.jitter, YEAR)

    def delay_before(self, retry: int, chance: random.Random) -> float | None:
        if _checked(retry) > self.retries:
            return None
        extra = chance.uniform(0, self.jitter * retry) if self.jitter else 0.0
        return min(YEAR, _power(retry - 1, self.power) + self.shift + extra)


@dataclass(frozen=True, kw_only=True)
class Fixed(RetryPolicy):
    """The same wait before each retry. Defaults: 10 s, 3 retries."""

    kind: ClassVar[str] = "fixed"
    delay: float = 10.0
    retries: int = 3

    def __post_init__(self) -> None:
        _within("delay", self.delay, YEAR)
        _within("retries", self.retries, MOST_RETRIES)

    def delay_before(self, retry: int, chance: random.Random) -> float | None:
        return None if _checked(retry) > self.retries else self.delay


@dataclass(frozen=True, kw_only=True)
class Delays(RetryPolicy):
    """One wait for each retry, from a list: Delays(delays=(1, 10, 60)) retries three times."""

    kind: ClassVar[str] = "delays"
    delays: tuple[float, ...]

    def __post_init__(self) -> None:
        for delay in self.delays:
            _within("delay", delay, YEAR)

    def delay_before(self, retry: int, chance: random.Random) -> float | None:
        return self.delays[retry - 1] if _checked(retry) <= len(self.delays) else None

    def to_data(self) -> Data:
        return {"kind": self.kind, "delays": list(self.delays)}


@dataclass(frozen=True, kw_only=True)
class Never(RetryPolicy):
    """No retry: the first failure is final."""

    kind: ClassVar[str] = "never"

    def delay_before(self, retry: int, chance: random.Random) -> float | None:
        _checked(retry)
        return None


@dataclass(frozen=True, kw_only=True)
class ByError(RetryPolicy):
    """A policy for each type of error, and one for all others: by default, none of them is retried.

    policies: dotted class names ("smtplib.SMTPException", "ConnectionError" for a built-in) to
    policies; `by_error()` takes classes too. The class nearest to the error's own wins.
    """

    kind: ClassVar[str] = "by error"
    policies: Mapping[str, RetryPolicy]
    otherwise: RetryPolicy = field(default_factory=Never)

    def __post_init__(self) -> None:
        if self.depth > NESTING:
            raise ValueError(f"retry policies by error stand {self.depth} deep inside each other; {NESTING} are enough")

    def delay_before(self, retry: int, chance: random.Random) -> float | None:
        return self.otherwise.delay_before(retry, chance)

    def for_error(self, names: Sequence[str]) -> RetryPolicy:
        for name in names:
            if name in self.policies:
                return self.policies[name].for_error(names)
        return self.otherwise.for_error(names)

    def speaks_of(self, name: str) -> bool:
        return name in self.policies or self.otherwise.speaks_of(name)

    @property
    def depth(self) -> int:
        return 1 + max(policy.depth for policy in (*self.policies.values(), self.otherwise))

    def to_data(self) -> Data:
        policies = {name: policy.to_data() for name, policy in self.policies.items()}
        return {"kind": self.kind, "policies": policies, "otherwise": self.otherwise.to_data()}


P = TypeVar("P", bound=RetryPolicy)


def by_error(
    policies: Mapping[type[BaseException] | str, RetryPolicy], otherwise: RetryPolicy | None = None
) -> ByError:
    """A ByError from a mapping whose keys are exception classes or their dotted names."""
    return ByError(
        policies={error_name(key): policy for key, policy in policies.items()}, otherwise=otherwise or Never()
    )


def error_name(error: type[BaseException] | str) -> str:
    """The name by which kq knows an exception class: dotted, without "builtins."."""
    if isinstance(error, str):
        return error
    return error.__qualname__ if error.__module__ == "builtins" else f"{error.__module__}.{error.__qualname__}"


def from_data(data: Mapping[str, object]) -> RetryPolicy:
    """The policy that to_data() made data of. Raises ValueError when it is not one."""
    return _from_data(data, NESTING)


def _from_data(data: object, levels: int) -> RetryPolicy:
    if not isinstance(data, Mapping):
        raise ValueError(f"a retry policy is an object with a kind, not {type(data).__name__}")
    kind = data.get("kind")
    if kind == ByError.kind:
        return _by_error_from(data, levels)
    for policy in (Exponential, Polynomial, Fixed, Delays, Never):
        if policy.kind == kind:
            return _convert(data, policy)
    raise ValueError(f"unknown kind of retry policy: {reprlib.repr(kind)}")


def _by_error_from(data: Mapping[str, object], levels: int) -> ByError:
    if not levels:
        raise ValueError(f"retry policies by error stand more than {NESTING} deep inside each other")
    policies = data.get("policies")
    if not isinstance(policies, Mapping):
        raise ValueError("a retry policy by error needs policies, an object")
    return ByError(
        policies={name: _from_data(each, levels - 1) for name, each in policies.items()},
        otherwise=_from_data(data.get("otherwise"), levels - 1),
    )


def _convert(data: Mapping[str, object], policy: type[P]) -> P:
    try:
        return msgspec.convert({name: value for name, value in data.items() if name != "kind"}, policy)
    except msgspec.MsgspecError as error:
        raise ValueError(f"a wrong retry policy of kind {policy.kind!r}: {error}") from None


def _checked(retry: int) -> int:
    if retry < 1:
        raise ValueError(f"retries are counted from 1, not from {retry}")
    return retry


def _within(name: str, value: float, most: float) -> None:
    if not 0 <= value <= most:
        raise ValueError(f"{name} {value} is out of range; use 0 to {most:.0f}")


def _power(base: float, exponent: float) -> float:
    try:
        return float(base**exponent)
    except OverflowError:
        return sys.float_info.max


def retries_of(policy: RetryPolicy | None) -> int | None:
    """How many retries a policy allows; None where that depends on the error, or on code."""
    match policy:
        case Exponential(retries=most) | Polynomial(retries=most) | Fixed(retries=most):
            return most
        case Delays(delays=delays):
            return len(delays)
    return None
