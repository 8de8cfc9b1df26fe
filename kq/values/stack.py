"""The stack of a job that runs: where its code is, as a value. It is asked for by control and told by a worker."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

import msgspec

from kq.values.reading import reader

_KQ = os.path.dirname(os.path.dirname(__file__)) + os.sep
#: Where the frames come from that stand before those of a job: a worker's own, then those of its event loop.
_BEFORE = (os.path.join(_KQ, "worker") + os.sep, os.path.dirname(asyncio.__file__) + os.sep)


class Frame(msgspec.Struct, frozen=True):
    """One call. line: where it is by now."""

    file: str
    line: int
    name: str

    def __str__(self) -> str:
        return f'File "{self.file}", line {self.line}, in {self.name}'


class Stack(msgspec.Struct, frozen=True):
    """Where a job was when it was asked.

    frames: of its own code and what that calls, the innermost last; none where nobody answered. note: what else is to
    be known of that, "" for nothing. seconds: for how long it ran. executor: the pid that runs it.
    """

    job: str
    type: str
    worker: str
    seconds: float = 0.0
    executor: int = 0
    frames: tuple[Frame, ...] = ()
    note: str = ""


def stack_key(token: str) -> str:
    """Under which a stack is told to who asked with this token."""
    return f"stack:{token}"


def of_job(frames: Sequence[Frame]) -> tuple[Frame, ...]:
    """frames from the first of the job's own on, the outermost first; where none is, of those of its event loop."""
    worker, loop = _BEFORE
    ours = [place for place, frame in enumerate(frames[:-1]) if frame.file.startswith(worker)]
    first = 1 + max(ours, default=-1)
    while first < len(frames) and frames[first].file.startswith(loop):
        first += 1
    return tuple(frames[first:] or frames)


decode_stack = reader(Stack)
