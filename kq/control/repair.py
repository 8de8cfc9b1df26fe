"""Repair: what a human does to jobs that lie buried or wait. Each act is one swap at the broker, and is audited.

How it is carried out, and what becomes of it when the program dies, is told in kq.control.steps.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, Literal, TypeVar

import msgspec

from kq.broker import BURIED, PARKED, Seen
from kq.clock import SYSTEM
from kq.control import audit, forms
from kq.control.sight import ANY, JobInfo, Where, info_of
from kq.control.steps import BATCH, Stands, Step, Steps, names_two
from kq.control.view import MOST
from kq.errors import MessageError, NotRepaired
from kq.handles.act import Act, Meant
from kq.handles.handle import Handle
from kq.handles.standing import caller
from kq.state.store import Write
from kq.values.job import Job, Settings, State
from kq.values.message import BODY_LIMIT, decode_body, encode_result, with_arguments
from kq.values.record import Record, decode_record, job_key
from kq.values.redaction import one_line

R = TypeVar("R")

#: The states in which a job may be changed.
REPAIRABLE = frozenset({State.READY, State.DELAYED, State.RETRYING, State.PAUSED, State.BURIED})
#: How often, and every how many seconds, a job is looked for that is known to wait and is not found.
LOOKS, LOOK = 50, 0.02
#: So many are purged in one.
PURGED = 500


@dataclass(frozen=True, slots=True)
class Repaired:
    """What became of one of several jobs. refused: why nothing was done to it; "" when it was."""

    job: JobInfo
    refused: str = ""


class Repair(Steps):
    """Puts jobs right."""

    def kick(
        self,
        queue: str | None = None,
        *,
        ids: Sequence[str] = (),
        where: Where = ANY,
        limit: int | None = None,
        reason: str = "",
        by: str = "",
    ) -> list[Repaired]:
        """Put buried jobs back into their queues, with their ids, priorities and histories, and counted anew.

        queue: only those that were buried from it. ids, where: only these. limit: at most so many, the first in order.
        A job whose unique key another job has by now stays. by: who does it, user@host by default.
        """
        self.finish_acts()
        done = list[Repaired]()
        for batch in _batches(self._buried(queue, ids, where, limit, SYSTEM.now())):
            acts = [_act("kicked", info_of(seen), reason, by) for seen in batch]
            stands, now = self._stands([act.job for act in acts]), self._app.store.now()
            steps = [self._kicking(*each, now) for each in zip(batch, acts, stands, strict=True)]
            self._carry_out(steps)
            done += [Repaired(info_of(step.seen), step.refused) for step in steps]
        return done

    def buried(
        self, queue: str | None = None, *, ids: Sequence[str] = (), where: Where = ANY, limit: int | None = None
    ) -> list[JobInfo]:
        """The jobs that kick() would kick."""
        return [info_of(seen) for seen in self._buried(queue, ids, where, limit, SYSTEM.now())]

    def edit(
        self,
        id: str,
        *,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        priority: int | None = None,
        delay: float | None = None,
        version: str = "",
        unchecked: bool = False,
        reason: str = "",
        by: str = "",
    ) -> tuple[str, ...]:
        """Change a job that is buried, waits or is delayed; it stays where it is. Returns what changed: "args.0".

        args, kwargs: all of them. delay: seconds from now; without it a delayed job keeps its time. version: of the job
        as it was looked at; one that has changed meanwhile stays as it is. unchecked: also when the app does not know
        the job's type. Raises TypeError when the arguments do not fit that type, NotRepaired when nothing was done.
        """
        seen, *copies = self._changeable(id)
        job = info_of(seen)
        if version and version != job.version:
            raise NotRepaired(f"job {id} has changed since you looked at it", fix=f"Look again: kq jobs show {id}.")
        if delay is not None and job.state in (State.BURIED, State.PAUSED):
            raise NotRepaired(f"job {id} is {job.state.value} and has no delay")
        body = self._body(seen, args, kwargs, unchecked)
        changed = _changes(job, body, priority, delay)
        if changed:
            act = _act("edited", job, reason, by, changed)
            to = Settings(priority=job.priority if priority is None else priority, delay=delay)
            made = forms.edited(seen, act, body, to.priority or 0, to.delay)
            self._carry_out_one(Step(seen, act, (made,), keeps_due=delay is None), copies)
        return tuple(changed)

    def check(self, job: JobInfo, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Raise TypeError unless these arguments fit the type of job, and those that run instead with the same ones.

        False when the app does not know its type.
        """
        known = self._app.jobs.get(job.type)
        if known is not None and not job.types:
            known.check(args, kwargs)
        for name in (job.type,) if job.own_arguments else job.types:
            if name in self._app.jobs:
                self._app.jobs[name].signature.check(args, kwargs)
        return known is not None

    def submit(self, job: Job[R], *, reason: str = "", by: str = "") -> Handle[R]:
        """Submit a job as a human does: with a line in the audit. Raises what App.submit() does."""
        queue = job.settings.over(self._app.defaults).queue or ""
        act = Act(SYSTEM.now(), by or caller(), "submitted", job.id, job.type, queue, one_line(reason))
        with audit.leaving(self._app.store, act):
            return self._app.submit(job)

    def rehearsing(self, id: str, *, reason: str = "", by: str = "") -> Seen:
        """The message of a job that is buried, waits or is delayed, with a line in the audit: it is to be rehearsed.

        Nothing else is written. Raises NotRepaired when there is no such job, or the app does not know its type.
        """
        seen = self._found(id)[0]
        job = info_of(seen)
        if job.type not in self._app.jobs:
            raise NotRepaired(
                f"app {self._app.name!r} has no job type {job.type!r} to rehearse",
                fix="Name the app that has it: -A module:app.",
            )
        act = _act("rehearsed", job, reason, by)
        audit.leave(self._app.store, act)
        return seen

    def bury(self, id: str, reason: str = "", *, by: str = "") -> None:
        """Set a job aside that waits or is delayed. Raises NotRepaired when nothing was done."""
        seen, *copies = self._changeable(id)
        job = info_of(seen)
        if job.state is State.BURIED:
            raise NotRepaired(f"job {id} is buried already")
        act = _act("buried", job, reason, by)
        error = str(forms.buried(seen, act).headers["error"])
        record = Record(State.BURIED, error=error, ended=act.at, attempts=job.attempt, type=job.type, queue=job.queue)
        (stands,), now = self._stands([id]), self._app.store.now()
        meant = self._recorded(seen, act, record, now)
        self._carry_out_one(self._step(seen, act, meant, stands, now), copies)

    def complete(self, id: str, result: Any = None, *, reason: str = "", by: str = "") -> None:
        """End a buried job with a result, as if it had run.

        Raises NotRepaired when nothing was done, TypeError for a result that JSON cannot carry.
        """
        value = msgspec.Raw(encode_result(result))
        seen, *copies = self._changeable(id)
        job = info_of(seen)
        if job.state is not State.BURIED:
            raise NotRepaired(f"job {id} is {job.state.value}, not buried", fix=f"Bury it first: kq jobs bury {id}.")
        act = _act("completed", job, reason, by)
        record = Record(State.COMPLETED, value)
        (stands,), now = self._stands([id]), self._app.store.now()
        self._carry_out_one(self._ending(seen, act, record, stands, now), copies)

    def delete(self, id: str, *, reason: str = "", by: str = "") -> None:
        """End a job that is buried or waits, for good. Raises NotRepaired when nothing was done."""
        seen, *copies = self._changeable(id)
        act = _act("deleted", info_of(seen), reason, by)
        (stands,), now = self._stands([id]), self._app.store.now()
        self._carry_out_one(self._deleting(seen, act, stands, now), copies)

    def purge(self, queue: str, *, buried: bool = False, reason: str = "", by: str = "") -> int:
        """End all jobs that wait in queue, for good; returns how many. Those that run go on; submitting goes on.

        buried: those that lie buried from it, instead. Their handles say that they were deleted; the audit has a line.
        """
        act = Act(SYSTEM.now(), by or caller(), "purged", queue=queue, reason=one_line(reason))
        self._app.store.write([audit.line(act)])
        if buried:
            ended = self._purge(queue + BURIED, "ready", act)
        else:
            ended = self._purge(queue, "ready", act) + self._purge(queue, "delayed", act)
            ended += self._purge(queue + PARKED, "ready", act)
        audit.log.info("%s (%d jobs)", act, ended)
        return ended

    def remove_queue(self, queue: str, *, reason: str = "", by: str = "") -> None:
        """End a queue that nothing is in and no worker takes; the next submit or worker makes it anew.

        So it becomes a singleton queue, or one no more. Raises NotRepaired when there are jobs or workers.
        """
        held = "a job waits in it or runs"
        if serving := [worker.name for worker in self.workers() if queue in worker.queues]:
            held = f"worker {serving[0]} takes it"
        if serving or not self._inspector.delete(queue):
            raise NotRepaired(f"queue {queue!r} stays: {held}", fix=f"kq queues why {queue} tells of it.")
        act = Act(SYSTEM.now(), by or caller(), "removed", queue=queue, reason=one_line(reason))
        audit.leave(self._app.store, act)

    def _purge(self, place: str, state: Literal["ready", "delayed"], act: Act) -> int:
        """End what waits there now; what comes meanwhile must not keep us for ever.

        So much is looked at though it is not counted: a broker under load may not know yet, or not tell, what it has.
        """
        left = max(PURGED, getattr(self._inspector.count(place), state))
        ended = refused = 0
        while left > 0 and (batch := self._inspector.browse(place, state, min(left, PURGED), refused)):
            jobs = _with_copies(batch)
            stands, now = self._stands([info_of(seen).id for seen, *_ in jobs]), self._app.store.now()
            steps = [self._deleting(seen, act, known, now) for (seen, *_), known in zip(jobs, stands, strict=True)]
            for step, (_, *copies) in zip(steps, jobs, strict=True):
                step.copies = copies
            self._do(steps)
            made = [step for step in steps if not step.refused]
            gone = sum(1 + len(step.copies) for step in made)
            left, ended, refused = left - len(batch), ended + len(made), refused + len(batch) - gone
        return ended

    def audit(self, limit: int = 100) -> list[Act]:
        """What humans did to jobs, queues and workers in the last 30 days, the newest first."""
        return audit.read(self._app.store, limit)

    def refused(self, kind: str, name: str, *, reason: str, by: str) -> None:
        """Leave a line in the audit about an act that somebody was not allowed to do.

        kind: "jobs", "queues", "types", "workers" or "effects". name: what the act was meant for; "" for many.
        """
        act = Act(SYSTEM.now(), by, "refused", reason=one_line(reason))
        audit.leave(self._app.store, msgspec.structs.replace(act, **{kind.removesuffix("s"): name}))

    # Finding what is meant.

    def _buried(
        self, queue: str | None, ids: Sequence[str], where: Where, limit: int | None, now: float
    ) -> Iterator[Seen]:
        left = MOST if limit is None else limit
        for name in [queue] if queue else self._names():
            place = name + BURIED
            found = self._inspector.find(place, ids) if ids else self._inspector.browse(place, "ready", MOST)
            chosen = [seen for seen in found if seen.state != "held" and where.matches(info_of(seen), now)][:left]
            left -= len(chosen)
            yield from chosen

    def _changeable(self, id: str) -> list[Seen]:
        """The same as _found(), for who is about to change it."""
        self.finish_acts()
        return self._found(id)

    def _found(self, id: str) -> list[Seen]:
        """The message of a job that is buried, waits or is delayed, and copies of it; raises NotRepaired.

        A broker that does not index its messages has copies of one whose submit was not answered in time.
        """
        for _ in range(LOOKS):
            found = next(self._places(id), [])
            if found and found[0].state != "held":
                return found
            known = self.job(id)
            if known is None or known.state not in REPAIRABLE:
                break
            time.sleep(LOOK)  # a broker moves it on just now, from one place of its own to another
        if known is None:
            raise NotRepaired(
                f"no job {id!r} is known", fix="It never was, or it ended longer ago than results are kept."
            )
        where = f" on {known.worker}" if known.worker else ""
        raise NotRepaired(f"job {id} is {known.state.value}{where}; only one that waits or is buried is changed")

    def _places(self, id: str) -> Iterator[list[Seen]]:
        """The messages of a job, by where they are, where they probably are first."""
        record = self._app.store.get([job_key(id)])[0]
        known = decode_record(record)
        buried_from = known.queue if known else ""
        names = [buried_from] if buried_from else []
        names += [name for name in self._names() if name != buried_from]
        for place in [name + aside for aside in (BURIED, "", PARKED) for name in names]:
            if found := self._inspector.find(place, [id]):
                yield found

    # What an act is made of.

    def _kicking(self, seen: Seen, act: Act, stands: Stands, now: float) -> Step:
        known = None if names_two(seen) else decode_record(stands.record)
        if known is not None and known.is_over:
            # A broker that forgot an ack in its own death still shows what was kicked before.
            told = f"it is {known.state.value} by now, and this is a copy; kq jobs rm {act.job} takes it away"
            return Step(seen, act, refused=told)
        step = self._step(seen, act, self._meant(seen, act, known, 0.0, now), stands, now)
        if stands.record is not None and known is None and not names_two(seen):  # nobody can read it
            step.after.append(Write(job_key(act.job), None, must=(job_key(act.job), stands.record)))
        return step

    def _deleting(self, seen: Seen, act: Act, stands: Stands, now: float) -> Step:
        """act: of this job, or of its whole queue."""
        why = f"{act.act} by {act.by}: {act.reason}" if act.reason else f"{act.act} by {act.by}"
        return self._ending(seen, act, Record(State.DELETED, error=why), stands, now)

    def _ending(self, seen: Seen, act: Act, record: Record, stands: Stands, now: float) -> Step:
        """What ends a job; it is not told where the job has ended already, and this is a copy."""
        job, known = info_of(seen), decode_record(stands.record)
        ended = msgspec.structs.replace(
            record,
            ended=act.at,
            worker=act.by,
            attempts=job.attempt,
            type=job.type,
            queue=job.queue,
            history=job.history,
        )
        over = known is not None and known.is_over
        meant = None if over else self._recorded(seen, act, ended, now)
        return self._step(seen, act, meant, stands, now)

    def _recorded(self, seen: Seen, act: Act, record: Record, now: float) -> Meant | None:
        """What is meant by an act after which record is kept, if any is of such jobs."""
        keep = self._app.kept(info_of(seen).type)
        return self._meant(seen, act, record, keep, now) if keep > 0 else None

    def _body(self, seen: Seen, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, unchecked: bool) -> bytes:
        """The body with these arguments. Raises TypeError, or NotRepaired when nobody can tell whether they fit."""
        if args is None and kwargs is None:
            return seen.body
        if args is None or kwargs is None:
            old_args, old_kwargs = decode_body(seen.body)
            args, kwargs = old_args if args is None else args, old_kwargs if kwargs is None else kwargs
        job = info_of(seen)
        if not self.check(job, args, kwargs) and self._app.jobs and not unchecked:
            raise NotRepaired(
                f"app {self._app.name!r} has no job type {job.type!r}, so nothing tells whether the arguments fit",
                fix="Name the app that has it, or say --unchecked (unchecked=True).",
            )
        body = with_arguments(seen.body, args, kwargs)
        if len(body) > BODY_LIMIT:
            raise MessageError(f"the arguments take {len(body):,} bytes, more than {BODY_LIMIT:,}")
        return body

    # Carrying it out.

    def _carry_out_one(self, step: Step, copies: Sequence[Seen]) -> None:
        step.copies = copies
        self._carry_out([step])
        if step.refused:
            fix = f"Look again: kq jobs show {step.act.job}."
            raise NotRepaired(f"nothing was done to job {step.act.job}: {step.refused}", fix=fix)


def _act(what: str, job: JobInfo, reason: str, by: str, changed: Sequence[str] = ()) -> Act:
    by = by or caller()
    return Act(SYSTEM.now(), by, what, job.id, job.type, job.queue, one_line(reason), tuple(changed))


def _changes(job: JobInfo, body: bytes, priority: int | None, delay: float | None) -> list[str]:
    """What an edit changes, by name: args.0, kwargs.width, priority."""
    args, kwargs = decode_body(body)
    new = _by_name(args, kwargs)
    old = _by_name(job.args, job.kwargs)
    changed = [name for name in sorted({**old, **new}) if old.get(name) != new.get(name)]
    changed += ["priority"] if priority not in (None, job.priority) else []
    return changed + (["delay"] if delay is not None else [])


def _by_name(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, str]:
    """Arguments as JSON, which tells 1 from true."""
    named = {f"kwargs.{name}": json.dumps(value) for name, value in kwargs.items()}
    return {f"args.{position}": json.dumps(value) for position, value in enumerate(args)} | named


def _with_copies(batch: Iterable[Seen]) -> list[list[Seen]]:
    """The messages of each job, in order. One that has no id is nobody's copy."""
    jobs = dict[str | int, list[Seen]]()
    for position, seen in enumerate(batch):
        jobs.setdefault(seen.id or position, []).append(seen)
    return list(jobs.values())


def _batches(seen: Iterable[Seen]) -> Iterator[list[Seen]]:
    """At most BATCH at a time, of one queue each."""
    for _, of_queue in groupby(seen, key=lambda each: each.queue):
        while batch := list(islice(of_queue, BATCH)):
            yield batch
