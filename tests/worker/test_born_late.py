"""What was meant for an executor that is not born yet when the lease ends: nobody begins it there."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from math import inf

import pytest

from kq.broker import Delivery
from kq.clock import SYSTEM
from kq.values.job import Counters
from kq.values.message import Head
from kq.values.outcome import Rules
from kq.worker.child import Executor
from kq.worker.lapse import Lapse
from kq.worker.pool import Pool
from kq.worker.task import Kind, Task
from kq.worker.wire import Claims, Order, Page, Run, frame

#: An executor, as its nursery begins it.
EXECUTOR = """
import os, socket, sys
from kq.app import App
from kq.worker.executor import run_executor
from kq.worker.lapse import Lapse, Sight
from kq.worker.wire import Claims, Page
sock, page, claims, lapse = map(int, sys.argv[1:])
claimed = Claims(1, (claims, -1))
run_executor(App("late"), socket.socket(fileno=sock), Page(1, page), claimed, Sight(Lapse(lapse)), "process")
os._exit(0)
"""


@pytest.mark.parametrize(("left", "begun"), [(inf, {1}), (-1.0, set())])
def test_an_executor_that_is_born_after_the_end_of_the_lease_begins_nothing(left: float, begun: set[int]) -> None:
    ours, theirs = socket.socketpair()
    page, claims, lapse = Page(1), Claims(1), Lapse()
    lapse.moment = time.monotonic() + left
    claims.offer([1])
    ours.sendall(frame(Order([Run(1, "j", "note", "q", b"{}", 1, 60.0)], leave=True)))
    given = [theirs.fileno(), page.descriptor, claims.reader, lapse.descriptor]
    executor = subprocess.Popen(
        [sys.executable, "-c", EXECUTOR, *map(str, given)], pass_fds=given, start_new_session=True
    )
    try:
        assert executor.wait(30) == (0 if begun else -signal.SIGKILL)
        assert page.marked() == begun
    finally:
        for each in (ours, theirs, page, claims, lapse):
            each.close()


def test_what_an_executor_that_is_not_born_was_given_is_taken_from_it_when_all_are_killed() -> None:
    ours, theirs = socket.socketpair()
    executor = Executor(1, ours, Page(1), Claims(2), slots=1, signalled=True)
    pool = Pool("", "memory://late", "", "process", 1, SYSTEM, lambda ends: None)
    pool.executors[1] = executor
    born = Claims(2, (os.dup(executor.claims.reader), -1))
    delivery = Delivery(1, "q", "j", {}, b"{}", 0, False, "")
    task = Task(delivery, Head(id="j", type="t"), Kind("t", Rules(), 60.0, 0.0), Counters())
    pool.give(executor, [task])
    pool.kill_all()
    assert not born.claim(task.seq)
    executor.close()
    theirs.close()
    os.close(born.reader)
    pool.cradle.close()
    pool.lapse.close()
