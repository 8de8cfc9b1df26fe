"""What is to happen when a job has completed, and only then; and not before somebody had time to say no.

    python examples/later.py
    KQ_URL=redis://localhost:6379/0 python examples/later.py

What is told here is a line of text; it might be a mail, a payment, a label that is printed.
"""

from __future__ import annotations

import kq

app = kq.App("shop", queue="later")


@app.job
def tell(customer: str, text: str) -> str:
    """As it would send a mail, which nobody can take back."""
    return f"told {customer}: {text}"


@app.job
def bill(customer: str, amount: int) -> list[str]:
    """Stage two mails, and then find out whether all is well; returns their ids."""
    thanks = app.later(tell.job(customer, "thank you"))
    reminder = app.later(tell.job(customer, f"{amount} is still to be paid"), hold="5m")
    if amount < 0:
        raise kq.BadJob(f"{customer} can't pay {amount}")
    return [thanks.id, reminder.id]


def main() -> None:
    control = kq.Control(app)
    with kq.Worker(app):
        thanks, reminder = bill.submit("Anna", 7).result(timeout=30)
        told = control.wait(thanks, timeout=30)
        print(told and told.result)
        try:
            bill.submit("Bert", -7).result(timeout=30)
        except kq.JobBuried as buried:
            print(f"nobody was told: {buried.error}")
    held = [job for job in control.held("later") if job.id == reminder]
    print("held:", *(job.args[1] for job in held))
    print("revoked:", control.revoke(reminder, reason="she has paid"))
    print("submitted at once, as no job runs here:", app.later(tell.job("Carl", "hello")).revoke())
    control.close()


if __name__ == "__main__":
    main()
    app.close()

# prints: told Anna: thank you
# prints: nobody was told: BadJob: Bert can't pay -7
# prints: held: 7 is still to be paid
# prints: revoked: True
# prints: submitted at once, as no job runs here: True
