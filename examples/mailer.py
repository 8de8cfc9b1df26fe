"""A mailer that sends each mail to each person once.

    python examples/mailer.py
    KQ_URL=redis://localhost:6379/0 python examples/mailer.py

Here mails are written into a folder; with "smtp://user:password@mx.example.org" in its place they are sent.
"""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import kq

OUTBOX = Path("outbox").absolute()

app = kq.App("mailer", queue="mailer")
mail = kq.mail.mailer(app, f"file://{OUTBOX}", sender="Shop <shop@example.org>")


def main() -> None:
    order = uuid4().hex  # another one each time that you run this
    for _ in range(2):
        sent = mail.submit(to="user@example.org", subject="your order", body=f"{order} is on its way.")
        print(sent.result(timeout=10))
    print(len([mail for mail in OUTBOX.glob("*.eml") if order in mail.read_text()]), "mail in the outbox")


if __name__ == "__main__":
    with kq.Worker(app):
        main()
    app.close()

# prints: {'user@example.org': 'sent'}
# prints: {'user@example.org': 'sent before'}
# prints: 1 mail in the outbox
