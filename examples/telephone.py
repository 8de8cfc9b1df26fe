"""What can't be mailed is said otherwise: a mailer whose fallback calls a webhook, so that a human takes the telephone.

    python examples/telephone.py
    KQ_URL=redis://localhost:6379/0 python examples/telephone.py

Both servers are a few lines below, so that this runs anywhere: one refuses all mails, the other takes what is posted.
"""

from __future__ import annotations

import json
import os
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from urllib.request import Request, urlopen
from uuid import uuid4

import kq

app = kq.App("telephone", queue="telephone")
called: list[str] = []


@app.effect(on_doubt="repeat")
def telephone(to: str, subject: str, body: str) -> str:
    """Let a human call: better twice than never."""
    text = json.dumps({"text": f"call {to}: {subject}"}).encode()
    with urlopen(Request(os.environ["HOOK"], text, {"Content-Type": "application/json"}), timeout=10) as answer:
        return f"asked for a call: {answer.status}"


mail = kq.mail.mailer(app, sender="Shop <shop@example.org>", fallback=[telephone])


class MailServer(socketserver.StreamRequestHandler):
    """Refuses everything (RFC 5321)."""

    def handle(self) -> None:
        self.wfile.write(b"220 hello\r\n")
        for line in self.rfile:
            self.wfile.write(b"250 yes\r\n" if line.startswith((b"ehlo", b"mail")) else b"550 no such user here\r\n")


class Hook(BaseHTTPRequestHandler):
    """Takes what is posted to it."""

    def do_POST(self) -> None:
        called.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def main() -> None:
    order = uuid4().hex
    sent = mail.submit("user@example.org", "your order", f"{order} is on its way.")
    print(sent.result(timeout=20))
    print(*called)
    with kq.Control(app) as control:
        job = control.job(sent.id)
        print(job.history[0].error if job else "")
        (doubt,) = control.effects("kq.mail:", stage="doubt", text=sent.id)
        print("the mail is", doubt.stage)


if __name__ == "__main__":
    with (
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), MailServer) as server,
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), Hook) as hook,
    ):
        for each in (server, hook):
            each.daemon_threads = True
            threading.Thread(target=each.serve_forever, daemon=True).start()
        os.environ["KQ_MAIL"] = f"smtp://127.0.0.1:{server.server_address[1]}"
        os.environ["HOOK"] = f"http://127.0.0.1:{hook.server_address[1]}"
        with kq.Worker(app):
            main()
        server.shutdown()
        hook.shutdown()
    app.close()

# prints: asked for a call: 200
# prints: call user@example.org: your order
# prints: kq.smtp.MailRefused: user@example.org: 550 no such user here
# prints: the mail is doubt
