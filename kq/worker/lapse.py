"""Until when executors may run: a number that a supervisor writes and its nursery watches.

A supervisor that is frozen cannot kill anything, and its executors would go on beside those of the worker that has
taken over. The nursery is a process of its own that no job can hold up, so it is the one to end them (promise C4).
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import struct

from kq.clock import Clock
from kq.worker.wire import memory

_INSTANT = struct.Struct("d")
_mmap = ctypes.CDLL(None).mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_size_t]


class Lapse:
    """Memory shared by a supervisor and its nursery. descriptor: of that of another process; None for one's own."""

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = memory(_INSTANT.size) if descriptor is None else descriptor
        self._memory = mmap.mmap(self.descriptor, _INSTANT.size)
        if descriptor is None:
            self.moment = math.inf

    @property
    def moment(self) -> float:
        """When executors must have ended, on the monotonic clock of the host; infinite while they hold nothing."""
        return float(_INSTANT.unpack_from(self._memory, 0)[0])

    @moment.setter
    def moment(self, moment: float) -> None:
        _INSTANT.pack_into(self._memory, 0, moment)

    def extend(self, moment: float, clock: Clock) -> bool:
        """Set the moment; False when the one before has passed, so that the nursery may have acted on it."""
        before, self.moment = self.moment, moment
        # Asked after the new one was written: who looks at the clock before the old one has passed finds the new one.
        return clock.monotonic() < before

    def close(self) -> None:
        self._memory.close()
        os.close(self.descriptor)


class Sight:
    """A lapse as an executor sees it: to read only, and without a descriptor, which a job could write to."""

    def __init__(self, lapse: Lapse) -> None:
        address = _mmap(None, _INSTANT.size, mmap.PROT_READ, mmap.MAP_SHARED, lapse.descriptor, 0)
        if address == ctypes.c_void_p(-1).value:
            raise OSError("no memory to see the end of the lease in")
        self._moment = ctypes.c_double.from_address(address)

    @property
    def moment(self) -> float:
        """When executors must have ended, on the monotonic clock of the host."""
        return self._moment.value
