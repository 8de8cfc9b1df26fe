"""One execution of one job, the same in every pool: what it is called with, and what is told of its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Coroutine
from typing import Any

from msgspec.structs import replace

from kq.app import App
from kq.effects.context import CurrentJob, running
from kq.effects.observer import UNWATCHED, Watching
from kq.effects.observer import Execution as Observed
from kq.errors import MessageError, Retry, SoftTimeout
from kq.jobtype import JobType
from kq.values.failure import laid_out, names_of
from kq.values.job import Counters
from kq.values.message import decode_body, encode_result
from kq.values.outcome import Rules
from kq.values.policy import from_data
from kq.values.record import RESULT_LIMIT
from kq.values.redaction import both_ends
from kq.worker.gauge import Gauge
from kq.worker.sleep import new_loop
from kq.worker.wire import BESET, DONE, INTERRUPTED, RAISED, RETRY, UNUSABLE, Circumstances, Ended, Run, frame
from kq.worker.workbench import Workbench

#: A traceback longer than this is cut in the middle; so is a message.
TRACEBACK_LIMIT = 16_000
MESSAGE_LIMIT = 2_000

_OURS = os.path.dirname(__file__) + os.sep


class Beset(asyncio.CancelledError):
    """Another job has cancelled what this one waited for: nothing is known against it."""


class Execution:
    """A job from now on, in this context, until its end() is told. slot: where it writes on the page.

    gauge: measures what it costs.
    """

    __slots__ = ("_app", "_began", "_gauge", "_job", "_process", "_run", "_token", "_watching")

    def __init__(self, bench: Workbench, run: Run, slot: int, gauge: Gauge) -> None:
        self._app, self._run, self._gauge = bench.app, run, gauge
        self._process = bench.footing.process
        self._began = time.monotonic()
        until = self._began + run.timeout
        slate = bench.page.slates[slot]
        self._job = CurrentJob(run.id, run.type, run.queue, run.attempt, until, bench.footing, run.degraded_by, slate)
        self._token = running.set(self._job)
        seen = run.circumstances
        self._watching = UNWATCHED if seen is None else _watched(bench.app, run, seen, self._job)

    def prepare(self) -> tuple[JobType[..., Any], Any, dict[str, Any]]:
        """The job's type and the arguments to call it with. Raises MessageError when it can't be run as it is."""
        run = self._run
        job_type = self._app.jobs.get(run.type)
        if job_type is None:
            raise MessageError(f"this worker does not know the job type {run.type!r}")
        args, kwargs = decode_body(run.body)
        try:
            return job_type, *job_type.signature.convert(args, kwargs)
        except TypeError as error:
            raise MessageError(str(error)) from None

    def end_if_forked(self, error: BaseException | None) -> None:
        """End a process that the job forked and that came back from the job: it is no executor."""
        if os.getpid() == self._process:
            return
        code = error.code if isinstance(error, SystemExit) else error
        os._exit(code if isinstance(code, int) else int(code is not None))

    @property
    def emits(self) -> bool:
        """Whether finish() may have to wait."""
        return self._job.emits

    def finish(self) -> None:
        """Write down what it emitted, before its end is told; end() does it otherwise."""
        self._job.finish()

    def end(self, value: Any, error: BaseException | None) -> bytes:
        """It returned value, or raised error: no more the current job. Returns what to send of that."""
        self._job.finish()
        encoded, error = _result(self._run, value, error)
        self._watching.end(error)
        running.reset(self._token)
        job, staged, took = self._job, self._job.end(), time.monotonic() - self._began
        cpu, rss = self._gauge.measure(took)
        ended = Ended(
            self._run.seq, DONE, encoded, took=took, staged=staged, log=job.log, effects=job.effects, cpu=cpu, rss=rss
        )
        told = _told(ended, error)
        if error is not None:
            # Its traceback knows the frame that called us, and that knows it: without this all that the job had would
            # be there until somebody looks for such garbage, after many jobs.
            BaseException.with_traceback(error, None)
        return told


def uninterrupted(execute: Callable[[Run], bytes], run: Run) -> bytes:
    """execute(run), also when the interruption comes in the last moment, outside its try."""
    try:
        return execute(run)
    except SoftTimeout as error:
        return _told(Ended(run.seq, DONE), error)


def run_here(
    coroutine: Coroutine[Any, Any, Any],
    loops: list[asyncio.AbstractEventLoop],
    started: Callable[[asyncio.AbstractEventLoop, asyncio.Task[Any]], None],
) -> Any:
    """Run a coroutine to its end in this thread's event loop, which is kept for the next one.

    started: is told of the loop and of the coroutine's task.
    """
    if not loops:
        loops.append(new_loop())
    task = loops[0].create_task(coroutine)
    started(loops[0], task)
    try:
        return loops[0].run_until_complete(task)
    except BaseException as error:
        if isinstance(error, SoftTimeout) or not task.done():
            # The loop was left in the middle of a step, by an interruption or by a task of the job's own that exits;
            # what is in it must not go on in the next job.
            _end_loop(loops.pop())
        raise


def _end_loop(loop: asyncio.AbstractEventLoop) -> None:
    while tasks := asyncio.all_tasks(loop):
        for task in tasks:
            task.cancel()
        with contextlib.suppress(
            SystemExit, KeyboardInterrupt
        ):  # each that exits leaves the loop, and the others in it
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()


def _watched(app: App, run: Run, seen: Circumstances, job: CurrentJob) -> Watching:
    """job from now on, by those who observe app."""
    known = app.jobs.get(run.type)
    policy = None if seen.retry_policy is None else from_data(seen.retry_policy)
    rules = (Rules() if known is None else known.rules).but(policy, seen.fallback, app.most_retries)
    counters = Counters(seen.failed, seen.lost, seen.infra)
    return app.observers.running(Observed(job, seen.headers, len(run.body), seen.priority, rules, counters))


def _result(run: Run, value: Any, error: BaseException | None) -> tuple[bytes, BaseException | None]:
    """What an execution that returned value, or raised error, came to: a result as JSON, or an error.

    Never raises: much of it is the job's own code again, what its result does when it is encoded.
    """
    if error is not None:
        return b"", error
    try:
        return _encoded(run, value), None
    except BaseException as wrong:
        return b"", wrong


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


def _told(ended: Ended, error: BaseException | None) -> bytes:
    """What to send of an execution that ended well, or raised error. Never raises, for it is asked only once, and what
    its error says of itself is the job's own code again.
    """
    try:
        return frame(ended if error is None else _failed(ended, error))
    except BaseException:
        what = "it ended with an error that cannot be described: its class, its str() or its delay is broken"
        return frame(Ended(ended.seq, RAISED, b"", ("Exception", "BaseException"), what, took=ended.took))


def _failed(ended: Ended, error: BaseException) -> Ended:
    """The same execution, which raised error: what it staged is not submitted."""
    kind = _kind(error)
    text, where = _description(error)
    return replace(
        ended,
        kind=kind,
        names=names_of(error),
        message=text,
        traceback="" if kind == UNUSABLE else where,
        delay=Retry(delay=error.delay).delay if isinstance(error, Retry) else None,  # it may have been set to anything
        staged=(),
    )


def _kind(error: BaseException) -> str:
    if isinstance(error, MessageError):
        return UNUSABLE
    if isinstance(error, Beset):
        return BESET
    if isinstance(error, Retry):
        return RETRY
    return INTERRUPTED if isinstance(error, SoftTimeout) else RAISED


def _description(error: BaseException) -> tuple[str, str]:
    """What it says, and its traceback from the job's own frames on, without those of the worker that called it."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_OURS):
        frames = frames.tb_next
    told = laid_out(error, frames, TRACEBACK_LIMIT)
    text = _cut(str(told), MESSAGE_LIMIT)
    try:
        return text, _cut("".join(told.format()), TRACEBACK_LIMIT)
    except BaseException:
        return text, ""


def _cut(text: str, limit: int) -> str:
    return both_ends(text, limit, "\n…\n").encode("utf-8", "replace").decode()
