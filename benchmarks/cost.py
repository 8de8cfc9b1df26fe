"""What the kernel knows of processes: CPU seconds and memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Cost:
    """What n steps took: CPU and wall seconds of a single one."""

    cpu: float
    wall: float


def tree(process: int) -> list[psutil.Process]:
    """A process and all below it."""
    top = psutil.Process(process)
    return [top, *top.children(recursive=True)]


def cpu_of(processes: Iterable[psutil.Process]) -> float:
    """User and system seconds that processes have used so far."""
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def pss_of(processes: Iterable[psutil.Process]) -> int:
    """Bytes that processes hold, shared pages divided among their holders."""
    return sum(process.memory_full_info().pss for process in processes)


def cost(steps: int, work: Callable[[], object]) -> Cost:
    """What work costs this process, for each of steps."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost((time.process_time() - cpu) / steps, (time.perf_counter() - wall) / steps)


def percentile(values: Iterable[float], part: float) -> float:
    """The value below which part (0..1) of values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
