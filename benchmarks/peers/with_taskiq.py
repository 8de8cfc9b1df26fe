"""taskiq: a Redis stream, acknowledged when executed; coroutines, 10 at a time."""

import asyncio
import os
import sys

from taskiq_redis import RedisStreamBroker

from benchmarks.peers.marks import mark

SETTINGS = "RedisStreamBroker, --workers 1 --max-async-tasks 10 --ack-type when_executed"
AT_LEAST_ONCE = "yes"
WORKER = [
    *(sys.executable, "-m", "taskiq", "worker", f"{__name__}:broker", "--workers", "1"),
    *("--max-async-tasks", "10", "--ack-type", "when_executed", "--log-level", "ERROR"),
]

broker = RedisStreamBroker(os.environ["PEER_URL"])
_loop = asyncio.new_event_loop()


@broker.task
async def nothing(text: str) -> None:
    pass


@broker.task
async def tell(began: float) -> None:
    mark(began)


def begin() -> None:
    _loop.run_until_complete(broker.startup())


def submit(text: str) -> None:
    _loop.run_until_complete(nothing.kiq(text))


def submit_mark(began: float) -> None:
    _loop.run_until_complete(tell.kiq(began))
