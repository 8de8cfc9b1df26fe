"""A Celery app on kq's transports: the broker's URL is all that changes, and a killed worker loses nothing.

    python examples/celery_app.py
    CELERY_URL=kq-redis://localhost:6379/0 python examples/celery_app.py

Needs Celery: `pip install celery`. It starts its workers itself (`python examples/celery_app.py worker` is one of them)
and kills the first in the middle of a task. In a project of your own write `import kq_transports` beside
`import celery`, and `broker="kq-sqlite:////var/lib/shop/jobs.db"`; the rest stays as it is.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import celery

import kq_transports

kq_transports.register()

app = celery.Celery("shop", broker=os.environ.get("CELERY_URL", "kq-sqlite:///celery.db"), backend="rpc://")
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_heartbeat=3,  # seconds of silence after which what a worker had goes to others
    task_acks_late=True,  # a task leaves the broker when it is done, not when it begins
    task_default_queue="celery_app",
    task_queue_max_priority=9,
    worker_prefetch_multiplier=1,
)


@app.task(name="add")
def add(a: int, b: int) -> int:
    return a + b


@app.task(name="report", bind=True)
def report(self: Any, begun: str) -> str:
    """Take an hour, unless another worker was killed while it tried. The file begun says that it has begun."""
    if self.request.delivery_info["redelivered"]:
        return "the report is done, by another worker"
    Path(begun).touch()
    time.sleep(3600)
    return "the report is done"


@contextlib.contextmanager
def worker(name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Celery worker in a process group of its own, which is killed at the end."""
    words = [sys.executable, "-W", "ignore", __file__, "worker", "-n", f"{name}@%h", "-c", "2", "--loglevel", "error"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        begun = Path(folder) / "begun"
        with worker("first"):
            print("2 + 3 =", add.apply_async((2, 3), priority=9).get(timeout=30))
            result = report.delay(str(begun))
            while not begun.exists():
                time.sleep(0.05)
        print("the first worker was killed in the middle of the report")
        with worker("second"):
            print(result.get(timeout=30))


if __name__ == "__main__":
    if sys.argv[1:]:
        app.start(sys.argv[1:])
    else:
        main()

# prints: 2 + 3 = 5
# prints: the first worker was killed in the middle of the report
# prints: the report is done, by another worker
