"""Unique keys where jobs run: taken, or found to be another's, before a job that has one may start (promise C11)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kq.errors import LeaseLost
from kq.state.store import Store
from kq.values.reading import text
from kq.values.record import claim_key, lease_key, unique_key
from kq.worker.scribe import lock_of
from kq.worker.task import Task

#: Who waits for its turn looks again after a part of the time that it has waited, at least and at most so many seconds.
PART, SOON, LATEST = 0.1, 0.05, 5.0


@dataclass(slots=True)
class Taken:
    """What became of jobs that have a unique key.

    ready: they may start. waiting: another job has their turn. joined: submitted without their key, which another one
    has; and which. unclear: the same, and nobody knows yet whether that one is there.
    """

    ready: list[Task] = field(default_factory=list)
    waiting: list[Task] = field(default_factory=list)
    joined: list[tuple[Task, str]] = field(default_factory=list)
    unclear: list[Task] = field(default_factory=list)


class Keys:
    """The unique keys of the jobs of one worker."""

    def __init__(self, store: Store, worker: str) -> None:
        self._store = store
        self._lease = lease_key(worker)

    def take(self, tasks: Sequence[Task], now: float) -> Taken:
        """Take the keys of tasks, in one round trip. now: by the store's clock. Raises LeaseLost."""
        plans = [lock_of(task).taken(self._lease, now) for task in tasks]
        made = iter(self._store.write([write for plan in plans for write in plan]))
        done = [[next(made) for _ in plan] for plan in plans]
        if not all(each[0] for each in done) and self._store.get([self._lease]) == [None]:
            raise LeaseLost("this worker's lease is gone from the state store")
        taken, late = Taken(), list[Task]()
        for task, each in zip(tasks, done, strict=True):
            if task.head.unique_late and not each[0]:
                late.append(task)
            elif task.head.unique_until == "turn" and not each[1]:
                taken.waiting.append(task)
            else:
                taken.ready.append(task)
        for task in late:
            self._meet(task, taken)
        return taken

    def _meet(self, task: Task, taken: Taken) -> None:
        """Another job has the key: find out whether it is certain to be there."""
        key = str(task.head.unique)
        holder, claim = self._store.get([unique_key(key), claim_key(key)])
        if holder is None or claim is not None:
            taken.unclear.append(task)
        else:
            taken.joined.append((task, text(holder)))


def pause(task: Task, now: float) -> float:
    """Seconds until a job that waits for its turn looks again. now: by the store's clock."""
    return min(LATEST, max(SOON, PART * (now - task.head.submitted_at)))
