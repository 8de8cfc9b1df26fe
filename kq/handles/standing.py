"""Standing orders: what somebody told the workers, as facts in the state store.

A fact outlives the process that wrote it, and workers that join later find it too. Control writes orders; workers read
all of them with each beat, and at once when they are nudged (`Inspector.nudge`). What is ordered is decided here by
pure functions; the supervisor carries it out.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from enum import StrEnum
from typing import Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from kq.broker import Inspector
from kq.clock import new_id
from kq.errors import BrokerError
from kq.plain import printable
from kq.state.store import Store, Write
from kq.values.job import check_queue
from kq.values.outcome import Bury, FallBack, GiveBack, Park, PassOn, Retry, Revoke, Verdict
from kq.values.reading import reader
from kq.values.record import encode

#: So many orders are read, at most.
LIMIT = 100_000
#: An order lets a worker run at most SLOTS jobs at a time and names at most QUEUES queues; its texts have at most TEXT
#: characters.
SLOTS, QUEUES, TEXT = 10_000, 1000, 4096
#: The most slots of a worker whose executors are processes of one job each.
EXECUTORS = 1000
#: Seconds that an order about one job or one worker stands: longer than any job runs, and then some days.
ORDER_KEEP = 370 * 86400.0
#: The same once its job has ended and only late copies of it are to be refused.
SPENT_KEEP = 3600.0


class Kind(StrEnum):
    """What an order is about."""

    PAUSE = "pause"  # a queue: its jobs do not start
    PAUSE_TYPE = "pause-type"  # a job type: its jobs are parked
    RESUME_TYPE = "resume-type"  # a job type: what was parked is being put back
    REVOKE = "revoke"  # a job: it does not start, and does not run again
    RETIRE = "retire"  # a worker: it ends
    SET = "set"  # a worker: how many jobs it runs at a time, and of which queues
    STACK = "stack"  # a job: its worker tells where it is
    LISTEN = "listen"  # who hears events, and which: they are told


#: What somebody listens for: events or logs of all, or the moves of one job (followed()). An order of it is about
#: this, a slash, and who it is.
Hearing: TypeAlias = Literal["events", "logs"]


class Order(msgspec.Struct, frozen=True, omit_defaults=True):
    """One order. at: when it was given, by the state store's clock; by: user@host; reason: for people.

    interrupt: a revoked job that runs is interrupted, and killed when it does not end by itself.
    slots: how many jobs a worker runs at a time, 0 for as many as it was started with. more: queues that it takes
    besides, and how many jobs of each at a time, 0 for any; less: queues that it takes no more.
    Raises ValueError for slots or limits that are not from 0 to SLOTS, for more than QUEUES queues, for names that no
    queue may have, and for texts longer than TEXT.
    """

    at: float = 0.0
    by: str = ""
    reason: str = ""
    interrupt: bool = False
    slots: int = 0
    more: dict[str, int] = {}
    less: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if max(len(self.by), len(self.reason)) > TEXT:
            raise ValueError(f"by and reason must have at most {TEXT:,} characters")
        for limit in (self.slots, *self.more.values()):
            if not 0 <= limit <= SLOTS:
                raise ValueError(f"slots and limits must be from 0 to {SLOTS:,}, not {limit}")
        if len(self.more) + len(self.less) > QUEUES:
            raise ValueError(f"an order must name at most {QUEUES:,} queues")
        for queue in (*self.more, *self.less):
            check_queue(queue)

    def __str__(self) -> str:
        told = f"by {self.by}" if self.by else "by somebody"
        return f"{told}: {self.reason}" if self.reason else told


class Standing(msgspec.Struct, frozen=True):
    """All orders that stand, by what they are about: queues, job types, job ids, workers, those who listen.

    looks: what somebody wants to know where it is: a worker, a token for the answer and a job, with slashes between.
    """

    queues: Mapping[str, Order] = msgspec.field(default_factory=dict)
    types: Mapping[str, Order] = msgspec.field(default_factory=dict)
    resumed: Mapping[str, Order] = msgspec.field(default_factory=dict)
    revoked: Mapping[str, Order] = msgspec.field(default_factory=dict)
    retired: Mapping[str, Order] = msgspec.field(default_factory=dict)
    sizes: Mapping[str, Order] = msgspec.field(default_factory=dict)
    looks: Mapping[str, Order] = msgspec.field(default_factory=dict)
    listened: Mapping[str, Order] = msgspec.field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether any of them speaks of jobs."""
        return bool(self.queues or self.types or self.revoked)

    def hears(self, what: Hearing) -> bool:
        """Whether anybody listens for that."""
        return any(about.startswith(what) for about in self.listened)

    def closed_by(self, queues: Iterable[str]) -> Standing:
        """The same for a worker that does not take these queues, as if they were paused."""
        closed = dict.fromkeys(queues, Order())
        return replace(self, queues={**closed, **self.queues}) if closed else self

    def looked_at(self, worker: str) -> dict[str, str]:
        """The jobs of that worker of which somebody wants to know where they are, by the token for the answer."""
        parts = (about.split("/", 2) for about in self.looks)
        return {part[1]: part[2] for part in parts if len(part) == 3 and part[0] == worker}

    @property
    def followed(self) -> frozenset[str]:
        """The jobs that somebody follows."""
        return frozenset(about[len(_JOB) :].rpartition("/")[0] for about in self.listened if about.startswith(_JOB))

    def fate(self, job: str, type: str, queue: str) -> Verdict | None:
        """What becomes of a job that is about to start; None when nothing is ordered."""
        if order := self.revoked.get(job):
            return Revoke(f"revoked {order}")
        if queue in self.queues:
            return GiveBack()
        return Park() if type in self.types else None

    def last_word(self, job: str, verdict: Verdict) -> Verdict:
        """What becomes of a job that ran and ended with verdict: one that was revoked does not run again."""
        order = self.revoked.get(job)
        again = isinstance(verdict, Retry | Bury | FallBack | Park | PassOn)
        return Revoke(f"revoked {order}") if order and again else verdict

    def spent(self, job: str) -> Iterator[Write]:
        """What to write when a job has ended: an order about it is not kept for long any more."""
        if order := self.revoked.get(job):
            yield Write(order_key(Kind.REVOKE, job), encode(order), SPENT_KEEP)


NONE = Standing()

_FIELDS = {
    Kind.PAUSE: "queues",
    Kind.PAUSE_TYPE: "types",
    Kind.RESUME_TYPE: "resumed",
    Kind.REVOKE: "revoked",
    Kind.RETIRE: "retired",
    Kind.SET: "sizes",
    Kind.STACK: "looks",
    Kind.LISTEN: "listened",
}
_FAMILY = "order:"
_JOB = "job/"
decode_order = reader(Order)


def order_key(kind: Kind, about: str) -> str:
    """The key under which an order stands."""
    return f"{_FAMILY}{kind.value}:{about}"


def followed(job: str) -> str:
    """What one listens for who follows that job."""
    return f"{_JOB}{job}"


def give(store: Store, kind: Kind, about: str, order: Order, keep: float | None = None) -> None:
    """Let order stand. keep: seconds; ORDER_KEEP where it is about one job or worker, else until it is withdrawn."""
    if keep is None and kind in (Kind.REVOKE, Kind.RETIRE, Kind.SET):
        keep = ORDER_KEEP
    store.write([Write(order_key(kind, about), encode(replace(order, at=store.now())), keep)])


def withdraw(store: Store, kind: Kind, about: str) -> None:
    """Let what was ordered stand no more."""
    store.write([Write(order_key(kind, about), None)])


def listens(store: Store, what: Hearing) -> bool:
    """Whether anybody listens for that."""
    return bool(store.scan(order_key(Kind.LISTEN, what), 1))


def nudge(inspector: Inspector) -> str:
    """Let the workers look at their orders now; returns the token under which they answer.

    When that does not reach the broker, the orders stand all the same: workers look at them with each beat.
    """
    token = new_id()
    with suppress(BrokerError):
        inspector.nudge(token)
    return token


def caller() -> str:
    """Who runs this program: user@host."""
    import getpass  # by who gives an order; a submit needs neither it nor the terminal's module

    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        user = str(os.getuid())
    return f"{printable(user)}@{printable(socket.gethostname())}"


def read(store: Store) -> Standing:
    """The orders that stand now."""
    found: dict[str, dict[str, Order]] = {}
    for key, value in store.scan(_FAMILY, LIMIT):
        kind, _, about = key.removeprefix(_FAMILY).partition(":")
        order = decode_order(value)
        if order is not None and kind in _FIELDS:
            found.setdefault(_FIELDS[Kind(kind)], {})[about] = order
    return Standing(**found) if found else NONE
