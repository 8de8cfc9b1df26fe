"""An executor: the process that runs jobs' code, and may be killed at any time.

It talks to its supervisor over one socket and never to the broker. Three stages run jobs: one
after the other in the main thread (`process`), in threads (`thread`), or as coroutines of one event loop (`async`).
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import FrameType
from typing import Any

import msgspec

from kq.app import App
from kq.context import CurrentJob, running
from kq.errors import BadJob, BadNetwork, BadStorage, Bury, MessageError, Retry, SoftTimeout
from kq.jobtype import JobType
from kq.message import decode_body
from kq.policy import error_name
from kq.worker.wire import (
    BURY,
    DONE,
    HINDERED,
    INTERRUPTED,
    RAISED,
    RETRY,
    UNUSABLE,
    Ended,
    Frames,
    Order,
    Page,
    Run,
    frame,
    read_frame,
)

_decode_order = msgspec.msgpack.Decoder(Order).decode
_encode_json = msgspec.json.Encoder().encode

#: A traceback longer than this is cut in the middle; so is a message.
TRACEBACK_LIMIT = 16_000
MESSAGE_LIMIT = 2_000


def run_executor(app: App, sock: socket.socket, page: Page, pool: str, slots: int) -> None:
    """Run jobs until the supervisor says leave or is gone."""
    stages: dict[str, Callable[[App, socket.socket, Page, int], None]] = {
        "process": _serially,
        "thread": _in_threads,
        "async": _in_loop,
    }
    # The supervisor decides when we end; a signal to the whole group must not cut jobs short.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    stages[pool](app, sock, page, slots)


# One job's execution, the same in every stage.


def prepare(app: App, run: Run) -> tuple[JobType[..., Any], Any, dict[str, Any]]:
    """The job's type and the arguments to call it with. Raises MessageError when it can't be run as it is."""
    job_type = app.jobs.get(run.type)
    if job_type is None:
        raise MessageError(f"this worker does not know the job type {run.type!r}")
    args, kwargs = decode_body(run.body)
    try:
        return job_type, *job_type.signature.convert(args, kwargs)
    except TypeError as error:
        raise MessageError(str(error)) from None


def ended(run: Run, began: float, error: BaseException | None, value: Any = None) -> Ended:
    """What to tell the supervisor of an execution that returned value or raised error."""
    took = time.monotonic() - began
    if error is None:
        try:
            return Ended(run.seq, DONE, _encode_json(value), took=took)
        except (TypeError, RecursionError, ValueError) as wrong:
            error = TypeError(f"{run.type} returned what JSON cannot carry: {wrong}")
    kind = _kind(error)
    delay = error.delay if isinstance(error, Retry) else None
    names = tuple(error_name(each) for each in type(error).__mro__ if issubclass(each, BaseException))
    text = _cut(_safe_str(error), MESSAGE_LIMIT)
    return Ended(run.seq, kind, b"", names, text, "" if kind == UNUSABLE else _traceback(error), delay, took)


def _kind(error: BaseException) -> str:
    if isinstance(error, MessageError):
        return UNUSABLE
    if isinstance(error, Retry):
        return RETRY
    if isinstance(error, BadJob | Bury):
        return BURY
    if isinstance(error, BadStorage | BadNetwork):
        return HINDERED
    return INTERRUPTED if isinstance(error, SoftTimeout) else RAISED


def _safe_str(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as worse:
        return f"<str() of it raised {type(worse).__name__}>"


def _traceback(error: BaseException) -> str:
    """The traceback from the job's own frames on, without kq's."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    try:
        return _cut("".join(traceback.format_exception(type(error), error, frames)), TRACEBACK_LIMIT)
    except Exception:
        return ""


def _cut(text: str, limit: int) -> str:
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= limit else f"{text[: limit // 2]}\n…\n{text[-limit // 2 :]}"


def _current(run: Run, began: float) -> CurrentJob:
    return CurrentJob(run.id, run.type, run.queue, run.attempt, began + run.timeout)


# Stage one: one job after the other in the main thread, which signals reach.


def _serially(app: App, sock: socket.socket, page: Page, slots: int) -> None:
    current = 0
    loops: list[asyncio.AbstractEventLoop] = []

    def interrupt(number: int, at: FrameType | None) -> None:
        # The signal may come late, in another job: only the one it was meant for is interrupted.
        if current and page.interrupt == current:
            page.interrupt = 0
            raise SoftTimeout("the job ran past its timeout")

    def execute(run: Run) -> Ended:
        nonlocal current
        began = time.monotonic()
        token = running.set(_current(run, began))
        try:
            job_type, args, kwargs = prepare(app, run)
            page.mark(0, run.seq)
            current = run.seq
            value = job_type.function(*args, **kwargs)
            if job_type.asynchronous:
                value = _run_here(value, loops)
            current = 0
            return ended(run, began, None, value)
        except BaseException as error:
            current = 0
            return ended(run, began, error)
        finally:
            current = 0
            running.reset(token)
            page.mark(0, 0)

    signal.signal(signal.SIGUSR1, interrupt)
    while (data := read_frame(sock)) is not None:
        order = _decode_order(data)
        for run in order.run:
            sock.sendall(frame(_uninterrupted(execute, run)))
        if order.leave:
            return


def _uninterrupted(execute: Callable[[Run], Ended], run: Run) -> Ended:
    """execute(run), also when the interruption comes in the last moment, outside its try."""
    try:
        return execute(run)
    except SoftTimeout as error:
        return ended(run, time.monotonic(), error)


def _run_here(
    coroutine: Coroutine[Any, Any, Any],
    loops: list[asyncio.AbstractEventLoop],
    started: Callable[[asyncio.AbstractEventLoop, asyncio.Task[Any]], None] = lambda loop, task: None,
) -> Any:
    """Run a coroutine to its end in this thread's event loop, which is kept for the next one.

    started: is told of the loop and of the coroutine's task.
    """
    if not loops:
        loops.append(asyncio.new_event_loop())
    task = loops[0].create_task(coroutine)
    started(loops[0], task)
    try:
        return loops[0].run_until_complete(task)
    except SoftTimeout:
        # The loop was left in the middle of a step; its tasks must not go on in the next job.
        _end_loop(loops.pop())
        raise


def _end_loop(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()


# Stage two: threads.


def _in_threads(app: App, sock: socket.socket, page: Page, slots: int) -> None:
    _Threads(app, sock, page, slots).run()


class _Threads:
    """Runs jobs in as many threads as there are slots."""

    def __init__(self, app: App, sock: socket.socket, page: Page, slots: int) -> None:
        self._app = app
        self._sock = sock
        self._page = page
        self._slots = slots
        self._waiting: queue.SimpleQueue[Run] = queue.SimpleQueue()
        self._sending = threading.Lock()
        self._busy: dict[int, Callable[[], object]] = {}  # seq → what interrupts it
        self._interrupted: set[int] = set()
        self._guard = threading.Lock()

    def run(self) -> None:
        for slot in range(self._slots):
            threading.Thread(target=self._work, args=(slot,), name=f"kq-{slot}", daemon=True).start()
        while (data := read_frame(self._sock)) is not None:
            order = _decode_order(data)
            for run in order.run:
                self._waiting.put(run)
            if order.interrupt:
                self._interrupt(order.interrupt)
            if order.leave:
                return

    def _interrupt(self, seq: int) -> None:
        with self._guard:
            if seq in self._busy:
                self._interrupted.add(seq)
                self._busy[seq]()

    def _work(self, slot: int) -> None:
        loops: list[asyncio.AbstractEventLoop] = []
        while True:
            run = self._waiting.get()
            try:
                self._tell(self._execute(run, slot, loops))
            except SoftTimeout as error:  # the interruption came in the last moment
                self._tell(ended(run, time.monotonic(), error))

    def _tell(self, message: Ended) -> None:
        with self._sending:
            self._sock.sendall(frame(message))

    def _execute(self, run: Run, slot: int, loops: list[asyncio.AbstractEventLoop]) -> Ended:
        began = time.monotonic()
        token = running.set(_current(run, began))
        error: BaseException | None = None
        value: Any = None

        def cancellable(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
            # It may sleep in its event loop, where an exception would not find it.
            self._busy[run.seq] = partial(loop.call_soon_threadsafe, task.cancel)

        try:
            job_type, args, kwargs = prepare(self._app, run)
            self._page.mark(slot, run.seq)
            if job_type.asynchronous:
                value = _run_here(job_type.function(*args, **kwargs), loops, cancellable)
            else:
                self._busy[run.seq] = partial(_raise_in, threading.get_ident(), SoftTimeout)
                value = job_type.function(*args, **kwargs)
        except asyncio.CancelledError as cancelled:
            error = SoftTimeout("the job ran past its timeout") if run.seq in self._interrupted else cancelled
        except BaseException as raised:
            error = raised
        # Under the guard nobody aims an interruption at this thread while it leaves the job.
        with self._guard:
            self._busy.pop(run.seq, None)
            self._interrupted.discard(run.seq)
        self._page.mark(slot, 0)
        running.reset(token)
        return ended(run, began, error, value)


def _raise_in(thread: int, error: type[BaseException]) -> None:
    """Raise error in another thread at its next bytecode. C code that does not return is not reached."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


# Stage three: coroutines.


def _in_loop(app: App, sock: socket.socket, page: Page, slots: int) -> None:
    asyncio.run(_Stage(app, sock, page, slots).run())


class _Stage:
    """Runs jobs as tasks of one event loop, at most `slots` at a time. Plain functions run in threads."""

    def __init__(self, app: App, sock: socket.socket, page: Page, slots: int) -> None:
        self._app = app
        self._sock = sock
        self._page = page
        self._slots = slots
        self._free = list(range(slots))
        self._waiting: list[Run] = []
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._interrupted: set[int] = set()
        self._threads: dict[int, int] = {}  # of plain functions: seq → thread id
        self._guard = threading.Lock()
        self._out = bytearray()
        self._flushing = False
        self._over = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(self._slots, "kq"))
        self._sock.setblocking(False)
        frames = Frames()

        def readable() -> None:
            try:
                data = self._sock.recv(1 << 16)
            except BlockingIOError:
                return
            if not data:
                self._over.set()
            for each in frames.feed(data):
                self._obey(_decode_order(each))

        loop.add_reader(self._sock.fileno(), readable)
        await self._over.wait()
        await self._flush()

    def _obey(self, order: Order) -> None:
        self._waiting += order.run
        self._start()
        if order.interrupt in self._tasks:
            self._interrupt(order.interrupt)
        if order.leave:
            self._over.set()

    def _interrupt(self, seq: int) -> None:
        with self._guard:
            thread = self._threads.get(seq)
            if thread is not None:
                # Not by cancelling its task: the function would go on, and nobody would know.
                _raise_in(thread, SoftTimeout)
                return
        self._interrupted.add(seq)
        self._tasks[seq].cancel()

    def _start(self) -> None:
        while self._free and self._waiting:
            run = self._waiting.pop(0)
            self._tasks[run.seq] = asyncio.get_running_loop().create_task(self._execute(run, self._free.pop()))

    async def _execute(self, run: Run, slot: int) -> None:
        began = time.monotonic()
        running.set(_current(run, began))
        error: BaseException | None = None
        value: Any = None
        try:
            job_type, args, kwargs = prepare(self._app, run)
            self._page.mark(slot, run.seq)
            if job_type.asynchronous:
                value = await job_type.function(*args, **kwargs)
            else:
                value = await asyncio.to_thread(self._call, run.seq, job_type.function, args, kwargs)
        except asyncio.CancelledError as cancelled:
            error = cancelled
            if run.seq in self._interrupted:
                error = SoftTimeout("the job ran past its timeout")
        except BaseException as raised:
            error = raised
        self._page.mark(slot, 0)
        self._interrupted.discard(run.seq)
        del self._tasks[run.seq]
        self._free.append(slot)
        self._out += frame(ended(run, began, error, value))
        self._start()
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._send)

    def _call(self, seq: int, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """A plain function, in a thread of its own turn."""
        with self._guard:
            self._threads[seq] = threading.get_ident()
        try:
            return function(*args, **kwargs)
        finally:
            with self._guard:
                del self._threads[seq]

    def _send(self) -> None:
        """Send what has gathered in this round of the loop, in one system call."""
        try:
            sent = self._sock.send(self._out)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._over.set()
            return
        del self._out[:sent]
        if self._out:
            asyncio.get_running_loop().call_later(0.001, self._send)
        else:
            self._flushing = False

    async def _flush(self) -> None:
        if self._out:
            self._sock.setblocking(True)
            self._sock.sendall(self._out)


def die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends (Linux), and check that it has not already."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
