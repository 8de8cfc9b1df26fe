"""A lock file: the queue in which writers of one SQLite file wait for their turn.

SQLite's own waiting sleeps in steps of up to 100 ms and is not fair; the kernel wakes the next
waiter of a flock at once. SQLite's lock is still taken inside: this one only orders the waiting.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from kq_transports.hostfile.inherit import forget_in_children
from kq_transports.hostfile.owner import must_be_ours
from kq_transports.hostfile.trouble import opening
from kq_transports.thread import begin

#: Seconds to sleep between the first looks at a turn that somebody has; then a thread queues up for it. Most turns are
#: over by then, as that of one who rings before he commits, and a thread takes as long to begin.
PAUSES = (0.000_05, 0.000_1, 0.000_2)


class FileLock:
    """A flock on path, which is created when it is missing and gets mode. Not for two threads at once.

    shared: whether it may be another user's.
    """

    def __init__(self, path: Path, mode: int, *, shared: bool = False) -> None:
        self._path, self._mode, self._shared = path, mode, shared
        self._descriptor = self._opened()
        forget_in_children(self)

    def acquire(self, timeout: float) -> bool:
        """Take the lock; False when others held it for timeout seconds."""
        for pause in PAUSES:
            if self._take():
                return True
            time.sleep(pause)
        return self._take() or self._queue_up(timeout)

    def release(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the lock and the file. May be repeated."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    forget = close

    def _take(self) -> bool:
        """Take the lock if nobody has it."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _opened(self) -> int:
        """A descriptor of its own. The file is made where somebody removed it: until all that use it have waited for a
        turn once, SQLite's own lock alone keeps them apart."""
        try:
            # Not through a link that somebody laid there: the mode is changed of what is opened.
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, self._mode)
        except OSError as error:
            raise opening(error, self._path) from error
        if not self._shared:
            try:
                must_be_ours(self._path, os.fstat(descriptor))
            except BaseException:
                os.close(descriptor)
                raise
        with suppress(PermissionError):  # it is another user's, who took care of that
            os.fchmod(descriptor, self._mode)  # whatever the umask left of it
        return descriptor

    def _queue_up(self, timeout: float) -> bool:
        """Wait in the kernel's queue: flock() knows no deadline, so a thread waits and is left behind."""
        descriptor = self._opened()
        attempt = _Attempt(descriptor)
        try:
            begin(threading.Thread(target=attempt.run, name="kq-lock", daemon=True))
        except OSError:
            os.close(descriptor)
            raise
        if not attempt.wait(timeout):
            return False
        os.close(self._descriptor)
        self._descriptor = attempt.hand_over()
        return True


class _Attempt:
    """One wait for the lock on a descriptor of its own, so that giving up leaves no lock behind."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._settled = threading.Lock()
        self._locked = threading.Event()
        self._abandoned = False
        forget_in_children(self)

    def run(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        with self._settled:
            self._locked.set()
            if self._abandoned:
                self.forget()

    def wait(self, timeout: float) -> bool:
        if self._locked.wait(timeout):
            return True
        with self._settled:
            self._abandoned = not self._locked.is_set()
            return not self._abandoned

    def hand_over(self) -> int:
        """The locked descriptor, which is the caller's from now on."""
        descriptor, self._descriptor = self._descriptor, -1
        return descriptor

    def forget(self) -> None:
        descriptor = self.hand_over()
        if descriptor >= 0:
            os.close(descriptor)
