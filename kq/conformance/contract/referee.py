"""The referee of the bar: hears at which moment each mail is, and does what the test wants done there."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from kq.conformance.contract.mailserver import LAST_LINE, MailServer
from kq.effects.ledger import effect_key
from kq.mail import Mail
from kq.values.job import Job

#: Where a mail's way may be cut: by its executor's words to the ledger, its words to the mail server, and its
#: supervisor's to the state store.
MOMENTS = (
    "before look",
    "after look",
    "MAIL",
    "RCPT",
    "DATA",
    "text",
    "before intend",
    "after intend",
    "end",
    "accepted",
    "replied",
    "before record",
    "after record",
    "before result",
    "after result",
)


@dataclass
class Referee:
    """Listens while it is entered. act: called with a moment, the recipient of the mail, and the process that is at it.

    While act runs, that process waits.
    """

    act: Callable[[str, str, int], None] = lambda moment, recipient, pid: None
    server: MailServer = field(default_factory=MailServer)
    _recipients: dict[str, str] = field(default_factory=dict)  # by what is told of a mail
    _at_work: dict[str, int] = field(default_factory=dict)  # the process that was last at a recipient's mail

    def __enter__(self) -> Referee:
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with suppress(OSError):  # it was killed
                    if said := self.rfile.readline():
                        outer._heard(*json.loads(said))
                        self.wfile.write(b".")

        self.server.moment = lambda moment, recipient: self._heard(moment, recipient, 0)
        self.server.__enter__()
        self._listener = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._listener.daemon_threads = True
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()
        self.server.__exit__()

    @property
    def port(self) -> int:
        return int(self._listener.server_address[1])

    def expect(self, jobs: Iterable[Job[Any]]) -> None:
        """Know of mails, one to each recipient."""
        for job in jobs:
            (recipient, subject, body) = job.args
            key = effect_key(f"{job.type}:{Mail([recipient], subject, body).digest(recipient)}")
            self._recipients |= {key: recipient, f"job:{job.id}": recipient, recipient: recipient}

    def _heard(self, moment: str, key: str, pid: int) -> None:
        recipient = self._recipients.get(key)
        if recipient is None:
            return  # a job of another kind
        if moment == "before look":
            self._at_work[recipient] = pid
        self.act(moment, recipient, pid or self._at_work[recipient])


#: A text after which the server knows that only the end is missing.
TEXT = f"It rains.\n{LAST_LINE.decode().strip()}"
