"""What processes take of this machine: memory and processor time, as Linux tells it."""

from __future__ import annotations

import os
from collections.abc import Iterable

_TICKS = os.sysconf("SC_CLK_TCK")


def rss(pid: int) -> int:
    """Resident memory of a process in bytes; 0 where the system does not tell."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def busy(pid: int) -> float:
    """Seconds of processor time that a process has used; 0.0 where the system does not tell."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            # The name of the program is in parentheses and may have anything in it.
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    except (OSError, IndexError, ValueError):
        return 0.0


def condition(pid: int) -> str:
    """What a process is at, in words, as the system tells it."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            letter = file.read().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "nobody knows what it is at"
    return _CONDITIONS.get(letter, "it has ended")


_CONDITIONS = {
    "R": "it computes",
    "S": "it sleeps",
    "D": "it waits in the system, for a disk or the network, and nothing can wake it",
    "T": "somebody has stopped it",
    "t": "a debugger has stopped it",
}


class Usage:
    """What a group of processes uses, from one look to the next."""

    def __init__(self) -> None:
        self._seen: dict[int, float] = {}
        self._at: float | None = None

    def measure(self, pids: Iterable[int], now: float) -> tuple[int | None, float | None]:
        """Their memory in bytes, and the cores that they used since the last look; None where nobody knows.

        now: monotonic seconds.
        """
        seen = {pid: busy(pid) for pid in pids}
        memory = sum(map(rss, seen)) or None
        before, self._seen = self._seen, seen
        since, self._at = self._at, now
        if since is None or memory is None or now <= since:
            return memory, None
        used = sum(max(0.0, seconds - before.get(pid, 0.0)) for pid, seconds in seen.items())
        return memory, round(used / (now - since), 3)
