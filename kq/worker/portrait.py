"""A worker as others see it: its record in the state store, written with each beat, and what it has counted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from kq import __version__
from kq.clock import new_id
from kq.state.store import Write
from kq.values import tally
from kq.values.record import encode, tally_key, worker_key
from kq.values.tally import Tally
from kq.worker.ground import Ground
from kq.worker.meter import Meter
from kq.worker.pool import Pool
from kq.worker.task import Task
from kq.worker.usage import Usage

#: Seconds that a dead worker is still listed.
KEEP = 3600.0
#: Of so many jobs that run a worker tells what they are called with.
SHOWN = 50


class Portrait:
    """Of one worker, whatever its name is from one lease to the next."""

    def __init__(self, ground: Ground, pool: Pool, meter: Meter) -> None:
        self._plan, self._host = ground.plan, ground.host
        self._clock, self._skew = ground.clock, ground.skew
        self._pool = pool
        self._meter = meter
        self._usage = Usage()
        self._process = new_id()
        self._started = ground.clock.now()
        self._worker = ""
        #: What was written down under each name since the last time that all of it was, and when, by the store's clock.
        self._said: dict[str, tuple[bytes, float]] = {}
        #: What was counted by the last beat; None before the first.
        self.tally: Tally | None = None

    def join(self, worker: str) -> None:
        """Be the portrait of a worker of that name."""
        self._worker = worker

    def writes(
        self, now: float, queues: Mapping[str, int], seats: Collection[str], waiting: Iterable[Task], *, stopping: bool
    ) -> list[Write]:
        """What is to be written down, which told() says was done. now: by the store's clock.

        seats: the singleton queues that it has. waiting: jobs that are here and were given to no executor.
        stopping: it takes no more jobs.
        """
        described = {
            **self._described(now),
            "queues": queues,
            "singletons": seats,
            "stopping": stopping,
            "running": self._running(),
            "held": self._held(waiting),
        }
        record = encode(described)
        former = list(self._former(now))
        self._said[self._worker] = record, now
        return [Write(worker_key(self._worker), record, KEEP), self._counted(now), *former]

    def told(self) -> None:
        """What was to be written down was."""
        self._said = {self._worker: self._said[self._worker]}

    def _former(self, now: float) -> Iterator[Write]:
        """Let go of the names that it had before, each when its lease would be over.

        It lives under another: nobody need look for it, for an hour, among the dead. A network that resets every
        connection a few times a second would leave thousands of them, which control reads in each of its rounds.
        """
        for name, (record, at) in self._said.items():
            left = at + self._plan.lease - now
            if name != self._worker:
                yield Write(worker_key(name), record, left) if left > 0 else Write(worker_key(name), None)

    def last(self, now: float) -> tuple[Write, Write]:
        """The same when it has ended."""
        return Write(worker_key(self._worker), None), self._counted(now)

    def _counted(self, now: float) -> Write:
        self.tally = self._meter.tally(self._worker, self._started + self._skew.behind, now)
        return Write(tally_key(self._process), tally.encode(self.tally), KEEP)

    def _described(self, now: float) -> dict[str, Any]:
        pool = self._pool
        executors = [executor.pid for executor in pool.executors.values() if executor.pid]
        rss, cpu = self._usage.measure([os.getpid(), *executors], self._clock.monotonic())
        ok, failed = self._meter.sums
        return {
            "name": self._worker,
            "host": self._host,
            "code": pool.code,
            "kq": __version__,
            "pid": os.getpid(),
            "started": self._started,
            "beat": now,
            "clock": self._clock.now(),
            "lease": self._plan.lease,
            "pool": pool.kind,
            "slots": pool.size,
            "types": sorted(pool.kinds),
            "executors": executors,
            "rss": rss,
            "cpu": cpu,
            "ok": ok,
            "failed": failed,
        }

    def _running(self) -> list[dict[str, Any]]:
        """What runs there."""
        now, found = self._clock.monotonic(), list[dict[str, Any]]()
        for executor, task, written in self._pool.written():
            task.extra = written.more
            said = {"n": written.n, "of": written.of, "text": written.text, "at": written.at + self._skew.behind}
            found.append(
                {
                    "id": task.head.id,
                    "type": task.head.type,
                    "queue": task.delivery.queue,
                    "since": task.began,
                    "seconds": now - task.started,
                    "limit": task.timeout + task.extra,
                    "executor": executor.pid,
                    "progress": said if written.at else None,
                    "arguments": task.arguments if len(found) < SHOWN else {},
                }
            )
        return found

    def _held(self, waiting: Iterable[Task]) -> list[dict[str, Any]]:
        """What is here and does not run: of each queue how many jobs, and how long the first of them has been here."""
        now, since, jobs = self._clock.monotonic(), dict[str, float](), Counter[str]()
        for task in (*waiting, *(task for _, task in self._pool.tasks() if not task.started)):
            queue = task.delivery.queue
            jobs[queue] += 1
            since[queue] = min(since.get(queue, now), task.since)
        return [{"queue": queue, "jobs": jobs[queue], "seconds": now - first} for queue, first in since.items()]
