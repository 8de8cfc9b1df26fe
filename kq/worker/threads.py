"""Jobs in the threads of one executor, as many at a time as its page has slots: `--pool thread`."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import copy_context
from functools import partial
from typing import Any

from kq.errors import SoftTimeout
from kq.worker.execution import Execution, run_here, uninterrupted
from kq.worker.gates import Gates
from kq.worker.gauge import SHORT, Gauge, among_threads
from kq.worker.wire import Run
from kq.worker.workbench import Workbench

#: Ends of short jobs are told together, as long as others wait here, so many at most.
MANY = 64

# Raises an exception in a thread at its next bytecode. C code that does not return is not reached.
_raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
_raise_in.argtypes = (ctypes.c_ulong, ctypes.py_object)


class Aim:
    """How each running job is interrupted, so that an interruption meets the job that it is meant for, or none."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._running: dict[int, Callable[[], object]] = {}
        self._meant: set[int] = set()

    def begin(self, seq: int, interrupt: Callable[[], object]) -> None:
        """The job runs from now on, and interrupt() interrupts it."""
        with self._guard:
            self._running[seq] = interrupt
            early = seq in self._meant
        if early:
            interrupt()

    def interrupt(self, seq: int) -> None:
        """Interrupt the job, now or as soon as it begins."""
        with self._guard:
            self._meant.add(seq)
            if seq in self._running:
                with contextlib.suppress(RuntimeError):  # its event loop was closed just now
                    self._running[seq]()

    def end(self, seq: int, error: BaseException | None) -> BaseException | None:
        """The job is over, with error; a cancellation that was ours comes back as the interruption that it stands for.

        While this waits nobody aims at a thread that leaves.
        """
        with self._guard:
            self._running.pop(seq, None)
            meant = seq in self._meant
            self._meant.discard(seq)
        ours = meant and isinstance(error, asyncio.CancelledError)
        return SoftTimeout("the job ran past its timeout") if ours else error


class Teller:
    """What has ended, on its way to the supervisor. To send each short job's end by itself costs more than the job."""

    def __init__(self, bench: Workbench) -> None:
        self._sock = bench.sock
        self._sending, self._ordering = threading.Lock(), threading.Lock()
        self._gathered: deque[bytes] = deque()
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._called = False

    def gather(self, data: bytes, then: Callable[[], None] | None) -> None:
        """Tell of one end soon: with the next that is told, or when there is time for it. then() before other ends."""
        if then is None:
            self._gathered.append(data)
        else:
            with self._ordering:  # not where somebody sends: who waits for that lets all others go first
                self._gathered.append(data)
                then()
        if len(self._gathered) >= MANY:
            self.tell(b"")
        elif not self._called:
            self._called = True
            self._calls.put(None)

    def tell(self, data: bytes, then: Callable[[], None] | None = None) -> None:
        """Tell of one end now, after those that were gathered; then() before anything else is told."""
        try:
            with self._sending:
                if words := b"".join([*self._taken(), data]):
                    self._sock.sendall(words)
                if then is not None:
                    then()
        except OSError:
            os._exit(1)  # the supervisor is gone, or a job closed what was not its own

    def tell_gathered(self) -> None:
        """Tell of what is gathered while jobs go on, for ever. A thread of its own waits no longer than Python lets it:
        5 ms beside others that compute, not at all beside such as wait.
        """
        while True:
            self._calls.get()
            self._called = False  # before looking: what comes later calls again
            self.tell(b"")

    def _taken(self) -> Iterator[bytes]:
        while self._gathered:
            yield self._gathered.popleft()


def run_in_threads(bench: Workbench) -> None:
    """Run what is ordered until the supervisor says leave or is gone."""
    waiting: queue.SimpleQueue[Run] = queue.SimpleQueue()
    claiming = threading.Lock()
    gates: Gates[Run] = Gates()
    aim, teller = Aim(), Teller(bench)

    def leave(run: Run) -> None:
        if (following := gates.leave(run.queue, run.limit)) is not None:
            waiting.put(following)

    def work(slot: int) -> None:
        loops: list[asyncio.AbstractEventLoop] = []
        bench.page.sit(slot)
        gauge = among_threads()
        while True:
            run = waiting.get()
            with claiming:
                mine = bench.may_begin(run)
            if not mine:
                leave(run)
                continue
            bench.page.mark(slot, run.seq)
            began = time.monotonic()
            data = execute(bench, aim, loops, slot, run, gauge)
            # Who follows does so in the order in which ends are told.
            then = partial(leave, run) if run.limit else None
            if time.monotonic() - began > SHORT:
                teller.tell(data, then)
            else:
                teller.gather(data, then)
                if waiting.empty():
                    teller.tell(b"")

    threading.Thread(target=teller.tell_gathered, name="kq-ends", daemon=True).start()
    for slot in range(bench.page.slots):
        threading.Thread(target=work, args=(slot,), name=f"kq-{slot}", daemon=True).start()
    while (order := bench.order()) is not None:
        for run in order.run:
            if gates.enter(run, run.queue, run.limit):
                waiting.put(run)
        if order.interrupt:
            aim.interrupt(order.interrupt)
        if order.leave:
            break
    bench.leave()


def execute(
    bench: Workbench, aim: Aim, loops: list[asyncio.AbstractEventLoop], slot: int, run: Run, gauge: Gauge
) -> bytes:
    """Run a job in this thread, whose event loop is in loops and whose gauge that is; returns what to send of it."""
    return uninterrupted(partial(_execute, bench, aim, loops, slot, gauge), run)


def _execute(
    bench: Workbench, aim: Aim, loops: list[asyncio.AbstractEventLoop], slot: int, gauge: Gauge, run: Run
) -> bytes:
    execution = Execution(bench, run, slot, gauge)
    error: BaseException | None = None
    value: Any = None

    def begun(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        bench.coroutines[slot] = task
        # It may sleep in its event loop, where an exception would not find it.
        aim.begin(run.seq, partial(loop.call_soon_threadsafe, task.cancel))

    try:
        job_type, args, kwargs = execution.prepare()
        if job_type.asynchronous:
            value = run_here(job_type.function(*args, **kwargs), loops, begun)
        else:
            aim.begin(run.seq, partial(_raise_in, threading.get_ident(), SoftTimeout))
            value = copy_context().run(job_type.function, *args, **kwargs)
    except BaseException as raised:
        error = raised
    bench.coroutines.pop(slot, None)  # its result is not kept
    execution.end_if_forked(error)
    return execution.end(value, aim.end(run.seq, error))
