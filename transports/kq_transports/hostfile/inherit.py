"""What a forked child must not keep open, and what a fork must not cut in two.

A flock and a FIFO live as long as any process has them open. A child that inherited them would keep
a lock, or look like a listener, long after its parent was killed.

SQLite remembers in its process who holds which of a file's locks. A child that was forked in the midst of another
thread's transaction would wait for ever for that thread, which it hasn't got.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Protocol


class Inherited(Protocol):
    """Something that holds descriptors."""

    def forget(self) -> None:
        """Close the descriptors in this process, a fresh child, and nothing else."""


_open: weakref.WeakSet[Inherited] = weakref.WeakSet()


def forget_in_children(thing: Inherited) -> None:
    """From now on call thing.forget() in every child that this process forks."""
    _open.add(thing)


#: Seconds that a fork waits for transactions to end.
PATIENCE = 5.0

_turns: weakref.WeakSet[threading.Lock] = weakref.WeakSet()
_stopped = threading.local()


def finish_before_fork(turn: threading.Lock) -> None:
    """From now on let this process fork while nobody holds turn."""
    _turns.add(turn)


def _before_fork() -> None:
    until = time.monotonic() + PATIENCE
    _stopped.turns = [turn for turn in list(_turns) if turn.acquire(timeout=max(0.0, until - time.monotonic()))]


def _after_fork() -> None:
    for turn in _stopped.turns:
        turn.release()


def _in_child() -> None:
    _after_fork()
    for thing in list(_open):
        thing.forget()
    _open.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)
