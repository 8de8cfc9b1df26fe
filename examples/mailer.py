"""A mailer that sends each mail to each person once.

    python examples/mailer.py
    KQ_URL=redis://localhost:6379/0 python examples/mailer.py

The mail server is a few lines below, so that this runs anywhere; yours is named by KQ_MAIL or `mail:` in kq.yaml, as in
smtps://user:password@mx.example.org.
"""

from __future__ import annotations

import os
import socketserver
import threading
from uuid import uuid4

import kq

app = kq.App("mailer")
mail = kq.mail.mailer(app, sender="Shop <shop@example.org>")
accepted: list[str] = []


class MailServer(socketserver.StreamRequestHandler):
    """Says yes to everything (RFC 5321)."""

    def handle(self) -> None:
        self.wfile.write(b"220 hello\r\n")
        for line in self.rfile:
            verb = line.split()[0].upper()
            self.wfile.write(b"354 go on\r\n" if verb == b"DATA" else b"250 yes\r\n")
            if verb == b"DATA":
                accepted.append(b"".join(iter(self.rfile.readline, b".\r\n")).decode())
                self.wfile.write(b"250 taken\r\n")


def main() -> None:
    order = uuid4().hex  # another one each time that you run this
    for _ in range(2):
        sent = mail.submit(to=["user@example.org"], subject="your order", body=f"{order} is on its way.")
        print(sent.result(timeout=10))
    print(len(accepted), "mail arrived:", order in accepted[0])


if __name__ == "__main__":
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), MailServer) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        os.environ["KQ_MAIL"] = f"smtp://127.0.0.1:{server.server_address[1]}"
        with kq.Worker(app):
            main()
        server.shutdown()
    app.close()

# prints: {'user@example.org': 'sent'}
# prints: {'user@example.org': 'sent before'}
# prints: 1 mail arrived: True
