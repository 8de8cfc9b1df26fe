"""Measures one peer: `python -m benchmarks.peers.drive with_celery`, in an environment that has it. Prints JSON.

Needs PEER_URL, a Redis with nothing in it, and PEER_MARKS, a file.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import psutil
import redis

from benchmarks.peers.marks import read

TEXT = "a" * 100
#: Submits one by one; jobs of a drain; jobs at an idle worker.
ONE_BY_ONE, DRAIN, STARTS = 500, 2_000, 100
WAIT = 120.0


def main() -> None:
    peer = importlib.import_module(f"benchmarks.peers.{sys.argv[1]}")
    getattr(peer, "begin", lambda: None)()
    figures: dict[str, object] = {"settings": peer.SETTINGS, "at_least_once": peer.AT_LEAST_ONCE}
    peer.submit(TEXT)
    cpu = time.process_time()
    for _ in range(ONE_BY_ONE):
        peer.submit(TEXT)
    figures["submit"] = (time.process_time() - cpu) / ONE_BY_ONE * 1e6
    with worker(peer) as process:
        figures |= drained(peer, process)
        figures |= started(peer)
    print(json.dumps(figures))


@contextlib.contextmanager
def worker(peer: ModuleType) -> Iterator[psutil.Process]:
    log = subprocess.DEVNULL if "PEER_LOG" not in os.environ else None
    with subprocess.Popen(peer.WORKER, stdout=log, stderr=log, start_new_session=True) as child:
        try:
            yield psutil.Process(child.pid)
        finally:
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


def drained(peer: ModuleType, process: psutil.Process) -> dict[str, float]:
    """What each of some jobs costs the worker's processes, which are frozen while these are submitted."""
    wait_for(peer, 1)  # it has started, and run all that waited
    time.sleep(0.5)  # a child for the last job has ended
    processes = [process, *process.children(recursive=True)]
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.suspend()
    before = memory()
    for _ in range(DRAIN):
        peer.submit(TEXT)
    size = (memory() - before) / DRAIN
    cpu, began = cpu_of(process), time.perf_counter()
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.resume()
    wait_for(peer, 2)
    took = time.perf_counter() - began
    return {"drain": (cpu_of(process) - cpu) / DRAIN * 1e6, "rate": DRAIN / took, "bytes": size}


def memory() -> int:
    """Bytes that Redis uses for what it keeps."""
    server: Any = redis.Redis.from_url(os.environ["PEER_URL"])
    with server:
        told = server.info("memory")
    apart = ("mem_aof_buffer", "mem_clients_normal", "used_memory_vm_eval")  # its Lua's heap
    return int(told["used_memory"] - sum(told.get(name, 0) for name in apart))


def wait_for(peer: ModuleType, number: int) -> None:
    """Until a job that is submitted now, after all others, has told that it runs."""
    peer.submit_mark(time.time())
    until = time.monotonic() + WAIT
    while len(marks()) < number:
        if time.monotonic() > until:
            raise TimeoutError(f"the worker ran {len(marks())} of {number} marks")
        time.sleep(0.005)


def started(peer: ModuleType) -> dict[str, float]:
    """Milliseconds that a job takes to start at an idle worker."""
    late = []
    for _ in range(STARTS):
        time.sleep(0.01)
        number = len(marks()) + 1
        wait_for(peer, number)
        began, start = marks()[-1]
        late.append(start - began)
    late.sort()
    return {"p50": late[len(late) // 2] * 1e3, "p99": late[int(0.99 * len(late))] * 1e3}


def marks() -> list[tuple[float, float]]:
    return read() if os.path.exists(os.environ["PEER_MARKS"]) else []


def cpu_of(process: psutil.Process) -> float:
    """User and system seconds of a process and all below it, those that have ended too."""
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


if __name__ == "__main__":
    main()
