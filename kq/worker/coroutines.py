"""Jobs as coroutines of one event loop, at most as many at a time as the page has slots: `--pool async`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sys
import threading
from collections import deque
from collections.abc import Coroutine
from contextvars import copy_context
from typing import Any, cast

from kq.aside import aside
from kq.effects.context import CurrentJob, running
from kq.worker.execution import Beset, Execution
from kq.worker.gates import Gates
from kq.worker.gauge import among_coroutines, among_threads
from kq.worker.sleep import new_loop
from kq.worker.threads import Aim, execute
from kq.worker.wire import Frames, Order, Run, come
from kq.worker.workbench import Workbench

log = logging.getLogger("kq.worker")


def run_in_loop(bench: Workbench) -> None:
    """Run what is ordered until the supervisor says leave or is gone."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        loop = runner.get_loop()
        work = _Own(_Loop(bench).run(), loop=loop)
        while not work.done():
            try:
                loop.run_until_complete(work)
            except BaseException:
                # A task that some job began exits, and who waits for it is told; or a job stopped the loop. Nobody
                # else's job ends for that.
                if work.done() or loop.is_closed():
                    raise


class _Own(asyncio.Task[None]):
    """A task that no job but its own can cancel: one that cancels all that there are takes nobody along.

    What a job has begun besides is its own affair: a client that several share is closed by one of them.
    """

    #: Whose it is, once that has begun.
    job: CurrentJob | None = None
    #: Another job wanted to cancel it, and may have cancelled what it waits for.
    beset = ""

    def cancel(self, msg: object = None) -> bool:
        other = running.get()
        if other is None or other is self.job:
            return super().cancel(msg)
        if not self.beset:
            self.beset = f"{other.type} {other.id}"
            if self.job is not None:
                log.warning("it cancelled %s %s, which is not its own and goes on", self.job.type, self.job.id)
        return False


class _Loop:
    """Runs jobs as tasks of the event loop that it is in. Plain functions run in threads."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._sock = bench.sock
        self._free = list(range(bench.page.slots))
        self._told: list[int] = []  # slots whose jobs are over, but nobody heard of it yet
        self._waiting: deque[Run] = deque()
        self._tasks = bench.coroutines  # kept there: the loop alone would let them be collected
        self._plain: queue.SimpleQueue[tuple[Run, int]] = queue.SimpleQueue()
        self._in_threads = 0  # jobs there
        self._threads = 0
        self._back: deque[tuple[int, Run, bytes]] = deque()  # what has ended there: its slot, and what to tell
        self._called = False  # whether the loop knows that something is back
        self._aim = Aim()
        self._gates: Gates[Run] = Gates()
        self._gauge = among_coroutines()
        self._out = bytearray()
        self._flushing = False
        self._full = False  # whether the socket had no room for all of it
        self._context = copy_context()  # what no job has set anything in
        self._over = asyncio.Event()

    async def run(self) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._sock.setblocking(False)
        frames = Frames()

        def readable() -> None:
            if (data := come(self._sock)) is None:
                return
            if not data:
                loop.remove_reader(self._sock.fileno())
                self._over.set()
            for each in frames.feed(data):
                self._obey(self._bench.understood(each))

        loop.add_reader(self._sock.fileno(), readable)
        while not self._over.is_set():
            with contextlib.suppress(asyncio.CancelledError):  # a job cancels all tasks that there are
                await self._over.wait()
        self._bench.leave()
        self._flush()

    def _obey(self, order: Order) -> None:
        self._waiting += [run for run in order.run if not run.limit or self._gates.enter(run, run.queue, run.limit)]
        self._start()
        if order.interrupt:
            self._aim.interrupt(order.interrupt)
        if order.leave:
            self._over.set()

    def _start(self) -> None:
        while self._free and self._waiting:
            run = self._waiting.popleft()
            if not self._bench.may_begin(run, min(len(self._free) - 1, len(self._waiting))):
                self._leave(run)
                continue
            slot = self._free.pop()
            self._bench.page.mark(slot, run.seq)
            job_type = self._bench.app.jobs.get(run.type)
            if job_type is not None and job_type.asynchronous:
                self._bench.page.sit(slot)
                _begin(self._loop, self._execute(run, slot))
            else:
                self._send_away(run, slot)

    async def _execute(self, run: Run, slot: int) -> None:
        self._tasks[slot] = own = cast("_Own", asyncio.current_task())
        execution = Execution(self._bench, run, slot, self._gauge)
        own.job = running.get()
        error: BaseException | None = None
        value: Any = None
        try:
            job_type, args, kwargs = execution.prepare()
            self._aim.begin(run.seq, own.cancel)
            value = await job_type.function(*args, **kwargs)
        except BaseException as raised:
            error = raised
        execution.end_if_forked(error)
        error = self._aim.end(run.seq, error)
        if own.beset and isinstance(error, asyncio.CancelledError):
            error = Beset(f"it waited for what {own.beset} has cancelled")
        if execution.emits:
            await aside(execution.finish)
        self._ended(slot, run, execution.end(value, error))

    # Plain functions.

    def _send_away(self, run: Run, slot: int) -> None:
        """Let a thread run it; there are as many as ever were busy at a time."""
        self._in_threads += 1
        if self._in_threads > self._threads:
            self._threads += 1
            threading.Thread(target=self._work, name=f"kq-{self._threads}", daemon=True).start()
        self._plain.put((run, slot))

    def _work(self) -> None:
        loops: list[asyncio.AbstractEventLoop] = []
        gauge = among_threads()
        while True:
            run, slot = self._plain.get()
            self._bench.page.sit(slot)
            self._back.append((slot, run, execute(self._bench, self._aim, loops, slot, run, gauge)))
            # The loop is woken once for all that is back by then: a wake-up costs more than a short job.
            if not self._called:
                self._called = True
                self._loop.call_soon_threadsafe(self._take_back)

    def _take_back(self) -> None:
        self._called = False  # before looking: what comes later calls again
        while self._back:
            self._in_threads -= 1
            self._ended(*self._back.popleft())

    # Ends.

    def _leave(self, run: Run) -> None:
        if run.limit and (following := self._gates.leave(run.queue, run.limit)) is not None:
            self._waiting.append(following)

    def _ended(self, slot: int, run: Run, data: bytes) -> None:
        """Tell of the end of the job in slot, together with others of this round of the loop."""
        self._leave(run)
        self._told.append(slot)
        self._out += data
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._send, context=self._context)  # others begin there

    def _send(self) -> None:
        """Send what has gathered in this round of the loop, in one system call; then their slots are free."""
        try:
            sent = self._sock.send(self._out)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._over.set()
            return
        del self._out[:sent]
        if self._out:
            self._loop.add_writer(self._sock.fileno(), self._send)
            self._full = True
            return
        if self._full:
            self._loop.remove_writer(self._sock.fileno())
            self._full = False
        self._flushing = False
        self._free += self._told
        self._told.clear()
        self._start()

    def _flush(self) -> None:
        if self._out:
            self._sock.setblocking(True)
            self._sock.sendall(self._out)


if sys.version_info >= (3, 12):

    def _begin(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run it as a task of loop, here and now until it waits for something."""
        _Own(coroutine, loop=loop, eager_start=True)

else:

    def _begin(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run it as a task of loop, in its next round."""
        _Own(coroutine, loop=loop)
