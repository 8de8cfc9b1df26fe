"""An alarm wakes a thread that sleeps on a descriptor, from any other thread of this process."""

from __future__ import annotations

import os
import weakref
from contextlib import suppress


class Alarm:
    """Readable after ring() until quiet(). Closed with its last reference at the latest."""

    def __init__(self) -> None:
        self.descriptor, self._writer = os.pipe()
        os.set_blocking(self.descriptor, False)
        os.set_blocking(self._writer, False)
        self.close = weakref.finalize(self, _close, self.descriptor, self._writer)

    def ring(self) -> None:
        """Make the descriptor readable."""
        with suppress(BlockingIOError):  # full: it is readable
            os.write(self._writer, b"!")

    def quiet(self) -> None:
        """Forget that it was rung."""
        with suppress(BlockingIOError):
            os.read(self.descriptor, 4096)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
