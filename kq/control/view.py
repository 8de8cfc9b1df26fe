"""Looking at workers, queues and jobs, without touching them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

import msgspec

from kq.app import App
from kq.broker import BURIED, PARKED, Inspector, Seen
from kq.clock import SYSTEM
from kq.coming import Coming
from kq.control.compose import beats_of, holder_of, names_of
from kq.control.sight import ANY, Health, Heartbeat, JobInfo, QueueInfo, Where, WorkerInfo, info_of
from kq.errors import BrokerError, NotFound
from kq.handles import duplicate
from kq.handles.handle import PATIENCE, wait
from kq.handles.standing import Order, read
from kq.handles.stream import Chunk, chunks, emitted
from kq.handles.whereabouts import find_state
from kq.values.job import State
from kq.values.message import Attempt
from kq.values.record import (
    Late,
    Record,
    decode_late,
    decode_record,
    digest,
    job_key,
    late_key,
    lease_key,
    stream_key,
    worker_key,
)

#: So many jobs of a queue are looked through, at most, for those that are meant.
MOST = 10_000
#: The broker's word for where a message is, for each state of a job that waits.
_PLACES = {State.READY: "ready", State.DELAYED: "delayed", State.RETRYING: "delayed"}
#: What the queues beside a queue are called, and the state of the jobs in them.
_ASIDE = {PARKED: State.PAUSED, BURIED: State.BURIED}


class View:
    """Looks at an app's broker and its workers."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._inspector: Inspector = app.inspector()

    @property
    def app(self) -> App:
        """Whose jobs and workers these are."""
        return self._app

    # Workers.

    def heartbeat_check(self) -> list[Heartbeat]:
        """Every worker of the last hour: alive, late (it missed a beat) or dead (its lease is over)."""
        gathered = self._app.store.gather([worker_key(""), lease_key("")], MOST)
        records, leases = gathered.found
        return beats_of(records.values(), leases, gathered.now)

    def workers(self) -> list[WorkerInfo]:
        """The workers that live."""
        return [beat.worker for beat in self.heartbeat_check() if beat.health is not Health.DEAD]

    # Queues.

    def queues(self) -> list[QueueInfo]:
        """All queues of kq on this broker, and those that a living worker serves, by name."""
        workers, paused = self.workers(), read(self._app.store).queues
        there = self._inspector.queues()
        singletons = {name for name in self._app.singletons if name not in there}
        singletons |= {name for name, single in there.items() if single}
        return [
            self._queue(name, workers, paused.get(name), name in singletons) for name in self._names(workers, there)
        ]

    def _names(self, workers: Iterable[WorkerInfo] = (), there: Iterable[str] | None = None) -> list[str]:
        """The queues that jobs may be in or buried from, and those that workers serve. there: what the broker has."""
        there = self._inspector.queues() if there is None else there
        names = names_of(there) | {name for worker in workers for name in worker.queues}
        return sorted(names | {job_type.settings.queue or "" for job_type in self._app.jobs.values()} - {""})

    def queue_names(self) -> list[str]:
        """The names of those queues."""
        return self._names(self.workers())

    def type_names(self) -> list[str]:
        """The job types that the app has, or a living worker knows."""
        return sorted({*self._app.jobs, *(name for worker in self.workers() for name in worker.types)})

    def misfits(self) -> list[BrokerError]:
        """What is wrong with queues of the broker that were declared otherwise than kq declares its queues."""
        return self._inspector.misfits(name + place for name in self.queue_names() for place in ("", *_ASIDE))

    def _queue(self, name: str, workers: Iterable[WorkerInfo], paused: Order | None, single: bool) -> QueueInfo:
        counts = self._inspector.count(name)
        buried, parked = (self._inspector.count(name + aside).ready for aside in (BURIED, PARKED))
        serving = sum(name in worker.queues for worker in workers)
        holder = holder_of(name, workers) if single else None
        return QueueInfo(name, counts.ready, counts.delayed, counts.held, buried, serving, parked, paused, holder)

    # Jobs.

    def jobs(
        self, queue: str | None = None, state: State | str | None = None, limit: int = 100, where: Where = ANY
    ) -> list[JobInfo]:
        """Jobs that run, are next, wait, are delayed or buried, in their order; at most limit per queue.

        Which of those that are held run is told by the workers, with each beat. where: only these; the first MOST of
        each queue and place are looked through for them. Those that ended are not listed: ask for them by id.
        """
        wanted = None if state is None else State(state)
        running = self._said_to_run() if wanted in (None, State.RESERVED, State.RUNNING) else {}
        queues, now = [queue] if queue else self._names(), SYSTEM.now()
        most = limit if where == ANY else MOST
        found = list[JobInfo]()
        for name in queues:
            fits = [job for job in self._jobs(name, wanted, running, most) if where.matches(job, now)]
            found += fits if where == ANY else fits[:limit]
        return found

    def held(self, queue: str | None = None) -> list[JobInfo]:
        """Delayed jobs that wait so that somebody may still revoke them, in the order of their time, queue by queue.

        The first MOST delayed jobs of each queue are looked through.
        """
        return [job for job in self.jobs(queue, State.DELAYED, MOST) if job.is_held]

    def _jobs(self, queue: str, state: State | None, running: Mapping[str, JobInfo], most: int) -> list[JobInfo]:
        """Jobs of one queue; at most so many in each place."""
        held = self._held(queue, running, most) if state in (None, State.RESERVED, State.RUNNING) else []
        seen = list[Seen]()
        for place in ("ready", "delayed"):
            if state is None or _PLACES.get(state) == place:
                seen += self._inspector.browse(queue, place, most)
        for aside, meant in _ASIDE.items():
            if state in (None, meant):
                seen += self._inspector.browse(queue + aside, "ready", most)
        return [job for job in [*held, *map(info_of, seen)] if state in (None, job.state)]

    def job(self, id: str) -> JobInfo | None:
        """What is known of a job: where it waits, who runs it, or how it ended; None when nothing is."""
        # Its end is recorded before the broker lets go of it, and before its worker says that it runs no more. What
        # ended between the first look and the last is found by the last.
        found = self._ended(id) or self._running(id) or self._waiting(id) or self._ended(id)
        return None if found is None else self._with_what_others_said(found)

    def _with_what_others_said(self, job: JobInfo) -> JobInfo:
        """job, with what it emits, the submits that found its unique key held, and in its history what was refused.

        That is of a worker that spoke when others did already (promise C4).
        """
        keys = [late_key(job.id), job_key(job.id), stream_key(job.id), *duplicate.job_keys(job.id)]
        late, record, stands, *counts = self._app.store.get(keys)
        stream = emitted(self._app.store, job.id, stands)
        job = replace(job, duplicates=duplicate.of_job(counts), emitted=stream)
        words = decode_late(late)
        if words is None:
            return job
        refused = refusal(words, decode_record(record))
        return replace(job, history=(*job.history, refused))

    def wait(self, id: str, timeout: float) -> JobInfo | None:
        """A job as soon as it has ended or was buried; None after timeout seconds.

        Of jobs whose results are not kept (keep=0) nobody hears.
        """
        return self.job(id) if wait(self._app.store, [job_key(id)], timeout) else None

    def stream(
        self, id: str, offset: int = 0, *, timeout: float | None = None, over: threading.Event | None = None
    ) -> Coming[Chunk]:
        """What a job emits; see Handle.stream(). over: when set, ends it before, within some seconds."""
        return Coming(chunks(self._app.store, id, offset, PATIENCE if timeout is None else timeout, over))

    def _ended(self, id: str) -> JobInfo | None:
        record = decode_record(self._app.store.get([job_key(id)])[0])
        if record is None:
            return None
        if record.state is State.BURIED:
            for seen in self._inspector.find(record.queue + BURIED, [id]):
                return info_of(seen)
        return JobInfo(
            id,
            record.type,
            record.queue,
            record.state,
            record.attempts,
            error=record.error,
            traceback=record.traceback,
            history=record.history,
            result=msgspec.json.decode(record.value),
            worker=record.worker,
            degraded_by=record.degraded_by,
            log=record.log,
            took=record.took or 0.0,
            cpu=record.cpu,
            rss=record.rss,
        )

    def _held(self, queue: str, running: Mapping[str, JobInfo], limit: int) -> list[JobInfo]:
        """Jobs of queue that workers have: those that run, and those that are next."""
        seen = [info_of(each) for each in self._inspector.browse(queue, "held", limit)]
        jobs = [
            replace(job, state=State.RUNNING, worker=running[job.id].worker) if job.id in running else job
            for job in seen
        ]
        if not self._inspector.traits.indexed:
            # Such a broker does not show what a silent worker holds.
            known = {job.id for job in seen}
            hidden = [job for job in running.values() if job.queue == queue and job.id not in known]
            ended = self._app.store.get([job_key(job.id) for job in hidden])
            jobs += [job for job, record in zip(hidden, ended, strict=True) if record is None]
        return jobs[:limit]

    def _said_to_run(self) -> dict[str, JobInfo]:
        """Jobs that living workers said they run, by id."""
        return {
            job.id: JobInfo(job.id, job.type, job.queue, State.RUNNING, worker=worker.name)
            for worker in self.workers()
            for job in worker.running
        }

    def _running(self, id: str) -> JobInfo | None:
        said = self._said_to_run().get(id)
        if said is None:
            return None
        seen = next(iter(self._inspector.find(said.queue, [id])), None)
        return said if seen is None else replace(info_of(seen), state=State.RUNNING, worker=said.worker)

    def _waiting(self, id: str) -> JobInfo | None:
        for queue in self._names(self.workers()):
            for place in ("", *_ASIDE):
                for seen in self._inspector.find(queue + place, [id]):
                    return info_of(seen)
        return None

    def state(self, id: str, queue: str) -> State:
        """Where a job of queue is."""
        return find_state(id, queue, self._app.store, self._inspector)

    def facts(self) -> dict[str, str]:
        """What the broker's server says of itself."""
        return self._inspector.facts()

    def round_trip(self) -> float:
        """Seconds that one question to the broker takes. Raises BrokerUnreachable."""
        began = time.monotonic()
        self._inspector.queues()
        return time.monotonic() - began


def known_job(control: View, id: str) -> JobInfo:
    """What is known of a job. Raises NotFound when nothing is."""
    job = control.job(id)
    if job is None:
        raise NotFound(f"no job {id!r} is known", fix="It never was, or it ended longer ago than results are kept.")
    return job


def refusal(late: Late, record: Record | None) -> Attempt:
    """A late word as a line of its job's history. record: how the job ended, as far as it has."""
    if late.attempt.outcome != "completed":
        told = f"too late: {late.attempt.error}"
    elif record is None:
        told = "it completed too late"
    else:
        same = record.state is State.COMPLETED and digest(bytes(record.value)) == late.digest
        told = f"it completed too late, {'with the same result' if same else 'with another result'}"
    return msgspec.structs.replace(late.attempt, outcome="refused", error=told)
