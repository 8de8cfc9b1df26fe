"""Tallies: what workers count of their jobs, in memory, and write down with each beat.

Never a write for a job. Sums since the worker began are for metrics and histories; the last minute's are for rates,
so that whoever looks once knows them too. How long jobs waited and ran is counted in BOUNDS, from which quantiles are
read with the width of a bucket as their error.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping

import msgspec

from kq.values.reading import reader

#: Upper bounds of the buckets, in seconds; one more bucket has what took longer.
BOUNDS: tuple[float, ...] = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
    *(120.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0),
)
#: Seconds that the last minute of a tally has, at most.
MINUTE = 60.0


class Spread(msgspec.Struct):
    """How long things took: counts by bucket, and seconds in all."""

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one that took so long."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    def since(self, before: Spread) -> Spread:
        """What was added since before."""
        counts = [now - then for now, then in zip(self.counts, before.counts, strict=True)]
        return Spread(counts, self.seconds - before.seconds)

    def include(self, other: Spread) -> None:
        """Count what another one counted too."""
        self.counts = [mine + more for mine, more in zip(self.counts, other.counts, strict=True)]
        self.seconds += other.seconds

    def copy(self) -> Spread:
        return Spread(self.counts.copy(), self.seconds)


class Wait(msgspec.Struct):
    """How long jobs of one queue and priority waited: from when they were ready to their start."""

    queue: str
    priority: int
    waited: Spread = msgspec.field(default_factory=Spread)


class Work(msgspec.Struct):
    """What became of the jobs of one queue and type. type: "" of those that could not be read.

    started: attempts that began. completed: jobs; degraded: those of them that did so the simple way. failed: attempts
    that failed; retried: those that are tried again; fell: those after which another job type runs instead. buried,
    revoked, expired: jobs; dropped: copies of jobs that were taken away. waited: from when a job was ready to its
    start; ran: from start to end. done, duplicate, unknown: side effects that happened, that were not done again, and
    that broke off so that nobody knew whether they had happened. cpu: seconds of processor time, of attempts that took
    a millisecond or longer where it was measured.
    """

    queue: str
    type: str
    started: int = 0
    completed: int = 0
    failed: int = 0
    retried: int = 0
    fell: int = 0
    buried: int = 0
    revoked: int = 0
    expired: int = 0
    degraded: int = 0
    dropped: int = 0
    done: int = 0
    duplicate: int = 0
    unknown: int = 0
    cpu: float = 0.0
    waited: Spread = msgspec.field(default_factory=Spread)
    ran: Spread = msgspec.field(default_factory=Spread)

    @property
    def gone(self) -> int:
        """Jobs that left their queue for good."""
        return self.completed + self.buried + self.revoked + self.expired

    def since(self, before: Work) -> Work:
        """What happened since before."""
        counts = {name: getattr(self, name) - getattr(before, name) for name in COUNTED}
        return Work(
            self.queue, self.type, **counts, waited=self.waited.since(before.waited), ran=self.ran.since(before.ran)
        )

    def add(self, other: Work) -> None:
        """Count what another one counted too."""
        for name in COUNTED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.waited.include(other.waited)
        self.ran.include(other.ran)

    def copy(self) -> Work:
        counts = {name: getattr(self, name) for name in COUNTED}
        return Work(self.queue, self.type, **counts, waited=self.waited.copy(), ran=self.ran.copy())


#: What side effects come to.
EFFECTS = ("done", "duplicate", "unknown")
#: Which numbers a Work has.
COUNTED = (
    *("started", "completed", "failed", "retried", "fell", "buried", "revoked", "expired", "degraded", "dropped"),
    *EFFECTS,
    "cpu",
)


class Group(msgspec.Struct):
    """Attempts that failed alike in the last hour: a job type's, with one exception at one place.

    message: of the latest, one line; last: when, job: which. number: how many.
    """

    queue: str
    type: str
    exception: str
    place: str
    message: str = ""
    last: float = 0.0
    job: str = ""
    number: int = 0


class Failed(msgspec.Struct, frozen=True):
    """One attempt that failed. next: when the job is tried again; None when it was buried.

    of: how many attempts it has at most if it goes on failing so; 0 where that is not known.
    """

    at: float
    id: str
    type: str
    queue: str
    attempt: int
    error: str
    next: float | None = None
    of: int = 0


class Tally(msgspec.Struct, frozen=True):
    """All that a worker has counted. at: when it wrote this; began: when it began to count; by the store's clock.

    recent: what happened in the last so many seconds (span): a minute, unless beats are further apart. returning: for
    each queue, when jobs that failed are due again and how many that are. reconnects: how often the broker answered
    again after it had not, or had given the worker's jobs to others. waits: since it began, by queue and priority.
    """

    worker: str
    at: float
    began: float
    work: list[Work] = []
    recent: list[Work] = []
    span: float = 0.0
    groups: list[Group] = []
    latest: list[Failed] = []
    returning: dict[str, list[tuple[float, int]]] = {}
    reconnects: int = 0
    waits: list[Wait] = []


def quantile(spreads: Iterable[Spread], part: float) -> float | None:
    """The seconds that this part (0 to 1) of all took at most; None when there are none.

    Within a bucket times are taken to lie evenly, as Prometheus' histogram_quantile() does. What took longer than the
    last bound counts as that.
    """
    counts = [sum(column) for column in zip(*(spread.counts for spread in spreads), strict=True)]
    left = part * sum(counts)
    if not left:
        return None
    below = 0.0
    for number, bound in zip(counts, BOUNDS, strict=False):
        if number >= left:
            return float(below + (bound - below) * left / number)
        left, below = left - number, bound
    return BOUNDS[-1]


def since(now: Iterable[Work], before: Mapping[tuple[str, str], Work]) -> list[Work]:
    """What happened since before, where anything did."""
    made = []
    for work in now:
        known = before.get((work.queue, work.type))
        more = work if known is None else work.since(known)
        if more.started or more.gone or more.failed:
            made.append(more)
    return made


def rate(number: float, seconds: float) -> float:
    """So many in so many seconds, as a rate; less than a second counts as one."""
    return number / max(seconds, 1.0)


encode = msgspec.json.Encoder().encode
decode = reader(Tally)
