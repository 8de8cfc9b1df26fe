"""The operations whose costs are on the card: what is done before, what is counted, in the words of the card."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import kq
from kq.worker import Worker
from tests.costs.jobs import answer, app, bad, effect, fail, nothing

TEXT = "a" * 100
MANY = 100

_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class World:
    """An app on a broker, and a control for it."""

    control: kq.Control


#: Prepares one time and returns what is to be counted.
Operation = Callable[[World], Callable[[], object]]
OPERATIONS: dict[str, Operation] = {}
#: Those that need a worker.
AT_WORK: dict[str, Operation] = {}


def operation(name: str, table: dict[str, Operation] = OPERATIONS) -> Callable[[Operation], Operation]:
    def add(prepare: Operation) -> Operation:
        table[name] = prepare
        return prepare

    return add


def at_work(name: str) -> Callable[[Operation], Operation]:
    return operation(name, AT_WORK)


@operation("`submit()`")
def submit(world: World) -> Callable[[], object]:
    return lambda: nothing.submit(TEXT)


@operation("`submit()` with a delay")
def submit_delayed(world: World) -> Callable[[], object]:
    return lambda: nothing.options(delay=3600).submit(TEXT)


@operation("`submit()` with a unique key")
def submit_unique(world: World) -> Callable[[], object]:
    return lambda: nothing.options(unique=f"key {next(_numbers)}").submit(TEXT)


@operation("`submit()` where the unique key is held")
def submit_held(world: World) -> Callable[[], object]:
    kind = nothing.options(unique=f"key {next(_numbers)}")
    kind.submit(TEXT)
    return lambda: kind.submit(TEXT)


@operation(f"`submit_many()` of {MANY}")
def submit_many(world: World) -> Callable[[], object]:
    return lambda: app.submit_many(nothing.job(TEXT) for _ in range(MANY))


@operation("`Handle.state()` of one that waits")
def state(world: World) -> Callable[[], object]:
    return nothing.submit(TEXT).state


@operation("`Handle.revoke()` of one that waits")
def revoke(world: World) -> Callable[[], object]:
    return nothing.submit(TEXT).revoke


@operation("`Control.jobs()`, 100 of a queue")
def jobs(world: World) -> Callable[[], object]:
    app.submit_many(nothing.job(TEXT) for _ in range(MANY))
    return lambda: world.control.jobs("default", limit=MANY)


@operation("`Control.bury()`")
def bury(world: World) -> Callable[[], object]:
    id = nothing.submit(TEXT).id
    return lambda: world.control.bury(id, "no")


@operation("`Control.kick()`")
def kick(world: World) -> Callable[[], object]:
    id = nothing.submit(TEXT).id
    world.control.bury(id, "no")
    return lambda: world.control.kick(ids=[id])


@operation("`Control.edit()`")
def edit(world: World) -> Callable[[], object]:
    id = nothing.submit(TEXT).id
    return lambda: world.control.edit(id, args=["b"])


@operation("`Control.pause()`")
def pause(world: World) -> Callable[[], object]:
    world.control.resume("default")
    return lambda: world.control.pause("default")


@operation("`Control.resume()`")
def resume(world: World) -> Callable[[], object]:
    world.control.pause("default")
    return lambda: world.control.resume("default")


@operation("`Control.queues()`, two queues")
def queues(world: World) -> Callable[[], object]:
    return world.control.queues


@operation("`Control.workers()`")
def workers(world: World) -> Callable[[], object]:
    return world.control.workers


@operation("`Control.snapshot()`")
def snapshot(world: World) -> Callable[[], object]:
    return world.control.snapshot


# With a worker.


def worker() -> AbstractContextManager[Any]:
    return Worker(app, pool="thread", concurrency=4, control=False)


@at_work("one job at an idle worker, its result kept")
def one_job(world: World) -> Callable[[], object]:
    return lambda: answer.submit(TEXT).result(timeout=30)


@at_work("the same, no result")
def one_without(world: World) -> Callable[[], object]:
    return lambda: nothing.submit(TEXT)


@at_work("the same, with a unique key")
def one_unique(world: World) -> Callable[[], object]:
    return lambda: nothing.options(unique=f"key {next(_numbers)}").submit(TEXT)


@at_work("one that fails and is to be repeated")
def one_retried(world: World) -> Callable[[], object]:
    return lambda: fail.submit(TEXT)


@at_work("one that is buried")
def one_buried(world: World) -> Callable[[], object]:
    return lambda: bad.submit(TEXT)


@at_work("one side effect")
def one_effect(world: World) -> Callable[[], object]:
    return lambda: effect.submit(f"effect {next(_numbers)}")


@at_work("`Control.ping()` of one worker")
def ping(world: World) -> Callable[[], object]:
    return world.control.ping


@at_work("`Handle.result()` of one that has ended")
def result(world: World) -> Callable[[], object]:
    handle = answer.submit(TEXT)
    handle.result(timeout=30)
    return handle.result


@at_work("`kq.as_completed()` of 100 that have ended")
def results(world: World) -> Callable[[], object]:
    handles = app.submit_many(answer.job(TEXT) for _ in range(100))
    list(kq.as_completed(handles, timeout=30))
    return lambda: [handle.result() for handle in kq.as_completed(handles)]


@at_work("1 000 short jobs, submitted together")
def thousand(world: World) -> Callable[[], object]:
    """How many batches they make depends on the machine."""
    return lambda: app.submit_many(nothing.job(TEXT) for _ in range(1000))
