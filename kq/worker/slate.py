"""What a job writes down while it runs, in memory that its supervisor reads without asking: how far it is, and how much
more time it wants.

Nothing is sent, so a job may say it for every row. The supervisor looks with each beat and, while somebody listens,
twice a second. A counter that is odd while something is written tells a reader to look again.
"""

from __future__ import annotations

import mmap
import struct
import threading
from dataclasses import dataclass
from math import isfinite

from kq.values.redaction import redacted_beginning

#: The counter; n, of, and when that was said; seconds to extend the timeout by; bytes of the text.
_FORM = struct.Struct("<QddddH")
_COUNTER = struct.Struct("<Q")
#: Bytes of the text that are kept.
TEXT = 150
SIZE = _FORM.size + TEXT
_CLEAN = _COUNTER.pack(0)


@dataclass(frozen=True, slots=True)
class Written:
    """What stands on a slate. of: 0.0 when nobody knows how much there is. at: an instant, 0.0 when nothing was said.

    more: seconds that the job wants beyond its timeout.
    """

    n: float = 0.0
    of: float = 0.0
    text: str = ""
    at: float = 0.0
    more: float = 0.0


NOTHING = Written()


class Slate:
    """A part of shared memory. Threads of one process may write on it."""

    def __init__(self, memory: mmap.mmap, place: int) -> None:
        self._memory, self._place = memory, place
        self._lock = threading.Lock()

    def wipe(self) -> None:
        """Begin anew, for another job."""
        if self._memory[self._place : self._place + _COUNTER.size] != _CLEAN:
            self._memory[self._place : self._place + _FORM.size] = bytes(_FORM.size)

    def progress(self, n: float, of: float, text: str, at: float) -> None:
        """Note how far the job is. text: many will see it, so it is kept without what looks like a secret."""
        with self._lock:
            self._write(Written(n, of, redacted_beginning(text, TEXT), at, self.read().more))

    def extend(self, seconds: float) -> None:
        """Note that the job wants so many seconds more."""
        with self._lock:
            now = self.read()
            self._write(Written(now.n, now.of, now.text, now.at, now.more + seconds))

    def read(self) -> Written:
        """What stands there."""
        written = Written()
        for _ in range(100):  # whoever writes is done after a moment, unless he was killed at it
            count, n, of, at, more, length = _FORM.unpack_from(self._memory, self._place)
            begin = self._place + _FORM.size
            text = self._memory[begin : begin + min(length, TEXT)].decode("utf-8", "replace")
            # The job itself could write there what is no number, with which nobody could read what its worker says.
            written = Written(n, of, text, at, more) if all(map(isfinite, (n, of, at, more))) else NOTHING
            if count % 2 == 0 and _COUNTER.unpack_from(self._memory, self._place)[0] == count:
                break
        return written

    def _write(self, written: Written) -> None:
        (count,) = _COUNTER.unpack_from(self._memory, self._place)
        odd, text = count | 1, _cut(written.text)
        _COUNTER.pack_into(self._memory, self._place, odd)
        begin = self._place + _FORM.size
        self._memory[begin : begin + len(text)] = text
        _FORM.pack_into(self._memory, self._place, odd, written.n, written.of, written.at, written.more, len(text))
        _COUNTER.pack_into(self._memory, self._place, odd + 1)


def _cut(text: str) -> bytes:
    """text as UTF-8, of no more than TEXT bytes and whole characters."""
    return text.encode("utf-8", "replace")[:TEXT].decode("utf-8", "ignore").encode()
