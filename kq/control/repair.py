"""Repair: what a human does to jobs that lie buried or wait. Each act is one swap at the broker, and is audited.

What is recorded of a job changes first, the message after that, and the first is undone when the broker says that the
message is not what it was (docs/decisions/0007-a-message-is-swapped-for-another.md). A crash between the two leaves the
message where it was, for the next human to see; never two of it, and never none.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any, Literal, TypeVar

import msgspec

from kq.broker import BURIED, PARKED, Seen, Swap
from kq.control import audit, forms
from kq.control.audit import Act
from kq.control.sight import ANY, JobInfo, Where, info_of
from kq.control.view import MOST, View
from kq.errors import BrokerError, BrokerUnreachable, MessageError, NotRepaired
from kq.handle import Handle
from kq.job import HIGHEST, LOWEST, Job, State
from kq.lock import Lock
from kq.message import BODY_LIMIT, Envelope, decode_body, one_line, only_id, with_arguments
from kq.policy import YEAR
from kq.record import Record, decode_record, encode, job_key, place_key
from kq.standing import caller
from kq.state.store import Write

R = TypeVar("R")

#: The states in which a job may be changed.
REPAIRABLE = frozenset({State.READY, State.DELAYED, State.RETRYING, State.PAUSED, State.BURIED})
#: How often, and every how many seconds, a job is looked for that is known to wait and is not found.
LOOKS, LOOK = 50, 0.02
#: So many jobs are repaired in one round trip.
BATCH = 100
#: So many are purged in one.
PURGED = 500

_MOVED = "it is not there any more, has changed, or a worker has it"
_TOUCHED = "somebody else is at it, or it has just ended"


@dataclass(frozen=True, slots=True)
class Repaired:
    """What became of one of several jobs. refused: why nothing was done to it; "" when it was."""

    job: JobInfo
    refused: str = ""


@dataclass(frozen=True, slots=True)
class _Fact:
    """A write that comes before the swap, the one that undoes it, and what it means when it is refused."""

    write: Write
    undo: Write
    refused: str = _TOUCHED


@dataclass(slots=True)
class _Step:
    """One act, as it is carried out. after: what is written when the swap was made.

    lock: of a job whose message is taken away; what holds its key is in doubt until the swap was made.
    """

    seen: Seen
    act: Act
    publish: tuple[Envelope, ...] = ()
    keeps_due: bool = False
    facts: list[_Fact] = field(default_factory=list)
    after: list[Write] = field(default_factory=list)
    lock: Lock | None = None  # that the job holds, and that is let go of
    refused: str = ""


class Repair(View):
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
        now, done = time.time(), list[Repaired]()
        for batch in _batches(self._buried(queue, ids, where, limit, now)):
            records = self._app.store.get([job_key(info_of(seen).id) for seen in batch])
            steps = [self._kicking(*each, reason, by) for each in zip(batch, records, strict=True)]
            self._carry_out(steps)
            done += [Repaired(info_of(step.seen), step.refused) for step in steps]
        return done

    def buried(
        self, queue: str | None = None, *, ids: Sequence[str] = (), where: Where = ANY, limit: int | None = None
    ) -> list[JobInfo]:
        """The jobs that kick() would kick."""
        return [info_of(seen) for seen in self._buried(queue, ids, where, limit, time.time())]

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
        seen = self._waiting_one(id)
        job = info_of(seen)
        if version and version != job.version:
            raise NotRepaired(f"job {id} has changed since you looked at it", fix=f"Look again: kq jobs show {id}.")
        if delay is not None and job.state in (State.BURIED, State.PAUSED):
            raise NotRepaired(f"job {id} is {job.state.value} and has no delay")
        body = self._body(seen, args, kwargs, unchecked)
        changed = _changes(job, body, priority, delay)
        if changed:
            act = _act("edited", job, reason, by, changed)
            made = forms.edited(
                seen, act, body, _in_range(job.priority if priority is None else priority), _wait(delay)
            )
            self._carry_out_one(_Step(seen, act, (made,), keeps_due=delay is None))
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
        act = Act(time.time(), by or caller(), "submitted", job.id, job.type, queue, one_line(reason))
        self._app.store.write([audit.line(act)])
        handle = self._app.submit(job)
        audit.log.info("%s", act)
        return handle

    def bury(self, id: str, reason: str = "", *, by: str = "") -> None:
        """Set a job aside that waits or is delayed. Raises NotRepaired when nothing was done."""
        seen = self._waiting_one(id)
        job = info_of(seen)
        if job.state is State.BURIED:
            raise NotRepaired(f"job {id} is buried already")
        act = _act("buried", job, reason, by)
        envelope = forms.buried(seen, act)
        error = str(envelope.headers["error"])
        record = Record(State.BURIED, error=error, ended=act.at, attempts=job.attempt, type=job.type, queue=job.queue)
        # Written afterwards: before, a job that its worker has just got would be told as buried.
        known = Write(job_key(job.id), encode(record), self._keep(job), must=(job_key(job.id), None))
        after = [known] if self._keep(job) else []
        lock = _lock(seen)
        self._carry_out_one(
            _Step(seen, act, (envelope,), after=after, lock=None if lock and lock.holds == "gone" else lock)
        )

    def complete(self, id: str, result: Any = None, *, reason: str = "", by: str = "") -> None:
        """End a buried job with a result, as if it had run. Raises NotRepaired when nothing was done."""
        seen = self._waiting_one(id)
        job = info_of(seen)
        if job.state is not State.BURIED:
            raise NotRepaired(f"job {id} is {job.state.value}, not buried", fix=f"Bury it first: kq jobs bury {id}.")
        act = _act("completed", job, reason, by)
        value = msgspec.Raw(msgspec.json.encode(result))
        record = Record(State.COMPLETED, value, ended=act.at, worker=act.by, attempts=job.attempt, type=job.type)
        (before,) = self._app.store.get([job_key(id)])
        self._carry_out_one(self._ending(_Step(seen, act, after=_unplaced(seen), lock=_lock(seen)), record, before))

    def delete(self, id: str, *, reason: str = "", by: str = "") -> None:
        """End a job that is buried or waits, for good. Raises NotRepaired when nothing was done."""
        seen = self._waiting_one(id)
        act = _act("deleted", info_of(seen), reason, by)
        (before,) = self._app.store.get([job_key(id)])
        self._carry_out_one(self._deleting(seen, act, before))

    def purge(self, queue: str, *, buried: bool = False, reason: str = "", by: str = "") -> int:
        """End all jobs that wait in queue, for good; returns how many. Those that run go on; submitting goes on.

        buried: those that lie buried from it, instead. Their handles say that they were deleted; the audit has a line.
        """
        act = Act(time.time(), by or caller(), "purged", queue=queue, reason=one_line(reason))
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
        act = Act(time.time(), by or caller(), "removed", queue=queue, reason=one_line(reason))
        self._app.store.write([audit.line(act)])
        audit.log.info("%s", act)

    def _purge(self, place: str, state: Literal["ready", "delayed"], act: Act) -> int:
        """End what waits there now; what comes meanwhile must not keep us for ever."""
        left: int = getattr(self._inspector.count(place), state)
        ended = refused = 0
        while left > 0 and (batch := self._inspector.browse(place, state, min(left, PURGED), refused)):
            records = self._app.store.get([job_key(info_of(seen).id) for seen in batch])
            steps = [self._deleting(seen, act, record) for seen, record in zip(batch, records, strict=True)]
            self._do(steps)
            made = sum(not step.refused for step in steps)
            left, ended, refused = left - len(steps), ended + made, refused + len(steps) - made
        return ended

    def audit(self, limit: int = 100) -> list[Act]:
        """What humans did to jobs, queues and workers in the last 30 days, the newest first."""
        return audit.read(self._app.store, limit)

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

    def _waiting_one(self, id: str) -> Seen:
        """The message of a job that is buried, waits or is delayed; raises NotRepaired."""
        for _ in range(LOOKS):
            found = next(self._places(id), None)
            if found is not None and found.state != "held":
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

    def _places(self, id: str) -> Iterator[Seen]:
        """Where the message of a job is, where it probably is first."""
        record = self._app.store.get([job_key(id)])[0]
        known = decode_record(record)
        buried_from = known.queue if known else ""
        names = [buried_from] if buried_from else []
        names += [name for name in self._names() if name != buried_from]
        for place in [name + aside for aside in (BURIED, "", PARKED) for name in names]:
            yield from self._inspector.find(place, [id])

    # What an act is made of.

    def _kicking(self, seen: Seen, record: bytes | None, reason: str, by: str) -> _Step:
        job = info_of(seen)
        step = _Step(seen, _act("kicked", job, reason, by))
        step.publish = (forms.kicked(seen, step.act),)
        if _names_two(seen):
            record = None
        known = decode_record(record)
        if known is not None and known.is_over:
            # A broker that forgot an ack in its own death still shows what was kicked before.
            step.refused = f"it is {known.state.value} by now, and this is a copy; kq jobs rm {job.id} takes it away"
        elif record is not None:
            key = job_key(job.id)
            back = Write(key, record, self._keep(job), must=(key, None))
            step.facts.append(_Fact(Write(key, None, must=(key, record)), back))
        if lock := _lock(seen):
            step.facts += _claim(lock, self._app.store.now())
            step.after += lock.confirmed()
        return step

    def _deleting(self, seen: Seen, act: Act, before: bytes | None) -> _Step:
        """before: what is recorded of the job."""
        job = info_of(seen)
        why = f"{act.act} by {act.by}: {act.reason}" if act.reason else f"{act.act} by {act.by}"
        record = Record(State.DELETED, error=why, ended=act.at, worker=act.by, attempts=job.attempt, type=job.type)
        return self._ending(_Step(seen, act, after=_unplaced(seen), lock=_lock(seen)), record, before)

    def _ending(self, step: _Step, record: Record, before: bytes | None) -> _Step:
        """step, with the facts that say how its job ends; none where it has ended already, and this is a copy.

        Until the message is gone that is only meant: a worker that has just got it runs it.
        """
        job, known = info_of(step.seen), decode_record(before)
        key, keep = job_key(job.id), self._keep(job)
        if keep and not (known is not None and known.is_over) and not _names_two(step.seen):
            ended = msgspec.structs.replace(record, queue=job.queue, history=job.history)
            meant = encode(msgspec.structs.replace(ended, meant=True))
            undo = Write(key, before, keep, must=(key, meant))
            step.facts.append(_Fact(Write(key, meant, keep, must=(key, before)), undo))
            step.after.append(Write(key, encode(ended), keep, must=(key, meant)))
        return step

    def _keep(self, job: JobInfo) -> float:
        """Seconds that is remembered how job ended."""
        known = self._app.jobs.get(job.type)
        return self._app.keep if known is None or known.keep is None else known.keep

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

    def _carry_out_one(self, step: _Step) -> None:
        self._carry_out([step])
        if step.refused:
            fix = f"Look again: kq jobs show {step.act.job}."
            raise NotRepaired(f"nothing was done to job {step.act.job}: {step.refused}", fix=fix)

    def _carry_out(self, steps: Sequence[_Step]) -> None:
        """Do all of steps, which are about one queue, and note in those that were refused why."""
        for step in steps:
            trail = audit.line(step.act)
            step.facts.append(_Fact(trail, Write(trail.key, None)))
        self._do(steps)
        for step in steps:
            if not step.refused:
                audit.log.info("%s", step.act)

    def _do(self, steps: Sequence[_Step]) -> None:
        """Do all of steps, which are about one queue, without a line in the audit."""
        locks = [write for step in steps if not step.refused and step.lock for write in step.lock.doubted()]
        if locks:
            self._app.store.write(locks)
        self._note([step for step in steps if not step.refused])
        self._swap([step for step in steps if not step.refused])
        done = [step for step in steps if not step.refused]
        after = [write for step in done for write in step.after]
        if locked := [step for step in steps if step.lock]:
            now = self._app.store.now()
            after += [write for step in locked for write in _let_go(step, now)]
        if after:
            self._app.store.write(after)

    def _swap(self, steps: Sequence[_Step]) -> None:
        """Change the messages; what was noted of those that did not change is undone."""
        if not steps:
            return
        swaps = [Swap(step.seen, step.publish, step.keeps_due) for step in steps]
        try:
            made = self._inspector.swap(steps[0].seen.queue, swaps)
        except BrokerError as error:
            if not isinstance(error, BrokerUnreachable) or error.stored == "no":
                self._undo(fact for step in steps for fact in step.facts)
            raise
        late = [step for step, done in zip(steps, made, strict=True) if not done]
        self._undo(fact for step in late for fact in step.facts)
        for step in late:
            step.refused = _MOVED

    def _note(self, steps: Sequence[_Step]) -> None:
        """Write the facts of steps; those of one that has a refused fact are undone."""
        facts = [(step, fact) for step in steps for fact in step.facts]
        made = self._app.store.write([fact.write for _, fact in facts]) if facts else []
        for (step, fact), done in zip(facts, made, strict=True):
            if not done:
                step.refused = step.refused or fact.refused
        self._undo(fact for (step, fact), done in zip(facts, made, strict=True) if done and step.refused)

    def _undo(self, facts: Iterable[_Fact]) -> None:
        undone = [fact.undo for fact in facts]
        if undone:
            self._app.store.write(undone)


def _act(what: str, job: JobInfo, reason: str, by: str, changed: Sequence[str] = ()) -> Act:
    by = by or caller()
    return Act(time.time(), by, what, job.id, job.type, job.queue, one_line(reason), tuple(changed))


def _lock(seen: Seen) -> Lock | None:
    job = info_of(seen)
    return Lock.of(seen.headers, job.id, job.queue)


def _let_go(step: _Step, now: float) -> list[Write]:
    """What becomes of the key of a job whose message was taken away, or was not. now: by the state store's clock."""
    if step.lock is None:
        return []
    return step.lock.confirmed() if step.refused else step.lock.removed(now)


def _names_two(seen: Seen) -> bool:
    """Whether a message says that it is two jobs: what becomes of it says nothing of either."""
    try:
        only_id(seen.id, seen.headers)
    except MessageError:
        return True
    return False


def _claim(lock: Lock, now: float) -> list[_Fact]:
    """Take the unique key, which was given up when the job was buried, unless the job holds it there too."""
    refused = f"another job has its unique key {lock.key!r}; wait until that ends"
    if lock.holds == "gone":
        return [_Fact(lock.held(), lock.held(), refused)]
    (place, claim), (left, *_, unclaimed) = lock.claimed(), lock.removed(now)
    return [_Fact(place, left, refused), _Fact(claim, unclaimed, refused)]


def _unplaced(seen: Seen) -> list[Write]:
    """What forgets where a job went when another type was to run it, as it has ended."""
    return [Write(place_key(info_of(seen).id), None)] if seen.headers.get("degraded_by") else []


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


def _in_range(priority: int) -> int:
    if not LOWEST <= priority <= HIGHEST:
        raise ValueError(f"priority {priority} is out of range; use {LOWEST} (low) to {HIGHEST} (high)")
    return priority


def _wait(delay: float | None) -> float | None:
    if delay is not None and not 0 <= delay <= YEAR:
        raise ValueError(f"delay {delay} is out of range; use 0 s to a year")
    return delay


def _batches(seen: Iterable[Seen]) -> Iterator[list[Seen]]:
    """At most BATCH at a time, of one queue each."""
    for _, of_queue in groupby(seen, key=lambda each: each.queue):
        while batch := list(islice(of_queue, BATCH)):
            yield batch
