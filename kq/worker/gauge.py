"""What jobs cost: processor time and memory, measured in the executor, of those that take long enough for it.

To ask a processor's clock costs as much as a good part of a short job. So it is asked at the end of jobs that took
SHORT or longer; what shorter ones before it took is left out by their wall time.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable

#: Jobs that took less than so many seconds are short: what would take as long again is not done for each of them.
SHORT = 0.001
#: Seconds of short jobs after which the clock is asked again all the same: it is off by no more than that.
SLACK = 0.01
#: The unit in which the system tells the memory of a process, in bytes.
_UNIT = 1 if sys.platform == "darwin" else 1024


class Gauge:
    """That of one thread. clock: seconds of processor time that its jobs have used; None where nobody can tell."""

    def __init__(self, clock: Callable[[], float] | None, memory: Callable[[], int]) -> None:
        self._clock, self._memory = clock, memory
        self._used = clock() if clock is not None else 0.0
        self._short = 0.0

    def measure(self, took: float) -> tuple[float | None, int]:
        """Seconds of processor time, and bytes, that a job cost which took so many seconds and has just ended.

        None and 0 where that is not known.
        """
        if took < SHORT:
            self._short += took
            if self._short > SLACK and self._clock is not None:
                self._used, self._short = self._clock(), 0.0
            return None, 0
        if self._clock is None:
            return None, self._memory()
        before, self._used = self._used + self._short, self._clock()
        self._short = 0.0
        return round(max(0.0, self._used - before), 4), self._memory()


def alone() -> Gauge:
    """Of jobs that have a process for themselves: its threads and the programs that it waited for count too."""
    return Gauge(_of_process, _most)


def among_threads() -> Gauge:
    """Of jobs that have a thread for themselves: what it used. Memory belongs to all of them."""
    return Gauge(time.thread_time, _unknown)


def among_coroutines() -> Gauge:
    """Of jobs that share a thread: nobody knows who used what."""
    return Gauge(None, _unknown)


def _of_process() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _most() -> int:
    """The most that this process has held by now."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT


def _unknown() -> int:
    return 0
