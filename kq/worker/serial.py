"""One job after the other in an executor's main thread, which signals reach: `--pool process`."""

from __future__ import annotations

import asyncio
import signal
import time
from contextvars import copy_context
from types import FrameType
from typing import Any

from kq.errors import SoftTimeout
from kq.worker.execution import Execution, run_here, uninterrupted
from kq.worker.gauge import SHORT, alone
from kq.worker.kin import adopt_orphans, living_children, reap_until
from kq.worker.surroundings import Surroundings
from kq.worker.wire import Run
from kq.worker.workbench import Workbench


def run_serially(bench: Workbench) -> None:
    """Run what is ordered until the supervisor says leave or is gone."""
    current = 0
    interrupted = False
    loops: list[asyncio.AbstractEventLoop] = []
    bench.page.sit(0)
    gauge = alone()
    adopt_orphans()  # so that all that jobs start hangs on this process, and ends with it

    def interrupt(number: int, at: FrameType | None) -> None:
        nonlocal interrupted
        # The signal may come late, in another job: only the one it was meant for is interrupted.
        if current and bench.page.interrupt == current:
            interrupted = True
            raise SoftTimeout("the job ran past its timeout")

    def begun(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        bench.coroutines[0] = task

    def execute(run: Run) -> bytes:
        nonlocal current
        execution = Execution(bench, run, 0, gauge)
        error: BaseException | None = None
        value: Any = None
        try:
            current = run.seq
            interrupt(signal.SIGUSR1, None)  # it may have come while nothing was here that it was meant for
            job_type, args, kwargs = execution.prepare()
            value = copy_context().run(job_type.function, *args, **kwargs)
            if job_type.asynchronous:
                value = run_here(value, loops, begun)
        except BaseException as raised:
            error = raised
        finally:
            current = 0
            bench.coroutines.clear()  # its result is not kept
        execution.end_if_forked(error)
        return execution.end(value, error)

    surroundings = Surroundings()
    while (order := bench.order()) is not None:
        signal.signal(signal.SIGUSR1, interrupt)  # each time: a job may have put its own in its place
        for run in order.run:
            if not bench.may_begin(run):
                continue
            began = time.monotonic()
            bench.page.mark(0, run.seq)
            bench.page.forget()
            told = uninterrupted(execute, run)
            long = time.monotonic() - began > SHORT
            bench.sock.sendall(told)
            if interrupted and living_children():
                return  # what the interrupted job started ends with this process
            interrupted = False
            if long and not surroundings.restore():
                return  # what it was given besides goes to another
        if order.leave:
            break
        reap_until(bench.sock)  # no job is left to ask how those that it adopted have ended
    bench.leave()
