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
        self.slots = slots
        self._waiting: deque[Task] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Task]:
        return iter(self._waiting)

    def put(self, task: Task) -> None:
        """Priority 9 goes first, equals in the order of their arrival (promise C5)."""
        if self._waiting and _is_before(task, self._waiting[-1]):
            bisect.insort(self._waiting, task, key=lambda other: other.place)
        else:
            self._waiting.append(task)

    def take(self, most: Callable[[Task], int], room: Callable[[str, int], int]) -> list[Task]:
        """The next jobs for one executor: as many of a kind as most(first) says; none where that is 0.

        room(queue, limit): how many jobs of a queue that has a limit it may be given. These go apart from others.
        """
        position, size = self._next(room)
        first = self._waiting[position] if size else None
        if first is None or (size := min(size, most(first))) < 1:
            return []
        del self._waiting[position]
        tasks = [first]
        while len(tasks) < size and self._waiting and self._fits(self._waiting[0], first):
            tasks.append(self._waiting.popleft())
        return tasks

    def remove(self, task: Task) -> None:
        self._waiting.remove(task)

    def clear(self) -> list[Task]:
        """Take out all that wait."""
        tasks = list(self._waiting)
        self._waiting.clear()
        return tasks

    def limit(self, task: Task) -> int:
        """How many jobs of its queue may run at a time; 0: as many as there are slots."""
        limit = self.limits[task.delivery.queue]
        return limit if limit < self.slots else 0

    def _next(self, room: Callable[[str, int], int]) -> tuple[int, int]:
        """Where the next job stands whose queue may run one more, and how many may go at most, it included; else 0."""
        full: set[str] = set()
        for position, task in enumerate(self._waiting):
            queue, limit, size = task.delivery.queue, self.limit(task), len(self._waiting)
            if limit:
                size = 0 if queue in full else room(queue, limit)
            if size > 0:
                return position, size
            full.add(queue)
        return 0, 0

    def _fits(self, task: Task, first: Task) -> bool:
        """Whether task may go together with first."""
        if task.kind is not first.kind or task.suspect or task.poison:
            return False
        return task.delivery.queue == first.delivery.queue or not (self.limit(task) or self.limit(first))


def _is_before(task: Task, other: Task) -> bool:
    """What place says, without making two of them."""
    before, after = task.delivery.priority, other.delivery.priority
    return before > after or (before == after and task.arrival < other.arrival)
