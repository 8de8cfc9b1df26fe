"""The jobs that are measured. Those that tell when they ran do so in a file, which costs them two microseconds."""

from __future__ import annotations

import asyncio
import functools
import os
import struct
import time
from pathlib import Path

import kq

#: Where marks are kept, for this process and those that it starts.
MARKS = "KQ_BENCH_MARKS"
_MARK = struct.Struct("<dd")

app = kq.App("benchmark", keep=0)


@app.job
def nothing(text: str) -> None:
    """Do nothing with a short argument."""


@app.job
async def nothing_async(text: str) -> None:
    """The same as a coroutine."""


@app.job(keep=600)
def answer(text: str) -> int:
    """Return something."""
    return len(text)


@app.job(priority=0, keep=600)
def last() -> None:
    """Tell that all before it are done: it has the lowest priority."""


@app.job(queue="probe", priority=9, keep=600)
def started() -> float:
    """When it started, by the host's clock."""
    return time.time()


@app.job(queue="probe", keep=600)
def process() -> int:
    """Where it ran."""
    return os.getpid()


@app.job
def timed(due: float) -> None:
    """Tell how late it started."""
    mark(due, time.time())


@app.job
def nap() -> None:
    """Sleep for 10 ms."""
    began = time.time()
    time.sleep(0.01)
    mark(began, time.time())


@app.job
async def nap_async() -> None:
    """Sleep for 10 ms as a coroutine."""
    began = time.time()
    await asyncio.sleep(0.01)
    mark(began, time.time())


@app.job
def spin() -> None:
    """Use 10 ms of CPU."""
    began = time.time()
    burn()
    mark(began, time.time())


def burn(seconds: float = 0.01) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def mark(first: float, second: float) -> None:
    """Leave a pair of instants for marks()."""
    os.write(_marks(), _MARK.pack(first, second))


@functools.cache
def _marks() -> int:
    return os.open(os.environ[MARKS], os.O_WRONLY | os.O_APPEND)


def number_of_marks(file: Path) -> int:
    return file.stat().st_size // _MARK.size


def marks(file: Path) -> list[tuple[float, float]]:
    """The pairs that jobs left in file since the last call."""
    data = file.read_bytes()
    os.truncate(file, 0)
    return list(_MARK.iter_unpack(data))
