"""A job on its way through a worker, and what the worker knows of its type. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from kq.broker import Delivery
from kq.errors import MessageError
from kq.values.fallback import next_of, stages_of
from kq.values.job import Counters
from kq.values.message import Head, Stage, decode_body
from kq.values.outcome import Rules
from kq.values.policy import MESSAGE_RETRIES, from_data
from kq.values.redaction import brief_arguments
from kq.worker.wire import Entry

#: Bytes of arguments that are read to be shown, while the job runs.
READ = 64 * 1024
#: Seconds between the interruption of a job that ran past its timeout and the kill.
GRACE_AFTER_INTERRUPT = 0.7


@dataclass(slots=True)
class Kind:
    """What the supervisor knows of a job type. seconds: how long its jobs take, a moving mean.

    fallback: what runs instead of it, in order. parameters: the names of those that need no name. most_retries: how
    many a policy in a message may grant.
    """

    name: str
    rules: Rules
    timeout: float
    keep: float
    fallback: tuple[Stage, ...] = ()
    parameters: tuple[str, ...] = ()
    seconds: float | None = None
    most_retries: int = MESSAGE_RETRIES

    def took(self, seconds: float) -> None:
        self.seconds = seconds if self.seconds is None else self.seconds + 0.1 * (seconds - self.seconds)


class Task(msgspec.Struct, eq=False):
    """A delivery on its way through this worker. arrival: counts the deliveries to it, in their order.

    suspect: its starts are counted beforehand: it may be killing its workers, or must not start twice.
    """

    delivery: Delivery
    head: Head
    kind: Kind
    counters: Counters
    arrival: int = 0
    since: float = 0.0  # when it came, monotonic
    holder: str = ""  # who speaks for it, as recorded; "" when that is not
    ended: float = 0.0  # when its end was first written down, by this worker's clock
    starts: int = 0  # how many starts of it were counted that nobody has told the end of
    counted: bool = False  # the one that it is going to have is among them
    keyed: bool = False  # its unique key was taken, or it has none to take
    seq: int = 0
    started: float = 0.0  # monotonic; 0: not started
    began: float = 0.0  # the same as an instant, for its history
    ran: float | None = None  # seconds from its start to its end, when it has ended
    extra: float = 0.0  # seconds by which it has extended its timeout
    said: float = 0.0  # when it said how far it is, as far as that was told
    log: str = ""  # its last lines, when it has ended
    took: float = 0.0  # seconds that it ran, as its executor says when it has ended
    cpu: float | None = None  # seconds of processor time that it used; None where nobody measured that
    rss: int = 0  # bytes that its executor held at most by then; 0 likewise
    effects: Mapping[str, int] | None = None  # how many of its side effects came to what, if it has any
    interrupted: bool = False
    killed: bool = False
    cut: float = float("inf")  # when it was ordered to end; monotonic
    recalled: bool = False  # stopped because its worker ends
    told: bool = False  # its end is logged and counted
    abandoned: bool = False  # it belongs to another worker by now
    shown: dict[str, Any] | None = None  # its arguments as others may see them, once somebody asked
    suspect: bool = False

    def __post_init__(self) -> None:
        self.suspect = self.delivery.redelivered or self.kind.rules.starts_once

    @property
    def arguments(self) -> dict[str, Any]:
        """What it is called with, as others may see it; nothing of what is long to read."""
        if self.shown is None:
            self.shown = {}
            if len(self.delivery.body) <= READ:
                with suppress(MessageError):
                    self.shown = brief_arguments(self.kind.parameters, *decode_body(self.delivery.body))
        return self.shown

    @property
    def poison(self) -> bool:
        """Whether executors or workers died under it, or seem to have: then it runs alone (promise C7)."""
        return self.counters.lost > 0 or self.starts > self.counted

    @property
    def stages(self) -> Sequence[Stage]:
        """What may run instead of what the job was submitted as, in order."""
        return stages_of(self.head, self.kind.fallback)

    @property
    def next(self) -> Stage | None:
        """What runs instead of it when it gives up."""
        return next_of(self.head, self.kind.fallback)

    @property
    def rules(self) -> Rules:
        """What is said about its failures, by its type and by its message."""
        return self.kind.rules.but(self.head.policy, self.falls_back, self.kind.most_retries)

    @property
    def falls_back(self) -> bool | None:
        """Whether something runs instead of it, where its message says that and not its type."""
        if self.head.fallback is None and not self.head.degraded_by:
            return None
        return self.next is not None

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands in line."""
        return -self.delivery.priority, self.arrival

    @property
    def timeout(self) -> float:
        return self.head.timeout or self.kind.timeout

    @property
    def due(self) -> float:
        """When to interrupt it, or to kill it if it was interrupted; monotonic."""
        end = min(self.started + self.timeout + self.extra, self.cut)
        return end + (GRACE_AFTER_INTERRUPT if self.interrupted else 0.0)


def kind_of(entry: Entry, before: Kind | None) -> Kind:
    """The job type of entry. before: what was known of it until now, by an application that was imported before."""
    rules = Rules(
        None if entry.retry_policy is None else from_data(entry.retry_policy),
        entry.failures,  # type: ignore[arg-type]
        entry.on_timeout,  # type: ignore[arg-type]
        entry.on_lost,  # type: ignore[arg-type]
        entry.max_lost,
        entry.max_infra,
        bool(entry.fallback),
    )
    seconds = before.seconds if before else None
    return Kind(
        entry.name, rules, entry.timeout, entry.keep, entry.fallback, entry.parameters, seconds, entry.most_retries
    )
