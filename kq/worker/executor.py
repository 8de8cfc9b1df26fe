"""An executor: the process that runs jobs' code, and may be killed at any time.

It talks to its supervisor over one socket and never to the broker. How jobs run in it is told by serial, threads and
coroutines, one for each kind of pool; here is what it is as a process: its signals, and its log.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from kq.app import App
from kq.effects.context import Footing, running
from kq.logging import Handler
from kq.values.failure import laid_out
from kq.values.redaction import end_of
from kq.worker.coroutines import run_in_loop
from kq.worker.lapse import Sight
from kq.worker.lookout import look_out
from kq.worker.serial import run_serially
from kq.worker.threads import run_in_threads
from kq.worker.wire import LOG_SIZE, Claims, Page
from kq.worker.workbench import Workbench

#: What the supervisor decides about; a signal to the whole group must not cut jobs short.
DEAF_TO = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def run_executor(app: App, sock: socket.socket, page: Page, claims: Claims, sight: Sight, pool: str) -> None:
    """Run jobs until the supervisor says leave or is gone."""
    ways: dict[str, Callable[[Workbench], None]] = {
        "process": run_serially,
        "thread": run_in_threads,
        "async": run_in_loop,
    }
    be_deaf()
    signal.signal(signal.SIGCONT, lambda number, at: _live_on(sight))
    _live_on(sight)  # the nursery may have been frozen when it was to bear us
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    os.register_at_fork(
        # What is sent to a child before it is an ordinary process waits until then.
        before=partial(signal.pthread_sigmask, signal.SIG_BLOCK, DEAF_TO),
        after_in_parent=partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, DEAF_TO),
        after_in_child=partial(_let_go, sock),
    )
    keep_log(page, Handler(app))
    bench = Workbench(app, sock, page, claims, Footing(app, lapse=lambda: sight.moment))
    look_out(page, bench.coroutines, pool)
    ways[pool](bench)
    app.observers.close()


def keep_log(page: Page, teller: Handler) -> None:
    """Let page, the job that logs it and teller have every line that Python's logging makes, whatever else is done."""
    make = logging.getLogRecordFactory()

    def make_and_keep(*args: Any, **more: Any) -> logging.LogRecord:
        record = make(*args, **more)
        with contextlib.suppress(Exception):  # a message that can't be formatted is the logger's to complain of
            line = f"{time.strftime('%H:%M:%S %z')} {record.levelname} {record.name}: {record.getMessage()}\n"
            if record.exc_info and (error := record.exc_info[1]) is not None:
                line += "".join(laid_out(error, record.exc_info[2], LOG_SIZE).format())
            line = end_of(line, LOG_SIZE)  # before anybody keeps it, or looks through it
            page.remember(line)
            if (job := running.get()) is not None:
                job.keep(line)
                teller.emit(record)
        return record

    logging.setLogRecordFactory(make_and_keep)


def be_deaf() -> None:
    """Do nothing on signals that ask to end. Not SIG_IGN: programs that jobs start would inherit that."""
    for number in DEAF_TO:
        signal.signal(number, lambda number, at: None)


def _live_on(sight: Sight) -> None:
    """All of us were frozen, the nursery too: when the lease ended meanwhile not a step more, others go on with it."""
    if time.monotonic() >= sight.moment:
        os.killpg(0, signal.SIGKILL)


def _let_go(sock: socket.socket) -> None:
    """Be an ordinary process: one that a job forked must not speak for its executor, nor hide that it died."""
    sock.close()
    for number in DEAF_TO:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, DEAF_TO)
