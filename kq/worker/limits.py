"""What jobs may take: time and memory. Who takes too much is interrupted, then killed; a grown executor is replaced."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from kq.clock import Clock
from kq.units import format_size
from kq.worker.child import Executor
from kq.worker.task import Task
from kq.worker.usage import rss

#: Seconds between two looks at how much memory executors hold while they run jobs.
WEIGH = 0.25
#: The part of max_rss from which on an executor is replaced when its jobs have ended.
RIPE = 0.8


class Limits:
    """The limits of the tasks that executors have. max_rss: bytes that an executor may hold; 0: any.

    enforce() may be called from a thread beside the loop: it sends signals and sets flags.
    """

    def __init__(self, executors: Mapping[int, Executor], clock: Clock, max_rss: int) -> None:
        self._executors = executors
        self._clock = clock
        self._max_rss = max_rss
        self._enforcing = threading.Lock()
        #: When the next running task is to be interrupted or killed; monotonic.
        self.next_due = float("inf")

    def begun(self, tasks: Iterable[Task]) -> None:
        """tasks begin."""
        for task in tasks:
            due = min(task.due, task.started + WEIGH) if self._max_rss else task.due
            if due < self.next_due:
                self.next_due = due

    def cut_short(self, task: Task) -> None:
        """Let task end now as it would at its timeout: interrupted, then killed. May be repeated."""
        task.cut = min(task.cut, self._clock.monotonic())
        self.next_due = min(self.next_due, task.due)

    def enforce(self) -> None:
        """Interrupt tasks that ran past their timeout; kill executors whose jobs ignored it or took too much memory."""
        with self._enforcing:
            now = self._clock.monotonic()
            self.next_due = self._weigh(now)
            for _, task in tasks_of(self._executors):
                if task.started and not task.killed and task.due > now:
                    self.next_due = min(self.next_due, task.due)
            for executor, task in tasks_of(self._executors):
                if task.started and not task.killed and task.due <= now:
                    if not _goes_on(executor, task, now):
                        executor.interrupt(task)
                    if not task.killed:
                        self.next_due = min(self.next_due, task.due)

    def is_ripe(self, executor: Executor) -> bool:
        """Whether executor has grown so large that another is to take its place."""
        return self._max_rss > 0 and rss(executor.pid) > RIPE * self._max_rss

    def _weigh(self, now: float) -> float:
        """Kill executors whose jobs have taken too much memory; returns when to look again."""
        if not self._max_rss:
            return float("inf")
        busy = [executor for executor in list(self._executors.values()) if executor.tasks]
        for executor in busy:
            held = rss(executor.pid)
            if held > self._max_rss:
                limit = format_size(self._max_rss)
                executor.excess = f"it held {format_size(held)} of memory, more than max_rss, {limit}, and was killed"
                executor.kill()
        return now + WEIGH if busy else float("inf")


def tasks_of(executors: Mapping[int, Executor]) -> list[tuple[Executor, Task]]:
    """All tasks that executors have. A copy: they may begin and end meanwhile."""
    return [(executor, task) for executor in list(executors.values()) for task in list(executor.tasks.values())]


def _goes_on(executor: Executor, task: Task, now: float) -> bool:
    """Whether task, whose time is over, has extended it."""
    if not task.interrupted and (written := executor.page.written().get(task.seq)) is not None:
        task.extra = written.more
    return not task.interrupted and task.due > now
