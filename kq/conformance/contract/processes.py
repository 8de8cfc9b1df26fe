"""What tests ask of processes, each of which may end while it is asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TypeVar

import psutil

T = TypeVar("T")


def asked(ask: Callable[[], T], gone: T) -> T:
    """What ask() says of a process; gone when that has ended, or ends just now, or is none of ours."""
    try:
        return ask()
    except (psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
        return gone


def ended(act: Callable[[], object]) -> None:
    """act(), which comes too late for a process that has ended."""
    asked(act, None)


def lives(process: psutil.Process) -> bool:
    """Whether a process still runs."""
    return asked(lambda: process.is_running() and process.status() != psutil.STATUS_ZOMBIE, False)


def gone(pid: int) -> bool:
    """Whether the process of that number has ended."""
    return not asked(lambda: lives(psutil.Process(pid)), False)


def status(process: psutil.Process) -> str:
    """What it does, in psutil's words; "" when it is gone."""
    return asked(lambda: str(process.status()), "")


def children(process: psutil.Process) -> list[psutil.Process]:
    """What it started itself and what still runs or was not waited for; nothing when it is gone."""
    return asked(lambda: list(process.children()), [])


def tree(process: psutil.Process) -> list[psutil.Process]:
    """It, and all that it started and those started; nothing when it is gone."""
    return asked(lambda: [process, *process.children(recursive=True)], [])


def pids(processes: Iterable[psutil.Process]) -> set[int]:
    return {process.pid for process in processes}


def command_line(process: psutil.Process) -> list[str]:
    """Its command; nothing when it is gone."""
    return asked(lambda: list(process.cmdline()), [])


def variable(process: psutil.Process, name: str) -> str:
    """A variable of its environment; "" when there is none, or it is gone."""
    return asked(lambda: str(process.environ().get(name, "")), "")


def nurseries(parent: psutil.Process) -> list[psutil.Process]:
    """The children of parent that fork executors."""
    return [child for child in children(parent) if asked(child.name, "") == "kq-nursery"]


def executors_of(supervisor: psutil.Process) -> list[psutil.Process]:
    """The processes that run a supervisor's jobs."""
    return [executor for nursery in nurseries(supervisor) for executor in born_of(nursery)]


def born_of(nursery: psutil.Process) -> list[psutil.Process]:
    """The executors of a nursery, also those that have a parent of their own."""
    shields = [child for child in children(nursery) if asked(child.name, "") == "kq-shield"]
    return [each for parent in (nursery, *shields) for each in children(parent) if each not in shields]


def cpu(processes: Iterable[psutil.Process]) -> float:
    """Seconds of CPU that processes have used; nothing of those that are gone."""
    return sum(asked(lambda process=process: float(sum(process.cpu_times()[:2])), 0.0) for process in processes)  # type: ignore[misc]


def descriptors(process: psutil.Process) -> list[str]:
    """The open descriptors of a process: for each its number, and a file, a pipe, or from where to where a socket goes.

    A socket of which no more is known than its number was reset.
    """
    sockets = {each.fd: each for each in process.net_connections("all")}
    found = []
    for number in sorted(map(int, os.listdir(f"/proc/{process.pid}/fd"))):
        if each := sockets.get(number):
            what = f"{_end(each.laddr)} → {_end(each.raddr)} {each.status}"
        else:
            what = _link(process.pid, number)
        found.append(f"{number} {what}")
    return found


def _end(address: object) -> str:
    """One end of a connection: host and port, or a path."""
    return ":".join(map(str, address)) if isinstance(address, tuple) else str(address)


def _link(pid: int, descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/{descriptor}")
    except OSError:
        return "closed by now"
