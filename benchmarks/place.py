"""Where a run takes place: a fresh broker of one kind, the loop by hand on it, and workers of kq."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

import kq
from benchmarks.by_hand import Loop, MemoryLoop, RabbitLoop, RedisLoop, SQLiteLoop
from benchmarks.cost import Cost
from benchmarks.jobs import MARKS, app, last, marks, nothing, number_of_marks, started
from kq.conformance.contract.processes import cpu, tree
from kq.worker import Worker
from kq.worker.pool import PoolKind
from tests.servers import RabbitServer, RedisServer

BROKERS = ("memory", "sqlite", "redis", "rabbitmq")
#: An argument of 100 bytes.
TEXT = "a" * 100
#: Jobs of one submit_many().
BULK = 500
#: How many jobs run at a time, where a row says nothing else.
CONCURRENCY: dict[PoolKind, int] = {"process": 2, "thread": 10, "async": 10}
#: Seconds that one step may take.
WAIT = 120.0
#: A server is at rest that takes less than this part of a core for so many seconds.
IDLE, REST = 0.1, 1.0


@dataclass(frozen=True, slots=True)
class Running:
    """A worker that has run a job. pid: None where it lives in this process."""

    place: Place
    pid: int | None

    def tree(self) -> list[psutil.Process]:
        """All its processes; where it lives in this one, this and all below it."""
        return tree(psutil.Process(self.pid))

    def cpu(self) -> float:
        """CPU seconds of all its processes so far."""
        return cpu(self.tree())


@dataclass(frozen=True, slots=True)
class Place:
    """A broker for one run. jobs: how many make a row. backlog: how many wait in the rows about that.

    server: the process of its server, where it has one.
    """

    name: str
    url: str
    folder: Path
    hand: Loop
    server: int | None
    jobs: int
    backlog: int

    @property
    def shared(self) -> bool:
        """Whether workers may be processes of their own."""
        return app.broker.traits.shared

    @contextlib.contextmanager
    def worker(self, pool: PoolKind, concurrency: int = 0, *, limit: int = 0, processes: int = 1) -> Iterator[Running]:
        """A worker, ready. limit: how many jobs of the queue that is measured may run at a time; 0: all."""
        size = concurrency or CONCURRENCY[pool]
        if not self.shared:
            limits = {"default": limit or size, "probe": size}
            with Worker(app, queues=limits, pool=pool, concurrency=size):
                started.submit().result(timeout=WAIT)
                yield Running(self, None)
            return
        queues = f"default:{limit or size},probe"
        with self.spawned("--pool", pool, "-c", size, "-Q", queues, "--processes", processes) as child:
            started.submit().result(timeout=WAIT)
            yield Running(self, child.pid)

    @contextlib.contextmanager
    def spawned(self, *options: object) -> Iterator[subprocess.Popen[bytes]]:
        """`kq worker` with options, which ends with the block."""
        command = [sys.executable, "-m", "kq", "--url", self.url, "-A", "benchmarks.jobs:app", "worker"]
        with subprocess.Popen([*command, *map(str, options)], stderr=subprocess.DEVNULL) as child:
            try:
                yield child
            finally:
                child.send_signal(signal.SIGTERM)

    def served(self) -> float:
        """CPU seconds of its server so far."""
        return 0.0 if self.server is None else cpu(tree(psutil.Process(self.server)))

    def rest(self) -> None:
        """Wait until the server is done with what it does later: Redis rewrites its log, RabbitMQ writes to disk."""
        until = time.monotonic() + WAIT
        busy = self.server is not None
        while busy and time.monotonic() < until:
            before = self.served()
            time.sleep(REST)
            busy = self.served() - before > IDLE * REST

    def marked(self, count: int) -> list[tuple[float, float]]:
        """What count jobs have marked since the last call, or will soon: some run beside the last one."""
        until = time.monotonic() + WAIT
        while number_of_marks(self.folder / "marks") < count and time.monotonic() < until:
            time.sleep(0.05)
        return self.marks()

    def marks(self) -> list[tuple[float, float]]:
        """What jobs have marked since the last call."""
        return marks(self.folder / "marks")


@contextlib.contextmanager
def opened(name: str, jobs: int, backlog: int) -> Iterator[Place]:
    """A fresh broker of that kind, and kq's app set up for it."""
    with tempfile.TemporaryDirectory(prefix="kq-bench-") as where, contextlib.ExitStack() as stack:
        folder = Path(where)
        os.environ["XDG_STATE_HOME"] = where
        os.environ[MARKS] = str(folder / "marks")
        (folder / "marks").touch()
        url, hand, server = _broker(name, folder, stack)
        app.close()
        app.configure(url=url)
        try:
            yield Place(name, url, folder, hand, server, jobs, backlog)
        finally:
            app.close()


def _broker(name: str, folder: Path, stack: contextlib.ExitStack) -> tuple[str, Loop, int | None]:
    match name:
        case "memory":
            return f"memory://bench{time.time_ns()}", MemoryLoop(), None
        case "sqlite":
            return f"sqlite:///{folder}/kq.db", SQLiteLoop(folder / "hand.db"), None
        case "redis":
            redis = stack.enter_context(RedisServer())
            return redis.url, RedisLoop(redis.url), redis.pid
    rabbit = stack.enter_context(RabbitServer())
    return rabbit.url, RabbitLoop(rabbit.url), rabbit.pid


def fill(jobs: int, kind: kq.JobType[..., Any] = nothing) -> None:
    """Submit so many jobs of a kind, in bulk."""
    for first in range(0, jobs, BULK):
        app.submit_many(kind.job(TEXT) for _ in range(min(BULK, jobs - first)))


def drained(worker: Running, jobs: int, submit: Callable[[], object], end: kq.JobType[..., Any] = last) -> Cost:
    """What each of the jobs that submit() submits costs worker; all of them wait when it begins.

    end: a job that comes after all of them.
    """
    with kq.Control(app) as control:
        control.pause("default")
        control.ping()  # who answers has obeyed
        submit()
        handle = end.submit()
        cpu, server, wall = worker.cpu(), worker.place.served(), time.perf_counter()
        control.resume("default")
    handle.result(timeout=WAIT)
    now, served = time.perf_counter(), worker.place.served()
    return Cost((worker.cpu() - cpu) / jobs, (now - wall) / jobs, (served - server) / jobs)


def clear() -> None:
    """Leave no job waiting."""
    with app.broker.connection() as connection:
        connection.default_channel.queue_purge("default")
