"""People's programs, which may be killed: each line of the input is one, forked from here so that it begins at once.

A line is WHEN ACT QUEUE IDS…; after WHEN seconds (0: never) the kernel kills it, wherever it is, or, where that is
@NUMBER, right before so many calls to broker and state store are over. One line of the output tells how long it took,
or "killed". Where the broker is comes from the environment.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import kq_transports.amqp.transport
import kq_transports.redis
import kq_transports.sqlite  # noqa: F401 - all that a program imports is imported here, once
from kq.app import App
from kq.broker import Inspector, Session
from kq.control import Control
from kq.errors import NotRepaired

#: The calls before which a program may die.
STORE = ("get", "write", "scan", "gather", "now")
LOOKING = ("queues", "find", "browse", "swap", "remove", "nudge")
TAKING = ("settle", "declare", "beat")


def main() -> None:
    for line in sys.stdin:
        when, act, queue, *ids = line.split()
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            os.write(theirs, str(live(when, act, queue, ids)).encode())
            os._exit(0)
        os.close(theirs)
        sys.stdout.write(f"{os.read(ours, 100).decode() or 'killed'}\n")
        sys.stdout.flush()
        os.close(ours)
        os.waitpid(child, 0)


def live(when: str, act: str, queue: str, ids: list[str]) -> float:
    """Do act to each of ids; returns how long it took."""
    app = App("repair")
    with Control(app) as control:
        control.jobs(queue)  # everything is open
        if when.startswith("@"):
            before_call(app, int(when[1:]), lambda: os.kill(os.getpid(), signal.SIGKILL), setattr)
        else:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, float(when))
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
        elif act == "complete":
            control.complete(id, "by hand")
        elif act == "rm":
            control.delete(id)
        elif act == "revoke":
            control.revoke(id)
        elif act == "purge":
            control.purge(queue)
    except NotRepaired:
        return


def before_call(app: App, number: int, die: Callable[[], object], put: Callable[[Any, str, Any], None]) -> None:
    """Let die() happen right before the call of that number, from 0, to broker or state store, of this thread's.

    put: sets a method.
    """
    left, mine = iter(range(number)), threading.get_ident()

    def mortal(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() == mine and next(left, None) is None:
                die()
            return call(*args, **kwargs)

        return wrapped

    for kind, verbs in (type(app.store), STORE), (Inspector, LOOKING), (Session, TAKING):
        for verb in verbs:
            put(kind, verb, mortal(getattr(kind, verb)))


if __name__ == "__main__":
    main()
