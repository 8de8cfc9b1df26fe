"""An observer: text that travels with a job, through retries too, and a look at each submit and each attempt.

    python examples/observing.py
    KQ_URL=redis://localhost:6379/0 python examples/observing.py

Traces (kq.otel) and error reports (kq.sentry) are made the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import kq

app = kq.App("observing", queue="observing")
customer = ContextVar("customer", default="nobody")


class ForWhom(kq.Observer):
    """Lets a job know for whom it was submitted."""

    def carry(self, headers: dict[str, str]) -> None:
        headers["customer"] = customer.get()

    @contextmanager
    def running(self, execution: kq.Execution) -> Iterator[None]:
        token = customer.set(execution.headers.get("customer", "nobody"))
        try:
            yield
        except OSError as error:
            print(f"{execution.job.type}: {error}; that is the end: {execution.is_final(error)}", flush=True)
            raise
        finally:
            customer.reset(token)


app.observe(ForWhom())


@app.job(retry_policy=kq.Fixed(delay=0, retries=1))
def invoice() -> str:
    job = kq.current_job()
    if job is not None and job.attempt == 1:
        raise ConnectionError("the printer is away")
    return f"an invoice for {customer.get()}"


def main() -> None:
    customer.set("Anna")
    printed = invoice.submit()
    with kq.Worker(app):
        print(printed.result(timeout=30))


if __name__ == "__main__":
    main()
    app.close()

# prints: observing.invoice: the printer is away; that is the end: False
# prints: an invoice for Anna
