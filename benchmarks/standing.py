"""What a worker costs before it has a job: its memory and CPU when idle, how long it takes to start, the import."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil

from benchmarks.cost import pss_of
from benchmarks.jobs import process, started
from benchmarks.measure import measures
from benchmarks.place import WAIT, Place
from kq.conformance.contract.processes import cpu, pids, tree

IDLE = 5.0
SLOTS = 10


@measures("idle-pss", "idle-cpu")
def idle_processes(place: Place) -> Iterator[tuple[str, float]]:
    with place.worker("process", SLOTS) as worker:
        processes = worker.tree()
        time.sleep(1)
        used, began = cpu(processes), time.perf_counter()
        time.sleep(IDLE)
        yield "idle-cpu", (cpu(processes) - used) / (time.perf_counter() - began)
        if place.shared:  # else it is the producer's too
            yield "idle-pss", pss_of(processes)


@measures("idle-pss-thread")
def idle_threads(place: Place) -> Iterator[tuple[str, float]]:
    if place.shared:
        with place.worker("thread", SLOTS) as worker:
            yield "idle-pss-thread", pss_of(worker.tree())


@measures("first-job", "reload")
def first_job(place: Place) -> Iterator[tuple[str, float]]:
    """From the start of `kq worker`, or the signal to begin anew with new code, to the start of its first job."""
    if not place.shared:
        return
    waiting, began = started.submit(), time.time()
    with place.spawned("-c", "2", "-Q", "probe") as worker:
        yield "first-job", waiting.result(timeout=WAIT) - began
        old = process.submit().result(timeout=WAIT)
        before = pids(tree(psutil.Process(worker.pid))) | {old}
        began = time.time()
        worker.send_signal(signal.SIGHUP)
        while process.submit().result(timeout=WAIT) in before:
            time.sleep(0.002)
        yield "reload", time.time() - began


@measures("import")
def importing(place: Place) -> Iterator[tuple[str, float]]:
    if place.name == "memory":  # it is the same on each
        yield "import", _cpu("import kq; kq.App") - _cpu("pass")  # names are imported when they are first used


def _cpu(code: str) -> float:
    """CPU seconds of a Python that runs code."""
    child = subprocess.Popen([sys.executable, "-c", code])
    _, _, usage = os.wait4(child.pid, 0)
    child.returncode = 0
    return usage.ru_utime + usage.ru_stime
