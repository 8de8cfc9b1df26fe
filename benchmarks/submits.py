"""Submitting: one by one and in bulk, by hand and with kq, with unique keys; what a waiting job takes of the server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import redis

from benchmarks.cost import cost
from benchmarks.jobs import nothing
from benchmarks.measure import measures
from benchmarks.place import TEXT, Place, fill

ONE_BY_ONE = 500

_numbers = itertools.count()


@measures("hand-one", "hand-bulk", "hand-drain", "submit-one", "submit-bulk")
def submits(place: Place) -> Iterator[tuple[str, float]]:
    hand, jobs = place.hand, place.jobs
    hand.one()
    nothing.submit(TEXT)
    yield "hand-one", cost(ONE_BY_ONE, lambda: [hand.one() for _ in range(ONE_BY_ONE)]).cpu
    yield "submit-one", one_by_one()
    yield "hand-bulk", cost(jobs, lambda: hand.many(jobs)).cpu
    yield "submit-bulk", cost(jobs, lambda: fill(jobs)).cpu
    yield "hand-drain", cost(jobs, hand.drain).cpu


def one_by_one() -> float:
    """CPU seconds of one submit."""
    return cost(ONE_BY_ONE, lambda: [nothing.submit(TEXT) for _ in range(ONE_BY_ONE)]).cpu


@measures("unique-one", "unique-bulk")
def unique(place: Place) -> Iterator[tuple[str, float]]:
    """What a unique key adds to a submit, as a part of it."""
    nothing.submit(TEXT)
    steps = ONE_BY_ONE
    keyed = cost(steps, lambda: [nothing.options(unique=f"k{next(_numbers)}").submit(TEXT) for _ in range(steps)]).cpu
    yield "unique-one", keyed / one_by_one() - 1
    jobs = [nothing.options(unique=f"k{next(_numbers)}").job(TEXT) for _ in range(steps)]
    keyed = cost(steps, lambda: nothing.app.submit_jobs(jobs)).cpu
    yield "unique-bulk", keyed / cost(steps, lambda: fill(steps)).cpu - 1


@measures("bytes")
def bytes_waiting(place: Place) -> Iterator[tuple[str, float]]:
    """Memory of the server for each job that waits."""
    if not place.url.startswith("redis"):
        return
    server = redis.Redis.from_url(place.url)

    def used() -> int:
        memory = server.info("memory")
        # The heap of its Lua is larger or smaller by a megabyte from one moment to the next, whatever is stored.
        apart = ("mem_aof_buffer", "mem_clients_normal", "used_memory_vm_eval")
        return int(memory["used_memory"] - sum(memory.get(name, 0) for name in apart))

    fill(1)
    before = used()
    fill(place.jobs)
    yield "bytes", (used() - before) / place.jobs
    server.close()
