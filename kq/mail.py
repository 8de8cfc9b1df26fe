"""A mailer that sends each mail once (promise C13): a job type like any other, made of public parts only.

    mail = kq.mail.mailer(app, "smtp://user:password@mx.example.org", sender="Shop <shop@example.org>")
    mail.submit(to="user@example.org", subject="hello", body="text")

Each recipient is an effect of its own, whose key is made of recipient, subject and text: the same mail to the same
person is not sent again, whoever submits it. The Message-ID is made of the key too, so that it stays the same when
a human lets a mail be repeated that was in doubt.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate, parseaddr
from typing import Annotated

import msgspec

from kq.app import App
from kq.clock import SYSTEM
from kq.context import current_job
from kq.errors import BadJob, ConfigError, InDoubt, KqError, NotDone
from kq.jobtype import JobType
from kq.once import OnDoubt
from kq.policy import Polynomial, RetryPolicy
from kq.record import encode
from kq.smtp import MailDelayed, MailRefused, Post, post_to
from kq.state.store import Write

#: One line of text: a line break in a header would be another header.
Line = Annotated[str, msgspec.Meta(pattern=r"^[^\r\n\x00]*$", max_length=900)]
ADDRESS = r"^[^\r\n\x00,;]*[^\s\r\n\x00,;<>@]@[^\s\r\n\x00,;<>@]+>?$"
#: One address, with or without a name before it.
Address = Annotated[str, msgspec.Meta(pattern=ADDRESS, max_length=320)]

HOUR = 3600.0


class Attachment(msgspec.Struct, frozen=True):
    """A file to go with a mail. type: as "image/png"; data: travels as base64."""

    name: Line
    data: bytes
    type: Line = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Mail:
    """What is to be sent to whom."""

    to: Sequence[str]
    subject: str
    body: str
    html: str | None = None
    cc: Sequence[str] = ()
    bcc: Sequence[str] = ()
    reply_to: str | None = None
    attachments: Sequence[Attachment] = ()

    @property
    def recipients(self) -> list[str]:
        """Everybody's address, once."""
        return list(dict.fromkeys(parseaddr(each)[1] for each in (*self.to, *self.cc, *self.bcc)))

    def digest(self, recipient: str) -> str:
        """The same for mails that a person would call the same: recipient, subject, text and attachments."""
        parts = [recipient.lower(), " ".join(self.subject.split()), _plain(self.body), _plain(self.html or "")]
        parts += [hashlib.sha256(each.data).hexdigest() + each.name for each in self.attachments]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]

    def message(self, sender: str, recipient: str) -> EmailMessage:
        """The mail as recipient gets it: nobody sees the bcc."""
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = sender, ", ".join(self.to), self.subject
        if self.cc:
            message["Cc"] = ", ".join(self.cc)
        if self.reply_to:
            message["Reply-To"] = self.reply_to
        message["Date"] = formatdate(SYSTEM.now())
        message["Message-ID"] = f"<{self.digest(recipient)}@{parseaddr(sender)[1].rpartition('@')[2]}>"
        message.set_content(self.body)
        if self.html is not None:
            message.add_alternative(self.html, subtype="html")
        for each in self.attachments:
            main, _, sub = each.type.partition("/")
            message.add_attachment(each.data, maintype=main, subtype=sub or "octet-stream", filename=each.name)
        return message


def mailer(
    app: App,
    server: str = "smtp://localhost:25",
    *,
    sender: str,
    name: str = "kq.mail",
    queue: str = "mail",
    on_doubt: OnDoubt = "bury",
    retry_policy: RetryPolicy | None = None,
    timeout: float = 30.0,
    per_minute: float = 600.0,
    per_recipient: int = 50,
) -> JobType[..., dict[str, str]]:
    """A job type that sends mail.

    server: smtp://host:port, smtps:// (TLS from the first byte) or smtp+starttls://, with user:password@ before the
    host where it asks for a login; or file:///folder, which writes mails there instead, for development.
    sender: as in a From header. timeout: seconds that the server may take for one answer. on_doubt: what becomes of
    a mail when nobody knows whether the server took it (see App.effect). retry_policy: for mails that the server
    did not take now; 25 retries over 20 days by default. per_minute: mails in all; further ones wait.
    per_recipient: mails to one address within an hour; further ones are buried, because something sends in a loop.
    The job's result says for each recipient "sent" or "sent before".
    Raises ConfigError for a server or a sender that is none.
    """
    if "@" not in parseaddr(sender)[1]:
        raise ConfigError(f"sender {sender!r} has no address; use name@example.org or Name <name@example.org>")
    postman = Postman(app, name, sender, post_to(server, timeout), on_doubt, Gate(app, per_minute, per_recipient))

    def send(
        to: str | list[Address],
        subject: Line,
        body: str,
        *,
        html: str | None = None,
        cc: Sequence[Address] = (),
        bcc: Sequence[Address] = (),
        reply_to: Address | None = None,
        attachments: Sequence[Attachment] = (),
    ) -> dict[str, str]:
        mail = Mail(_checked(to), subject, body, html, cc, bcc, reply_to, attachments)
        return postman.deliver(mail)

    policy = retry_policy or Polynomial()
    return app.job(name=name, queue=queue, retry_policy=policy)(send)


@dataclass(slots=True)
class Postman:
    """Sends a mail to each of its recipients, once."""

    app: App
    name: str
    sender: str
    post: Post
    on_doubt: OnDoubt
    gate: Gate

    def deliver(self, mail: Mail) -> dict[str, str]:
        """What became of mail, by recipient. Goes on when one is refused, and raises the first refusal at the end."""
        told: dict[str, str] = {}
        refused: list[KqError] = []
        for recipient in mail.recipients:
            try:
                told[recipient] = self._to(recipient, mail)
            except (NotDone, InDoubt) as error:
                refused.append(error)
        if refused:
            # What may pass goes before what is final: the others are not sent again.
            raise next((each for each in refused if isinstance(each, MailDelayed)), refused[0])
        return told

    def _to(self, recipient: str, mail: Mail) -> str:
        message = mail.message(self.sender, recipient)
        job = current_job()
        if job is None:  # called here and now, by somebody who knows
            return self.post(self.sender, recipient, message, _nothing)
        with job.once(f"{self.name}:{mail.digest(recipient)}", on_doubt=self.on_doubt) as effect:
            if not effect.due:
                return "sent before"
            self.gate.pass_through(recipient)
            effect.done(self.post(self.sender, recipient, message, effect.still_mine))
        return "sent"


class Gate:
    """Keeps a mailer from running wild."""

    def __init__(self, app: App, per_minute: float, per_recipient: int) -> None:
        self._app = app
        self._interval = 60.0 / per_minute
        self._per_recipient = per_recipient
        self._next = 0.0

    def pass_through(self, recipient: str) -> None:
        """Wait for one's turn. Raises MailRefused when recipient got too many mails within an hour."""
        store, key = self._app.store, mails_key(recipient)
        while True:
            stored = store.get([key])[0]
            times = [] if stored is None else [at for at in msgspec.json.decode(stored) if at > store.now() - HOUR]
            if len(times) >= self._per_recipient:
                raise MailRefused(
                    f"{recipient} got {len(times)} mails within an hour, the limit: something sends in a loop",
                    fix="Find it; then kick this mail.",
                )
            if store.write([Write(key, encode([*times, store.now()]), HOUR, must=(key, stored))])[0]:
                break
        now = SYSTEM.monotonic()
        wait, self._next = max(0.0, self._next - now), max(now, self._next) + self._interval
        time.sleep(wait)


def _checked(to: str | list[str]) -> list[str]:
    """Addresses. One that stands alone is checked here: a union with a pattern is beyond msgspec (0.22)."""
    if isinstance(to, list):
        return to
    if not re.match(ADDRESS, to):
        raise BadJob(f"{to!r} is not one address; use name@example.org, or a list")
    return [to]


def _plain(text: str) -> str:
    """text without what mail programs change on the way: line endings, spaces at their ends."""
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def _nothing() -> None:
    """Outside of a worker there is no lease to look at."""


def mails_key(recipient: str) -> str:
    """Where the store has the times of the last mails to recipient."""
    return f"mails:{hashlib.sha256(recipient.lower().encode()).hexdigest()[:32]}"
