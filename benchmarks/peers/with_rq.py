"""RQ: its default worker forks for each job; results are not kept. A job whose worker dies is taken for failed."""

import os
import sys

from redis import Redis
from rq import Queue

from benchmarks.peers.marks import mark

SETTINGS = "the default worker, which forks for each job; result_ttl=0; one at a time"
AT_LEAST_ONCE = "no: a job whose worker died has failed"
WORKER = [sys.executable, "-m", "rq.cli", "worker", "--url", os.environ["PEER_URL"], "--quiet"]

_queue = Queue(connection=Redis.from_url(os.environ["PEER_URL"]))


def nothing(text: str) -> None:
    pass


def submit(text: str) -> None:
    _queue.enqueue(nothing, text, result_ttl=0)


def submit_mark(began: float) -> None:
    _queue.enqueue(mark, began, result_ttl=0)
