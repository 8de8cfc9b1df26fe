"""The voice of a worker: what happens to its jobs and to itself, as events for those who listen (see news)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from kq.broker import Broker
from kq.events import Herald, Mouth
from kq.values.event import Event, followed_key
from kq.values.outcome import Verdict
from kq.worker import news
from kq.worker.pool import Pool
from kq.worker.skew import Skew
from kq.worker.task import Task

#: Seconds between two looks at how far jobs are.
GLANCE = 0.5


class Voice:
    """Silent, and without cost, while nobody listens. It gathers the events of a round, and tick() tells them.

    While somebody follows some jobs, and nobody listens to all, it speaks of these alone.
    """

    def __init__(self, broker: Broker, pool: Pool, skew: Skew, memory: Herald | None = None) -> None:
        """memory: remembers what happens, whoever listens; all but how far jobs are."""
        self._memory = memory
        self._broker = broker
        self._pool = pool
        self._skew = skew
        self._worker = ""
        self._herald: Herald | None = None
        self._listened = self._begun = False
        self._followed: frozenset[str] = frozenset()
        self._events: list[Event] = []
        self._next_glance = 0.0

    @property
    def heard(self) -> bool:
        """Whether somebody listens, or it is remembered."""
        return self._herald is not None or self._memory is not None

    @property
    def due(self) -> float:
        """When tick() looks how far jobs are, monotonic; infinite while it need not."""
        return self._next_glance if self._herald is not None and self._pool.tasks() else float("inf")

    def join(self, worker: str) -> None:
        """Speak for a worker of that name."""
        self._worker = worker

    def heed(self, listened: bool, followed: frozenset[str], state: str) -> None:
        """Speak from now on, of all and beginning with the worker's state, or of the jobs that are followed."""
        begins = (listened and not self._listened) or (self._memory is not None and not self._begun)
        self._listened, self._followed, self._begun = listened, followed, True
        if (listened or followed) and self._herald is None:
            self._herald = Herald(partial(Mouth, self._broker))
        elif not (listened or followed) and self._herald is not None:
            self._herald.close(0.0)
            self._herald = None
        if begins:
            self.say(state)

    def _tells(self, task: Task) -> bool:
        return self._all or task.head.id in self._followed

    @property
    def _all(self) -> bool:
        return self._listened or self._memory is not None

    def say(self, state: str) -> None:
        """Tell how this worker is: ready, stopping, ended."""
        if self._all and self._worker:  # else nobody has heard of it
            self._events.append(Event(event=state, at=self._skew.now(), worker=self._worker))

    def started(self, tasks: Iterable[Task]) -> None:
        """Tell that tasks have begun."""
        if self.heard:
            behind = self._skew.behind
            told = tasks if self._all else filter(self._tells, tasks)
            self._events += [news.started(task, self._worker, task.began + behind) for task in told]

    def ended(self, task: Task, verdict: Verdict, at: float) -> None:
        """Tell that task was settled with verdict. at: an instant of our clock."""
        if self.heard and self._tells(task):
            self._events += news.ended(task, verdict, self._worker, at + self._skew.behind)

    def tick(self, now: float) -> None:
        """Tell how far jobs are, if it is time to, and what has gathered. now: monotonic."""
        if self._herald is not None and now >= self._next_glance:
            self._glance(now)
        if self._events:
            self._spread()

    def close(self) -> None:
        """Tell what has gathered, and no more."""
        self._spread()
        for herald in (self._herald, self._memory):
            if herald is not None:
                herald.close()

    def _glance(self, now: float) -> None:
        self._next_glance = now + GLANCE
        for _, task, written in self._pool.written():
            if written.at > task.said and self._tells(task):
                task.said = written.at
                self._events.append(news.progress(task, written, self._worker, written.at + self._skew.behind))

    def _spread(self) -> None:
        events, self._events = self._events, []
        if self._memory is not None:
            self._memory.say(event for event in events if event.event != "progress")
        if self._herald is None:
            return
        if self._listened:
            self._herald.say(events)
        if self._followed:
            for event in events:
                if event.job in self._followed:
                    self._herald.say([event], followed_key(event.job))
