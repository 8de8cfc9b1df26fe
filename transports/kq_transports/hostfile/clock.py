"""The time of a file that one host's processes share.

The wall clock is corrected now and then: a step must neither end leases nor fire delays early. The
monotonic clocks never step and are one and the same for all processes of a host, but begin anew
with each boot. So the file keeps, for the boot it was last used in, what to add to them, and a pair
(reading, wall clock) that is noted from time to time. After a reboot the time that passed is what
the wall clock says since that pair, and never less than nothing.

Two readings, because a laptop sleeps. Leases count the time awake: after a sleep everybody still
holds what he held, for none of them could beat meanwhile. Delays count the sleep as well.
"""

from __future__ import annotations

import functools
import sqlite3
import sys
import time
from pathlib import Path

# On macOS CLOCK_MONOTONIC goes on while the machine sleeps and time.monotonic() stands still; on
# Linux both stand still and CLOCK_BOOTTIME goes on.
_SLEEPING_TOO = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

#: Seconds after which a new pair is worth a row: what a power failure may make delays late by.
NOTE_EVERY = 60.0

_SCHEMA = """CREATE TABLE IF NOT EXISTS host_clock (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    boot TEXT, awake_base REAL, steady_base REAL, awake REAL, steady REAL, wall REAL)"""


class HostClock:
    """Reads the host's clocks; its readings are the same in all processes that opened the file."""

    def __init__(self, awake_base: float, steady_base: float) -> None:
        self._awake_base, self._steady_base = awake_base, steady_base
        self._noted = 0.0

    @classmethod
    def of(cls, connection: sqlite3.Connection) -> HostClock:
        """The clock of a file, as it is noted there."""
        return cls(*_bases(connection))

    @classmethod
    def begun(cls, connection: sqlite3.Connection) -> HostClock:
        """The same, noted for this boot. connection: in a write transaction."""
        connection.execute(_SCHEMA)
        clock = cls.of(connection)
        clock.note(connection)
        return clock

    def awake(self) -> float:
        """Seconds that count only while the machine is awake. For leases."""
        return time.monotonic() + self._awake_base

    def steady(self) -> float:
        """Seconds that go on while the machine sleeps. For delays."""
        return time.clock_gettime(_SLEEPING_TOO) + self._steady_base

    def wall(self, steady: float) -> float:
        """The instant (seconds since the epoch) that a steady reading is, by the wall clock of now."""
        return time.time() + steady - self.steady()

    def wall_of_awake(self, awake: float) -> float:
        """The same for an awake reading, if the machine stays awake."""
        return time.time() + awake - self.awake()

    def note(self, connection: sqlite3.Connection) -> None:
        """Remember how the readings stand to the wall clock, unless that was done a minute ago.

        connection: in a write transaction.
        """
        awake = self.awake()
        if awake - self._noted < NOTE_EVERY:
            return
        self._noted = awake
        connection.execute(
            "INSERT OR REPLACE INTO host_clock VALUES (1, ?, ?, ?, ?, ?, ?)",
            (boot_id(), self._awake_base, self._steady_base, awake, self.steady(), time.time()),
        )


def _bases(connection: sqlite3.Connection) -> tuple[float, float]:
    """What to add to the two monotonic clocks in this boot."""
    raw_awake, raw_steady, wall = time.monotonic(), time.clock_gettime(_SLEEPING_TOO), time.time()
    row = connection.execute("SELECT boot, awake_base, steady_base, awake, steady, wall FROM host_clock").fetchone()
    if row is None:
        return wall - raw_awake, wall - raw_steady
    boot, awake_base, steady_base, awake, steady, noted = row
    # A reading behind the noted one is a reboot too, where the system does not name its boots.
    if boot == boot_id() and raw_awake + awake_base >= awake:
        return awake_base, steady_base
    passed = max(0.0, wall - noted)
    return awake + passed - raw_awake, steady + passed - raw_steady


@functools.cache
def boot_id() -> str:
    """What names this boot of the machine; "" on a system that does not tell."""
    linux = Path("/proc/sys/kernel/random/boot_id")
    if linux.exists():
        return linux.read_text().strip()
    return _sysctl(b"kern.bootsessionuuid") if sys.platform == "darwin" else ""


def _sysctl(name: bytes) -> str:
    """A text value of the kernel, as `sysctl -n name` prints it; "" when there is none."""
    import ctypes  # on macOS only: it takes 2 ms, and `kq submit` is to be quick

    value = ctypes.create_string_buffer(128)
    size = ctypes.c_size_t(len(value))
    failed = ctypes.CDLL(None).sysctlbyname(name, value, ctypes.byref(size), None, ctypes.c_size_t(0))
    return "" if failed else value.value.decode()
