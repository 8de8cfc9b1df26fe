"""Submit jobs and get their results: the twenty lines of the README, with a worker beside them.

    python examples/hello.py
    KQ_URL=redis://localhost:6379/0 python examples/hello.py

Without KQ_URL the jobs go through the SQLite file kq.db in the working directory. The worker runs inside this
program; to see it apart, run `kq -A examples/hello.py worker` in another terminal first.
"""

from __future__ import annotations

import kq

app = kq.App("shop", queue="hello")


@app.job(timeout=30, retry_policy=kq.Exponential(retries=5))
def resize(path: str, *, width: int = 800) -> str:
    return f"{path} at {width}"


def main() -> None:
    resize("cat.png")  # an ordinary call, here and now
    handle = resize.submit("cat.png", width=200)  # stored when it returns
    urgent = resize.options(priority=9).submit("dog.png")
    later = resize.options(delay=0.5).submit("cow.png")
    both = app.submit_many(resize.job(name) for name in ("a.png", "b.png"))  # all or nothing
    print(handle.result(timeout=10))  # waits without polling
    for other in (urgent, later, *both):
        print(other.result(timeout=10))
    try:
        resize.submit("cat.png", widht=3)  # type: ignore[call-arg]  # a type checker sees it before
    except TypeError as error:
        print(error)


if __name__ == "__main__":
    with kq.Worker(app, concurrency=2):
        main()
    app.close()

# prints: cat.png at 200
# prints: dog.png at 800
# prints: cow.png at 800
# prints: a.png at 800
# prints: b.png at 800
# prints: hello.resize: got an unexpected keyword argument 'widht'; did you mean 'width'?
