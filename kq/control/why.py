"""Why: one sentence, from facts, that says why a job or a queue is where it is, and what to type next."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from shlex import quote
from typing import TypeAlias

from kq.broker import PARKED, Seen
from kq.control.compose import held_by
from kq.control.sight import Health, Heartbeat, JobInfo, QueueInfo, RunningJob, WorkerInfo
from kq.control.view import View
from kq.errors import MessageError
from kq.handles.standing import Order, Standing, read
from kq.units import counted, format_duration, format_instant, format_local
from kq.values.advice import holders, says
from kq.values.job import State
from kq.values.message import Head, decode_head
from kq.values.policy import retries_of
from kq.values.redaction import both_ends

#: Tells an instant.
When: TypeAlias = Callable[[float], str]
#: So many jobs are counted before one that waits.
MOST = 1000
#: So much of an error is told, its beginning and its end: all of it is where the job is shown.
LONGEST = 400


class Reasons(View):
    """Says why."""

    def why(self, id: str, *, local: bool = False) -> str:
        """Why a job is where it is, in one sentence. local: instants by the clock on this wall, not in UTC."""
        job = self.job(id)
        if job is None:
            return f"job {id} is not known: it never was, or it ended longer ago than results are kept"
        place = job.queue + PARKED if job.state is State.PAUSED else job.queue
        seen = next(iter(self._inspector.find(place, [id])), None)
        return f"job {id} {self._reason(job, seen, self._when(local))}{_stage(job)}{_lock(seen)}"

    def why_queue(self, queue: str, *, local: bool = False) -> str:
        """Why the jobs of a queue wait, in one sentence. local: as for why()."""
        info = next((each for each in self.queues() if each.name == queue), None)
        if info is None:
            return f"there is no queue {queue}"
        return f"queue {queue}: {self._queue_reason(info, read(self._app.store), self._when(local))}"

    def _when(self, local: bool) -> When:
        """How an instant is told: the time, and how far away it is."""
        now, format = self._app.store.now(), format_local if local else format_instant

        def when(instant: float) -> str:
            away = format_duration(abs(instant - now))
            return f"{format(instant)} (in {away})" if instant >= now else f"{format(instant)} ({away} ago)"

        return when

    # Jobs.

    def _reason(self, job: JobInfo, seen: Seen | None, when: When) -> str:
        standing = read(self._app.store)
        match job.state:
            case State.READY:
                return self._why_ready(job, standing, when)
            case State.DELAYED | State.RETRYING:
                return self._why_delayed(job, seen, when)
            case State.PAUSED:
                order = standing.types.get(job.type)
                told = "is being resumed" if order is None else f"is {_paused(order, when)}; {_resume(type=job.type)}"
                return f"is parked: its type {job.type} {told}"
            case State.RESERVED:
                return self._why_held(job, seen, standing)
            case State.RUNNING:
                return self._why_running(job, standing)
            case State.BURIED:
                error = both_ends(job.error, LONGEST) or "no reason is known"
                return f"is buried, for a human to look at: {error}{self._then(job)}"
            case State.COMPLETED:
                return f"has ended: completed on {job.worker}" + (f" by {job.type}" if job.degraded_by else "")
            case _:
                return f"has ended: {job.state.value}, {job.error}"

    def _why_ready(self, job: JobInfo, standing: Standing, when: When) -> str:
        if order := standing.queues.get(job.queue):
            return f"waits: its queue {job.queue} is {_paused(order, when)}; {_resume(job.queue)}"
        workers = _serving(self.workers(), job.queue)
        if not workers:
            return f"waits: no live worker takes queue {job.queue}{self._bereft(job.queue)}"
        if not any(job.type in worker.types for worker in workers):
            what = f"its type {job.type} is unknown to all live workers of queue {job.queue}; they would bury it"
            return f"waits: {what}{_meant(job.type, workers)}; take it back: kq jobs revoke {quote(job.id)}"
        if order := standing.types.get(job.type):
            return f"waits: its type {job.type} is {_paused(order, when)}; {_resume(type=job.type)}"
        return f"waits: {self._before(job)}; {self._busy(job.queue, workers)}"

    def _before(self, job: JobInfo) -> str:
        ids = [seen.id for seen in self._inspector.browse(job.queue, "ready", MOST)]
        before = ids.index(job.id) if job.id in ids else None
        if before is None:
            return f"more than {len(ids)} jobs are before it" if len(ids) == MOST else "it was just taken"
        return f"{_jobs(before)} before it" if before else "it is the next"

    def _bereft(self, queue: str) -> str:
        """Of a queue that no live worker takes: who was the last to do so, and what to type."""
        gone = [beat for beat in self.heartbeat_check() if queue in beat.worker.queues]
        last = min(gone, key=lambda beat: beat.age, default=None)
        start = f"start one: kq worker -Q {quote(queue)}"
        if last is None:
            return f"; {start}"
        name, beat = last.worker.name, f"its last beat was {format_duration(last.age)} ago"
        if last.health is not Health.DEAD:
            return f"; {name} ends; {start}"
        seat = " and had its seat" if queue in last.worker.singletons else ""
        return f"; {name}, which took it{seat}, is dead: {beat}; {start}"

    def _then(self, job: JobInfo) -> str:
        """What to type about a job that is buried."""
        id = quote(job.id)
        if f"kq jobs kick {job.id}" in job.error:  # a doubt says what its answers are
            return ""
        workers = _serving(self.workers(), job.queue)
        if workers and not any(job.type in worker.types for worker in workers):
            meant = _meant(job.type, workers) or ", nor does any live worker of its queue"
            return f"{meant}; once they know {job.type}: kq jobs kick {id}, or for good: kq jobs rm {id}"
        return f"; look at it: kq jobs show {id}, run it again: kq jobs kick {id}"

    def _why_delayed(self, job: JobInfo, seen: Seen | None, when: When) -> str:
        until = f"until {when(job.due)}" if job.due is not None else "for a time that is not known"
        if job.state is State.DELAYED:
            return f"is delayed {until}"
        head = None if seen is None else _head(seen)
        last = f", after {job.history[-1].error}" if job.history else ""
        return f"waits for retry {self._retry(job, head)} {until}{last}"

    def _retry(self, job: JobInfo, head: Head | None) -> str:
        """Which retry of how many comes next."""
        known = self._app.jobs.get(job.type)
        policy = None if known is None else known.rules.retry_policy
        failed = job.attempt
        if head is not None:
            policy, failed = head.policy or policy, head.failed or failed
        most = retries_of(policy)
        return f"{failed} of {most}" if most else str(failed)

    def _why_held(self, job: JobInfo, seen: Seen | None, standing: Standing) -> str:
        holder = "" if seen is None else seen.holder
        beat = next((beat for beat in self.heartbeat_check() if beat.worker.name == holder), None)
        if beat is None:
            return f"is held by {holder or 'somebody'}, of whom nothing is known"
        if beat.health is Health.DEAD:
            start = f"; no live worker takes queue {job.queue}; start one: kq worker -Q {quote(job.queue)}"
            then = "" if _serving(self.workers(), job.queue) else start
            silent = f"its last beat was {format_duration(beat.age)} ago"
            return f"is held by {holder}, which is dead: {silent}; it goes to the next worker that has room{then}"
        then = f"; it is revoked {order}" if (order := standing.revoked.get(job.id)) else ""
        return (
            f"is held by worker {holder}, {_lease(beat)}, and has not started; {_slots([beat.worker], job.queue)}{then}"
        )

    def _why_running(self, job: JobInfo, standing: Standing) -> str:
        beat = next(beat for beat in self.heartbeat_check() if beat.worker.name == job.worker)
        running = next((each for each in beat.worker.running if each.id == job.id), None)
        if running is None:
            return f"was running on {job.worker} a moment ago"
        ran = format_duration(running.seconds + beat.age)
        then = f"; it is revoked {order}" if (order := standing.revoked.get(job.id)) else ""
        where = f"; where in its code: kq jobs stack {quote(job.id)}"
        return (
            f"runs on {job.worker} for {ran} of at most {format_duration(running.limit)}{_said(running)}, "
            f"{_lease(beat)}{then}{where}"
        )

    # Queues.

    def _queue_reason(self, queue: QueueInfo, standing: Standing, when: When) -> str:
        beats = [beat for beat in self.heartbeat_check() if beat.health is not Health.DEAD]
        workers = _serving([beat.worker for beat in beats], queue.name)
        waiting = f"{_jobs(queue.ready)} ready"
        if order := standing.queues.get(queue.name):
            return f"{_paused(order, when)}; {waiting}; {_resume(queue.name)}"
        if not workers:
            held = f", {queue.held} more {'is' if queue.held == 1 else 'are'} still held" if queue.held else ""
            return f"no live worker takes it; {waiting}{held}{self._bereft(queue.name)}"
        if queue.ready:
            return f"{waiting}; {self._first(queue, workers)}"
        begun = any(job.queue == queue.name for worker in workers for job in worker.running)
        if begun or not queue.held:
            return f"nothing is ready; {self._later(queue, when)}"
        who = holders(held_by(queue.name, queue.held, beats))
        busy = f"none of them has begun{f', held{who}' if who else ''}: {_slots(workers, queue.name)}"
        return f"nothing is ready; {self._later(queue, when)}; {busy}"

    def _first(self, queue: QueueInfo, workers: Sequence[WorkerInfo]) -> str:
        first = next(iter(self._inspector.browse(queue.name, "ready", 1)), None)
        type = "" if first is None else str(first.headers.get("type") or "")
        if first is not None and type and not any(type in worker.types for worker in workers):
            told = f"the type {type} of the first is unknown to all live workers{_meant(type, workers)}"
            return f"{told}; kq jobs why {quote(first.id)} says more"
        return self._busy(queue.name, workers)

    def _busy(self, queue: str, workers: Sequence[WorkerInfo]) -> str:
        """Whom the first job of queue waits for."""
        seated = [beat for beat in self.heartbeat_check() if queue in beat.worker.singletons]
        alive = [beat for beat in seated if beat.health is not Health.DEAD]
        if not alive:
            return _slots(workers, queue)
        beat = min(alive, key=lambda beat: beat.age)
        running = [job for job in beat.worker.running if job.queue == queue]
        told = [
            f"which runs {job.type} {job.id} for {format_duration(job.seconds + beat.age)}{_said(job)}"
            for job in running
        ]
        return f"singleton held by {beat.worker.name}, {_lease(beat)}, {told[0] if told else 'which runs none of it'}"

    def _later(self, queue: QueueInfo, when: When) -> str:
        first = next(iter(self._inspector.browse(queue.name, "delayed", 1)), None)
        parked = self._inspector.count(queue.name + PARKED).ready
        told = [f"{_jobs(queue.held)} held by workers" if queue.held else "no worker has a job of it"]
        if first is not None and first.due is not None:
            told.append(f"{_jobs(queue.delayed)} delayed, the next until {when(first.due)}")
        if parked:
            told.append(f"{_jobs(parked)} parked, as jobs of their type are paused")
        if queue.buried:
            lie = "1 job lies" if queue.buried == 1 else f"{queue.buried:,} jobs lie"
            told.append(f"{lie} buried: kq jobs ls --queue {quote(queue.name)} --group")
        return ", ".join(told)


def _meant(type: str, workers: Sequence[WorkerInfo]) -> str:
    """Which job type of theirs may have been meant by one that they do not know."""
    near = difflib.get_close_matches(type, sorted({name for worker in workers for name in worker.types}), n=1)
    return f"; its workers know {near[0]}" if near else ""


def _resume(queue: str = "", *, type: str = "") -> str:
    return f"let it go on: kq queues resume {f'--type {quote(type)}' if type else quote(queue)}"


def _serving(workers: Sequence[WorkerInfo], queue: str) -> list[WorkerInfo]:
    return [worker for worker in workers if queue in worker.queues and not worker.stopping]


def _slots(workers: Sequence[WorkerInfo], queue: str) -> str:
    """How busy workers are that take queue, and with what where that is not it."""
    running = [job for worker in workers for job in worker.running]
    busy, all = len(running), sum(worker.slots for worker in workers)
    ours, room = (
        sum(job.queue == queue for job in running),
        sum(min(each.slots, each.queues.get(queue, each.slots)) for each in workers),
    )
    whose = f"{'its worker runs' if len(workers) == 1 else f'its {len(workers)} workers run'}"
    if room <= ours < all and busy < all:
        return f"{whose} {ours} of at most {counted(room, 'job')} of this queue at a time"
    told = f"{whose} {busy} of at most {counted(all, 'job')}"
    others = sorted({job.queue for job in running} - {queue})
    if busy < all or not others:
        return told
    which = "others of" if ours else "none of this queue, but of"
    return f"{told}, {which} {', '.join(others)}; more room for this one: kq worker -Q {quote(queue)}"


def _paused(order: Order, when: When) -> str:
    by = f" by {order.by}" if order.by else ""
    reason = f" ({order.reason})" if order.reason else ""
    return f"paused{by} since {when(order.at)}{reason}"


def _lease(beat: Heartbeat) -> str:
    return f"whose last beat was {format_duration(beat.age)} ago (lease {format_duration(beat.worker.lease)})"


def _said(job: RunningJob) -> str:
    return f" ({said})" if (said := says(job.progress)) else ""


def _stage(job: JobInfo) -> str:
    """What it is by now, where that is not what was submitted."""
    if not job.degraded_by:
        return ""
    tried = [attempt for attempt in job.history if attempt.type not in ("", job.type)]
    why = f", because {tried[-1].type} {tried[-1].outcome}: {tried[-1].error}" if tried else ""
    return f"; it is fallback {job.degraded_by}{why}"


def _lock(seen: Seen | None) -> str:
    head = None if seen is None else _head(seen)
    return f"; it has the unique lock {head.unique!r}" if head is not None and head.unique else ""


def _head(seen: Seen) -> Head | None:
    try:
        return decode_head(seen.headers)
    except MessageError:
        return None


def _jobs(number: int) -> str:
    return "1 job is" if number == 1 else f"{number:,} jobs are"
