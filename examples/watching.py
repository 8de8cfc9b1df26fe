"""Watching jobs at work: how far they are, what happens to them, what they log, and all of it at one look.

    python examples/watching.py
    KQ_URL=redis://localhost:6379/0 python examples/watching.py

At a terminal the same is `kq status -w`, `kq events -f` and `kq logs -f`.
"""

from __future__ import annotations

import logging
import threading
import time

import kq

app = kq.App("watching", queue="watching")
log = logging.getLogger("watching")


@app.job(timeout=5)
def scan(pages: int) -> str:
    """Read pages one by one, and say so."""
    job = kq.current_job()
    for page in range(1, pages + 1):
        if job:
            job.progress(page, pages, f"page {page}")
            job.extend(1)  # each page may take one more second
        time.sleep(0.3)
    log.warning("%d pages, and page 4 is empty", pages)
    return f"{pages} pages"


def listen(heard: list[str], begun: threading.Event, over: threading.Event) -> None:
    """Note what happens to jobs, until over."""
    with kq.Control(app) as control:
        for event in control.events(queue="watching", over=over):
            begun.set()
            if event.event != "submitted" and event.type.endswith("scan"):
                heard.append(event.event)


@app.job
def hello() -> None:
    """Something that happens, to know that somebody listens."""


def main() -> None:
    heard, begun, over = list[str](), threading.Event(), threading.Event()
    listener = threading.Thread(target=listen, args=(heard, begun, over))
    listener.start()
    while not begun.wait(0.1):
        hello.submit().result(timeout=20)

    handle = scan.submit(6)
    with kq.Control(app) as control:
        while "progress" not in heard:
            time.sleep(0.05)
        control.ping()  # workers describe themselves now, and not only with their next beat
        (queue,) = [queue for queue in control.snapshot().queues if queue.name == "watching"]
        print(f"at one look: {queue.running} runs, {queue.ready} ready, {queue.workers} worker, {queue.state}")
        running = [job for worker in control.snapshot().workers for job in worker.running]
        said = [job.progress for job in running if job.id == handle.id]
        print(f"it said how far it is: {bool(said and said[0] and said[0].of == 6)}")

        print(handle.result(timeout=20))
        while "completed" not in heard:
            time.sleep(0.05)
        over.set()
        listener.join()
        print(f"heard: {', '.join(dict.fromkeys(heard))}")
        done = control.job(handle.id)
        print(f"logged: {done.log.strip().split(' ', 2)[2] if done else ''}")


if __name__ == "__main__":
    with kq.Worker(app, concurrency=1):
        main()
    app.close()

# prints: at one look: 1 runs, 0 ready, 1 worker, ok
# prints: it said how far it is: True
# prints: 6 pages
# prints: heard: started, progress, completed
# prints: logged: WARNING watching: 6 pages, and page 4 is empty
