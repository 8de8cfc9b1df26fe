"""Dramatiq: its Redis broker acknowledges after the work; one process of 10 threads."""

import os
import sys

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers.marks import mark

SETTINGS = "RedisBroker, --processes 1 --threads 10"
AT_LEAST_ONCE = "yes"
WORKER = [sys.executable, "-m", "dramatiq", __name__, "--processes", "1", "--threads", "10"]

dramatiq.set_broker(RedisBroker(url=os.environ["PEER_URL"]))


@dramatiq.actor
def nothing(text: str) -> None:
    pass


@dramatiq.actor
def tell(began: float) -> None:
    mark(began)


submit, submit_mark = nothing.send, tell.send
