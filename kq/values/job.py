"""The life of a job: its states, the moves between them, and the value that is submitted.

No clock, no broker: what happens to a job is decided by values in `outcome.py`, written down
for the wire in `message.py`, and carried out by `worker/`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import msgspec
from msgspec.structs import replace

from kq.plain import is_utf8, visible
from kq.values.policy import YEAR, RetryPolicy
from kq.values.unique import Key, Unique, unique_of

R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")


class State(StrEnum):
    """Where a job is."""

    DELAYED = "delayed"  # its time has not come
    RETRYING = "retrying"  # delayed, after a failed attempt
    READY = "ready"  # may be taken by any worker
    RESERVED = "reserved"  # held by a worker, not started
    PAUSED = "paused"  # set aside until jobs of its type may start again
    RUNNING = "running"
    COMPLETED = "completed"
    BURIED = "buried"  # set aside for a human
    REVOKED = "revoked"
    EXPIRED = "expired"  # its deadline passed before it started
    DELETED = "deleted"


#: Which state may follow which. What is not here does not happen.
MOVES: dict[State, frozenset[State]] = {
    State.DELAYED: frozenset({State.READY, State.BURIED, State.REVOKED, State.DELETED}),
    State.RETRYING: frozenset({State.READY, State.BURIED, State.REVOKED, State.DELETED}),
    State.READY: frozenset({State.RESERVED, State.DELAYED, State.BURIED, State.REVOKED, State.DELETED}),
    State.RESERVED: frozenset({State.RUNNING, State.READY, State.BURIED, State.EXPIRED, State.REVOKED, State.PAUSED}),
    State.PAUSED: frozenset({State.READY, State.BURIED, State.REVOKED, State.DELETED}),
    # READY again as it was, or as its next job type: where one gives up, and another runs instead.
    State.RUNNING: frozenset({State.COMPLETED, State.RETRYING, State.READY, State.BURIED, State.REVOKED}),
    State.BURIED: frozenset({State.READY, State.DELETED, State.COMPLETED}),
    State.COMPLETED: frozenset(),
    State.REVOKED: frozenset(),
    State.EXPIRED: frozenset(),
    State.DELETED: frozenset(),
}

#: States that a job never leaves.
ENDED = frozenset(state for state, following in MOVES.items() if not following)

LOWEST, HIGHEST = 0, 9
PRIORITIES = range(LOWEST, HIGHEST + 1)

#: Bytes of the longest name of a queue: with what the brokers and kq add to it, AMQP takes 255.
LONGEST_NAME = 200

#: With these begin the names of queues that are the brokers' and kq's own.
OTHERS = ("kq.", "amq.")

#: So many job types may run instead of a job's first one, at most.
FALLBACKS = 8

#: The last instant that a date can name (the year 9999), in seconds since the epoch.
LATEST = 253_402_300_799.0


#: A segment `.` or `..`: in an address a browser takes it for another place.
_DOTS = re.compile(r"(?:\A|/)\.{1,2}(?:/|\Z)")


@functools.lru_cache(maxsize=1024)
def check_name(what: str, name: str) -> None:
    """Raise ValueError for a name with a segment `.` or `..`. what: what it is the name of, for the error."""
    if not is_utf8(name):
        raise ValueError(f"{what} {name[:100]!r} has half of a surrogate pair; use characters of Unicode")
    if _DOTS.search(name):
        raise ValueError(f"{what} {name[:100]!r} has a segment {'.'!r} or {'..'!r}; use a name without")


@functools.lru_cache(maxsize=1024)
def check_queue(name: str) -> None:
    """Raise ValueError unless every broker can have a queue of that name, and it may be an application's."""
    if not name:
        raise ValueError("queue is empty; leave it out or give it a name")
    if name.startswith(OTHERS) or name.endswith((".buried", ".paused")):
        raise ValueError(
            f"queue {name!r} is not free: names kq.…, amq.…, ….buried and ….paused are the brokers' and kq's"
        )
    if not visible(name):
        raise ValueError(f"queue {name!r} can't be named so; use characters that can be seen")
    check_name("queue", name)
    if (size := len(name.encode())) > LONGEST_NAME:
        raise ValueError(f"queue {name[:20] + '…'!r} has a name of {size} bytes; use {LONGEST_NAME} at most")


def _check_instant(name: str, instant: float) -> None:
    if not 0 <= instant <= LATEST:
        raise ValueError(f"{name} {instant} is no instant; use seconds since the epoch, as time.time() gives")


class Settings(msgspec.Struct, frozen=True):
    """What may be said of a job besides its arguments; None means "as the job type or the app says".

    queue: name of its queue.
    priority: 0 (low) to 9 (high).
    delay: seconds before it may start, by the broker's clock; at: the same as an instant in seconds
        since the epoch.
    timeout: seconds that one attempt may take; then it is interrupted, then killed.
    deadline: instant after which it is not started any more (it expires).
    unique: while a job with this key waits or runs, submitting another returns the one that is there; a kq.Unique, or
        kq.by_arguments, says more.
    retry_policy: when a failed attempt is repeated.
    hold: an undo window: seconds that it waits at least, marked so that people find it and may still revoke it.
    """

    queue: str | None = None
    priority: int | None = None
    delay: float | None = None
    at: float | None = None
    timeout: float | None = None
    deadline: float | None = None
    unique: Key | Unique | None = None
    retry_policy: RetryPolicy | None = None
    hold: float | None = None

    def __post_init__(self) -> None:
        self._check_kinds()
        if self.priority is not None and self.priority not in PRIORITIES:
            raise ValueError(f"priority {self.priority!r} is out of range; use {LOWEST} (low) to {HIGHEST} (high)")
        if self.delay is not None and not 0 <= self.delay <= YEAR:
            raise ValueError(f"delay {self.delay} is out of range; use 0 s to a year")
        if self.delay is not None and self.at is not None:
            raise ValueError("give delay or at, not both")
        if self.hold is not None and not 0 <= self.hold <= YEAR:
            raise ValueError(f"hold {self.hold} is out of range; use 0 s to a year")
        if self.timeout is not None and not 0 < self.timeout <= YEAR:
            raise ValueError(f"timeout {self.timeout} is out of range; use more than 0 s, at most a year")
        if self.at is not None:
            _check_instant("at", self.at)
        if self.deadline is not None:
            _check_instant("deadline", self.deadline)
        if self.unique is not None and not (isinstance(self.unique, str) and self.unique):
            unique_of(self.unique)
        if self.queue is not None:
            check_queue(self.queue)

    def _check_kinds(self) -> None:
        """Raise TypeError for what would only fail where it is used, or in a worker."""
        if not self.delay is self.timeout is self.at is self.deadline is None:
            self._check_numbers()
        if self.queue is not None and not isinstance(self.queue, str):
            raise TypeError(f"queue {self.queue!r} is no text")
        if self.retry_policy is not None and not isinstance(self.retry_policy, RetryPolicy):
            raise TypeError(f"retry_policy {self.retry_policy!r} is none; use for example kq.Exponential(retries=5)")

    def _check_numbers(self) -> None:
        for name in ("delay", "timeout", "at", "deadline"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, int | float):
                use = "seconds" if name in ("delay", "timeout") else "seconds since the epoch, as time.time() gives"
                raise TypeError(f"{name} {value!r} is no number; use {use}")

    def over(self, other: Settings) -> Settings:
        """These settings, and other's where these say nothing."""
        return other.but({name: getattr(self, name) for name in self.__struct_fields__})

    def but(self, more: Mapping[str, Any]) -> Settings:
        """These settings, and before them those of more that are not None. Raises as Settings does."""
        said: dict[str, Any] = {}
        for name, value in more.items():  # not a comprehension, which takes twice as long for so few
            if value is not None:
                said[name] = value
        if "delay" in said or "at" in said:
            said = {"delay": None, "at": None, **said}
        return replace(self, **said) if said else self


class Job(msgspec.Struct, Generic[R_co], frozen=True):
    """One unit of work: a job type's name, arguments for it, and settings. Submit it with `app.submit`.

    fallback: what runs instead, in order, where this gives up; made by `|`.
    """

    id: str
    type: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = msgspec.field(default_factory=dict)
    settings: Settings = Settings()
    fallback: tuple[Job[Any], ...] = ()

    def __post_init__(self) -> None:
        if "." in self.id:  # an id of kq has none, and each is another
            check_name("job id", self.id)
        check_name("job type", self.type)

    def __or__(self, other: Job[S]) -> Job[R_co | S]:
        """This job, or else other: where this one gives up, the same job goes on as other.

        The id, the priority, when it may start and until when, and the unique key are this job's. Queue, timeout and
        retry policy are other's while it runs. What the job type says of fallbacks does not count any more.
        Raises ValueError for an other with a delay, an instant, a deadline or a unique key of its own.
        """
        if not isinstance(other, Job):
            return NotImplemented
        instead = (replace(other, fallback=()), *other.fallback)
        for each in instead:
            for name in ("delay", "at", "hold", "deadline", "unique"):
                if getattr(each.settings, name) is not None:
                    raise ValueError(f"{each.type} runs instead of {self.type}: say {name} of that one, the first")
        if len(self.fallback) + len(instead) > FALLBACKS:
            raise ValueError(f"more than {FALLBACKS} jobs instead of {self.type}; leave some out")
        return replace(self, fallback=(*self.fallback, *instead))

    def __str__(self) -> str:
        """The calls that it stands for: resize('cat.png', width=200) | shrink('cat.png')."""
        named = [f"{name}={value!r}" for name, value in self.kwargs.items()]
        return " | ".join([f"{self.type}({', '.join([*map(repr, self.args), *named])})", *map(str, self.fallback)])

    def held(self, seconds: float) -> Job[R_co]:
        """This job, to be held for so long before it may start."""
        return replace(self, settings=Settings(hold=seconds).over(self.settings)) if seconds else self


#: The names of a job's counters.
Counter: TypeAlias = Literal["failed", "lost", "infra"]


class Counters(msgspec.Struct, frozen=True):
    """How a job's attempts went, each cause counted apart (promise C7).

    failed: attempts that ended by the job's own doing.
    lost: executors that died, or were lost with their worker, while it ran.
    infra: attempts that bad storage or a bad network ended.
    """

    failed: int = 0
    lost: int = 0
    infra: int = 0

    @property
    def attempts(self) -> int:
        """How many attempts have ended."""
        return self.failed + self.lost + self.infra

    def plus(self, counter: Counter) -> Counters:
        """One more of counter."""
        return replace(self, **{counter: getattr(self, counter) + 1})
