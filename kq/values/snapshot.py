"""The snapshot: all that is to be seen of queues, workers and failures at one moment, as one value.

Terminal monitor, `kq status`, web page and metrics are made of it and of nothing else. Written as JSON (`encode`) it is
the form that scripts rely on; `schema` changes when a name there changes its meaning or goes, not when one is added.

Instants are seconds since the epoch, durations seconds; in JSON the names of durations end in `_s`. Rates are per
second, over the last minute. None: nobody knows, and `missing` says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from kq.errors import NO_BROKER

#: The version of the JSON form.
SCHEMA = 1

#: How a worker does. late: it missed a beat; dead: its lease is over and its jobs go to others; stopping: it takes
#: nothing new and ends.
WorkerState: TypeAlias = Literal["alive", "late", "dead", "stopping"]
#: How a queue does, the worst first. paused: somebody ordered it. unserved: no live worker takes it, and jobs wait.
#: growing: more comes in than goes out, and jobs wait. busy: jobs wait, or workers have some and run none. ok: neither.
QueueState: TypeAlias = Literal["paused", "unserved", "growing", "busy", "ok"]


#: What a chart of a history may show, in seconds; the last: all that there is.
SPANS = (120.0, 180.0, 300.0, 600.0)

#: Which fields are durations, in seconds; their names in JSON end in _s.
DURATIONS = {"beat_age", "drain", "lease", "lease_left", "limit", "oldest", "round_trip", "skew", "step"} | {
    f"{span}_{part}" for span in ("wait", "run") for part in ("p50", "p95")
}


def _named(field: str) -> str:
    return f"{field}_s" if field in DURATIONS else field


class Row(msgspec.Struct, frozen=True, rename=_named):
    """What all parts of a snapshot have in common: they never change, and name durations alike."""


class Paused(Row, frozen=True, kw_only=True):
    """An order that lets no job start. at: since when; by: user@host; what: the queue or the job type."""

    what: str
    at: float
    by: str = ""
    reason: str = ""


class Progress(Row, frozen=True, kw_only=True):
    """How far a job says it is. of: 0 when it did not say. at: when it said so."""

    n: float = 0.0
    of: float = 0.0
    text: str = ""
    at: float = 0.0


class RunningRow(Row, frozen=True, kw_only=True):
    """A job that runs. seconds: for how long; limit: for how long it may. executor: the pid that runs it.

    arguments: the first of them by name, without what looks like a secret, and cut; none where they are large, or where
    many jobs run.
    """

    id: str
    type: str
    queue: str
    seconds: float
    limit: float = 0.0
    executor: int = 0
    progress: Progress | None = None
    arguments: dict[str, Any] = {}


class HeldRow(Row, frozen=True, kw_only=True):
    """Jobs of a queue that a worker has and does not run: how many, and for how long it has had the first of them.

    Where none has told of them, but one alone takes them: since it was last heard.
    """

    worker: str
    queue: str
    jobs: int
    seconds: float


class QueueRow(Row, frozen=True, kw_only=True):
    """A queue.

    ready: may start now. delayed: their time has not come; retrying: those of them that failed before. held: workers
    have them; running: those of them that run, as workers said with their last beat; held_by: who has the others.
    buried: set aside for a human. parked: set aside because their types are paused.

    oldest: for how long the one that has been ready longest has been so; 0.0 when none is ready. wait_p50, wait_p95:
    from when a job was ready to its start, of those that started in the last minute. run_p50, run_p95: from start to
    end, of those that ended. came, ended: jobs a second that were submitted, and that left for good; failed: attempts
    a second that failed; burials: jobs a second that were buried. drain: until none is ready if all goes on so; None
    while it grows. degraded: the part of those that completed which did so the simple way, 0 to 1.

    duplicates: submits that found their unique key held, by what becomes of such: join, reject, after, replace or
    debounce. They are forgotten after a month without one.

    workers, slots: alive and serving it, and how many jobs of it they may run at a time. singleton: one job at a time
    over all hosts; holder: the worker that has its seat.
    """

    name: str
    ready: int = 0
    delayed: int = 0
    retrying: int | None = None
    held: int = 0
    running: int = 0
    held_by: tuple[HeldRow, ...] = ()
    buried: int = 0
    parked: int = 0
    oldest: float | None = None
    wait_p50: float | None = None
    wait_p95: float | None = None
    run_p50: float | None = None
    run_p95: float | None = None
    came: float | None = None
    ended: float | None = None
    failed: float | None = None
    burials: float | None = None
    degraded: float | None = None
    duplicates: dict[str, int] = {}
    drain: float | None = None
    state: QueueState = "ok"
    paused: Paused | None = None
    workers: int = 0
    slots: int = 0
    singleton: bool = False
    holder: str = ""

    @property
    def unbegun(self) -> int:
        """How many jobs workers have and do not run: they are to be next, or their worker is dead."""
        return max(0, self.held - self.running)


class WorkerRow(Row, frozen=True, kw_only=True):
    """A worker, as it described itself at its last beat.

    beat_age: since then. lease_left: until its jobs go to others unless it beats; 0.0 when they did. skew: by how much
    its host's clock is ahead of the state store's; below 0.0 where it is behind. started: when it began. retired: when
    control took a dead one out, None when nobody did. code: the version of the application. executors: their pids;
    running: what runs in them; held: what it has besides. rss: bytes of it and its executors; cpu: cores they used
    since the beat before. ok, failed: attempts that ended well or not since it started. queues: and how many jobs of
    each may run at a time.
    singletons: queues whose seat it has.
    """

    name: str
    host: str = ""
    pid: int = 0
    state: WorkerState
    beat_age: float
    lease: float
    lease_left: float
    skew: float | None = None
    started: float = 0.0
    retired: float | None = None
    code: str = ""
    pool: str = ""
    slots: int = 0
    queues: dict[str, int] = {}
    executors: tuple[int, ...] = ()
    running: tuple[RunningRow, ...] = ()
    held: tuple[HeldRow, ...] = ()
    rss: int | None = None
    cpu: float | None = None
    ok: int = 0
    failed: int = 0
    singletons: tuple[str, ...] = ()


class FailureRow(Row, frozen=True, kw_only=True):
    """A group of failures: jobs of one type and queue that failed with one exception at one place.

    place: file and function of the innermost frame. message: of the latest. failed: attempts that failed so, as
    workers of the last hour count them. buried: jobs that lie buried for it, of the first thousand of the queue; None
    when nobody counted. last: when; job: which.
    """

    type: str
    queue: str
    exception: str
    place: str = ""
    message: str = ""
    failed: int = 0
    buried: int | None = None
    last: float = 0.0
    job: str = ""


class FailedRow(Row, frozen=True, kw_only=True):
    """One attempt that failed. next: when it is tried again; None when the job was buried. attempt: 1 for the first.

    of: how many attempts it has at most if it goes on failing so; 0 where nobody knows.
    """

    at: float
    id: str
    type: str
    queue: str
    attempt: int
    error: str
    worker: str = ""
    next: float | None = None
    of: int = 0


class SingletonRow(Row, frozen=True, kw_only=True):
    """A queue of which one job runs at a time. holder: the worker whose seat it is, "" when nobody has it."""

    queue: str
    holder: str = ""
    lease_left: float = 0.0


class DoubtRow(Row, frozen=True, kw_only=True):
    """A side effect of which nobody knows whether it happened. key: its own; job: the one that waits for an answer."""

    key: str
    job: str


class Point(Row, frozen=True, kw_only=True):
    """What happened in one step of the history. at: its end. jobs: how many there were then, but for buried ones.

    came, ended, failed: as in QueueRow, in this step. wait_p95: None when nothing started.
    """

    at: float
    came: float | None = None
    ended: float = 0.0
    failed: float = 0.0
    wait_p95: float | None = None
    jobs: int = 0


class History(Row, frozen=True, kw_only=True):
    """The last ten minutes at most, the oldest first, as control's rounds wrote them down. step: between two points.

    sent: for each queue how many jobs have come to it since control began to count, up to the last step.
    """

    step: float = 10.0
    total: tuple[Point, ...] = ()
    queues: dict[str, tuple[Point, ...]] = {}
    sent: dict[str, int] = {}


def span_of(points: Sequence[Point], at: float, step: float) -> float:
    """Seconds up to at that a chart of points shows: the shortest of SPANS that has them all, so that few fill it too.

    step: seconds between two of them.
    """
    age = at - points[0].at + step if points else 0.0
    return next((span for span in SPANS if age <= span), SPANS[-1])


class Totals(Row, frozen=True, kw_only=True):
    """All queues and workers together. workers: alive, late or stopping; known: dead ones of the last hour too.

    completed: jobs that those workers, and those that ended in the last hour, have completed since they began.
    """

    ready: int = 0
    delayed: int = 0
    retrying: int | None = None
    running: int = 0
    buried: int = 0
    completed: int | None = None
    workers: int = 0
    known: int = 0
    slots: int = 0
    came: float | None = None
    ended: float | None = None
    failed: float | None = None
    burials: float | None = None
    degraded: float | None = None
    oldest: float | None = None
    wait_p95: float | None = None


class Snapshot(Row, frozen=True, kw_only=True):
    """Everything at one moment. at: by the state store's clock.

    url: the broker, without its password; transport: its kind. broker: "" or why it does not answer; store: the same of
    the state store. round_trip: that the broker took to answer. control: who makes control's rounds, "" when nobody
    does. paused: orders about job types; those about queues stand there. doubts: the latest; doubtful: how many there
    are. missing: sentences about what could not be had.
    """

    schema: int = SCHEMA
    at: float
    url: str = ""
    transport: str = ""
    broker: str = ""
    store: str = ""
    round_trip: float | None = None
    control: str = ""
    totals: Totals = Totals()
    queues: tuple[QueueRow, ...] = ()
    workers: tuple[WorkerRow, ...] = ()
    failures: tuple[FailureRow, ...] = ()
    recent: tuple[FailedRow, ...] = ()
    singletons: tuple[SingletonRow, ...] = ()
    paused: tuple[Paused, ...] = ()
    doubts: tuple[DoubtRow, ...] = ()
    doubtful: int = 0
    history: History = History()
    missing: tuple[str, ...] = ()

    @property
    def absent(self) -> bool:
        """Whether nobody has made a broker there yet."""
        return self.broker.startswith(NO_BROKER)


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Snapshot).decode
