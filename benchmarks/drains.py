"""Draining: what a job costs the worker in each pool, and what limits, priorities and results add to that."""

from __future__ import annotations

from collections.abc import Iterator

import kq
from benchmarks.cost import cost
from benchmarks.jobs import answer, app, nothing, nothing_async
from benchmarks.measure import measures
from benchmarks.place import BULK, CONCURRENCY, TEXT, WAIT, Place, drained, fill

TURNS = 3


@measures("drain-process", "rate-process")
def in_processes(place: Place) -> Iterator[tuple[str, float]]:
    with place.worker("process") as worker:
        found = drained(worker, place.jobs, lambda: fill(place.jobs))
    yield "drain-process", found.cpu
    yield "rate-process", 1 / found.wall


@measures("drain-async", "rate-async", "drain-async-plain")
def in_a_loop(place: Place) -> Iterator[tuple[str, float]]:
    with place.worker("async") as worker:
        found = drained(worker, place.jobs, lambda: fill(place.jobs, nothing_async))
        plain = drained(worker, place.jobs, lambda: fill(place.jobs))
    yield "drain-async", found.cpu
    yield "rate-async", 1 / found.wall
    yield "drain-async-plain", plain.cpu


@measures("drain-thread", "rate-thread")
def in_threads(place: Place) -> Iterator[tuple[str, float]]:
    with place.worker("thread") as worker:
        found = drained(worker, place.jobs, lambda: fill(place.jobs))
    yield "drain-thread", found.cpu
    yield "rate-thread", 1 / found.wall


@measures("priorities", "results")
def with_more(place: Place) -> Iterator[tuple[str, float]]:
    """What more is asked for, in threads: as a part of what a job costs without it; results in seconds."""
    jobs = place.jobs
    with place.worker("thread") as worker:
        plain = drained(worker, jobs, lambda: fill(jobs)).cpu
        yield "priorities", drained(worker, jobs, lambda: with_priorities(jobs)).cpu / plain - 1
        yield "results", drained(worker, jobs, lambda: fill(jobs, answer)).cpu + fetched() - plain


@measures("limits")
def with_a_limit(place: Place) -> Iterator[tuple[str, float]]:
    """In turns, and the least of each: what single drains take differs by more than a limit costs."""

    def drain(limit: int) -> float:
        with place.worker("thread", limit=limit) as worker:
            return drained(worker, place.jobs, lambda: fill(place.jobs)).cpu

    turns = [(drain(0), drain(CONCURRENCY["thread"] - 1)) for _ in range(TURNS)]
    without, limited = map(min, zip(*turns, strict=True))
    yield "limits", limited / without - 1


def with_priorities(jobs: int) -> None:
    kinds = [nothing.options(priority=priority) for priority in range(1, 10)]
    for first in range(0, jobs, BULK):
        app.submit_many(kinds[number % 9].job(TEXT) for number in range(first, min(first + BULK, jobs)))


def fetched() -> float:
    """CPU seconds that each result costs who fetches it; the jobs have ended."""
    handles = app.submit_many(answer.job(TEXT) for _ in range(BULK))
    for _ in kq.as_completed(handles, timeout=WAIT):
        pass
    return cost(BULK, lambda: [handle.result() for handle in kq.as_completed(handles)]).cpu
