"""Spares: second names of SQLite's log (-wal) and of its index (-shm), from which these come back.

Whoever has the file open goes on with a log that somebody removed or moved away; what he stores there ends with him.
Who opens the file after that begins another log, and two at a time ruin the file. A hard link keeps both, and gives
them their names again before anything is written.

That is done while somebody lives who has the log open, which its lock says (log.py). What only the dead had stays as it
is: a file that was put back from a backup has no use for the log of what was there before.

All in one's turn (lock.py), but for what is asked before it. The index is never opened here: to close it would
end the locks that SQLite has on it (POSIX).
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeAlias

from kq_transports.hostfile.lock import FileLock
from kq_transports.hostfile.trouble import hidden

Identity: TypeAlias = tuple[int, int]

#: What has no name.
NOTHING: Identity = 0, 0


def identity(path: str | Path) -> Identity:
    """What tells a file from another of the same name; NOTHING when there is none. Raises Unreachable."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return NOTHING
    except OSError as error:
        raise hidden(path, error) from error
    return status.st_dev, status.st_ino


class Spare:
    """The second names, in folder, of the log and the index that belong to the file that is at path now."""

    def __init__(self, path: Path, folder: Path) -> None:
        number = identity(path)[1]
        self._folder = folder
        self._log = _Pair(path.with_name(path.name + "-wal"), folder / f"wal-{number}")
        self._index = _Pair(path.with_name(path.name + "-shm"), folder / f"shm-{number}")
        self._shared = NOTHING

    def clear(self) -> None:
        """Take away what others left: spares of the dead, and the names from a log that belongs to another file.

        Before the file is opened that took another one's place: whoever lives there goes on without a name.
        """
        taken = identity(self._log.name)
        for log in [Path(entry) for entry in os.scandir(self._folder) if entry.name.startswith("wal-")]:
            if log == self._log.second:
                continue
            if not _is_alive(log):
                _unlink(log, log.with_name(log.name.replace("wal", "shm")))
            elif identity(log) == taken:
                _unlink(self._log.name, self._index.name)

    def put_back(self) -> bool:
        """Give log and index their names again where somebody lives who has them open; whether that was needed."""
        lost = [pair for pair in (self._index, self._log) if pair.is_lost]
        if not lost or not _is_alive(self._log.second):
            return False
        if lost == [self._log] and size(self._log.name):
            # Of one who shares the index. SQLite begins to write to a log when all that was in the last is in the file,
            # so it is the log by now.
            return False
        for pair in lost:
            pair.put_back()
        return not self.is_lost

    @property
    def is_lost(self) -> bool:
        """Whether put_back() may have something to do."""
        return self._index.is_lost or self._log.is_lost

    @property
    def is_gone(self) -> bool:
        """Whether somebody removed the second names, and what has the names is what was kept."""
        return identity(self._log.second) == NOTHING and identity(self._index.name) == self._shared

    @property
    def is_empty(self) -> bool:
        """Whether nothing is in the log that has the name, if there is one."""
        return not size(self._log.name)

    @property
    def goes_on(self) -> bool:
        """Whether the log that has the name, and is not empty, was begun by one who knew all that we have committed.

        He found the file as put_back() leaves it, or shares the index.
        """
        kept = identity(self._log.name) == identity(self._log.second)
        return kept or identity(self._index.name) == self._shared

    def keep(self) -> None:
        """Keep the log and the index that have the names now."""
        self._shared = identity(self._index.name)
        for pair in (self._log, self._index):
            pair.keep()

    def tidy(self) -> None:
        """After the file was closed: keep nothing that nobody has open."""
        if not self.put_back() and not _is_alive(self._log.second):
            _unlink(self._log.second, self._index.second)


class _Pair(NamedTuple):
    """The name by which SQLite knows something, and the second one."""

    name: Path
    second: Path

    @property
    def is_lost(self) -> bool:
        second = identity(self.second)
        return second not in (NOTHING, identity(self.name))

    def put_back(self) -> None:
        self._link(self.second, self.name)

    def keep(self) -> None:
        if identity(self.name) != identity(self.second):
            self._link(self.name, self.second)

    def _link(self, source: Path, name: Path) -> None:
        """Let source be known by that name too, in the place of what was."""
        passing = self.second.with_name("new")
        with suppress(OSError):  # not every file system has hard links, nor every user the right to make one
            passing.unlink(missing_ok=True)  # of one who was killed between the next two lines
            os.link(source, passing)
            os.replace(passing, name)


def put_back(path: Path, timeout: float) -> None:
    """Spare.put_back() for one who has not opened the file at path, nor waits for longer than timeout for his turn."""
    folder = spares(path)
    if not os.access(folder, os.W_OK | os.X_OK) or not Spare(path, folder).is_lost:
        return
    lock = FileLock(path.with_name(path.name + ".lock"), path.stat().st_mode & 0o666)
    try:
        if lock.acquire(timeout):
            Spare(path, folder).put_back()
    finally:
        lock.close()


def spares(path: Path) -> Path:
    """The folder of the spares of the file at path."""
    return path.with_name(path.name + ".spare")


def _unlink(*names: Path) -> None:
    for name in names:
        name.unlink(missing_ok=True)


def size(path: str | Path) -> int:
    """Bytes of the file at path, 0 when there is none."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _is_alive(log: Path) -> bool:
    """Whether a process has the log open."""
    try:
        descriptor = os.open(log, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
