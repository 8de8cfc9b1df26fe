"""Coroutines as jobs, and jobs from a program that runs an event loop.

    python examples/async_jobs.py
    KQ_URL=redis://localhost:6379/0 python examples/async_jobs.py

The pool "async" runs many coroutines in one process; `kq -A examples/async_jobs.py worker --pool async -c 1000` is the
same as a program. An `async def` job runs in the other pools too, and a plain function runs in this one.
"""

from __future__ import annotations

import asyncio
import time

import kq

app = kq.App("async", queue="async_jobs", timeout=30)

PAGES = 40


@app.job
async def fetch(page: int) -> int:
    """Wait, as for a server far away; returns the length of the page."""
    await asyncio.sleep(0.5)
    return 100 * page


@app.job
def add(numbers: list[int]) -> int:
    """A plain function: the loop is not blocked, it runs in a thread."""
    return sum(numbers)


@app.job(timeout=0.3, on_timeout="bury")
async def hang() -> None:
    """Wait too long: cancelled at the timeout, with the others undisturbed."""
    await asyncio.sleep(60)


async def main() -> None:
    print(await fetch(1))  # an ordinary coroutine, here and now
    stuck = await hang.submit_async()
    began = time.monotonic()
    handles = await asyncio.gather(*(fetch.submit_async(page) for page in range(PAGES)))
    sizes = [await handle async for handle in kq.as_completed(handles)]  # waits without blocking the loop
    took = time.monotonic() - began
    print(f"{PAGES} pages at the same time: {took < PAGES * 0.5 / 2}")
    print(await (await add.submit_async(sizes)))
    try:
        await stuck
    except kq.JobBuried as buried:
        print(buried.error)


if __name__ == "__main__":
    with kq.Worker(app, pool="async"):
        asyncio.run(main())
    app.close()

# prints: 100
# prints: 40 pages at the same time: True
# prints: 78000
# prints: SoftTimeout: the job ran past its timeout
