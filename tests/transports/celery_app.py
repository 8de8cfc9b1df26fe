"""The Celery app of test_celery.py: a broker of ours, and tasks that write a diary."""

from __future__ import annotations

import os
import time

import celery

import kq_transports

kq_transports.register()

app = celery.Celery("diary", broker=os.environ.get("CELERY_TEST_BROKER", "kq-memory://celery"))
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_heartbeat=2,
    task_acks_late=True,
    task_ignore_result=True,
    task_queue_max_priority=9,
    task_reject_on_worker_lost=True,
    worker_hijack_root_logger=False,
    worker_prefetch_multiplier=1,
)


def note(line: str) -> None:
    with open(os.environ["CELERY_TEST_DIARY"], "a") as diary:
        diary.write(line + "\n")


@app.task(name="work")  # type: ignore[untyped-decorator]
def work(name: str, seconds: float = 0.0) -> None:
    """Note the beginning and the end of some work."""
    note(f"began {name}")
    time.sleep(seconds)
    note(f"ended {name}")
