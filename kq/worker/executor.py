"""An executor: the process that runs jobs' code, and may be killed at any time.

It talks to its supervisor over one socket and never to the broker. Three stages run jobs: one
after the other in the main thread (`process`), in threads (`thread`), or as coroutines of one event loop (`async`).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import logging
import os
import queue
import signal
import socket
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from types import FrameType
from typing import Any, TypeAlias

import msgspec

from kq.app import App
from kq.context import CurrentJob, Footing, running
from kq.errors import MessageError, Retry, SoftTimeout
from kq.failure import names_of
from kq.job import Counters
from kq.jobtype import JobType
from kq.logging import Handler
from kq.message import Envelope, decode_body, encode_result
from kq.observer import UNWATCHED, Execution, Watching
from kq.outcome import Rules
from kq.policy import from_data
from kq.record import RESULT_LIMIT
from kq.worker.kin import adopt_orphans, living_children, reap_until
from kq.worker.lapse import Sight
from kq.worker.slate import Slate
from kq.worker.wire import (
    DONE,
    INTERRUPTED,
    RAISED,
    RETRY,
    UNUSABLE,
    Claims,
    Ended,
    Frames,
    Order,
    Page,
    Run,
    frame,
    read_frame,
)

Staged: TypeAlias = tuple[Envelope, ...]

_decode_order = msgspec.msgpack.Decoder(Order).decode

#: A traceback longer than this is cut in the middle; so is a message.
TRACEBACK_LIMIT = 16_000
MESSAGE_LIMIT = 2_000
#: Seconds that an executor has for its last breath.
LEAVE_WITHIN = 5.0
#: What the supervisor decides about; a signal to the whole group must not cut jobs short.
DEAF_TO = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def run_executor(app: App, sock: socket.socket, page: Page, claims: Claims, sight: Sight, pool: str) -> None:
    """Run jobs until the supervisor says leave or is gone."""
    stages: dict[str, Callable[[App, socket.socket, Page, Claims, Footing], None]] = {
        "process": _serially,
        "thread": _in_threads,
        "async": _in_loop,
    }
    be_deaf()
    signal.signal(signal.SIGCONT, partial(_woken, sight))
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    os.register_at_fork(
        # What is sent to a child before it is an ordinary process waits until then.
        before=partial(signal.pthread_sigmask, signal.SIG_BLOCK, DEAF_TO),
        after_in_parent=partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, DEAF_TO),
        after_in_child=partial(_let_go, sock),
    )
    keep_log(page, Handler(app))
    stages[pool](app, sock, page, claims, Footing(app, lapse=lambda: sight.moment))
    app.observers.close()


def keep_log(page: Page, teller: Handler) -> None:
    """Let page, the job that logs it and teller have every line that Python's logging makes, whatever else is done."""
    make = logging.getLogRecordFactory()

    def make_and_keep(*args: Any, **more: Any) -> logging.LogRecord:
        record = make(*args, **more)
        with contextlib.suppress(Exception):  # a message that can't be formatted is the logger's to complain of
            line = f"{time.strftime('%H:%M:%S')} {record.levelname} {record.name}: {record.getMessage()}\n"
            line += "".join(traceback.format_exception(*record.exc_info) if record.exc_info else ())
            page.remember(line)
            if (job := running.get()) is not None:
                job.keep(line)
                teller.emit(record)
        return record

    logging.setLogRecordFactory(make_and_keep)


def be_deaf() -> None:
    """Do nothing on signals that ask to end. Not SIG_IGN: programs that jobs start would inherit that."""
    for number in DEAF_TO:
        signal.signal(number, lambda number, at: None)


def _woken(sight: Sight, number: int, at: FrameType | None) -> None:
    """All of us were frozen, the nursery too: when the lease ended meanwhile not a step more, others go on with it."""
    if time.monotonic() >= sight.moment:
        os.killpg(0, signal.SIGKILL)


def _let_go(sock: socket.socket) -> None:
    """Be an ordinary process: one that a job forked must not speak for its executor, nor hide that it died."""
    sock.close()
    for number in DEAF_TO:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, DEAF_TO)


def _leave() -> None:
    """End, whatever threads or an event loop still do."""
    threading.Timer(LEAVE_WITHIN, os._exit, (0,)).start()


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


def result_of(run: Run, value: Any, error: BaseException | None) -> tuple[bytes, BaseException | None]:
    """What an execution that returned value, or raised error, came to: a result as JSON, or an error.

    Never raises: much of it is the job's own code again, what its result does when it is encoded.
    """
    if error is not None:
        return b"", error
    try:
        return _encoded(run, value), None
    except BaseException as wrong:
        return b"", wrong


def told(
    run: Run, began: float, error: BaseException | None, value: bytes = b"", staged: Staged = (), log: str = ""
) -> bytes:
    """What to send of an execution that came to value, and staged jobs, or raised error, and logged log. Never raises,
    for it is asked only once, and what its error says of itself is the job's own code again.
    """
    try:
        return frame(ended(run, began, error, value, staged, log))
    except BaseException:
        what = "it ended with an error that cannot be described: its class, its str() or its delay is broken"
        return frame(Ended(run.seq, RAISED, b"", ("Exception", "BaseException"), what, took=time.monotonic() - began))


def ended(run: Run, began: float, error: BaseException | None, value: bytes, staged: Staged, log: str) -> Ended:
    took = time.monotonic() - began
    if error is None:
        return Ended(run.seq, DONE, value, took=took, staged=staged, log=log)
    kind = _kind(error)
    delay = Retry(delay=error.delay).delay if isinstance(error, Retry) else None  # it may have been set to anything
    text = _cut(_safe_str(error), MESSAGE_LIMIT)
    where = "" if kind == UNUSABLE else _traceback(error)
    return Ended(run.seq, kind, b"", names_of(error), text, where, delay, took, log=log)


def _encoded(run: Run, value: Any) -> bytes:
    """A result as JSON."""
    try:
        encoded = encode_result(value)
    except Exception as wrong:
        raise TypeError(f"{run.type} returned what JSON cannot carry: {wrong}") from wrong
    if len(encoded) > RESULT_LIMIT:
        size = f"{len(encoded):,} bytes, more than {RESULT_LIMIT:,}"
        raise ValueError(f"{run.type} returned {size}; store it elsewhere and return its name")
    return encoded


def _kind(error: BaseException) -> str:
    if isinstance(error, MessageError):
        return UNUSABLE
    if isinstance(error, Retry):
        return RETRY
    return INTERRUPTED if isinstance(error, SoftTimeout) else RAISED


def _safe_str(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as worse:
        return f"<str() of it raised {type(worse).__name__}>"


def _traceback(error: BaseException) -> str:
    """The traceback from the job's own frames on, without kq's."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    try:
        return _cut("".join(traceback.format_exception(type(error), error, frames)), TRACEBACK_LIMIT)
    except BaseException:
        return ""


def _cut(text: str, limit: int) -> str:
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= limit else f"{text[: limit // 2]}\n…\n{text[-limit // 2 :]}"


def _current(run: Run, began: float, footing: Footing, slate: Slate) -> CurrentJob:
    until = began + run.timeout
    return CurrentJob(run.id, run.type, run.queue, run.attempt, until, footing, run.degraded_by, slate)


def _watched(app: App, run: Run, job: CurrentJob) -> Watching:
    """job from now on, by those who observe app."""
    seen, known = run.circumstances, app.jobs.get(run.type)
    if seen is None:
        return UNWATCHED
    policy = None if seen.retry_policy is None else from_data(seen.retry_policy)
    rules = (Rules() if known is None else known.rules).but(policy, seen.fallback)
    counters = Counters(seen.failed, seen.lost, seen.infra)
    return app.observers.running(Execution(job, seen.headers, len(run.body), seen.priority, rules, counters))


def _may_begin(run: Run, claims: Claims) -> bool:
    """Whether the supervisor has not taken this job back."""
    try:
        return claims.claim(run.seq)
    except OSError:
        os._exit(1)  # a job closed what was not its own


def _end_if_forked(parent: int, error: BaseException | None) -> None:
    """End a process that a job forked and that came back from the job: it is no executor."""
    if os.getpid() == parent:
        return
    code = error.code if isinstance(error, SystemExit) else error
    os._exit(code if isinstance(code, int) else int(code is not None))


# Stage one: one job after the other in the main thread, which signals reach.


def _serially(app: App, sock: socket.socket, page: Page, claims: Claims, footing: Footing) -> None:
    current = 0
    interrupted = False
    loops: list[asyncio.AbstractEventLoop] = []
    me = os.getpid()
    adopt_orphans()  # so that all that jobs start hangs on this process, and ends with it

    def interrupt(number: int, at: FrameType | None) -> None:
        nonlocal interrupted
        # The signal may come late, in another job: only the one it was meant for is interrupted.
        if current and page.interrupt == current:
            interrupted = True
            raise SoftTimeout("the job ran past its timeout")

    def execute(run: Run) -> bytes:
        nonlocal current
        began = time.monotonic()
        job = _current(run, began, footing, page.slates[0])
        token = running.set(job)
        watching = _watched(app, run, job)
        error: BaseException | None = None
        value: Any = None
        try:
            current = run.seq
            job_type, args, kwargs = prepare(app, run)
            value = job_type.function(*args, **kwargs)
            if job_type.asynchronous:
                value = _run_here(value, loops)
        except BaseException as raised:
            error = raised
        finally:
            current = 0
        _end_if_forked(me, error)
        encoded, error = result_of(run, value, error)
        watching.end(error)
        running.reset(token)
        return told(run, began, error, encoded, job.end(), job.log)

    while (data := read_frame(sock)) is not None:
        order = _decode_order(data)
        footing.worker = order.worker or footing.worker
        signal.signal(signal.SIGUSR1, interrupt)  # each time: a job may have put its own in its place
        for run in order.run:
            if not _may_begin(run, claims):
                continue
            page.mark(0, run.seq)
            page.forget()
            sock.sendall(_uninterrupted(execute, run))
            if interrupted and living_children():
                return  # what the interrupted job started ends with this process
            interrupted = False
        if order.leave:
            break
        reap_until(sock)  # no job is left to ask how those that it adopted have ended
    _leave()


def _uninterrupted(execute: Callable[[Run], bytes], run: Run) -> bytes:
    """execute(run), also when the interruption comes in the last moment, outside its try."""
    try:
        return execute(run)
    except SoftTimeout as error:
        return told(run, time.monotonic(), error)


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


class _Aim:
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

    def end(self, seq: int) -> bool:
        """The job is over; returns whether it was interrupted. While this waits nobody aims at a thread that leaves."""
        with self._guard:
            self._running.pop(seq, None)
            meant = seq in self._meant
            self._meant.discard(seq)
        return meant


def _raise_here() -> Callable[[], object]:
    """What raises SoftTimeout in this thread at its next bytecode. C code that does not return is not reached."""
    thread, error = ctypes.c_ulong(threading.get_ident()), ctypes.py_object(SoftTimeout)
    return partial(ctypes.pythonapi.PyThreadState_SetAsyncExc, thread, error)


def _in_threads(app: App, sock: socket.socket, page: Page, claims: Claims, footing: Footing) -> None:
    waiting: queue.SimpleQueue[Run] = queue.SimpleQueue()
    taking = threading.Lock()
    sending = threading.Lock()
    aim = _Aim()

    def work(slot: int) -> None:
        loops: list[asyncio.AbstractEventLoop] = []
        while True:
            with taking:  # jobs are claimed in the order in which they were sent
                run = waiting.get()
                mine = _may_begin(run, claims)
            if not mine:
                continue
            page.mark(slot, run.seq)
            data = _uninterrupted(partial(_in_thread, app, aim, footing, loops, page.slates[slot]), run)
            try:
                with sending:
                    sock.sendall(data)
            except OSError:
                os._exit(1)  # the supervisor is gone, or a job closed what was not its own

    for slot in range(page.slots):
        threading.Thread(target=work, args=(slot,), name=f"kq-{slot}", daemon=True).start()
    while (data := read_frame(sock)) is not None:
        order = _decode_order(data)
        footing.worker = order.worker or footing.worker
        for run in order.run:
            waiting.put(run)
        if order.interrupt:
            aim.interrupt(order.interrupt)
        if order.leave:
            break
    _leave()


def _in_thread(
    app: App, aim: _Aim, footing: Footing, loops: list[asyncio.AbstractEventLoop], slate: Slate, run: Run
) -> bytes:
    began, me = time.monotonic(), os.getpid()
    job = _current(run, began, footing, slate)
    token = running.set(job)
    watching = _watched(app, run, job)
    error: BaseException | None = None
    value: Any = None

    def begun(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        # It may sleep in its event loop, where an exception would not find it.
        aim.begin(run.seq, partial(loop.call_soon_threadsafe, task.cancel))

    try:
        job_type, args, kwargs = prepare(app, run)
        if job_type.asynchronous:
            value = _run_here(job_type.function(*args, **kwargs), loops, begun)
        else:
            aim.begin(run.seq, _raise_here())
            value = job_type.function(*args, **kwargs)
    except BaseException as raised:
        error = raised
    _end_if_forked(me, error)
    encoded, error = result_of(run, value, _meant(error, aim.end(run.seq)))
    watching.end(error)
    running.reset(token)
    return told(run, began, error, encoded, job.end(), job.log)


def _meant(error: BaseException | None, interrupted: bool) -> BaseException | None:
    """error; a cancellation that was ours as the interruption that it stands for."""
    ours = interrupted and isinstance(error, asyncio.CancelledError)
    return SoftTimeout("the job ran past its timeout") if ours else error


# Stage three: coroutines.


def _in_loop(app: App, sock: socket.socket, page: Page, claims: Claims, footing: Footing) -> None:
    asyncio.run(_Stage(app, sock, page, claims, footing).run())


class _Stage:
    """Runs jobs as tasks of one event loop, at most `slots` at a time. Plain functions run in threads."""

    def __init__(self, app: App, sock: socket.socket, page: Page, claims: Claims, footing: Footing) -> None:
        self._app = app
        self._sock = sock
        self._page = page
        self._claims = claims
        self._me = os.getpid()
        self._free = list(range(page.slots))
        self._told: list[int] = []  # slots whose jobs are over, but nobody heard of it yet
        self._waiting: deque[Run] = deque()
        self._tasks: dict[int, asyncio.Task[None]] = {}  # by slot: the loop alone would let them be collected
        self._plain: queue.SimpleQueue[tuple[Run, int]] = queue.SimpleQueue()
        self._in_threads = 0  # jobs there
        self._threads = 0
        self._back: deque[tuple[int, bytes]] = deque()  # what has ended there: its slot, and what to tell
        self._called = False  # whether the loop knows that something is back
        self._aim = _Aim()
        self._footing = footing
        self._out = bytearray()
        self._flushing = False
        self._over = asyncio.Event()

    async def run(self) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._sock.setblocking(False)
        frames = Frames()

        def readable() -> None:
            try:
                data = self._sock.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                loop.remove_reader(self._sock.fileno())
                self._over.set()
            for each in frames.feed(data):
                self._obey(_decode_order(each))

        loop.add_reader(self._sock.fileno(), readable)
        await self._over.wait()
        _leave()
        self._flush()

    def _obey(self, order: Order) -> None:
        self._footing.worker = order.worker or self._footing.worker
        self._waiting += order.run
        self._start()
        if order.interrupt:
            self._aim.interrupt(order.interrupt)
        if order.leave:
            self._over.set()

    def _start(self) -> None:
        while self._free and self._waiting:
            run = self._waiting.popleft()
            if not _may_begin(run, self._claims):
                continue
            slot = self._free.pop()
            self._page.mark(slot, run.seq)
            job_type = self._app.jobs.get(run.type)
            if job_type is not None and job_type.asynchronous:
                self._tasks[slot] = self._loop.create_task(self._execute(run, slot))
            else:
                self._send_away(run, slot)

    async def _execute(self, run: Run, slot: int) -> None:
        began = time.monotonic()
        job = _current(run, began, self._footing, self._page.slates[slot])
        running.set(job)
        watching = _watched(self._app, run, job)
        error: BaseException | None = None
        value: Any = None
        try:
            job_type, args, kwargs = prepare(self._app, run)
            self._aim.begin(run.seq, self._tasks[slot].cancel)
            value = await job_type.function(*args, **kwargs)
        except BaseException as raised:
            error = raised
        _end_if_forked(self._me, error)
        encoded, error = result_of(run, value, _meant(error, self._aim.end(run.seq)))
        watching.end(error)
        self._ended(slot, told(run, began, error, encoded, job.end(), job.log))

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
        while True:
            run, slot = self._plain.get()
            slate = self._page.slates[slot]
            data = _uninterrupted(partial(_in_thread, self._app, self._aim, self._footing, loops, slate), run)
            self._back.append((slot, data))
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

    def _ended(self, slot: int, data: bytes) -> None:
        """Tell of the end of the job in slot, together with others of this round of the loop."""
        self._told.append(slot)
        self._out += data
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._send)

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
            return
        self._loop.remove_writer(self._sock.fileno())
        self._flushing = False
        self._free += self._told
        self._told.clear()
        self._start()

    def _flush(self) -> None:
        if self._out:
            self._sock.setblocking(True)
            self._sock.sendall(self._out)
