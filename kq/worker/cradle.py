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

from kq.errors import KqError
from kq.worker.kin import Tie
from kq.worker.lapse import Lapse
from kq.worker.wire import Exited, Frames, Hello, Spawn, Spawned, Welcome, frame, read_frame

_decode_hello = msgspec.msgpack.Decoder(Hello).decode
_decode_report = msgspec.msgpack.Decoder(Hello | Spawned | Exited).decode

#: Seconds that a nursery has to end with all its children; it is killed after that.
ENDS_WITHIN = 6.0
#: So many nurseries in a row may be killed while they import.
TRIES = 3
#: Seconds between two looks whether it has ended.
PAUSE = 0.005


def in_one_line(error: str) -> str:
    """What a Hello says of an application that does not import, without the lines between its first and its last."""
    lines = error.splitlines()
    return f"{lines[0]} {lines[-1]}" if len(lines) > 1 else error


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
    """Has a nursery that imports the application at where, and forks. url, state: where that connects to."""

    def __init__(self, where: str, url: str, state: str, lapse: Lapse) -> None:
        self._where, self._url, self._state = where, url, state
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
        """Start the nursery. Until go_on(), hear() waits for it to say something."""
        if self._forked is None:
            self._nursery, self._sock = self._start()
        else:
            self._nursery, self._sock, self._forked = self._forked, self._forked.sock, None
            self._welcome(self._sock)
        self._frames = Frames()
        self.imported = False

    def go_on(self) -> None:
        """From now on hear() does not wait."""
        assert self._sock is not None
        self._sock.setblocking(False)

    def hear(self) -> list[Hello | Spawned | Exited]:
        """What it says. Raises EOFError when it died."""
        assert self._sock is not None
        try:
            data = self._sock.recv(1 << 16)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            raise EOFError
        return [_decode_report(each) for each in self._frames.feed(data)]

    def ask(self, spawn: Spawn, descriptors: Sequence[int]) -> bool:
        """Ask for an executor; False when it died."""
        assert self._sock is not None
        try:
            socket.send_fds(self._sock, [frame(spawn)], descriptors)
        except OSError:
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

    def revive(self) -> None:
        """It died, and the kernel killed its children: begin anew. Raises KqError if it died of the import.

        One that was killed in the midst of that need not have: after one that did import it is tried again.
        """
        assert self._sock is not None
        assert self._nursery is not None
        self._sock.close()
        status = self._nursery.wait()
        self._killed = 0 if self.imported else self._killed + 1
        if self._killed > TRIES or (self._killed and status >= 0):
            raise KqError(f"the process that imports {self._where} ended with status {status}")
        self.start()
        self.go_on()

    def trial(self) -> str:
        """Why the application, as it is now, does not import, in one line; "" when it does. Takes as long as that."""
        nursery, sock = self._start()
        with sock:
            data = read_frame(sock)
        nursery.kill()
        status = nursery.wait()
        if data is None:
            return f"the process that imports {self._where} ended with status {status}"
        return in_one_line(_decode_hello(data).error)

    def close(self) -> None:
        """Let it end, with all its children and what their jobs left behind."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        if self._nursery is not None:
            self.rouse()
            try:
                self._nursery.wait(ENDS_WITHIN)
            except subprocess.TimeoutExpired:
                self._nursery.kill()
                self._nursery.wait()
            self._nursery = None
        self._tie.close()

    def _start(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        """A process that imports the application, and the socket on which it speaks."""
        ours, theirs = socket.socketpair()
        nursery = subprocess.Popen(
            [sys.executable, "-m", "kq.worker.nursery", str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": search_path()},
            start_new_session=True,
        )
        theirs.close()
        self._welcome(ours)
        return nursery, ours

    def _welcome(self, sock: socket.socket) -> None:
        """Say what it is to import, and all else that it needs to know."""
        # Neither as arguments, which every user of the host can read, nor in the environment, which all that jobs start
        # inherits: a URL may hold a password.
        welcome = frame(Welcome(self._where, self._url, self._state))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died; who reads its report will know
            socket.send_fds(sock, [welcome], [self._lapse.descriptor, self._tie.descriptor])
