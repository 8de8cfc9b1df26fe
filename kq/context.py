"""The job that is running here: what its own code may know of it."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CurrentJob:
    """The running job. attempt: 1 for the first start. until: when its timeout ends, on the monotonic clock."""

    id: str
    type: str
    queue: str
    attempt: int
    until: float


running: ContextVar[CurrentJob | None] = ContextVar("kq-current-job", default=None)


def current_job() -> CurrentJob | None:
    """The job that this code runs in; None outside of a worker."""
    return running.get()
