"""People's programs, which may be killed: each line of the input is one, forked from here so that it begins at once.

A line is SECONDS ACT QUEUE IDS…; after SECONDS (0: never) the kernel kills it, wherever it is. One line of the output
tells how long it took, or "killed". Where the broker is comes from the environment.
"""

from __future__ import annotations

import os
import signal
import sys
import time

import kq_transports.amqp.transport
import kq_transports.redis
import kq_transports.sqlite  # noqa: F401 - all that a program imports is imported here, once
from kq.app import App
from kq.control import Control
from kq.errors import NotRepaired


def main() -> None:
    for line in sys.stdin:
        seconds, act, queue, *ids = line.split()
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            os.write(theirs, str(live(float(seconds), act, queue, ids)).encode())
            os._exit(0)
        os.close(theirs)
        sys.stdout.write(f"{os.read(ours, 100).decode() or 'killed'}\n")
        sys.stdout.flush()
        os.close(ours)
        os.waitpid(child, 0)


def live(seconds: float, act: str, queue: str, ids: list[str]) -> float:
    """Do act to each of ids; returns how long it took."""
    app = App("repair")
    with Control(app) as control:
        control.jobs(queue)  # everything is open
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        began = time.monotonic()
        for id in ids:
            do(control, queue, act, id)
        return time.monotonic() - began


def do(control: Control, queue: str, act: str, id: str) -> None:
    """One act; somebody else may have been faster."""
    try:
        if act == "kick":
            control.kick(queue, ids=[id])
        elif act == "edit":
            control.edit(id, args=["edited"])
        elif act == "bury":
            control.bury(id)
    except NotRepaired:
        return


if __name__ == "__main__":
    main()
