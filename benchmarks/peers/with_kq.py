"""kq: all guarantees on, a pool of 10 threads, no results."""

import os
import sys

import kq
from benchmarks.peers.marks import mark

SETTINGS = "--pool thread -c 10, keep=0"
AT_LEAST_ONCE = "yes"
WORKER = [
    *(sys.executable, "-m", "kq", "--url", os.environ["PEER_URL"], "-A", f"{__name__}:app", "worker"),
    *("--pool", "thread", "-c", "10"),
]

app = kq.App("peer", os.environ["PEER_URL"], keep=0)


@app.job
def nothing(text: str) -> None:
    pass


@app.job
def tell(began: float) -> None:
    mark(began)


submit, submit_mark = nothing.submit, tell.submit
