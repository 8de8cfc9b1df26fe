"""Workers for tests: real programs that can be killed, stopped and looked into; a thread where nothing is shared."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Protocol

import psutil

from kq.app import App
from kq.conformance.contract.processes import born_of, ended, executors_of, lives, nurseries, tree, variable
from kq.conformance.contract.waiting import eventually
from kq.state.store import StoreUnreachable, Write
from kq.worker import Worker
from kq.worker.pool import PoolKind

log = logging.getLogger("kq.conformance")

#: Marks the environment of all that a crew starts, so that what is left behind is found.
MARK = "KQ_CONTRACT_CREW"
#: Only root may read the environment, and with it the mark, of processes that are not debuggable.
DEBUGGABLE = os.geteuid() != 0
#: Seconds that a worker has to be ready, and to end.
PATIENCE = 30.0


class Hand(Protocol):
    """One worker, as a program or as a thread."""

    @property
    def supervisor(self) -> psutil.Process: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...


class Program:
    """`kq worker`, or another verb that goes on, as people run it."""

    def __init__(
        self,
        where: str,
        folder: Path,
        environment: dict[str, str],
        arguments: Iterable[str],
        others_write: Callable[[], bool],
    ) -> None:
        """others_write: whether other processes may write into the state store now."""
        self._others_write = others_write
        self.log = folder / f"worker-{uuid.uuid4().hex[:6]}.log"
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kq", "-A", where, *arguments],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.supervisor = psutil.Process(self.process.pid)

    def ready(self, times: int = 1) -> Program:
        """Wait until it takes jobs."""
        eventually(lambda: self._is_ready(times), "the worker is ready", PATIENCE)
        return self

    def _is_ready(self, times: int) -> bool:
        assert self.process.poll() is None, f"the worker ended: {self.said()}"
        return self.said().count(" ready: ") >= times

    def said(self) -> str:
        """All that it and its executors have written."""
        return self.log.read_text(errors="replace")

    def tree(self) -> list[psutil.Process]:
        """The supervisor, the nursery, the executors and what jobs started."""
        return tree(self.supervisor)

    def executors(self) -> list[psutil.Process]:
        """The processes that run jobs."""
        return executors_of(self.supervisor)

    def send(self, number: int) -> None:
        """Send the supervisor a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9 of the whole tree."""
        for process in self.tree():
            ended(process.kill)
        self.process.wait(PATIENCE)

    def pause(self) -> None:
        """Stop the whole tree, as a machine that is suspended."""
        self._freeze(self.tree)

    def pause_supervisor(self) -> None:
        """Stop the supervisor alone."""
        self._freeze(lambda: [self.supervisor])

    def _freeze(self, processes: Callable[[], list[psutil.Process]]) -> None:
        """Stop them at a moment at which they write into no file: that would stop all who share it."""
        while True:
            for process in processes():
                ended(process.suspend)
            if self._others_write():
                return
            for process in reversed(processes()):
                ended(process.resume)

    def resume(self) -> None:
        """Undo pause(), executors first: what could end them in time wakes up after them."""
        for process in reversed(self.tree()):
            ended(process.resume)

    def stop(self) -> None:
        """TERM, and wait until it has ended."""
        self.send(signal.SIGTERM)
        self.wait()

    def wait(self) -> int:
        """Its exit code, when it has ended."""
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        """End it without mercy."""
        if self.process.poll() is None:
            self.kill()
        log.warning("%s:\n%s", self.log.name, self.said())


class Thread:
    """A worker in a thread of this program, with the same executors."""

    def __init__(
        self,
        app: App,
        where: str,
        queues: list[str],
        concurrency: int,
        pool: PoolKind,
        grace: float,
        *,
        debuggable: bool = False,
    ) -> None:
        before = set(nurseries(psutil.Process()))
        self._worker = Worker(
            app,
            queues=queues,
            concurrency=concurrency,
            pool=pool,
            grace=grace,
            where=where,
            debuggable=debuggable,
        )
        self._worker.start()
        (self._nursery,) = set(nurseries(psutil.Process())) - before
        self._over = False

    @property
    def supervisor(self) -> psutil.Process:
        return psutil.Process()

    def executors(self) -> list[psutil.Process]:
        """The processes that run jobs."""
        return born_of(self._nursery)

    def stop(self) -> None:
        """Finish what runs within the grace, and end."""
        self._over = True
        self._worker.stop(PATIENCE)

    def close(self) -> None:
        """End it at once."""
        if not self._over:
            self._worker.supervisor.ask(self._worker.supervisor.stop)
            self.stop()


class Crew:
    """Starts workers for one test and ends them after it."""

    def __init__(self, app: App, where: str, queue: str, folder: Path, environment: dict[str, str]) -> None:
        self._app, self._where, self._queue, self._folder = app, where, queue, folder
        self._mark = uuid.uuid4().hex
        self._environment = {
            **os.environ,
            **environment,
            MARK: self._mark,
            "KQ_WORKER_DEBUGGABLE": str(DEBUGGABLE).lower(),
        }
        self._environment["PYTHONPATH"] = os.pathsep.join(each for each in sys.path if each)
        self._hands: list[Program | Thread] = []

    def worker(
        self,
        *arguments: str,
        concurrency: int = 1,
        pool: PoolKind = "process",
        grace: float = 10.0,
        queues: str = "",
        debuggable: bool = DEBUGGABLE,
    ) -> Program | Thread:
        """A worker that is ready: a program where other processes see the broker, else a thread of this one."""
        if self._app.broker.traits.shared:
            settings = {"KQ_WORKER_DEBUGGABLE": str(debuggable).lower()}
            return self.program(
                *arguments, concurrency=concurrency, pool=pool, grace=grace, queues=queues, settings=settings
            )
        names = (queues or self._queue).split(",")
        hand = Thread(self._app, self._where, names, concurrency, pool, grace, debuggable=debuggable)
        self._hands.append(hand)
        return hand

    def program(
        self,
        *arguments: str,
        concurrency: int = 1,
        pool: PoolKind = "process",
        grace: float = 10.0,
        queues: str = "",
        ready: bool = True,
        ahead: float = 0.0,
        url: str = "",
        settings: Mapping[str, str] | None = None,
    ) -> Program:
        """A worker that is a program. arguments: more for its command line. ahead: seconds by which its clock is.

        url: another way to the broker. settings: more variables of its environment.
        """
        words = ["-c", str(concurrency), "--pool", pool, "--grace", str(grace), "-Q", queues or self._queue]
        environment = self._with_wrong_clock(ahead) if ahead else self._environment
        environment = {**environment, **({"KQ_URL": url} if url else {}), **(settings or {})}
        program = Program(self._where, self._folder, environment, ["worker", *words, *arguments], self._others_write)
        self._hands.append(program)
        return program.ready() if ready else program

    def control(self) -> Program:
        """`kq control`, which may not have begun."""
        program = Program(self._where, self._folder, self._environment, ["control"], self._others_write)
        self._hands.append(program)
        return program

    def _others_write(self) -> bool:
        try:
            with closing(self._app.open_store(0.5)) as store:
                store.write([Write("crew", b"writes", 1.0)])
        except StoreUnreachable:
            return False
        return True

    def _with_wrong_clock(self, ahead: float) -> dict[str, str]:
        """Our environment, but for the clock of every Python in it."""
        folder = self._folder / f"ahead by {ahead:g}"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(
            f"import time\nright = time.time\ntime.time = lambda: right() + {ahead}\n"
        )
        return {**self._environment, "PYTHONPATH": f"{folder}{os.pathsep}{self._environment['PYTHONPATH']}"}

    def start(self, code: str, *arguments: str) -> subprocess.Popen[str]:
        """Another program, python code, whose output can be read."""
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
        )

    def left_behind(self) -> list[psutil.Process]:
        """Processes that this crew started and that still live."""
        return [each for each in psutil.process_iter() if variable(each, MARK) == self._mark and lives(each)]

    def close(self) -> None:
        """End all workers; fails when a process stays behind."""
        for hand in self._hands:
            hand.close()
        until = time.monotonic() + 5.0
        while left := self.left_behind():
            if time.monotonic() > until:
                for process in left:
                    ended(process.kill)
                raise AssertionError(f"processes left behind: {left}")
            time.sleep(0.02)
