"""SQLite's log of a file, as far as it is to be on the disk."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Log:
    """The log at path, which stays the same as long as somebody has the database open.

    Closed when nobody has it any more, who may be a thread that still waits for the disk. No lock goes with that:
    SQLite has them all on other files.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def sync(self) -> None:
        """Wait until all that was written there by now, by whomever, survives a power failure."""
        _sync(self._descriptor)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


def _sync(descriptor: int) -> None:
    if hasattr(fcntl, "F_FULLFSYNC"):  # macOS, where fsync() leaves the data in the disk's own memory
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)
