"""The nursery as its supervisor sees it: started, asked for executors, heard, and started again when it dies."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

import msgspec

from kq.errors import AppNotFound, KqError, NotStarted
from kq.worker.kin import Tie
from kq.worker.lapse import Lapse
from kq.worker.wire import Exited, Frames, Hello, Spawn, Spawned, Unborn, Welcome, come, frame

_decode_report = msgspec.msgpack.Decoder(Hello | Spawned | Unborn | Exited).decode

#: Seconds that a nursery has to end with all its children; it is killed after that.
ENDS_WITHIN = 6.0
#: Seconds after which one that imports the application is told to go on, in case somebody has stopped it, and within
#: which it is to be done, however slow it is in good faith.
STILL_IMPORTS, IMPORTS_WITHIN = 30.0, 600.0
#: So many nurseries in a row may be killed while they import.
TRIES = 3
#: Seconds between two looks whether it has ended.
PAUSE = 0.005


def in_one_line(error: str) -> str:
    """What a Hello says of an application that does not import, without the lines between its first and its last."""
    lines = error.splitlines()
    return f"{lines[0]} {lines[-1]}" if len(lines) > 1 else error


def _of_import(where: str, status: int) -> KqError:
    """What it means that the process that imports the application has ended so."""
    what = f"the process that imports {where} ended with status {status}"
    if status < 0:  # killed: it may live the next time
        return NotStarted(what, fix="Look at the host's memory (dmesg), and at what the import waits for.")
    return AppNotFound(what, fix="Nothing in it may end the process.")


def search_path() -> str:
    """Where this process finds modules, as PYTHONPATH has it."""
    return os.pathsep.join(each for each in sys.path if each)


class Forked:
    """A nursery that was forked, with verbs as subprocess has them. sock: where it speaks."""

    def __init__(self, pid: int, sock: socket.socket) -> None:
        self._pid, self.sock = pid, sock

    def send_signal(self, number: int) -> None:
        os.kill(self._pid, number)  # nobody but wait() reaps it, so the number is still its own

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = math.inf) -> int:
        """The signal that ended it, negative, or its exit code. Raises subprocess.TimeoutExpired."""
        until = time.monotonic() + timeout
        while True:
            pid, status = os.waitpid(self._pid, 0 if math.isinf(timeout) else os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("nursery", timeout)
            time.sleep(PAUSE)


class Cradle:
    """Has a nursery that imports the application at where, and forks. url, state: where that connects to.

    debuggable: whether the nursery and its executors may leave core files and be traced.
    """

    def __init__(self, where: str, url: str, state: str, lapse: Lapse, *, debuggable: bool = False) -> None:
        self._where, self._url, self._state, self._debuggable = where, url, state, debuggable
        self._lapse = lapse
        self._tie = Tie()
        self._nursery: subprocess.Popen[bytes] | Forked | None = None
        self._forked: Forked | None = None
        self._sock: socket.socket | None = None
        self._frames = Frames()
        self._killed = TRIES  # while they imported, in a row; the first one has no second try
        #: Whether it has said Hello, and may be asked for executors.
        self.imported = False

    def adopt(self, nursery: Forked) -> None:
        """Begin with that one, which has imported nothing of the application yet."""
        self._forked = nursery

    @property
    def descriptor(self) -> int | None:
        """What to watch for reading; None when there is no nursery."""
        return None if self._sock is None else self._sock.fileno()

    def start(self) -> None:
        """Start the nursery, of which there is none. Raises OSError where the system has no room for one."""
        if self._forked is None:
            self._nursery, self._sock = self.spawn()
        else:
            self._nursery, self._sock, self._forked = self._forked, self._forked.sock, None
            self._welcome(self._sock)
        self._sock.setblocking(False)
        self._frames = Frames()

    def hear(self) -> list[Hello | Spawned | Unborn | Exited]:
        """What it says, nothing when it says nothing now. Raises EOFError when it died."""
        assert self._sock is not None
        if (data := come(self._sock)) is None:
            return []
        if not data:
            raise EOFError
        return [_decode_report(each) for each in self._frames.feed(data)]

    def ask(self, spawn: Spawn, descriptors: Sequence[int]) -> bool:
        """Ask for an executor; False when there is none, or it died. Raises OSError where that can't be said now."""
        if self._sock is None:
            return False
        try:
            socket.send_fds(self._sock, [frame(spawn)], descriptors)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def rouse(self) -> None:
        """Let it go on, if somebody has stopped it."""
        assert self._nursery is not None
        self._nursery.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, and with it all executors; hear() will tell."""
        assert self._nursery is not None
        self._nursery.kill()

    def bury(self) -> int:
        """It died, and the kernel killed its children: start() may follow. Returns the signal, negative, or its code.

        Raises KqError if it died of the import.
        One that was killed in the midst of that need not have: after one that did import it is tried again.
        """
        assert self._sock is not None
        assert self._nursery is not None
        self._sock.close()
        self._nursery.kill()  # the application may have closed what it speaks on, and live
        status = self._nursery.wait()
        self._sock = self._nursery = None
        self._killed = 0 if self.imported else self._killed + 1
        self.imported = False
        if self._killed > TRIES or (self._killed and status >= 0):
            raise _of_import(self._where, status)
        return status

    def close(self) -> None:
        """Let it end, with all its children and what their jobs left behind."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        if self._nursery is not None:
            if self.imported:
                self.rouse()
            else:
                self._nursery.kill()  # it hears nothing yet, and has no children of ours
            try:
                self._nursery.wait(ENDS_WITHIN)
            except subprocess.TimeoutExpired:
                self._nursery.kill()
                self._nursery.wait()
            self._nursery = None
        self._tie.close()

    def spawn(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        """A process that imports the application, and the socket on which it speaks. Raises OSError without room."""
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as undone:
            undone.enter_context(ours)
            nursery = subprocess.Popen(
                [sys.executable, "-m", "kq.worker.nursery", str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": search_path()},
                start_new_session=True,
            )
            self._welcome(ours)
            undone.pop_all()
        return nursery, ours

    def _welcome(self, sock: socket.socket) -> None:
        """Say what it is to import, and all else that it needs to know."""
        # Neither as arguments, which every user of the host can read, nor in the environment, which all that jobs start
        # inherits: a URL may hold a password.
        welcome = frame(Welcome(self._where, self._url, self._state, self._debuggable))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died; who reads its report will know
            socket.send_fds(sock, [welcome], [self._lapse.descriptor, self._tie.descriptor])
