"""An application for tests of workers: what kq's own contract application does not do."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import time
from contextvars import ContextVar
from itertools import repeat
from typing import Any

from click import get_current_context

from kq.app import App
from kq.conformance.contract import diary
from kq.conformance.contract.jobs import QUEUE, Jobs, hold, noted
from kq.control import Control
from kq.effects.context import current_job
from kq.errors import BadNetwork, SoftTimeout
from kq.values.policy import Never
from kq.worker.lookout import ASKED

WHERE = f"{__name__}:app"


class Odd(Jobs):
    """The contract's job types, and some more."""

    def __init__(self, app: App) -> None:
        super().__init__(app)
        self.tidy = app.job(name="tidy", on_timeout="bury")(tidy)
        self.tidy_async = app.job(name="tidy_async", on_timeout="bury")(tidy_async)
        self.frozen = app.job(name="frozen", on_timeout="bury")(frozen)
        self.burn = app.job(name="burn", retry_policy=Never())(burn)
        self.burn_async = app.job(name="burn_async")(burn_async)
        self.blocks_loop = app.job(name="blocks_loop")(blocks_loop)
        self.deaf_async = app.job(name="deaf_async")(deaf_async)
        self.sink = app.job(name="sink")(sink)
        self.slow_once = app.job(name="slow_once")(slow_once)
        self.dismissed = app.job(name="dismissed", on_timeout="revoke")(tidy)
        self.hog = app.job(name="hog")(hog)
        self.about_itself = app.job(name="about_itself")(about_itself)
        self.cut_off = app.job(name="cut_off")(cut_off)
        self.surroundings = app.job(name="surroundings")(surroundings)
        self.litter = app.job(name="litter", retry_policy=Never())(litter)
        self.litter_async = app.job(name="litter_async", retry_policy=Never())(litter_async)
        self.looks = app.job(name="looks", retry_policy=Never())(looks)
        self.leaves_word = app.job(name="leaves_word")(leaves_word)
        self.leaves_word_async = app.job(name="leaves_word_async")(leaves_word_async)
        self.submits_apart = app.job(name="submits_apart")(submits_apart)


_word: ContextVar[str] = ContextVar("word", default="")


def leaves_word(word: str) -> str:
    """What was left in its context before it left word there."""
    found = _word.get()
    _word.set(word)
    return found


async def leaves_word_async(word: str) -> str:
    return leaves_word(word)


class Litter:
    """Makes a file of that name when nobody has it any more."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __del__(self) -> None:
        open(self.path, "w").close()


def litter(path: str) -> None:
    """Fail with litter in one's hands, where nobody looks for garbage."""
    gc.disable()
    held = Litter(path)
    raise ValueError(f"as asked, with {held}")


async def litter_async(path: str) -> None:
    litter(path)


def tidy() -> None:
    """Wait for ever; say so when interrupted."""
    with noted(""):
        try:
            while True:
                time.sleep(0.01)
        except SoftTimeout:
            say("tidied")
            raise


async def tidy_async() -> None:
    with noted(""):
        try:
            await asyncio.sleep(600)
        except (SoftTimeout, asyncio.CancelledError):
            say("tidied")
            raise


def frozen() -> None:
    """Hold the interpreter's lock for ever, in C code that looks at no signal."""
    with noted(""):
        all(repeat(True))


def burn(seconds: float, fails: bool = False) -> None:
    """Use so much processor time, and as much again for sleep."""
    with noted(""):
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass
        time.sleep(seconds)
        if fails:
            raise ValueError("as asked")


async def burn_async(seconds: float) -> None:
    burn(seconds)


async def blocks_loop() -> None:
    """Let no other coroutine come to its turn, nor any signal."""
    with noted(""):
        all(repeat(True))


async def deaf_async() -> None:
    """Await something for long, and answer nobody who asks where this is."""
    with noted(""):
        signal.signal(ASKED, signal.SIG_IGN)
        await asyncio.sleep(600)


def sink(depth: int, gate: str) -> int:
    """Call itself so often, then hold."""
    return sink(depth - 1, gate) if depth else hold(gate)


def slow_once() -> str:
    """Hang at the first attempt only."""
    with noted("") as attempt:
        if attempt == 1:
            time.sleep(600)
        return "at last"


def hog(size: int) -> int:
    """Take so many bytes, and keep them; returns the process that did it."""
    with noted(""):
        kept.append(b"x" * size)
    return os.getpid()


def about_itself() -> dict[str, Any]:
    job = current_job()
    assert job is not None
    return {"id": job.id, "type": job.type, "queue": job.queue, "attempt": job.attempt}


def looks(queue: str) -> tuple[int, int]:
    """How many jobs of queue wait, as a job sees it, and how many workers there are."""
    with Control(app) as control:
        return next(each.ready for each in control.queues() if each.name == queue), len(control.workers())


def submits_apart(queue: str) -> str:
    """Submit a job by an app with connections of its own; returns its id."""
    other = app.apart()
    try:
        return other.submit(app.jobs["note"].options(queue=queue).job()).id
    finally:
        other.close()


def cut_off() -> None:
    with noted(""):
        raise BadNetwork("no route")


def surroundings() -> dict[str, Any]:
    """What a job finds about it, as far as that hangs on how its executor was born."""
    handlers = {number.name: signal.getsignal(number) for number in signal.Signals}
    log = logging.getLogger("kq.worker")
    return {
        "its parent imported the application": os.getppid() == IMPORTED_BY,
        "leads a session": os.getsid(0) == os.getpid(),
        "looks for garbage": gc.get_threshold(),
        "logs": [type(each).__name__ for each in logging.getLogger("kq").handlers] + [log.getEffectiveLevel()],
        "stands in a command": get_current_context(silent=True) is not None,
        "signals": {name: getattr(found, "__qualname__", type(found).__name__) for name, found in handlers.items()},
        "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "descriptors": sorted(map(_kind, os.listdir("/proc/self/fd"))),
        "programs find": sorted(set(os.environ["PYTHONPATH"].split(os.pathsep))),
        "drivers": sorted(name for name in sys.modules if name.startswith("kq_transports.sqlite.")),
    }


def _kind(descriptor: str) -> str:
    """What is behind a descriptor, but for its number."""
    with contextlib.suppress(FileNotFoundError):  # the one with which they are listed
        return os.readlink(f"/proc/self/fd/{descriptor}").partition("[")[0]
    return ""


def say(word: str) -> None:
    """Write a word into the diary."""
    job = current_job()
    assert job is not None
    diary.write(job.id, word, "", job.attempt)


IMPORTED_BY = os.getpid()
kept: list[bytes] = []
app = App("odd", queue=os.environ.get(QUEUE, "odd"))
jobs = Odd(app)
