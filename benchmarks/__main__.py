"""`python -m benchmarks [--only redis] [--jobs 20000] [--runs 3] [--write]`: measure and print, or renew the docs.

CPU is that of our processes (producer, or the whole tree of a worker), not of the broker's server.
Medians over the runs. A ratio is to the loop by hand in the same run: figures of two machines differ, ratios less.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.by_hand import Loop, MemoryLoop, RabbitLoop, RedisLoop, SQLiteLoop
from benchmarks.jobs import app, last, nothing, started
from benchmarks.measure import cost, cpu_of, percentile, pss_of, tree
from kq.worker import Worker
from tests.servers import RabbitServer, RedisServer

TEXT = "a" * 100
POOLS = {"process": 2, "thread": 10, "async": 10}
ONE_BY_ONE = 500
STARTS = 200
BULK = 500
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"


@dataclass(slots=True)
class Sheet:
    """Figures of one transport by row; each a list with one value per run."""

    name: str
    rows: dict[str, list[float]] = field(default_factory=dict)

    def note(self, row: str, value: float) -> None:
        self.rows.setdefault(row, []).append(value)

    def median(self, row: str) -> float | None:
        values = self.rows.get(row)
        return statistics.median(values) if values else None


@contextlib.contextmanager
def places(name: str) -> Iterator[tuple[str, Callable[[], Loop]]]:
    """A fresh broker of that kind, and the loop by hand on it."""
    with tempfile.TemporaryDirectory(prefix="kq-bench-") as folder, contextlib.ExitStack() as stack:
        os.environ["XDG_STATE_HOME"] = folder
        if name == "memory":
            yield f"memory://bench{time.time_ns()}", MemoryLoop
        elif name == "sqlite":
            yield f"sqlite:///{folder}/kq.db", lambda: SQLiteLoop(Path(folder) / "hand.db")
        elif name == "redis":
            redis = stack.enter_context(RedisServer())
            yield redis.url, lambda: RedisLoop(redis.url)
        else:
            rabbit = stack.enter_context(RabbitServer())
            yield rabbit.url, lambda: RabbitLoop(rabbit.url)


@contextlib.contextmanager
def worker(url: str, pool: str, concurrency: int) -> Iterator[int | None]:
    """A worker that has run a job; yields its process, None when it lives in this one."""
    if not app.broker.traits.shared:
        with Worker(app, pool=pool, concurrency=concurrency):  # type: ignore[arg-type]
            started.submit().result(timeout=60)
            yield None
        return
    options = ["--url", url, "-A", "benchmarks.jobs:app", "worker", "--pool", pool, "-c", str(concurrency)]
    with subprocess.Popen([sys.executable, "-m", "kq", *options], stderr=subprocess.DEVNULL) as process:
        try:
            started.submit().result(timeout=60)
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)


def submits(sheet: Sheet, loop: Loop, jobs: int) -> None:
    """Submit one by one and in bulk, by hand and with kq."""
    loop.one()
    sheet.note("hand one", cost(ONE_BY_ONE, lambda: [loop.one() for _ in range(ONE_BY_ONE)]).cpu)
    sheet.note("hand bulk", cost(jobs, lambda: loop.many(jobs)).cpu)
    sheet.note("hand drain", cost(jobs, loop.drain).cpu)
    nothing.submit(TEXT)
    sheet.note("submit one", cost(ONE_BY_ONE, lambda: [nothing.submit(TEXT) for _ in range(ONE_BY_ONE)]).cpu)
    sheet.note("submit bulk", cost(jobs, lambda: submit(jobs)).cpu)


def submit(jobs: int) -> None:
    for _ in range(jobs // BULK):
        app.submit_many(nothing.job(TEXT) for _ in range(BULK))


def drains(sheet: Sheet, url: str, jobs: int, backlog: str = "") -> None:
    """Drain no-op jobs that wait already, in each pool. The worker is stopped while they are submitted."""
    for pool, concurrency in POOLS.items():
        with worker(url, pool, concurrency) as process:
            processes = tree(process or os.getpid())
            if process is not None:
                os.kill(process, signal.SIGSTOP)
            submit(jobs)
            end = last.submit()
            used, began = cpu_of(processes), time.perf_counter()
            if process is not None:
                os.kill(process, signal.SIGCONT)
            end.result(timeout=300)
            took = time.perf_counter() - began
            sheet.note(f"drain {pool}{backlog}", (cpu_of(processes) - used) / jobs)
            sheet.note(f"rate {pool}{backlog}", jobs / took)


def starts(sheet: Sheet, url: str) -> None:
    """How long a job takes to start at an idle worker, and to be back; what that worker costs when it sleeps."""
    with worker(url, "process", 2):
        latencies, returns = [], []
        for _ in range(STARTS):
            time.sleep(0.005)  # idle again
            began = time.time()
            at = started.submit().result(timeout=30)
            latencies.append(at - began)
            returns.append(time.time() - began)
        sheet.note("start p50", percentile(latencies, 0.5))
        sheet.note("start p99", percentile(latencies, 0.99))
        sheet.note("result p50", percentile(returns, 0.5))
    with worker(url, "process", 10) as process:
        processes = tree(process or os.getpid())
        used, began = cpu_of(processes), time.perf_counter()
        time.sleep(5)
        sheet.note("idle cpu", (cpu_of(processes) - used) / (time.perf_counter() - began))
        sheet.note("idle pss", pss_of(processes) / 2**20)


def with_backlog(sheet: Sheet, jobs: int, backlog: int) -> None:
    """Submit with many jobs waiting."""
    submit(backlog)
    sheet.note("submit one, backlog", cost(ONE_BY_ONE, lambda: [nothing.submit(TEXT) for _ in range(ONE_BY_ONE)]).cpu)
    sheet.note("submit bulk, backlog", cost(jobs, lambda: submit(jobs)).cpu)


def backlog_drained(sheet: Sheet, url: str) -> None:
    """What a job costs the worker when a long queue is behind it."""
    with worker(url, "thread", POOLS["thread"]) as process:
        processes = tree(process or os.getpid())
        used, before = cpu_of(processes), waiting()
        time.sleep(3)
        sheet.note("drain thread, backlog", (cpu_of(processes) - used) / max(1, before - waiting()))


def waiting() -> int:
    inspector = app.inspector()
    try:
        return inspector.count("default").ready
    finally:
        inspector.close()


def measure(name: str, jobs: int, runs: int, backlog: int) -> Sheet:
    """All figures of one transport."""
    sheet = Sheet(name)
    for _ in range(runs):
        with places(name) as (url, loop):
            app.close()
            app.configure(url=url)
            submits(sheet, loop(), jobs)
            drains(sheet, url, jobs)
            starts(sheet, url)
            with_backlog(sheet, jobs // 4, backlog)
            backlog_drained(sheet, url)
            app.close()
        print(f"  {name}: {sheet.median('drain thread') or 0:.6f} s CPU a job in threads", file=sys.stderr)
    return sheet


ROWS = [
    ("submit one by one, CPU µs", "submit one", "hand one"),
    ("submit in bulk, CPU µs a job", "submit bulk", "hand bulk"),
    ("drain, process pool, CPU µs a job", "drain process", "hand drain"),
    ("drain, thread pool, CPU µs a job", "drain thread", "hand drain"),
    ("drain, async pool, CPU µs a job", "drain async", "hand drain"),
    ("submit one by one, backlog, CPU µs", "submit one, backlog", "submit one"),
    ("submit in bulk, backlog, CPU µs a job", "submit bulk, backlog", "submit bulk"),
    ("drain, thread pool, backlog, CPU µs a job", "drain thread, backlog", "drain thread"),
]
PLAIN = [
    ("drain, process pool, jobs/s", "rate process", 1.0, "{:,.0f}"),
    ("drain, thread pool, jobs/s", "rate thread", 1.0, "{:,.0f}"),
    ("drain, async pool, jobs/s", "rate async", 1.0, "{:,.0f}"),
    ("start at an idle worker, p50 ms", "start p50", 1e3, "{:.2f}"),
    ("start at an idle worker, p99 ms", "start p99", 1e3, "{:.2f}"),
    ("submit to result, p50 ms", "result p50", 1e3, "{:.2f}"),
    ("idle worker of 10 executors, % of a core", "idle cpu", 100.0, "{:.2f}"),
    ("idle worker of 10 executors, MiB PSS", "idle pss", 1.0, "{:.0f}"),
]


def table(sheets: list[Sheet]) -> str:
    """The figures as a Markdown table."""
    lines = ["| | " + " | ".join(sheet.name for sheet in sheets) + " |", "|---|" + "---|" * len(sheets)]
    for text, row, base in ROWS:
        lines.append(f"| {text} | " + " | ".join(_ratio(sheet, row, base) for sheet in sheets) + " |")
    for text, row, factor, form in PLAIN:
        values = [sheet.median(row) for sheet in sheets]
        lines.append(f"| {text} | " + " | ".join("–" if v is None else form.format(v * factor) for v in values) + " |")
    return "\n".join(lines)


def _ratio(sheet: Sheet, row: str, base: str) -> str:
    value, hand = sheet.median(row), sheet.median(base)
    if value is None:
        return "–"
    return f"{value * 1e6:.0f}" + (f" ({value / hand:.1f} ×)" if hand else "")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", action="append", choices=["memory", "sqlite", "redis", "rabbitmq"])
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--backlog", type=int, default=100_000)
    parser.add_argument("--write", action="store_true", help=f"renew {PAGE.name}")
    arguments = parser.parse_args()
    names = arguments.only or ["memory", "sqlite", "redis", "rabbitmq"]
    sheets = [measure(name, arguments.jobs, arguments.runs, arguments.backlog) for name in names]
    text = table(sheets)
    print(text)
    if arguments.write:
        machine = f"{platform.machine()}, {psutil.cpu_count()} cores, Python {platform.python_version()}"
        about = f"{machine}; {arguments.jobs:,} jobs, median of {arguments.runs} runs, backlog {arguments.backlog:,}"
        head = PAGE.read_text().split("<!-- figures -->")[0] if PAGE.exists() else "# Benchmarks\n\n"
        PAGE.write_text(f"{head}<!-- figures -->\n\n{about}\n\n{text}\n")


if __name__ == "__main__":
    main()
