"""What control sees: workers, queues and jobs as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec

from kq.broker import BURIED, PARKED, Seen
from kq.errors import MessageError
from kq.handle import state_of
from kq.job import State
from kq.message import Attempt, decode_body, decode_head


class Health(StrEnum):
    """How a worker's heart beats."""

    ALIVE = "alive"
    LATE = "late"  # it missed a beat; its lease still holds
    DEAD = "dead"  # its lease is over; its jobs go to others


class RunningJob(msgspec.Struct, frozen=True):
    """A job that a worker said it runs. since: seconds since the epoch, by the worker's clock.

    seconds: how long it ran when the worker said so; limit: how long it may run.
    """

    id: str
    type: str
    queue: str
    since: float
    seconds: float = 0.0
    limit: float = 0.0


class WorkerInfo(msgspec.Struct, frozen=True):
    """A worker as it described itself at its last beat. beat: by the state store's clock. code: the app's version."""

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
    stopping: bool = False
    code: str = ""
    types: list[str] = []


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One line of heartbeat_check(). age: seconds since the worker's last beat."""

    worker: WorkerInfo
    health: Health
    age: float


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """A queue's counts. held: delivered to workers; buried: set aside for a human; workers: alive and serving it."""

    name: str
    ready: int
    delayed: int
    held: int
    buried: int
    workers: int


@dataclass(frozen=True, slots=True)
class JobInfo:
    """A job as it stands in its queue, or as its record tells. error: why it was buried, one line.

    attempt: how many attempts have ended. due: when a delayed job becomes ready, seconds since the epoch.
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


def info_of(seen: Seen) -> JobInfo:
    """A message that was looked at, as people want to see it. Messages that are no jobs are shown too."""
    state = state_of(seen)
    queue = seen.queue.removesuffix(BURIED).removesuffix(PARKED)
    error = str(seen.headers.get("error") or "")
    traceback = str(seen.headers.get("traceback") or "")
    try:
        args, kwargs = decode_body(seen.body)
    except MessageError:
        args, kwargs = [], {}
    try:
        head = decode_head(seen.headers)
    except MessageError:
        type_name = str(seen.headers.get("type") or "")
        return JobInfo(seen.id, type_name, queue, state, 0, seen.priority, error, traceback, args, kwargs)
    return JobInfo(
        head.id,
        head.type,
        queue,
        state,
        head.counters.attempts,
        seen.priority,
        error,
        traceback,
        args,
        kwargs,
        head.history,
        seen.due,
    )
