"""How much of the time that jobs need a worker makes of its slots and cores, as a part of the ideal."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator

import kq
from benchmarks.cost import cost
from benchmarks.jobs import app, burn, nap, nap_async, spin
from benchmarks.measure import measures
from benchmarks.place import CONCURRENCY, Place, Running, drained

NAPS, SLOTS = 2_000, 50
SPINS = 100


@measures("naps-thread")
def naps_in_threads(place: Place) -> Iterator[tuple[str, float]]:
    with place.worker("thread", SLOTS) as worker:
        yield "naps-thread", NAPS * 0.01 / SLOTS / span(place, worker, [nap.job() for _ in range(NAPS)])


@measures("naps-async")
def naps_in_a_loop(place: Place) -> Iterator[tuple[str, float]]:
    with place.worker("async", SLOTS) as worker:
        yield "naps-async", NAPS * 0.01 / SLOTS / span(place, worker, [nap_async.job() for _ in range(NAPS)])


@measures("spins", "spins-served")
def spins(place: Place) -> Iterator[tuple[str, float]]:
    """10 ms of CPU in the process pool, beside as many processes by hand."""
    with place.worker("process") as worker:
        took, served = measured(place, worker, [spin.job() for _ in range(SPINS)])
    yield "spins", by_hand(CONCURRENCY["process"]) / took
    if place.server is not None:
        yield "spins-served", served


def by_hand(processes: int) -> float:
    """Wall seconds that so many processes need for the same, without anything between them."""
    fork = multiprocessing.get_context("fork")
    some = [fork.Process(target=burn, args=(SPINS * 0.01 / processes,)) for _ in range(processes)]

    def run() -> None:
        for each in some:
            each.start()
        for each in some:
            each.join()

    return cost(1, run).wall


@measures("processes", "processes-served")
def processes(place: Place) -> Iterator[tuple[str, float]]:
    """What a second supervisor wins where each has one executor that is busy."""
    if not place.shared:
        return
    took = []
    for count in (1, 2):
        with place.worker("process", 1, processes=count) as worker:
            seconds, served = measured(place, worker, [spin.job() for _ in range(SPINS)])
            took.append(seconds)
    yield "processes", took[0] / took[1]
    if place.server is not None:
        yield "processes-served", served


def span(place: Place, worker: Running, jobs: list[kq.Job[None]]) -> float:
    """Seconds from the first start to the last end of jobs."""
    return measured(place, worker, jobs)[0]


def measured(place: Place, worker: Running, jobs: list[kq.Job[None]]) -> tuple[float, float]:
    """The same, and the part of the cores' time that the broker's server took meanwhile."""
    cost = drained(worker, len(jobs), lambda: app.submit_many(jobs))
    marks = place.marked(len(jobs))
    served = cost.server / cost.wall / (os.cpu_count() or 1)
    return max(end for _, end in marks) - min(start for start, _ in marks), served
