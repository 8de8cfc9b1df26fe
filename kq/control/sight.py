"""What control sees: workers, queues and jobs as values."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from hashlib import blake2b
from typing import Any

import msgspec

from kq.broker import Seen, home_of
from kq.errors import MessageError
from kq.handles.duplicate import Duplicates
from kq.handles.standing import Order
from kq.handles.stream import Emitted
from kq.handles.whereabouts import state_of
from kq.values.failure import group_of
from kq.values.job import State
from kq.values.message import Attempt, Head, decode_body, decode_head, only_id, shares_arguments
from kq.values.redaction import beginning
from kq.values.snapshot import Progress

#: The states of the jobs that are listed: those in which none has ended.
LISTED = (State.READY, State.DELAYED, State.RETRYING, State.RESERVED, State.RUNNING, State.PAUSED, State.BURIED)


class Health(StrEnum):
    """How a worker's heart beats."""

    ALIVE = "alive"
    LATE = "late"  # it missed a beat; its lease still holds
    DEAD = "dead"  # its lease is over; its jobs go to others


class RunningJob(msgspec.Struct, frozen=True):
    """A job that a worker said it runs. since: seconds since the epoch, by the worker's clock.

    seconds: how long it ran when the worker said so; limit: how long it may run. executor: the pid that runs it.
    progress: how far it said that it is. arguments: by name, without secrets and cut; none of one that is long to read.
    """

    id: str
    type: str
    queue: str
    since: float
    seconds: float = 0.0
    limit: float = 0.0
    executor: int = 0
    progress: Progress | None = None
    arguments: dict[str, Any] = {}


class HeldJobs(msgspec.Struct, frozen=True):
    """Jobs of a queue that a worker said it has and does not run. seconds: how long it had the first of them then."""

    queue: str
    jobs: int
    seconds: float


class WorkerInfo(msgspec.Struct, frozen=True):
    """A worker as it described itself at its last beat. beat: by the state store's clock, clock: by its own.

    code: the app's version; kq: that of kq. types: the job types that it knows. retired: when control found it dead, 0
    when nobody did. singletons: the queues whose jobs nobody else runs. rss: bytes of memory that it and its executors
    hold; cpu: cores that they used since the beat before; None where the system does not tell. ok: jobs that it
    completed; failed: attempts that failed here.
    """

    name: str
    host: str
    pid: int
    started: float
    beat: float
    lease: float
    pool: str
    slots: int
    queues: dict[str, int]
    executors: list[int] = []
    running: list[RunningJob] = []
    held: list[HeldJobs] = []
    stopping: bool = False
    code: str = ""
    types: list[str] = []
    kq: str = ""
    clock: float = 0.0
    retired: float = 0.0
    singletons: list[str] = []
    rss: int | None = None
    cpu: float | None = None
    ok: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One line of heartbeat_check(). age: seconds since the worker's last beat."""

    worker: WorkerInfo
    health: Health
    age: float


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """A queue's counts. held: delivered to workers; buried: set aside for a human; workers: alive and serving it.

    parked: set aside because their types are paused. paused: the order, when the queue itself is. singleton: the worker
    that alone runs its jobs, "" while nobody does; None where many may.
    """

    name: str
    ready: int
    delayed: int
    held: int
    buried: int
    workers: int
    parked: int = 0
    paused: Order | None = None
    singleton: str | None = None


@dataclass(frozen=True, slots=True)
class JobInfo:
    """A job as it stands in its queue, or as its record tells. error: why it was buried, one line.

    attempt: how many attempts have ended, since a human last kicked it. due: when a delayed job becomes ready;
    submitted, buried: when it was; seconds since the epoch. headers: all that its message has, as it came. version:
    changes whenever the message does; "" when there is none. log: the last lines that it logged, or its executor did
    that died under it.
    body: that of its message as text, where it is no JSON of arguments. degraded_by: which of its fallbacks it is by
    now, or ended as; 0: what it was submitted as. types: all job types that it may run as, in order, where its message
    says; own_arguments: not all of them with the same arguments. duplicates: submits that found its unique key held,
    where that was asked for and there were any. emitted: what there is of its stream.
    took, cpu, rss: what the attempt cost that completed it: seconds, seconds of processor time, bytes that its process
    held at most; 0, None and 0 where nobody measured that.
    """

    id: str
    type: str
    queue: str
    state: State
    attempt: int = 0
    priority: int = 0
    error: str = ""
    traceback: str = ""
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    history: tuple[Attempt, ...] = ()
    due: float | None = None
    result: Any = None
    worker: str = ""
    submitted: float | None = None
    buried: float | None = None
    headers: dict[str, Any] = field(default_factory=dict)
    version: str = ""
    body: str = ""
    log: str = ""
    degraded_by: int = 0
    types: tuple[str, ...] = ()
    own_arguments: bool = False
    duplicates: Duplicates | None = None
    emitted: Emitted | None = None
    took: float = 0.0
    cpu: float | None = None
    rss: int = 0

    @property
    def parent(self) -> str:
        """The id of the job that staged it; "" when none did."""
        return str(self.headers.get("parent") or "")

    @property
    def trace(self) -> str:
        """The id of the trace that it belongs to, by W3C's traceparent; "" where there is none."""
        found = _TRACEPARENT.match(str(self.headers.get("traceparent") or ""))
        return found[1] if found else ""

    @property
    def has_message(self) -> bool:
        """Whether it was seen as a message: one that has ended has a record, without arguments and priority."""
        return bool(self.version)

    @property
    def is_held(self) -> bool:
        """Whether it waits so that somebody may still revoke it."""
        return self.state is State.DELAYED and self.headers.get("held") is True

    @property
    def failure(self) -> Failure:
        """What it was buried for, as far as others are buried for the same."""
        return Failure(self.type, *group_of(self.error, self.traceback))


@dataclass(frozen=True, slots=True, order=True)
class Failure:
    """A group of failures: jobs of one type that ended with one exception at one place.

    place: file and function of the innermost frame, without its line, which changes with every edit.
    """

    type: str
    exception: str
    place: str


@dataclass(frozen=True, slots=True)
class Where:
    """Which jobs are meant; what is not said is any.

    type: a job type's name, its last parts, or a pattern with *. error: the same of the exception's class. text: found
    in the id, the arguments or the error, in any case of letters. older: seconds since it was buried, or submitted.
    place: file and function where it failed, as in Failure.
    """

    type: str = ""
    error: str = ""
    text: str = ""
    older: float = 0.0
    place: str = ""

    def matches(self, job: JobInfo, now: float) -> bool:
        """Whether job is one of those. now: seconds since the epoch."""
        if not (is_named(job.type, self.type) and is_named(job.failure.exception, self.error)):
            return False
        if self.place and job.failure.place != self.place:
            return False
        since = job.submitted if job.buried is None else job.buried
        if self.older and (since is None or now - since < self.older):
            return False
        return not self.text or self.text.casefold() in _text_of(job).casefold()


ANY = Where()
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-")
#: Bytes of a body that are shown when it can't be read.
BODY_SHOWN = 4096


def is_named(name: str, wanted: str) -> bool:
    """Whether a type's or an error's name is wanted: by its whole, its last part or a pattern; "" wants any."""
    return not wanted or fnmatchcase(name, wanted) or fnmatchcase(name, f"*.{wanted}")


def _text_of(job: JobInfo) -> str:
    # As people write it, so not with JSON's \u.
    arguments = json.dumps([job.args, job.kwargs], ensure_ascii=False)
    return "\n".join([job.id, job.error, arguments])


def info_of(seen: Seen) -> JobInfo:
    """A message that was looked at, as people want to see it. Messages that are no jobs are shown too."""
    headers = dict(seen.headers)
    try:
        (args, kwargs), body, own = decode_body(seen.body), "", not shares_arguments(seen.body)
    except MessageError:
        text = seen.body[: 2 * BODY_SHOWN].decode(errors="backslashreplace")
        args, kwargs, body, own = [], {}, beginning(text, BODY_SHOWN), False
    try:
        head = decode_head(headers)
        only_id(seen.id, headers)
    except MessageError:
        head = Head(id=seen.id, type=str(headers.get("type") or ""))
    return JobInfo(
        head.id,
        head.type,
        home_of(seen.queue),
        state_of(seen),
        head.counters.attempts,
        seen.priority,
        str(headers.get("error") or ""),
        str(headers.get("traceback") or ""),
        args,
        kwargs,
        head.history,
        seen.due,
        submitted=head.submitted_at or None,
        buried=headers["buried"] if isinstance(headers.get("buried"), int | float) else None,
        headers=headers,
        version=blake2b(seen.stamp, digest_size=8).hexdigest(),
        log=str(headers.get("log") or ""),
        body=body,
        degraded_by=head.degraded_by,
        types=_types_of(head),
        own_arguments=own,
    )


def _types_of(head: Head) -> tuple[str, ...]:
    if not head.fallback:
        return ()
    return head.first.type if head.first else head.type, *(stage.type for stage in head.fallback)
