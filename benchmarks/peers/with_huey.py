"""Huey: its Redis queue gives a task away before it runs; a consumer of 10 threads, no results."""

import os
import sys
from pathlib import Path

from huey import RedisHuey

from benchmarks.peers.marks import mark

SETTINGS = "RedisHuey(results=False), -k thread -w 10"
AT_LEAST_ONCE = "no: a task is gone once it is taken"
WORKER = [str(Path(sys.executable).with_name("huey_consumer")), f"{__name__}.huey", "-k", "thread", "-w", "10", "-q"]

huey = RedisHuey("peer", url=os.environ["PEER_URL"], results=False)


@huey.task()
def nothing(text: str) -> None:
    pass


@huey.task()
def tell(began: float) -> None:
    mark(began)


submit, submit_mark = nothing, tell
