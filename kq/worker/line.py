"""The line: jobs that are here and may start, in their order, and how many of each queue may run at a time."""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Callable, Iterator

from kq.worker.task import Task


class Line:
    """Jobs that wait for an executor. slots: how many jobs run at a time in all."""

    def __init__(self, slots: int) -> None:
        #: How many jobs of each queue may run at a time.
        self.limits: dict[str, int] = {}
        self._slots = slots
        self._waiting: deque[Task] = deque()
        self._running: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Task]:
        return iter(self._waiting)

    def put(self, task: Task) -> None:
        """Priority 9 goes first, equals in the order of their arrival (promise C5)."""
        if self._waiting and self._waiting[-1].place > task.place:
            bisect.insort(self._waiting, task, key=lambda other: other.place)
        else:
            self._waiting.append(task)

    def take(self, most: Callable[[Task], int]) -> list[Task]:
        """The next jobs for one executor: one, or of queues without limits as many of its kind as most(first) says."""
        first = self._next()
        if first is None:
            return []
        tasks = [first]
        size = 1 if self._is_limited(first) else most(first)
        while len(tasks) < size and self._waiting and self._waiting[0].kind is first.kind:
            task = self._waiting[0]
            if task.suspect or task.poison or self._is_limited(task):
                break
            tasks.append(self._waiting.popleft())
        return tasks

    def left(self, queue: str) -> None:
        """One job of queue fewer runs."""
        self._running[queue] = max(0, self._running.get(queue, 0) - 1)

    def remove(self, task: Task) -> None:
        self._waiting.remove(task)

    def clear(self) -> list[Task]:
        """Take out all that wait; those that run are not counted any more."""
        tasks = list(self._waiting)
        self._waiting.clear()
        return tasks

    def _next(self) -> Task | None:
        """The next job whose queue may run one more."""
        for position, task in enumerate(self._waiting):
            queue = task.delivery.queue
            running = self._running.get(queue, 0)
            if not self._is_limited(task):
                del self._waiting[position]
                return task
            if running < self.limits[queue]:
                del self._waiting[position]
                self._running[queue] = running + 1
                return task
        return None

    def _is_limited(self, task: Task) -> bool:
        """Whether its queue may use fewer slots than there are."""
        return self.limits[task.delivery.queue] < self._slots
