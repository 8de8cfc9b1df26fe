"""Where jobs are, in an executor: told to the supervisor when it asks, without stopping anything.

It asks by a signal, twice. At the first Python's own handler says where the one job is that is meant, the task of a
coroutine too: this waits for its turn like any Python code, so nothing changes while it looks. Where that does not
come, because C code keeps the interpreter or does not come back from a call, the second lets C code write down the
stacks of all threads at once (faulthandler). Then nobody moves them either.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from types import FrameType
from typing import Any, TypeAlias

from kq.worker.wire import Page

#: Both do nothing to a process that does not expect them. With SIGUSR1 and SIGUSR2 executors are told other things.
ASKED, SHOWN = signal.SIGURG, signal.SIGWINCH
#: So many of the innermost calls are told, as faulthandler does.
DEEPEST = 100

#: The task of each slot that runs a coroutine, or ran one last.
Coroutines: TypeAlias = Mapping[int, "asyncio.Task[Any]"]


def look_out(page: Page, coroutines: Coroutines, pool: str) -> None:
    """Answer from now on, in the main thread."""
    signal.signal(ASKED, partial(_tell, page, coroutines))
    # What a job's C code waits for goes on. In a pool of threads the main thread waits for orders, and is to be woken.
    signal.siginterrupt(ASKED, pool == "thread")
    faulthandler.register(SHOWN, file=page.descriptor, all_threads=True)


def _tell(page: Page, coroutines: Coroutines, number: int, at: FrameType | None) -> None:
    slot = page.slot_of(page.asked)
    if slot is None:
        return  # it has ended
    task = coroutines.get(slot)
    frames = [] if task is None or task.done() else list(_awaiting(task.get_coro()))
    if not frames:
        thread = page.thread(slot)
        here = at if thread == threading.get_ident() else sys._current_frames().get(thread)
        frames = list(_called(here))[::-1]
    told = [(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname) for frame in frames[-DEEPEST:]]
    with contextlib.suppress(OSError):  # a job closed what was not its own
        os.write(page.descriptor, json.dumps(told).encode() + b"\n")


def _called(frame: FrameType | None) -> Iterator[FrameType]:
    """frame and those that called it, the innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _awaiting(coroutine: Any) -> Iterator[FrameType]:
    """The frames of a coroutine that waits, and of those that it waits for; none of one that goes on just now."""
    while coroutine is not None and not getattr(coroutine, "cr_running", False):
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            yield frame
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
