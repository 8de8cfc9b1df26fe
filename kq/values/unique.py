"""Unique jobs: which jobs are the same, how long that counts, and what becomes of the second one (promise C11).

Pure. A key has a place, for the job that others join, replace or delay anew; and where these do not run beside the one
that runs, it has a turn, for that one (docs/decisions/0019-a-unique-key-has-a-place-and-a-turn.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, get_args

import msgspec

from kq.values.policy import YEAR

Until: TypeAlias = Literal["start", "end", "gone"]
Conflict: TypeAlias = Literal["join", "reject", "after", "replace", "debounce"]

_UNTIL, _CONFLICT = get_args(Until), get_args(Conflict)

#: What a job's message says of how long it holds its key, where that is not until it has ended or was buried.
Holds: TypeAlias = Literal["start", "turn", "gone"]


class ByArguments(msgspec.Struct, frozen=True):
    """Jobs of one type are the same when these arguments of them are; all, where none is named."""

    names: tuple[str, ...] = ()

    def __call__(self, *names: str) -> ByArguments:
        """Only the arguments of these names: `unique=kq.by_arguments("order")`."""
        return ByArguments(names)


#: Jobs of one type with the same arguments are the same.
by_arguments = ByArguments()

Key: TypeAlias = str | ByArguments | Callable[..., str]


class Unique(msgspec.Struct, frozen=True):
    """Of the jobs of one key at most one is there.

    key: text; `kq.by_arguments`, all of them or those that are named; or a function that makes text of the arguments.
    until: how long a job holds its key: until a worker has it ready to "start", so that one may run and one may wait;
        until it has come to its "end" or was buried; or until it is "gone", so also while it lies buried.
    period: at least so many seconds from its submit, whatever became of it.
    conflict: what becomes of a second job. "join": it is not stored, the submit returns the one that is there.
        "reject": the submit raises kq.NotUnique. The others never join a job that has begun: they run after that one
        has ended. While one waits for that, "after" joins it, "replace" puts its own arguments and settings in the
        place of the other's, and "debounce" does that and lets the delay begin anew.
    at_most: with "debounce": seconds from the first submit after which the delay does not begin anew any more.
    All jobs of one key should say the same.
    """

    key: Key = by_arguments
    until: Until = "end"
    period: float | None = None
    conflict: Conflict = "join"
    at_most: float | None = None

    def __post_init__(self) -> None:
        if self.key == "":
            raise ValueError("unique is empty; leave it out or give it a name")
        if not isinstance(self.key, str) and not callable(self.key):
            raise TypeError(f"unique {self.key!r} is no key; use text, kq.by_arguments or a function of the arguments")
        if self.until not in _UNTIL:
            raise ValueError(_unknown("until", self.until, _UNTIL))
        if self.conflict not in _CONFLICT:
            raise ValueError(_unknown("conflict", self.conflict, _CONFLICT))
        if self.period is not None:
            _check_seconds("period", self.period)
        if self.at_most is not None:
            _check_seconds("at_most", self.at_most)
        if self.at_most is not None and self.conflict != "debounce":
            raise ValueError('at_most is the end of a delay that begins anew; use it with conflict="debounce"')
        if self.conflict not in ("join", "reject") and (self.period is not None or self.until == "gone"):
            raise ValueError(f'{self.conflict!r} can\'t go with a period or until="gone"; use "join" or "reject"')

    @property
    def replaces(self) -> bool:
        """Whether a second job takes the place of one that waits."""
        return self.conflict in ("replace", "debounce")

    @property
    def holds(self) -> Holds | None:
        """What the job's message says of how long it holds its key."""
        if self.until == "end":
            return None if self.conflict in ("join", "reject") else "turn"
        return self.until


def _unknown(name: str, value: str, known: Sequence[str]) -> str:
    return f"{name} {value!r} is unknown; use one of {', '.join(known)}"


def _check_seconds(name: str, seconds: float) -> None:
    if not 0 < seconds <= YEAR:
        raise ValueError(f"{name} {seconds} is out of range; use more than 0 s, at most a year")


def unique_of(said: Key | Unique) -> Unique:
    """What was said of a job, as the whole of it. Raises TypeError or ValueError."""
    return said if isinstance(said, Unique) else Unique(said)
