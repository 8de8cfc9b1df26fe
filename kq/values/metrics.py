"""Metrics in Prometheus' text format, written from tallies and snapshots. Pure.

Never a job's id as a label, and of queues with job types no more than SERIES: what has many names would cost whoever
stores them more than it tells. Units are base units, counters end in _total. No label is called job or instance: those
are Prometheus' own, for what it scraped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from kq.plain import printable_lines
from kq.values.snapshot import Snapshot
from kq.values.tally import BOUNDS, EFFECTS, Spread, Tally, Wait, Work

#: So many queues with job types have numbers of their own; the others are together.
SERIES = 200
OTHER = "other"

#: Outcomes of jobs and attempts, and what counts them.
OUTCOMES = {
    "ok": "completed",
    "failed": "failed",
    "retried": "retried",
    "fell_back": "fell",
    "buried": "buried",
    "revoked": "revoked",
    "expired": "expired",
    "deduplicated": "dropped",
}
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One number. suffix: of its metric's name, such as _bucket."""

    value: float
    labels: Mapping[str, str]
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Metric:
    """A name with its numbers."""

    name: str
    kind: Kind
    help: str
    samples: Iterable[Sample]


def text(metrics: Iterable[Metric]) -> str:
    """metrics as they are scraped; those without numbers are left out."""
    return "".join(line + "\n" for metric in metrics for line in _lines(metric))


def of_worker(told: Tally) -> Iterator[Metric]:
    """What one worker has counted since it began."""
    work = _few(told.work)
    yield Metric("kq_jobs_total", "counter", "Jobs that ended, and attempts that failed, by outcome.", _outcomes(work))
    yield Metric("kq_jobs_started_total", "counter", "Attempts that began.", _counts(work, "started"))
    yield Metric("kq_jobs_degraded_total", "counter", "Jobs that completed by a fallback.", _counts(work, "degraded"))
    waited, ran = "From when a job was ready to its start.", "From the start of an attempt to its end."
    yield Metric("kq_job_wait_seconds", "histogram", waited, _waits(told.waits))
    spreads = ((_labels(each), each.ran) for each in work)
    yield Metric("kq_job_duration_seconds", "histogram", ran, _histograms(spreads))
    cpu = "Processor time of attempts that took a millisecond or longer, but for coroutines that share a thread."
    yield Metric("kq_job_cpu_seconds_total", "counter", cpu, _counts(work, "cpu"))
    effects = "Side effects by what they came to; unknown: broke off, and nobody knew whether they had happened."
    yield Metric("kq_side_effects_total", "counter", effects, _effects(work))
    again = "How often the broker answered again after it had not, or had given the worker's jobs to others."
    yield Metric("kq_broker_reconnects_total", "counter", again, [Sample(told.reconnects, {})])


def of_all(shot: Snapshot, answers: Spread) -> Iterator[Metric]:
    """What is to be seen of all queues and workers: to be scraped in one place.

    answers: how long the broker took to answer, as often as it was looked at there.
    """
    queues, workers = shot.queues, shot.workers
    states = [
        (row, state) for row in queues for state in ("ready", "delayed", "retrying", "running", "buried", "parked")
    ]
    yield _gauge(
        "kq_queue_jobs",
        "Jobs of a queue by state; those that are tried again count as delayed too.",
        [({"queue": row.name, "state": state}, getattr(row, state)) for row, state in states],
    )
    oldest = [({"queue": row.name}, row.oldest) for row in queues]
    yield _gauge("kq_queue_oldest_seconds", "How long the job that has been ready longest has been so.", oldest)
    wait = [({"queue": row.name}, row.wait_p95) for row in queues]
    yield _gauge("kq_queue_wait_p95_seconds", "What 95 of 100 jobs of the last minute waited at most.", wait)
    came = [({"queue": row.name}, row.came) for row in queues]
    yield _gauge("kq_queue_arrival_rate", "Jobs a second that came in the last minute.", came)
    sent = [Sample(number, {"queue": name}) for name, number in shot.history.sent.items()]
    yield Metric("kq_jobs_sent_total", "counter", "Jobs that came to a queue since control began to count.", sent)
    twice = [
        Sample(number, {"queue": row.name, "conflict": conflict})
        for row in queues
        for conflict, number in sorted(row.duplicates.items())
    ]
    held = "Submits that found their unique key held, by what becomes of such."
    yield Metric("kq_duplicate_submits_total", "counter", held, twice)
    drain = [({"queue": row.name}, row.drain) for row in queues]
    yield _gauge("kq_queue_drain_seconds", "When none is ready if all goes on so; absent while it grows.", drain)
    serving = [({"queue": row.name}, row.workers) for row in queues]
    yield _gauge("kq_queue_workers", "Living workers that take jobs of a queue.", serving)
    paused = [({"queue": row.name}, float(row.paused is not None)) for row in queues]
    yield _gauge("kq_queue_paused", "1 while somebody has paused the queue.", paused)
    health = ["alive", "late", "stopping", "dead"]
    counted = [({"state": state}, sum(row.state == state for row in workers)) for state in health]
    yield _gauge("kq_workers", "Workers by state; dead ones for an hour.", counted)
    live = [row for row in workers if row.state != "dead"]
    slots = [({"worker": row.name, "state": "busy"}, len(row.running)) for row in live]
    slots += [({"worker": row.name, "state": "free"}, max(0, row.slots - len(row.running))) for row in live]
    yield _gauge("kq_worker_slots", "Jobs that a worker runs, and how many more it could.", slots)
    beats = [({"worker": row.name}, row.beat_age) for row in workers]
    yield _gauge("kq_worker_heartbeat_age_seconds", "Since a worker's last beat.", beats)
    seats = [({"queue": row.queue, "worker": row.holder}, float(bool(row.holder))) for row in shot.singletons]
    yield _gauge(
        "kq_singleton_leader", "1 where a worker has the seat of a singleton queue, 0 where nobody has.", seats
    )
    yield _gauge(
        "kq_side_effects_in_doubt", "Effects of which nobody knows whether they happened.", [({}, shot.doubtful)]
    )
    took = "What the broker took to say what is in all queues."
    answered = _histograms([({}, answers)]) if any(answers.counts) else ()
    yield Metric("kq_broker_roundtrip_seconds", "histogram", took, answered)
    yield _gauge("kq_broker_up", "1 while the broker answers.", [({}, float(not shot.broker))])


def of_build(version: str, transport: str) -> Metric:
    """Which kq this is."""
    return _gauge(
        "kq_build_info", "The version of kq, and its broker.", [({"version": version, "transport": transport}, 1)]
    )


def _gauge(name: str, help: str, numbers: Iterable[tuple[Mapping[str, str], float | None]]) -> Metric:
    """What nobody knows is left out."""
    return Metric(name, "gauge", help, [Sample(number, labels) for labels, number in numbers if number is not None])


def _few(work: Iterable[Work]) -> list[Work]:
    """work; what is beyond the first SERIES together."""
    all = sorted(work, key=lambda each: each.started, reverse=True)
    few, rest = [each.copy() for each in all[:SERIES]], Work(OTHER, OTHER)
    for each in all[SERIES:]:
        rest.add(each)
    return [*few, rest] if all[SERIES:] else few


def _labels(work: Work) -> dict[str, str]:
    return {"queue": work.queue, "type": work.type}


def _outcomes(work: Iterable[Work]) -> Iterator[Sample]:
    for each in work:
        for outcome, name in OUTCOMES.items():
            yield Sample(getattr(each, name), {**_labels(each), "outcome": outcome})


def _effects(work: Iterable[Work]) -> Iterator[Sample]:
    for each in work:
        if any(getattr(each, result) for result in EFFECTS):
            for result in EFFECTS:
                yield Sample(getattr(each, result), {**_labels(each), "result": result})


def _counts(work: Iterable[Work], name: str) -> Iterator[Sample]:
    return (Sample(getattr(each, name), _labels(each)) for each in work)


def _waits(waits: Iterable[Wait]) -> Iterator[Sample]:
    """By queue and priority; what is beyond the first SERIES together."""
    most = sorted(waits, key=lambda each: sum(each.waited.counts), reverse=True)
    spreads = [({"queue": each.queue, "priority": str(each.priority)}, each.waited) for each in most[:SERIES]]
    if most[SERIES:]:
        rest = Spread()
        for each in most[SERIES:]:
            rest.include(each.waited)
        spreads.append(({"queue": OTHER, "priority": OTHER}, rest))
    return _histograms(spreads)


def _histograms(spreads: Iterable[tuple[Mapping[str, str], Spread]]) -> Iterator[Sample]:
    for labels, spread in spreads:
        below = 0
        for bound, number in zip((*BOUNDS, float("inf")), spread.counts, strict=True):
            below += number
            yield Sample(below, {**labels, "le": _number(bound)}, "_bucket")
        yield Sample(spread.seconds, labels, "_sum")
        yield Sample(below, labels, "_count")


def _lines(metric: Metric) -> Iterator[str]:
    lines = [f"{metric.name}{each.suffix}{_braces(each.labels)} {_number(each.value)}" for each in metric.samples]
    if lines:
        yield f"# HELP {metric.name} {metric.help}"
        yield f"# TYPE {metric.name} {metric.kind}"
        yield from lines


def _braces(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_quoted(value)}"' for name, value in labels.items()) + "}" if labels else ""


def _quoted(value: str) -> str:
    """value as a label has it: what can't be seen is spelt out, as everywhere."""
    return printable_lines(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return "+Inf" if value == float("inf") else str(int(value)) if value == int(value) else repr(float(value))
