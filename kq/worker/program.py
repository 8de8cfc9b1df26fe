"""Workers as programs and as objects: signals, threads, several processes, new code."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import FrameType, TracebackType

from kq.app import App
from kq.broker import answer_time
from kq.clock import SYSTEM
from kq.errors import ConfigError, KqError
from kq.loading import whereabouts
from kq.outcome import Outcome
from kq.worker.pool import Pool, PoolKind, Task
from kq.worker.relay import answer_calls
from kq.worker.supervisor import Plan, Supervisor

log = logging.getLogger("kq.worker")

#: How many jobs a worker of each kind runs at a time when nobody says.
CONCURRENCY: dict[str, int] = {"process": os.cpu_count() or 2, "thread": 10, "async": 100}


class Worker:
    """A worker for app's jobs: `run()` it as a program, or let it work in the background of this one.

        with kq.Worker(app): ...

    queues: names, or names and how many jobs of each may run at a time; all queues of the app's job types
        by default. concurrency: how many jobs run at a time in all.
    pool: "process": each job in a process of its own turn, the default; "thread"; "async".
    grace: seconds that running jobs get to finish when the worker is stopped.
    max_jobs, max_rss: an executor that has run so many jobs, or holds so many bytes, is replaced; 0: never.
    where: "module:app" for the executors to import; found out by default.
    """

    def __init__(
        self,
        app: App,
        *,
        queues: Mapping[str, int] | Sequence[str] | None = None,
        concurrency: int | None = None,
        pool: PoolKind = "process",
        grace: float = 30.0,
        max_jobs: int = 0,
        max_rss: int = 0,
        where: str | None = None,
    ) -> None:
        if pool not in CONCURRENCY:
            raise ConfigError(f"there is no pool {pool!r}; use one of {', '.join(CONCURRENCY)}")
        named = dict(queues) if isinstance(queues, Mapping) else None
        size = concurrency or (sum(named.values()) if named else CONCURRENCY[pool])
        if size < 1:
            raise ConfigError(f"a worker can't run {size} jobs at a time; use 1 or more")
        limits = (
            {queue: min(limit, size) for queue, limit in named.items()} if named else dict.fromkeys(queues or (), size)
        )
        self.app = app
        place = where or whereabouts(app)

        def make_pool(on_end: Callable[[Task, Outcome], None]) -> Pool:
            address = app.address
            return Pool(
                place,
                address.url,
                address.state,
                pool,
                size,
                SYSTEM,
                on_end,
                max_jobs=max_jobs,
                max_rss=max_rss,
                relay=None if app.broker.traits.shared else partial(answer_calls, app),
            )

        plan = Plan(app.name, limits, size, app.lease, grace, app.keep)
        self._store = app.open_store(answer_time(app.broker, app.lease))
        self.supervisor = Supervisor(plan, app.broker, self._store, make_pool)
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._reload = False

    # As an object.

    def start(self) -> None:
        """Work in a thread of this program. Returns when the application is imported; raises KqError when it is not."""
        self.supervisor.on_ready = self._ready.set
        self._thread = threading.Thread(target=self._run_in_thread, name="kq-worker", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise self._error

    def stop(self, timeout: float | None = None) -> None:
        """Finish what runs, give back the rest, and end the thread. timeout: seconds to wait, for ever by default."""
        self.supervisor.ask(self.supervisor.stop)
        if self._thread is not None:
            self._thread.join(timeout)

    def __enter__(self) -> Worker:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _work(self) -> None:
        try:
            self.supervisor.run()
        finally:
            self._store.close()

    def _run_in_thread(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._error = error
            if self._ready.is_set():
                log.exception("the worker ended")
        finally:
            self._ready.set()

    # As a program.

    def run(self) -> None:
        """Work until a signal says stop, in the main thread.

        TERM or INT: finish within the grace, give back the rest; again: kill and give back. HUP: the same, then
        begin anew with new code. USR1: log what runs, with stacks. USR2: kill the executor that is longest at its job.
        """
        supervisor = self.supervisor
        actions: dict[int, Callable[[], None]] = {
            signal.SIGTERM: supervisor.stop,
            signal.SIGINT: supervisor.stop,
            signal.SIGHUP: self._renew,
            signal.SIGUSR1: supervisor.dump,
            signal.SIGUSR2: supervisor.kill_stuck,
        }

        def on_signal(number: int, at: FrameType | None) -> None:
            supervisor.ask(actions[number])

        for number in actions:
            signal.signal(number, on_signal)
        signal.set_wakeup_fd(supervisor.wakeup, warn_on_full_buffer=False)
        try:
            self._work()
        finally:
            signal.set_wakeup_fd(-1)
        if self._reload:
            log.warning("starting anew with new code")
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])

    def _renew(self) -> None:
        self._reload = True
        self.supervisor.stop()


class Processes:
    """Several workers side by side, each a process of its own; one that dies is started again."""

    def __init__(self, command: Sequence[str], count: int) -> None:
        self._command = list(command)
        self._count = count
        self._children: list[subprocess.Popen[bytes]] = []
        self._stopping = False

    def run(self) -> int:
        """Until all have ended; returns 0, or the exit code of a worker that could not start."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self._pass_on)
        self._children = [self._start() for _ in range(self._count)]
        code = 0
        while self._children:
            pid, status = os.wait()
            ended = [child for child in self._children if child.pid == pid]
            self._children = [child for child in self._children if child.pid != pid]
            for child in ended:
                child.returncode = os.waitstatus_to_exitcode(status)
                if child.returncode > 0:
                    # It ended by itself, with an error that starting again would only repeat.
                    code = code or child.returncode
                    self._pass_on(signal.SIGTERM, None)
                elif not self._stopping:
                    time.sleep(0.2)
                    self._children.append(self._start())
        return code

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command)

    def _pass_on(self, number: int, at: FrameType | None) -> None:
        self._stopping = self._stopping or number in (signal.SIGTERM, signal.SIGINT)
        for child in self._children:
            child.send_signal(number)


def run(
    app: App,
    *,
    queues: Mapping[str, int] | Sequence[str] | None = None,
    concurrency: int | None = None,
    pool: PoolKind = "process",
    grace: float = 30.0,
    max_jobs: int = 0,
    max_rss: int = 0,
    where: str | None = None,
) -> None:
    """Make a Worker and run it until a signal says stop. Raises KqError when it can't start."""
    Worker(
        app,
        queues=queues,
        concurrency=concurrency,
        pool=pool,
        grace=grace,
        max_jobs=max_jobs,
        max_rss=max_rss,
        where=where,
    ).run()


__all__ = ["CONCURRENCY", "KqError", "Processes", "Worker", "run"]
