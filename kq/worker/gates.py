"""How many jobs of one queue run at a time in an executor that runs several side by side.

So that jobs of a queue with a limit are sent many at a time, as others are. The executor has gates, and its supervisor
the same ones, to know what has begun.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Gates(Generic[T]):
    """Lets jobs pass in their order, of a queue with a limit no more than that at a time. Threads may share it.

    limit: 0 where there is none; else always the same of one queue.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._passed: dict[str, int] = {}
        self._held: dict[str, deque[T]] = {}

    def enter(self, job: T, queue: str, limit: int) -> bool:
        """Whether job passes now; else it is held until others of its queue have left."""
        if not limit:
            return True
        with self._guard:
            passed = self._passed.get(queue, 0)
            if passed < limit:
                self._passed[queue] = passed + 1
            else:
                self._held.setdefault(queue, deque()).append(job)
            return passed < limit

    def leave(self, queue: str, limit: int) -> T | None:
        """A job of queue has ended, or will not begin; returns the one that passes in its place."""
        if not limit:
            return None
        with self._guard:
            if self._held.get(queue):
                return self._held[queue].popleft()
            self._passed[queue] -= 1
            return None
