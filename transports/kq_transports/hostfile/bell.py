"""Bells: how one process wakes another that sleeps in select().

A bell is a FIFO in a folder beside the database. A FIFO and not a socket: the path of a socket may
have 104 bytes at most on macOS, and abstract sockets exist on Linux only. A FIFO without a reader
refuses to be opened for writing, so a bell whose owner was killed is known at once.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import suppress
from pathlib import Path

from kq_transports.hostfile.inherit import forget_in_children
from kq_transports.hostfile.owner import is_ours

#: Seconds that a bell without an owner is left alone: it may be about to be opened.
_YOUNG = 10.0
#: Why a bell can't be rung: taken down, nobody reads, a link, a folder.
_SILENT = frozenset({errno.ENOENT, errno.ENXIO, errno.ELOOP, errno.EISDIR})


class Bell:
    """A bell of this process, rung by name. descriptor: readable once it was rung."""

    def __init__(self, folder: Path, mode: int) -> None:
        self.name = os.urandom(8).hex()
        self._path = folder / self.name
        os.mkfifo(self._path, mode)
        self._path.chmod(mode)  # whatever the umask left of it
        self.descriptor = self._writer = -1
        try:
            self.descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            # A writer of its own: without one, select() would report the end of the file for ever
            # after the first ringer had closed.
            self._writer = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self._path.unlink(missing_ok=True)
            self.forget()
            raise
        forget_in_children(self)

    @property
    def hangs(self) -> bool:
        """Whether others find it: nobody took it down."""
        return self._path.exists()

    def ring(self) -> None:
        """Make the descriptor readable. Nothing happens once it was taken down."""
        with suppress(BlockingIOError):  # full: it is readable
            if self._writer >= 0:
                os.write(self._writer, b"!")

    def quiet(self) -> None:
        """Forget that it was rung."""
        with suppress(BlockingIOError):
            os.read(self.descriptor, 65536)

    def close(self) -> None:
        """Take it down. May be repeated."""
        if self.descriptor >= 0:
            self._path.unlink(missing_ok=True)
        self.forget()

    def forget(self) -> None:
        """Close the descriptors and leave the file: it is the parent's."""
        descriptors = self.descriptor, self._writer
        self.descriptor = self._writer = -1
        for descriptor in descriptors:
            if descriptor >= 0:
                os.close(descriptor)


def ring(folder: Path, name: str, *, shared: bool = False) -> bool:
    """Ring the bell of that name in folder; False when its owner is gone, or when it is no bell.

    shared: whether it may be another user's.
    """
    if "/" in name:  # names come from the database, where others may write too
        return False
    try:
        descriptor = _reach(folder / name)
    except PermissionError:  # another user's, made before the file was opened to this one
        return False
    if descriptor is None:
        return False
    try:
        if not shared and not is_ours(os.fstat(descriptor)):
            return False
        os.write(descriptor, b"!")
    except BlockingIOError:
        pass  # full of rings that were not heard yet
    except BrokenPipeError:
        return False
    finally:
        os.close(descriptor)
    return True


def sweep(folder: Path) -> None:
    """Remove the bells of killed processes from folder."""
    old = time.time() - _YOUNG
    for entry in os.scandir(folder):
        with suppress(FileNotFoundError, PermissionError):
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISFIFO(status.st_mode) and status.st_mtime < old and not _has_owner(Path(entry)):
                os.unlink(entry)


def _has_owner(bell: Path) -> bool:
    descriptor = _reach(bell)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is not None


def _reach(bell: Path) -> int | None:
    """A descriptor to ring bell with, None when nobody listens any more, or when it is no bell."""
    try:
        descriptor = os.open(bell, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _SILENT:
            return None
        raise
    if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None
