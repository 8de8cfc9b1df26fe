"""`kq bench`: what this broker and this host make of jobs that do nothing, from the submit to the result."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import quantiles
from typing import Any

import click

from kq.app import App
from kq.cli.bench_jobs import app, nothing
from kq.cli.failing import Late
from kq.cli.frame import flags, verb
from kq.cli.show import print_json, print_table
from kq.cli.target import settings
from kq.clock import new_id
from kq.control import Control, Health
from kq.units import format_duration
from kq.worker import Worker

#: So many are submitted one by one, and waited for one by one, at most.
SINGLES = 300
#: So many in one transaction.
BATCH = 100
#: Seconds that one step may take, and between two looks at how far it is.
PATIENCE, LOOK = 300.0, 0.02
LOOK_WHY = "kq doctor looks at the whole way."


@verb("bench")
@click.option("--jobs", type=click.IntRange(100, 1_000_000), default=5000, show_default=True, help="To submit and run.")
@click.option("-c", "--concurrency", type=click.IntRange(1), default=None, help="Jobs at once. [one per CPU]")
@click.option("--pool", type=click.Choice(["process", "thread", "async"]), default="process", show_default=True)
def command(jobs: int, concurrency: int | None, pool: str) -> None:
    """Measure this broker from this host: submitting, running, and the time from a submit to its result.

    Uses a queue of its own, a worker of its own, and jobs that do nothing; takes them away again. Other load on the
    broker or this host counts in.
    """
    loaded = settings()
    app.configure(url=loaded.config.url, state=loaded.config.state)
    queue = f"bench-{new_id()[-8:]}"
    slots = concurrency or os.cpu_count() or 2
    try:
        with Control(app) as control:
            with _worker(app, control, queue, slots, pool):
                measured = _measure(control, queue, jobs)
            control.remove_queue(queue, reason="kq bench")
    finally:
        app.close()
    told = {"url": app.address.redacted, "pool": pool, "concurrency": slots, "jobs": jobs, **measured}
    if flags().json:
        print_json(told)
    else:
        _tell(told)


def _measure(control: Control, queue: str, jobs: int) -> dict[str, Any]:
    """Rates a second, and times in seconds."""
    one, count = nothing.options(queue=queue), min(SINGLES, jobs)
    waited = sorted(_timed(lambda: one.submit(1).result(PATIENCE)) for _ in range(count))
    control.pause(queue, reason="kq bench")
    singles = sorted(_timed(lambda: one.submit(1)) for _ in range(count))
    began = time.perf_counter()
    for first in range(0, jobs, BATCH):
        app.submit_many(one.job(number) for number in range(first, min(first + BATCH, jobs)))
    bulk = time.perf_counter() - began
    began = time.perf_counter()
    control.resume(queue, reason="kq bench")
    _until(lambda: _is_empty(control, queue), "all jobs have run")
    ran = time.perf_counter() - began
    return {
        "submit": {"rate": count / sum(singles), **_quantiles(singles)},
        "submit_many": {"rate": jobs / bulk},
        "run": {"rate": (jobs + count) / ran},
        "result": _quantiles(waited),
    }


def _timed(act: Any) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _quantiles(times: list[float]) -> dict[str, float]:
    parts = quantiles(times, n=100)
    return {"p50": parts[49], "p99": parts[98]}


def _is_empty(control: Control, queue: str) -> bool:
    (seen,) = [each for each in control.queues() if each.name == queue]
    return not seen.ready and not seen.held


def _until(so: Any, what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not so():
        if time.monotonic() > until:
            raise Late(f"after {format_duration(PATIENCE)} it was not so that {what}", fix=LOOK_WHY)
        time.sleep(LOOK)


@contextlib.contextmanager
def _worker(bench: App, control: Control, queue: str, slots: int, pool: Any) -> Iterator[None]:
    """A worker for queue that is there: a program of its own where it can share the broker, else in this one."""
    if not bench.broker.traits.shared:
        with Worker(bench, queues=[queue], concurrency=slots, pool=pool):
            yield
        return
    # The URL may hold a password, which is nobody's to see among the arguments.
    place = {"KQ_URL": bench.address.url, **({"KQ_STATE": bench.address.state} if bench.address.state else {})}
    words = ["-A", "kq.cli.bench_jobs:app", "worker", "-Q", queue, "-c", str(slots), "--pool", pool, "--no-control"]
    line = [sys.executable, "-m", "kq", *words]
    with subprocess.Popen(line, env={**os.environ, **place}, stderr=subprocess.DEVNULL) as process:
        try:
            _until(lambda: process.poll() is not None or _is_served(control, queue), "its worker is there")
            if process.returncode is not None:
                raise Late("its worker did not start", fix=LOOK_WHY)
            yield
        finally:
            process.send_signal(signal.SIGTERM)


def _is_served(control: Control, queue: str) -> bool:
    return any(queue in beat.worker.queues and beat.health is Health.ALIVE for beat in control.heartbeat_check())


def _times(told: dict[str, float]) -> list[str]:
    return [format_duration(told["p50"]), format_duration(told["p99"])]


def _tell(told: dict[str, Any]) -> None:
    click.echo(f"{told['url']}, {told['jobs']:,} jobs, pool {told['pool']}, {told['concurrency']} at once\n")
    submit, result = told["submit"], told["result"]
    rows = [
        ["submit one by one", f"{submit['rate']:,.0f}/s", *_times(submit)],
        ["submit in bulk", f"{told['submit_many']['rate']:,.0f}/s", "", ""],
        ["run", f"{told['run']['rate']:,.0f}/s", "", ""],
        ["submit to result", "", *_times(result)],
    ]
    print_table(["WHAT", "RATE", "P50", "P99"], rows, right="RATE P50 P99")
