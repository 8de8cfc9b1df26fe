"""What a forked child must not keep open.

A flock and a FIFO live as long as any process has them open. A child that inherited them would keep
a lock, or look like a listener, long after its parent was killed.
"""

from __future__ import annotations

import os
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


def _after_fork() -> None:
    for thing in list(_open):
        thing.forget()
    _open.clear()


os.register_at_fork(after_in_child=_after_fork)
