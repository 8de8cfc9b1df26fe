"""Who descends from whom: processes that end with their parent, or come to another when it has ended.

All of it is Linux's; elsewhere a process is killed together with its group, and what left that stays.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

#: Seconds that who has children waits for something to do before it looks for them, which takes milliseconds.
PAUSE = 0.1

_SET_DEATH_SIGNAL = 1
_SET_DUMPABLE = 4
_SET_NAME = 15
_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None)


def die_with(parent: int, number: int = signal.SIGKILL) -> None:
    """Let the kernel send this process a signal when its parent ends, and check that it has not already."""
    _prctl(_SET_DEATH_SIGNAL, number)
    if os.getppid() != parent:
        os._exit(0)


def live_apart(live: Callable[[], object]) -> NoReturn:
    """Do it in a process that was just forked, and end with it: the code around is its parent's.

    Its status is 0, or what SystemExit says; 1, and a traceback, after any other exception.
    """
    status = 1
    try:
        live()
        status = 0
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # a job may have closed it
                stream.flush()
        os._exit(status)


class Tie:
    """A pipe that hangs up when this process has ended: nobody else has the end that it keeps."""

    def __init__(self) -> None:
        #: To be given away, to processes that die_with_tie().
        self.descriptor, self._mine = os.pipe()

    def close(self) -> None:
        """Those who are tied to it die. May be repeated."""
        for name in ("descriptor", "_mine"):
            if (descriptor := getattr(self, name)) >= 0:
                setattr(self, name, -1)
                os.close(descriptor)


def die_with_tie(descriptor: int) -> None:
    """Let the kernel kill this process as soon as the other end of a tie is closed, whoever runs in between.

    Nobody needs to find processor time first to see it and to do it, as one's parent may not.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):  # there is no /proc, or this kernel is another's imitation
        # Opened anew: who is told is a property of what was opened, which all who were given a descriptor share.
        mine = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.fcntl(mine, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(mine, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(mine, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        if select.select([mine], [], [], 0)[0]:  # it has hung up already
            os._exit(0)


def call_itself(name: str) -> None:
    """Give this process a name of up to 15 letters, which `ps -o comm` and `top` show."""
    _prctl(_SET_NAME, name.encode())


def be_private() -> None:
    """Leave no core file, and let no process of the same user trace this one or read its memory (Linux), as root may.

    So it is with all that is forked from it; a program that it starts may be traced, and leaves no core file either.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    _prctl(_SET_DUMPABLE, 0)


def close_inherited() -> None:
    """Close what this program was started with, but stdin, stdout and stderr. What Python opens is not inherited."""
    _close(os.get_inheritable)


def close_all() -> None:
    """Close all but stdin, stdout and stderr."""
    _close(lambda descriptor: True)


def _close(which: Callable[[int], bool]) -> None:
    for descriptor in map(int, os.listdir("/dev/fd")):
        with contextlib.suppress(OSError):  # the one with which they were listed is closed already
            if descriptor > 2 and which(descriptor):
                os.close(descriptor)


def adopt_orphans(adopt: bool = True) -> None:
    """Let processes that descend from this one become its children when their parents end, or not any more."""
    _prctl(_SET_CHILD_SUBREAPER, adopt)


def living_children() -> set[int]:
    """The children of this process, adopted ones included."""
    found: set[int] = set()
    for name in os.listdir("/proc") if sys.platform == "linux" else ():
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
                if int(parent) == os.getpid() and state != b"Z":
                    found.add(int(name))
    return found


def reap_children() -> list[tuple[int, int]]:
    """Pid and status, as of waitpid, of each child that has ended."""
    ended: list[tuple[int, int]] = []
    try:
        while (report := os.waitpid(-1, os.WNOHANG))[0]:
            ended.append(report)
    except ChildProcessError:
        pass
    return ended


def reap_until(ready: socket.socket) -> None:
    """Reap children as they end, until ready can be read or none is left: for who has nobody to tell how they ended."""
    while _has_children():
        if select.select([ready.fileno()], [], [], PAUSE)[0]:
            return
        ends: list[int] = []
        with contextlib.ExitStack() as opened:
            for pid in living_children():
                with contextlib.suppress(ProcessLookupError):
                    ends.append(os.pidfd_open(pid))
                    opened.callback(os.close, ends[-1])
            reap_children()  # those that ended before we looked
            if ready.fileno() in select.select([ready.fileno(), *ends], [], [])[0]:
                return


def _has_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def _prctl(option: int, value: int | bytes) -> None:
    if sys.platform == "linux":
        _libc.prctl(option, value)
