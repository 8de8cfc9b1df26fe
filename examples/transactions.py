"""Several jobs or none, one instead of two, now or later, and which of them first.

    python examples/transactions.py
    KQ_URL=redis://localhost:6379/0 python examples/transactions.py

The worker starts when all is submitted, so that there is an order to be seen.
"""

from __future__ import annotations

import itertools
import time

import kq

app = kq.App("orders", queue="transactions")

_places = itertools.count(1)


@app.job
def place(name: str) -> int:
    """The place at which this job ran, counted in its process."""
    return next(_places)


@app.job
def send(invoice: int) -> float:
    """When it ran."""
    return time.time()


def all_or_nothing() -> list[kq.Handle[int]]:
    """Three jobs in one step; two that belong together; and two that never were."""
    handles = app.submit_many(place.job(f"plain {number}") for number in range(3))
    with app.transaction():
        handles.append(place.submit("order"))
        handles.append(place.submit("receipt"))
    try:
        with app.transaction():
            place.submit("order")
            raise RuntimeError("the customer went away")
    except RuntimeError as error:
        print(f"nothing was submitted: {error}")
    return handles


def by_priority() -> list[kq.Handle[int]]:
    """9 before 0, equals in the order of submission. Who says nothing has 5."""
    return [place.options(priority=priority).submit(f"priority {priority}") for priority in (0, 9, 4, 9)]


def one_instead_of_two() -> kq.Handle[float]:
    """While a job with this key waits or runs, submitting another one returns it."""
    invoice = send.options(unique="invoice 7", delay=0.5)
    first, second = invoice.submit(7), invoice.submit(7)
    print(f"one job: {first == second}")
    return first


def main() -> None:
    began = time.time()
    later = one_instead_of_two()
    handles = [*all_or_nothing(), *by_priority()]
    with kq.Worker(app, concurrency=1):
        print("ran in this order:", *(handle.result(timeout=30) for handle in handles))
        print(f"not before its time: {later.result(timeout=30) >= began + 0.5}")
    again = send.options(unique="invoice 7").submit(7)
    print(f"a new one, as the first has ended: {again != later}")
    print(f"revoked before it ran: {again.revoke()}, {again.state()}")


if __name__ == "__main__":
    main()
    app.close()

# prints: one job: True
# prints: nothing was submitted: the customer went away
# prints: ran in this order: 3 4 5 6 7 9 1 8 2
# prints: not before its time: True
# prints: a new one, as the first has ended: True
# prints: revoked before it ran: True, revoked
