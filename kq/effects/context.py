"""The job that is running here: what its own code may know of it, and do."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec
from msgspec.structs import replace

from kq.clock import SYSTEM, derived_id
from kq.effects.ledger import KEEP, Entry, Ledger
from kq.effects.once import CameTo, Once, OnDoubt
from kq.handles.handle import Handle
from kq.handles.whereabouts import Looks
from kq.units import format_size, parse_duration
from kq.values.config import Streams
from kq.values.deed import Deed
from kq.values.job import Job
from kq.values.message import Envelope, encode_result
from kq.values.policy import YEAR
from kq.values.redaction import one_line, redacted_end, redacted_text
from kq.values.unique import unique_of

if TYPE_CHECKING:
    from kq.effects.emitter import Emitter, Outlet

R = TypeVar("R")

#: One job stages at most so many others, of so many bytes in all: they are settled with it, in one step.
STAGED_LIMIT = 1000
STAGED_SIZE = 4 * 1024 * 1024
#: Characters of its log that stay with a job.
LOG_LIMIT = 4096
#: Seconds that a job whose time is over has for writing down what it emitted.
MOMENT = 0.5


class Makes(Looks, Protocol):
    """Where jobs get their form: the app."""

    @property
    def streams(self) -> Streams:
        """How much of what a job emits is kept."""

    def kept(self, type: str) -> float:
        """Seconds that results of that job type are kept."""

    def envelope(self, job: Job[Any]) -> Envelope:
        """The message for job."""


class Slate(Protocol):
    """What the worker reads while the job runs."""

    def progress(self, n: float, of: float, text: str, at: float) -> None:
        """How far the job is, at that instant."""

    def extend(self, seconds: float) -> None:
        """How much longer it is to be let run."""


class Footing(msgspec.Struct):
    """What jobs stand on: their app and, below it, their worker.

    worker: its name, another one each time that it joins. process: in which they run. lapse: when the worker's right to
    act ends, on the monotonic clock; it moves on with each beat. rehearsal: who is told what they would do; None where
    they do it.
    """

    app: Makes
    worker: str = ""
    process: int = msgspec.field(default_factory=os.getpid)
    lapse: Callable[[], float] = lambda: inf
    emitter: Emitter | None = None
    rehearsal: Callable[[Deed], None] | None = None

    def outlet(self, job: CurrentJob) -> Outlet:
        """Where job emits."""
        # Here and not above: who emits nothing pays for nothing of it.
        from kq.effects.emitter import Emitter, Outlet, Terms

        if self.emitter is None:
            self.emitter = Emitter(lambda: self.app.store, self.lapse)
        terms = Terms(self.app.streams.most, self.app.streams.size, self.app.kept(job.type))
        return Outlet(self.emitter, job.id, job.attempt, self.worker, terms, lambda: job.until)


class Staged(msgspec.Struct, frozen=True):
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

    degraded_by: which of the fallbacks it is; 0 for what was submitted. slate: where it writes down how far it is.
    """

    id: str
    type: str
    queue: str
    attempt: int
    until: float
    footing: Footing = field(repr=False)
    degraded_by: int = 0
    slate: Slate | None = field(default=None, repr=False)
    _lines: list[str] | None = field(default=None, init=False, repr=False)
    _staged: dict[str, Staged] | None = field(default=None, init=False, repr=False)
    _over: bool = field(default=False, init=False, repr=False)
    _outlet: Outlet | None = field(default=None, init=False, repr=False)
    _effects: dict[str, int] | None = field(default=None, init=False, repr=False)

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
        Raises ValueError for an empty key, a word that is none, or keep out of range.
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
        ledger = Ledger(self.footing.app.store, self.footing.lapse)
        return Once(ledger, mine, on_doubt, check, count=self._count, rehearse=self.footing.rehearsal)

    @property
    def rehearsal(self) -> bool:
        """Whether this only shows what the job would do (kq jobs rehearse).

        Then no effect under a key is due, and nothing is submitted. What it does to the world without kq's ledger is
        done: leave that out here.
        """
        return self.footing.rehearsal is not None

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
            self._must_be_here("staged with")
            known = {} if self._staged is None else self._staged
            if job.id not in known:
                known[job.id] = self._made(job, len(known))
                _check_size(known)
                self._staged = known
            envelope = known[job.id].envelope
        return Handle(envelope.id, envelope.queue, self.footing.app)

    def progress(self, n: float, of: float = 0.0, text: str = "") -> None:
        """Say how far this job is: n of `of`, 0 when nobody knows how much there is, and what it is at, a few words.

        It costs a few microseconds and waits for nothing, so it may be said for every row; `kq status` and whoever
        listens to events see what was said last. Raises ValueError for numbers that are none, or negative.
        """
        if not (0 <= n < inf and 0 <= of < inf):
            raise ValueError(f"progress {n} of {of} is out of range; use numbers from 0 on")
        if self.slate is not None:
            self.slate.progress(float(n), float(of), text, SYSTEM.now())

    def emit(self, chunk: Any) -> bool:
        """Add chunk, anything that JSON has, to this job's stream, which Handle.stream() reads while it runs and after.

        It costs a few microseconds and waits for nothing, so it may be said for every word. What gathers within 50 ms
        is written together, and all of it before the job's end is told; it is kept as long as the job's result. A later
        attempt begins anew, and with its first chunk what this one emitted is gone. False when the chunk is left out:
        there are more, or larger ones, than `streams:` of the settings allows, or no results are kept.
        Raises TypeError for what JSON cannot carry, LeaseLost when another attempt may have begun by now (promise C4),
        and RuntimeError when this job has ended, or in a process that it started.
        """
        self._must_be_here("emitted by")
        said = encode_result(chunk, "what is emitted")
        if self.footing.rehearsal is not None:
            self.footing.rehearsal(Deed("emit", call=one_line(redacted_text(said.decode()))))
            return True
        outlet = self._outlet or self._opened()
        return outlet.add(said)

    def _opened(self) -> Outlet:
        with _staging:
            if self._outlet is None:
                self._outlet = self.footing.outlet(self)
            return self._outlet

    def finish(self) -> None:
        """Write down what it emitted, before its end is told."""
        if self._outlet is not None:
            self._outlet.finish(max(self.until, SYSTEM.monotonic() + MOMENT))

    @property
    def emits(self) -> bool:
        """Whether it has emitted something."""
        return self._outlet is not None

    def extend(self, seconds: float | str) -> None:
        """Let this attempt take so many seconds more than its timeout, or "5m". May be repeated; they add up.

        To be said before its time is over: one that was interrupted is not let go on. Raises ValueError for less than 0
        or more than a year.
        """
        more = parse_duration(seconds)
        if not 0 <= more <= YEAR:
            raise ValueError(f"an extension of {more} s is out of range; use 0 s to a year")
        self.until += more
        if self.slate is not None:
            self.slate.extend(more)

    def keep(self, line: str) -> None:
        """Attach a line of the log to this job; the oldest go when there are more than LOG_LIMIT characters."""
        lines = self._lines = [line] if self._lines is None else [*self._lines, line]
        while len(lines) > 1 and sum(map(len, lines)) > LOG_LIMIT:
            del lines[0]

    @property
    def log(self) -> str:
        """What was logged in it, the last lines."""
        log = "" if self._lines is None else "".join(self._lines)
        return log if len(log) <= LOG_LIMIT else redacted_end(log, LOG_LIMIT)  # one line, of which it is the end

    @property
    def effects(self) -> Mapping[str, int] | None:
        """How many of its side effects came to what; None where it has none."""
        return self._effects

    def _count(self, came_to: CameTo) -> None:
        with _staging:
            known = self._effects or {}
            self._effects = {**known, came_to: known.get(came_to, 0) + 1}

    def _must_be_here(self, what: str) -> None:
        if self._over or os.getpid() != self.footing.process:
            where = "has ended" if self._over else "runs in another process"
            raise RuntimeError(f"job {self.id} {where}: nothing can be {what} it from here")

    def _made(self, job: Job[Any], number: int) -> Staged:
        if job.settings.unique is not None and unique_of(job.settings.unique).replaces:
            raise ValueError(f"{job.type} may take the place of another job, and can't be staged; submit it")
        envelope, id = self.footing.app.envelope(job), derived_id(self.id, number)
        headers = {**envelope.headers, "id": id, "parent": self.id}
        if "unique" in headers:  # who takes the message has to take the key
            headers["unique_late"] = True
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


#: Threads of a job may stage and count at once, and while it ends. Held for no longer than it takes to encode a job.
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
