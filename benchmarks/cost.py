"""What the kernel knows of processes: memory, and what work costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psutil

from kq.conformance.contract.processes import asked


@dataclass(frozen=True, slots=True)
class Cost:
    """What n steps took: CPU and wall seconds of a single one. server: CPU seconds of the broker's server, if any."""

    cpu: float
    wall: float
    server: float = 0.0


def pss_of(processes: Iterable[psutil.Process]) -> int:
    """Bytes that processes hold, shared pages divided among their holders."""
    return sum(asked(lambda process=process: int(process.memory_full_info().pss), 0) for process in processes)  # type: ignore[misc]


def cost(steps: int, work: Callable[[], object]) -> Cost:
    """What work costs this process, for each of steps."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost((time.process_time() - cpu) / steps, (time.perf_counter() - wall) / steps)


def percentile(values: Iterable[float], part: float) -> float:
    """The value below which part (0..1) of values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
