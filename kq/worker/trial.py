"""Whether the application, as it is now, imports: a process of its own finds out, while the worker works on."""

from __future__ import annotations

import contextlib
import math
import signal
import socket
import subprocess
from collections.abc import Callable

import msgspec

from kq.clock import Clock
from kq.units import format_duration
from kq.worker.cradle import IMPORTS_WITHIN, STILL_IMPORTS, Cradle, in_one_line
from kq.worker.wire import Frames, Hello, come

_decode_hello = msgspec.msgpack.Decoder(Hello).decode

#: Seconds that the process has to end when it is killed; one that waits for a disk may need longer, and is left.
DIES_WITHIN = 1.0


class Trial:
    """One at a time: who begins another forgets the one before, which tried older code.

    changed: called whenever descriptor is another.
    """

    def __init__(self, cradle: Cradle, clock: Clock, changed: Callable[[], None]) -> None:
        self._cradle, self._clock, self._changed = cradle, clock, changed
        self._nursery: subprocess.Popen[bytes] | None = None
        self._sock: socket.socket | None = None
        self._frames = Frames()
        self._silent = 0.0  # seconds
        self._tell: Callable[[str], None] = lambda wrong: None
        #: When attend() is to be called, monotonic; infinite when nothing is tried.
        self.due = math.inf

    def begin(self, tell: Callable[[str], None]) -> None:
        """Try it. tell: called once with why the application does not import, in one line; with "" when it does."""
        self.close()
        self._tell = tell
        try:
            self._nursery, self._sock = self._cradle.spawn()
        except OSError as error:
            tell(f"no process is to be had to try the new code: {error.strerror}")
            return
        self._sock.setblocking(False)
        self._frames = Frames()
        self._silent = 0.0
        self.due = self._clock.monotonic() + STILL_IMPORTS
        self._changed()

    @property
    def descriptor(self) -> int | None:
        """What to watch for reading, and to hear() then; None when nothing is tried."""
        return None if self._sock is None else self._sock.fileno()

    def hear(self) -> None:
        """Take in what the process says."""
        assert self._sock is not None
        if (data := come(self._sock)) is None:
            return
        for each in self._frames.feed(data):
            self._judge(in_one_line(_decode_hello(each).error))
            return
        if not data:
            status = self.close()
            self._tell(f"the process that imports it ended with status {status}")

    def attend(self) -> None:
        """It has told nothing for long: let it go on, if somebody has stopped it; in the end give it up."""
        self._silent += STILL_IMPORTS
        if self._silent >= IMPORTS_WITHIN:
            self._judge(f"it was not imported within {format_duration(IMPORTS_WITHIN)}")
        elif self._nursery is not None:
            self.due += STILL_IMPORTS
            self._nursery.send_signal(signal.SIGCONT)

    def _judge(self, wrong: str) -> None:
        self.close()
        self._tell(wrong)

    def close(self) -> int | None:
        """Try nothing any more; returns the status of the process that did. May be repeated."""
        nursery, sock, self._nursery, self._sock = self._nursery, self._sock, None, None
        if nursery is None or sock is None:
            return None
        self.due = math.inf
        self._changed()
        sock.close()
        nursery.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return nursery.wait(DIES_WITHIN)
        return None
