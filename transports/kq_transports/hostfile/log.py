"""SQLite's log of a file, as far as it is to be on the disk, and to be known as in use."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

from kq_transports.hostfile.inherit import forget_in_children
from kq_transports.hostfile.spare import identity


class Log:
    """The log at path, which stays the same as long as somebody has the database open. A lock on it says that one has.

    Closed when nobody has it any more, who may be a thread that still waits for the disk. No lock of SQLite's goes with
    that: it has them all on other files.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._size = 0
        self._descriptor = -1
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(self._descriptor)
        self._identity = status.st_dev, status.st_ino
        with suppress(BlockingIOError):  # nobody else locks it, but in his turn
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        forget_in_children(self)

    @property
    def has_name(self) -> bool:
        """Whether it is the log of that name, and was neither removed nor replaced."""
        return identity(self._path) == self._identity

    @property
    def size(self) -> int:
        """Bytes that it has."""
        return os.lseek(self._descriptor, 0, os.SEEK_END)

    def is_cut(self) -> bool:
        """Whether it is shorter than it was, which accept() takes for right."""
        size = self.size
        if size < self._size:
            return True
        self._size = size
        return False

    def accept(self) -> None:
        self._size = self.size

    def sync(self) -> None:
        """Wait until all that was written there by now, by whomever, survives a power failure."""
        _sync(self._descriptor)

    def leave(self) -> None:
        """It is not in use any more, as far as this goes."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def forget(self) -> None:
        """Close the descriptor in a forked child, where it would keep the log in use."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    __del__ = forget


def _sync(descriptor: int) -> None:
    if hasattr(fcntl, "F_FULLFSYNC"):  # macOS, where fsync() leaves the data in the disk's own memory
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)
