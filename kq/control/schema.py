"""What control sees, in the form that scripts rely on: `--json` of the command line and the web's API alike.

The forms are written down in cli-1.json beside this module, by the verbs of the command line. Instants are seconds
since the epoch, durations seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from kq.control.compose import lease_left
from kq.control.kicking import Kicking
from kq.control.sight import Failure, Heartbeat, JobInfo, QueueInfo, WorkerInfo
from kq.effects.ledger import Entry
from kq.handles.stream import Chunk
from kq.stated import SCHEMA
from kq.values.event import Event, encode
from kq.values.metrics import Metric
from kq.values.stack import Stack

#: Their JSON Schema.
WRITTEN = Path(__file__).with_name(f"cli-{SCHEMA}.json")


def job(job: JobInfo) -> dict[str, Any]:
    """A job in a list."""
    return {
        "id": job.id,
        "type": job.type,
        "queue": job.queue,
        "state": job.state.value,
        "attempt": job.attempt,
        "error": job.error or None,
        "parent": job.parent or None,
    }


def whole_job(seen: JobInfo, doubts: Iterable[Entry] = ()) -> dict[str, Any]:
    """All that is known of a job. doubts: the side effects that a human is asked about."""
    return job(seen) | {
        "args": seen.args,
        "kwargs": seen.kwargs,
        "history": [msgspec.to_builtins(attempt) for attempt in seen.history],
        "priority": seen.priority,
        "due": seen.due,
        "result": seen.result,
        "worker": seen.worker or None,
        "cost": {"seconds": seen.took, "cpu": seen.cpu, "rss": seen.rss or None} if seen.took else None,
        "degraded_by": seen.degraded_by,
        "types": list(seen.types),
        "traceback": seen.traceback or None,
        "log": seen.log or None,
        "submitted": seen.submitted,
        "buried": seen.buried,
        "headers": seen.headers,
        "body": seen.body or None,
        "doubts": [effect(entry) for entry in doubts],
        "trace": seen.trace or None,
        "emitted": None if seen.emitted is None else msgspec.to_builtins(seen.emitted),
        "duplicates": None if seen.duplicates is None else msgspec.to_builtins(seen.duplicates),
    }


def stack(seen: Stack) -> dict[str, Any]:
    """Where a job is."""
    return {
        "id": seen.job,
        "type": seen.type,
        "worker": seen.worker,
        "seconds": round(seen.seconds, 3),
        "executor": seen.executor or None,
        "frames": [{"file": each.file, "line": each.line, "name": each.name} for each in seen.frames],
        "note": seen.note or None,
    }


def held_job(seen: JobInfo) -> dict[str, Any]:
    """A job that is held so that somebody may say no."""
    return job(seen) | {"due": seen.due}


def event(event: Event) -> dict[str, Any]:
    """What happened, as a line of its own."""
    return {"schema": SCHEMA, **msgspec.json.decode(encode(event))}


def chunk(chunk: Chunk) -> dict[str, Any]:
    """A piece of a job's stream, as a line of its own."""
    return {"schema": SCHEMA, **msgspec.to_builtins(chunk)}


def metric(metric: Metric) -> dict[str, Any]:
    """A number of all queues and workers, with what it is told apart by."""
    samples = [{"labels": dict(each.labels), "suffix": each.suffix, "value": each.value} for each in metric.samples]
    return {"name": metric.name, "kind": metric.kind, "help": metric.help, "samples": samples}


def group(failure: Failure, count: int, newest: JobInfo) -> dict[str, Any]:
    """Buried jobs that failed alike."""
    named = {"type": failure.type, "exception": failure.exception, "place": failure.place}
    return {**named, "count": count, "newest": newest.buried, "newest_id": newest.id, "error": newest.error}


def queue(queue: QueueInfo) -> dict[str, Any]:
    """A queue's counts."""
    return {
        "name": queue.name,
        "ready": queue.ready,
        "delayed": queue.delayed,
        "running": queue.held,
        "buried": queue.buried,
        "workers": queue.workers,
        "parked": queue.parked,
        "singleton": queue.singleton,
        "paused": None if queue.paused is None else msgspec.to_builtins(queue.paused),
    }


def worker(beat: Heartbeat) -> dict[str, Any]:
    """A worker, and how its heart beats."""
    worker = beat.worker
    return {
        "name": worker.name,
        "health": beat.health.value,
        "beat_age": round(beat.age, 3),
        "lease": worker.lease,
        "lease_left": round(lease_left(beat), 3),
        "host": worker.host,
        "pid": worker.pid,
        "pool": worker.pool,
        "slots": worker.slots,
        "queues": worker.queues,
        "singletons": worker.singletons,
        "stopping": worker.stopping,
        "retired": worker.retired or None,
        "running": [{"id": job.id, "type": job.type, "queue": job.queue, "since": job.since} for job in worker.running],
    }


def size(name: str, worker: WorkerInfo | None, *, heard: bool) -> dict[str, Any]:
    """How large a worker is, and which queues it takes, after somebody ordered it. heard: it knows of that."""
    slots, queues = (None, None) if worker is None else (worker.slots, worker.queues)
    return {"name": name, "heard": heard, "slots": slots, "queues": queues}


def ping(answered: Collection[str], workers: Iterable[WorkerInfo]) -> dict[str, Any]:
    """Who answered, and who of workers did not."""
    return {"answered": [*answered], "silent": sorted({worker.name for worker in workers}.difference(answered))}


def acted(done: str, made: Sequence[str], refused: Mapping[str, str]) -> dict[str, Any]:
    """What became of an act on several jobs: which it was done to, and why not to the others."""
    return {done: list(made), "refused": [{"id": id, "reason": reason} for id, reason in refused.items()]}


def kicked(kicking: Kicking, refused: Mapping[str, str]) -> dict[str, Any]:
    """What became of a kick."""
    return {
        **acted("kicked", kicking.kicked, refused),
        "stopped": kicking.stopped or None,
        "left": kicking.left,
    }


def effect(entry: Entry) -> dict[str, Any]:
    """What the ledger knows of a side effect."""
    return {
        "key": entry.key,
        "stage": entry.stage,
        "type": entry.type,
        "job": entry.job,
        "attempt": entry.attempt,
        "worker": entry.worker,
        "since": entry.since,
        "outcome": msgspec.json.decode(entry.outcome),
        "note": entry.note,
        "keep": entry.keep,
    }


def grouped(jobs: Sequence[JobInfo]) -> list[tuple[Failure, int, JobInfo]]:
    """Buried jobs by what they failed of, the most frequent first: how many, and the newest."""
    groups: dict[Failure, list[JobInfo]] = {}
    for each in jobs:
        groups.setdefault(each.failure, []).append(each)
    most = sorted(groups.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    return [(failure, len(of_it), max(of_it, key=lambda job: job.buried or 0.0)) for failure, of_it in most]
