"""Which jobs are the same, and what becomes of the second: joined, refused, replaced, put off, or one more after it.

    python examples/unique.py
    KQ_URL=redis://localhost:6379/0 python examples/unique.py

All is submitted before the worker starts, so that it is certain what waits.
"""

from __future__ import annotations

import kq

app = kq.App("unique", queue="unique")


@app.job(unique=kq.by_arguments("customer"))
def greet(customer: str, text: str = "hello") -> str:
    """Declared with the type: jobs for one customer are the same."""
    return f"{text}, {customer}"


@app.job(unique=kq.Unique("index", conflict="replace"))
def index(version: int) -> str:
    """While one waits, the last arguments win; after one that runs there is one more."""
    return f"indexed version {version}"


@app.job
def save(text: str) -> str:
    return f"saved {text!r}"


def main() -> None:
    first, second = greet.submit("Anna"), greet.submit("Anna", text="good morning")
    print(f"one greeting: {first == second}")

    versions = [index.submit(version) for version in (1, 2, 3)]
    print(f"one index: {len(set(versions)) == 1}")

    draft = save.options(delay=0.5, unique=kq.Unique("draft", conflict="debounce", at_most=10))
    for text in ("d", "dr", "draft"):
        saved = draft.submit(text)  # not before nobody has typed for half a second

    only = save.options(unique=kq.Unique("report", conflict="reject"))
    report = only.submit("the report")
    try:
        only.submit("another report")
    except kq.NotUnique as error:
        print(f"refused: {error.job == report.id}")

    with kq.Worker(app, concurrency=2):
        for handle in (first, versions[0], saved, report):
            print(handle.result(timeout=30))


if __name__ == "__main__":
    main()
    app.close()

# prints: one greeting: True
# prints: one index: True
# prints: refused: True
# prints: hello, Anna
# prints: indexed version 3
# prints: saved 'draft'
# prints: saved 'the report'
