"""What becomes of jobs that fail, each in its own way, and what kq.Control says of them afterwards.

    python examples/failures.py
    KQ_URL=redis://localhost:6379/0 python examples/failures.py

What was set aside stays in its queue for a human: `kq jobs ls --state buried`, `kq jobs show ID`.
"""

from __future__ import annotations

import os
import signal
import time

import kq

app = kq.App("failures", queue="failures")


def attempt() -> int:
    """The number of the attempt that runs here: 1 for the first."""
    job = kq.current_job()
    return job.attempt if job else 1


@app.job(retry_policy=kq.by_error({ConnectionError: kq.Fixed(delay=0.2, retries=2)}))
def fetch(url: str) -> str:
    """Fail twice with an error that may pass: retried by the policy for that error."""
    if attempt() < 3:
        raise ConnectionError(f"{url} does not answer")
    return f"fetched at attempt {attempt()}"


@app.job
def order(number: int) -> str:
    """Say oneself when to try again, and give up after a while."""
    if attempt() < 2:
        raise kq.Retry(f"order {number} is not paid yet", delay=0.2)
    return f"sent at attempt {attempt()}"


@app.job
def read(row: int) -> None:
    """Find that this can't be done, now or later."""
    raise kq.BadJob(f"row {row} has no date")


@app.job
def divide(a: int, b: int) -> float:
    """Raise what a second run can't mend: set aside at once, without a retry."""
    return a / b


@app.job(timeout=0.5, on_timeout="bury")
def hang() -> None:
    """Run past the timeout: interrupted, and if that does not help, killed."""
    time.sleep(60)


@app.job
def crash() -> str:
    """Lose one's process: run again at once by another one."""
    if attempt() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return f"done at attempt {attempt()}"


@app.job(max_lost=2)
def poison() -> None:
    """Lose one's process each time: set aside before it kills all workers."""
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> list[kq.Handle[object]]:
    """Submit one of each; print what the submitter learns."""
    jobs: list[kq.Job[object]] = [
        fetch.job("example.org"),
        order.job(7),
        read.job(3),
        divide.job(1, 0),
        hang.job(),
        crash.job(),
        poison.job(),
    ]
    handles = app.submit_many(jobs)
    for job, handle in zip(jobs, handles, strict=True):
        try:
            print(f"{job.type}: {handle.result(timeout=30)}")
        except kq.JobBuried as buried:
            print(f"{job.type} was buried: {buried.error}")
    return handles


def look(handles: list[kq.Handle[object]]) -> None:
    """Print what is known of the jobs that were set aside: arguments, error, and how each attempt ended."""
    with kq.Control(app) as control:
        known = [control.job(handle.id) for handle in handles]
    for job in known:
        if job and job.state is kq.State.BURIED:
            ends = ", ".join(each.outcome for each in job.history)
            print(f"{job.type} {job.args}: {job.error.partition(':')[0]} after {job.attempt} attempt(s): {ends}")


if __name__ == "__main__":
    with kq.Worker(app, concurrency=2):
        submitted = main()
    look(submitted)
    app.close()

# prints: failures.fetch: fetched at attempt 3
# prints: failures.order: sent at attempt 2
# prints: failures.read was buried: BadJob: row 3 has no date
# prints: failures.divide was buried: ZeroDivisionError: division by zero
# prints: failures.hang was buried: SoftTimeout: the job ran past its timeout
# prints: failures.crash: done at attempt 2
# prints: failures.poison was buried: ExecutorDied: its executor died (signal 9 (SIGKILL)), 2 of at most 2 times
# prints: failures.read [3]: BadJob after 1 attempt(s): raised
# prints: failures.divide [1, 0]: ZeroDivisionError after 1 attempt(s): raised
# prints: failures.hang []: SoftTimeout after 1 attempt(s): timed out
# prints: failures.poison []: ExecutorDied after 2 attempt(s): died, died
