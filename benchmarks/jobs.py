"""The jobs that are measured."""

from __future__ import annotations

import os
import time

import kq

app = kq.App("benchmark", keep=float(os.environ.get("KQ_BENCH_KEEP", "0")))


@app.job
def nothing(text: str) -> None:
    """Do nothing with a short argument."""


@app.job(priority=0, keep=60)
def last() -> None:
    """Tell that all before it are done: it has the lowest priority."""


@app.job(priority=9, keep=60)
def started() -> float:
    """When it started, by the host's clock."""
    return time.time()
