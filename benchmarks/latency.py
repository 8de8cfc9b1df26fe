"""How late jobs start: at an idle worker, when many are due at once, when they are due one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.cost import percentile
from benchmarks.jobs import app, started, timed
from benchmarks.measure import measures
from benchmarks.place import BULK, Place, drained

STARTS = 200
#: Jobs due at once; jobs due one after the other, and seconds between two of them.
AT_ONCE = 10_000
IN_ROW = 1_000
STEP = 0.005
#: Seconds ahead of their time that jobs are submitted.
AHEAD = 3.0


@measures("hand-stored", "start-p50", "start-p99", "result-p50")
def starts(place: Place) -> Iterator[tuple[str, float]]:
    """A job is submitted to a worker that sleeps, and its result is waited for."""
    yield "hand-stored", percentile([stored(place) for _ in range(STARTS)], 0.5)
    latencies, returns = [], []
    with place.worker("process"):
        for _ in range(STARTS):
            time.sleep(0.005)  # idle again
            began = time.time()
            latencies.append(started.submit().result(timeout=30) - began)
            returns.append(time.time() - began)
    yield "start-p50", percentile(latencies, 0.5)
    yield "start-p99", percentile(latencies, 0.99)
    yield "result-p50", percentile(returns, 0.5)


def stored(place: Place) -> float:
    """Seconds until the loop by hand knows that a message is stored: no start is sooner than that and a wake-up."""
    time.sleep(0.005)
    began = time.perf_counter()
    place.hand.one()
    return time.perf_counter() - began


@measures("at-once-p50", "at-once-p99", "in-row-p50", "in-row-p99", "early")
def due(place: Place) -> Iterator[tuple[str, float]]:
    count = min(AT_ONCE, place.jobs)
    with place.worker("thread") as worker:
        place.marks()  # what rows before this one left
        drained(worker, count, lambda: submit_due([0.0] * count))
        ready = place.marked(count)
        first = min(start for _, start in ready)
        drain = [start - first for _, start in ready]
        at_once = late(place, [time.time() + AHEAD] * count)
        in_row = late(place, [time.time() + AHEAD + number * STEP for number in range(IN_ROW)])
    yield "at-once-p50", percentile(at_once, 0.5) - percentile(drain, 0.5)
    yield "at-once-p99", percentile(at_once, 0.99) - percentile(drain, 0.99)
    yield "in-row-p50", percentile(in_row, 0.5)
    yield "in-row-p99", percentile(in_row, 0.99)
    yield "early", sum(lateness < 0 for lateness in (*at_once, *in_row))


def late(place: Place, dues: list[float]) -> list[float]:
    """Seconds by which each of some jobs starts after it is due."""
    submit_due(dues)
    return [start - due for due, start in place.marked(len(dues))]


def submit_due(dues: list[float]) -> None:
    for first in range(0, len(dues), BULK):
        some = dues[first : first + BULK]
        app.submit_many(timed.options(at=due).job(due) if due else timed.job(due) for due in some)
