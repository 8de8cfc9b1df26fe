"""`python -m benchmarks.soak --on redis --minutes 30`: a worker at half its top rate for as long as that.

Prints a line now and then: resident memory and open descriptors of the worker's tree, and how long jobs took to start.
At its end it says whether the last third was as the first: memory within 5 %, no more descriptors, p99 within a half.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from benchmarks.cost import percentile
from benchmarks.jobs import app, started, timed
from benchmarks.place import BROKERS, Place, Running, drained, opened
from kq.conformance.contract.processes import asked

#: Jobs by which the top rate is found; submits in a second, and lines of the table.
TRIAL = 20_000
STEPS = 50
LINES = 30
SPREAD, LATER = 1.05, 1.5


@dataclass(frozen=True, slots=True)
class Line:
    """A part of the time. rss: bytes. p50, p99: seconds from submit to start."""

    rss: int
    descriptors: int
    jobs: int
    p50: float
    p99: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--on", choices=BROKERS, default="redis")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=0.0, help="jobs/s; by default half of what it can")
    wish = parser.parse_args()
    with opened(wish.on, TRIAL, 0) as place, place.worker("thread") as worker:
        rate = wish.rate or top_rate(worker) / 2
        place.marks()
        print(f"{wish.on}: {rate:,.0f} jobs/s for {wish.minutes:g} minutes")
        lines = []
        for line in soak(place, worker, rate, wish.minutes * 60):
            rss, p50, p99 = line.rss / 2**20, line.p50 * 1e3, line.p99 * 1e3
            print(
                f"{line.jobs:10,} jobs  {rss:6.1f} MiB  {line.descriptors:4} open  {p50:7.2f} / {p99:7.2f} ms",
                flush=True,
            )
            lines.append(line)
    print(judged(lines))


def top_rate(worker: Running) -> float:
    """Jobs that it runs in a second when enough wait."""
    return 1 / drained(worker, TRIAL, lambda: submit(TRIAL)).wall


def submit(jobs: int) -> None:
    """Jobs that tell how long they took to start."""
    now = time.time()
    app.submit_many(timed.job(now) for _ in range(jobs))


def soak(place: Place, worker: Running, rate: float, seconds: float) -> Iterator[Line]:
    """Submit at that rate; a line for each part of the time."""
    began, jobs = time.monotonic(), 0
    for number in range(1, LINES + 1):
        until = began + seconds * number / LINES
        while (now := time.monotonic()) < until:
            due = int((now - began) * rate) - jobs
            if due:
                submit(due)
                jobs += due
            time.sleep(1 / STEPS)
        started.submit().result(timeout=60)  # else a worker that falls behind would look well
        yield looked(place, worker, jobs)


def looked(place: Place, worker: Running, jobs: int) -> Line:
    processes = worker.tree()
    late = [start - submitted for submitted, start in place.marks()]
    return Line(
        sum(map(rss, processes)), sum(map(descriptors, processes)), jobs, percentile(late, 0.5), percentile(late, 0.99)
    )


def rss(process: psutil.Process) -> int:
    return asked(lambda: int(process.memory_info().rss), 0)


def descriptors(process: psutil.Process) -> int:
    return asked(lambda: int(process.num_fds()), 0)


def judged(lines: list[Line]) -> str:
    """Whether the last third of lines is as the first; the first line is left out, caches fill in it."""
    third = len(lines) // 3
    first, last = lines[1 : third + 1], lines[-third:]

    def grew(name: str) -> float:
        before, after = ([float(getattr(line, name)) for line in lines] for lines in (first, last))
        return statistics.median(after) / statistics.median(before)

    wrong = [
        f"{text} is {grew(name):.2f} times what it was"
        for name, text, most in (
            ("rss", "memory", SPREAD),
            ("descriptors", "open descriptors", 1.0),
            ("p99", "p99", LATER),
        )
        if grew(name) > most
    ]
    return "flat" if not wrong else "not flat: " + ", ".join(wrong)


if __name__ == "__main__":
    main()
