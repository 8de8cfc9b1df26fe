"""The job that is running here: what its own code may know of it, and do."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Protocol, TypeVar

import msgspec

from kq.clock import SYSTEM, derived_id
from kq.handle import Handle, Looks
from kq.job import Job
from kq.ledger import KEEP, Entry, Ledger
from kq.message import Envelope
from kq.once import Once, OnDoubt
from kq.units import format_size, parse_duration

R = TypeVar("R")

#: One job stages at most so many others, of so many bytes in all: they are settled with it, in one step.
STAGED_LIMIT = 1000
STAGED_SIZE = 4 * 1024 * 1024


class Makes(Looks, Protocol):
    """Where jobs get their form: the app."""

    def envelope(self, job: Job[Any]) -> Envelope:
        """The message for job."""


@dataclass(slots=True)
class Footing:
    """What jobs stand on: their app and, below it, their worker.

    worker: its name, another one each time that it joins. process: in which they run. lapse: when the worker's right to
    act ends, on the monotonic clock; it moves on with each beat.
    """

    app: Makes
    worker: str = ""
    process: int = field(default_factory=os.getpid)
    lapse: Callable[[], float] = lambda: inf


@dataclass(frozen=True, slots=True)
class Staged:
    """A job that waits for the one in which it was staged. at: the instant that its delay counts to; size: bytes."""

    envelope: Envelope
    at: float | None
    hold: float
    size: int

    def released(self, now: float) -> Envelope:
        """Its message, now that it may go."""
        return self.envelope if self.at is None else replace(self.envelope, delay=max(self.hold, self.at - now))


@dataclass(slots=True, eq=False)
class CurrentJob:
    """The running job. attempt: 1 for the first start. until: when its timeout ends, on the monotonic clock.

    degraded_by: which of the fallbacks it is; 0 for what was submitted.
    """

    id: str
    type: str
    queue: str
    attempt: int
    until: float
    footing: Footing = field(repr=False)
    degraded_by: int = 0
    _staged: dict[str, Staged] | None = field(default=None, init=False, repr=False)
    _over: bool = field(default=False, init=False, repr=False)

    def once(
        self,
        key: str,
        *,
        on_doubt: OnDoubt = "bury",
        check: Callable[[], bool | None] | None = None,
        keep: float = KEEP,
    ) -> Once:
        """A context manager around a side effect that is to happen once under this key (promise C13); see Once.

        on_doubt: what becomes of it when it was begun and nobody knows whether it happened: "bury" this job for a
        human, "repeat" it (at least once), "skip" it (at most once), or leave it in doubt and let this job's "fallback"
        answer. check: asks the world first: True it happened, False it did not, None it can't tell. keep: seconds that
        it is remembered once it is done, a year by default.
        Entering raises InDoubt or DoubtStands, EffectBusy when another job is at it, and LeaseLost.
        """
        mine = Entry(
            key,
            "intended",
            self.type,
            self.id,
            self.attempt,
            self.footing.worker,
            keep=keep,
            on_doubt=on_doubt,
            checked=check is not None,
        )
        return Once(Ledger(self.footing.app.store, self.footing.lapse), mine, on_doubt, check)

    def later(self, job: Job[R], *, hold: float | str = 0.0) -> Handle[R]:
        """Submit job when this one has completed, in the same step; never, when this attempt does not (promise C16).

        Until then it is nowhere but here: a later attempt stages anew, and the same jobs have the same ids. hold: an
        undo window, in seconds or as "5m": it waits for so long after that, listed by `kq effects held`, and may still
        be revoked. A delay of its own counts from then too. Staged twice, a job is submitted once.
        Raises what submit() does for a job that can't be sent, ValueError for more than STAGED_LIMIT jobs or
        STAGED_SIZE bytes, and RuntimeError when this job has ended, or in a process that it started.
        """
        job = job.held(parse_duration(hold))
        with _staging:
            if self._over or os.getpid() != self.footing.process:
                where = "has ended" if self._over else "runs in another process"
                raise RuntimeError(f"job {self.id} {where}: nothing can be staged with it from here")
            known = {} if self._staged is None else self._staged
            if job.id not in known:
                known[job.id] = self._made(job, len(known))
                _check_size(known)
                self._staged = known
            envelope = known[job.id].envelope
        return Handle(envelope.id, envelope.queue, self.footing.app)

    def _made(self, job: Job[Any], number: int) -> Staged:
        if job.settings.unique is not None:
            raise ValueError(f"{job.type} is unique by {job.settings.unique!r}, and can't be staged; submit it")
        envelope, id = self.footing.app.envelope(job), derived_id(self.id, number)
        headers = {**envelope.headers, "id": id, "parent": self.id}
        size = len(envelope.body) + len(msgspec.msgpack.encode(headers))
        made = replace(envelope, id=id, headers=headers)
        return Staged(made, job.settings.at, job.settings.hold or 0.0, size)

    def end(self) -> tuple[Envelope, ...]:
        """The jobs that it has staged; from now on it stages nothing."""
        with _staging:
            self._over = True
            if self._staged is None:
                return ()
            now = SYSTEM.now()
            return tuple(staged.released(now) for staged in self._staged.values())


#: Threads of a job may stage at once, and while it ends. Held for no longer than it takes to encode a job.
_staging = threading.Lock()
running: ContextVar[CurrentJob | None] = ContextVar("kq-current-job", default=None)


def current_job() -> CurrentJob | None:
    """The job that this code runs in; None outside of a worker."""
    return running.get()


def _check_size(known: dict[str, Staged]) -> None:
    """Raise ValueError, and take back the last job, when there is too much to be settled in one step."""
    if len(known) > STAGED_LIMIT:
        known.popitem()
        raise ValueError(f"a job stages at most {STAGED_LIMIT} others; stage one that submits them")
    size = sum(staged.size for staged in known.values())
    if size > STAGED_SIZE:
        known.popitem()
        most = format_size(STAGED_SIZE)
        raise ValueError(f"the staged jobs take {format_size(size)}, more than {most}; store the data elsewhere")
