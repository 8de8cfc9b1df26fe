"""What many waiting jobs add to the cost of one."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.cost import cost
from benchmarks.jobs import last, nothing
from benchmarks.measure import measures
from benchmarks.place import TEXT, Place, clear, drained, fill
from benchmarks.submits import one_by_one


@measures("backlog-one", "backlog-bulk", "backlog-drain", runs=3)
def backlog(place: Place) -> Iterator[tuple[str, float]]:
    """As a part of what it costs when none waits."""
    steps = place.jobs
    nothing.submit(TEXT)
    # No worker runs meanwhile, here and below: it would take what is submitted, and the processor.
    one, bulk = one_by_one(), cost(steps, lambda: fill(steps)).cpu
    clear()
    with place.worker("thread") as worker:
        alone = drained(worker, steps, lambda: fill(steps)).cpu
    fill(place.backlog)
    place.rest()
    yield "backlog-one", one_by_one() / one - 1
    yield "backlog-bulk", cost(steps, lambda: fill(steps)).cpu / bulk - 1
    with place.worker("thread") as worker:
        # They have a higher priority than all that wait.
        first = nothing.options(priority=6)
        behind = drained(worker, steps, lambda: fill(steps, first), last.options(priority=6))
    yield "backlog-drain", behind.cpu / alone - 1
