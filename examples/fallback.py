"""Jobs that can't be done the good way are done the simple way, also when the good way hangs where nothing reaches it.

    python examples/fallback.py
    KQ_URL=redis://localhost:6379/0 python examples/fallback.py

It stays one job: one id, one handle, one history, and the handle says who answered.
"""

from __future__ import annotations

import collections
import itertools

import kq

app = kq.App("fallback", queue="fallback")


@app.job
def placeholder(page: str) -> str:
    """What always works."""
    return f"a grey box for {page}"


@app.job(queue="sketches")
def sketch(page: str) -> str:
    """The simple way, in a queue of its own."""
    if page == "poem":
        raise ValueError("a poem has no lines to draw")
    return f"a sketch of {page}"


@app.job(timeout=1, fallback=[sketch, placeholder])
def render(page: str) -> str:
    """The good way."""
    if page == "maze":
        collections.deque(itertools.repeat("left"), maxlen=0)  # for ever, in C: no signal is handled any more
    if page != "map":
        raise ValueError(f"{page} is no map")
    return f"a picture of {page}"


@app.job
def apologize(reason: str) -> str:
    """What has other arguments."""
    return f"sorry: {reason}"


def main() -> list[kq.Handle[str]]:
    """Submit some; print who answered."""
    handles = app.submit_many(render.job(page) for page in ("map", "cat", "poem", "maze"))
    either = render.job("rain") | apologize.job("it rains")  # a value: it can be printed, compared and stored
    print(either)
    handles.append(app.submit(either))
    for handle in handles:
        print(f"{handle.result(timeout=30)} (fallback {handle.degraded_by()})")
    return handles


def look(handles: list[kq.Handle[str]]) -> None:
    """Print how it came to that."""
    with kq.Control(app) as control:
        for handle in handles:
            job = control.job(handle.id)
            if job and job.history:
                tried = ", ".join(f"{each.type} {each.outcome}" for each in job.history)
                print(f"{tried}; then {job.type}")


if __name__ == "__main__":
    with kq.Worker(app, concurrency=2):
        submitted = main()
    look(submitted)
    app.close()

# prints: fallback.render('rain') | fallback.apologize('it rains')
# prints: a picture of map (fallback 0)
# prints: a sketch of cat (fallback 1)
# prints: a grey box for poem (fallback 2)
# prints: a sketch of maze (fallback 1)
# prints: sorry: it rains (fallback 1)
# prints: fallback.render raised; then fallback.sketch
# prints: fallback.render raised, fallback.sketch raised; then fallback.placeholder
# prints: fallback.render timed out; then fallback.sketch
# prints: fallback.render raised; then fallback.apologize
