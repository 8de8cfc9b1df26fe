"""Celery: late acks, as its documentation asks of tasks that must not be lost; no results; a pool of 10 threads."""

import os
import sys

from celery import Celery

from benchmarks.peers.marks import mark

SETTINGS = "Redis, task_acks_late, task_reject_on_worker_lost, task_ignore_result, --pool threads -c 10"
AT_LEAST_ONCE = "yes"
WORKER = [sys.executable, "-m", "celery", "-A", __name__, "worker", "--pool", "threads", "-c", "10", "-l", "ERROR"]

app = Celery(__name__, broker=os.environ["PEER_URL"])
app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True, task_ignore_result=True)


@app.task
def nothing(text: str) -> None:
    pass


@app.task
def tell(began: float) -> None:
    mark(began)


submit, submit_mark = nothing.delay, tell.delay
