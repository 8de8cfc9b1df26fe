"""Where the lines of the log go: to stderr, and nobody waits for who reads them there.

A pipe, or a terminal, whose reader has stopped takes nothing any more, and would stop all who write to it: a worker's
loop, and with it its lease.
"""

from __future__ import annotations

import logging
import os
import select
import time
from collections import deque
from typing import TextIO

#: Seconds that a reader has who is only slow. Who needs longer is waited for again when he has begun to read.
PATIENCE = 0.25
#: Seconds that he has at the end.
LAST = 1.0
#: Lines that are kept for him meanwhile.
KEPT = 1000
#: Bytes that can be written at once where there is room for any.
PIECE = select.PIPE_BUF


class LogStream(logging.Handler):
    """Writes each record as a line, or several, to stream, which has a descriptor; in their order."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._descriptor = stream.fileno()
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLOUT)
        self._waiting = deque[bytes]()
        self._lost = 0
        self._reads = True  # whether he did when he was last waited for

    def emit(self, record: logging.LogRecord) -> None:
        """Write record, now or with one that follows; never for longer than PATIENCE."""
        try:
            self._write(0.0)
            if len(self._waiting) >= KEPT:
                self._lost += 1
                return
            if self._lost:
                self._waiting.append(self._line(_of_lost(self._lost)))
                self._lost = 0
            self._waiting.append(self._line(record))
            self._write(PATIENCE if self._reads else 0.0)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Write what waits, if somebody reads that."""
        self.acquire()
        try:
            self._write(LAST if self._reads else 0.0)
        finally:
            self.release()
        super().close()

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(errors="backslashreplace")

    def _write(self, patience: float) -> None:
        """Write what waits, as far as somebody reads it within so many seconds."""
        until = time.monotonic() + patience
        while self._waiting:
            self._reads = bool(self._poll.poll(max(0.0, until - time.monotonic()) * 1000))
            if not self._reads:
                return
            line = self._waiting.popleft()
            try:
                written = os.write(self._descriptor, line[:PIECE])
            except OSError:
                continue  # nobody will ever read it
            if written < len(line):
                self._waiting.appendleft(line[written:])


def _of_lost(number: int) -> logging.LogRecord:
    what = "%s lines of the log are lost: nobody has read it"
    return logging.LogRecord("kq", logging.WARNING, "", 0, what, (number,), None)
