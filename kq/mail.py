"""A mailer that sends each mail once (promise C13): a job type like any other, made of public parts only.

    mail = kq.mail.mailer(app, "smtps://user:password@mx.example.org", sender="Shop <shop@example.org>")
    mail.submit(to="user@example.org", subject="hello", body="text")

Each recipient is an effect of its own, whose key is made of recipient, subject and text: the same mail to the same
person is not sent again, whoever submits it. The Message-ID is made of the key too, so that it stays the same when
a human lets a mail be repeated that was in doubt.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email import policy as forms
from email.header import Header
from email.headerregistry import Address as Mailbox
from email.message import EmailMessage
from email.utils import formatdate
from functools import cached_property
from typing import Annotated, Any
from weakref import WeakKeyDictionary

import msgspec

from kq.app import App
from kq.clock import SYSTEM
from kq.effects.context import CurrentJob, current_job
from kq.effects.ledger import KEEP
from kq.effects.once import Once, OnDoubt, check_terms
from kq.errors import BadJob, ConfigError, InDoubt, NotDone
from kq.gate import Gate
from kq.jobtype import JobType
from kq.mailurl import ADDRESS, CONTROLS, MailUrl, parse_mail_url
from kq.smtp import Addressed, MailDelayed, MailRefused, Post, post_to, wired
from kq.values.deed import Deed
from kq.values.policy import Polynomial, RetryPolicy
from kq.values.redaction import redacted_text

#: One line of text.
Line = Annotated[str, msgspec.Meta(pattern=rf"\A[^{CONTROLS}]*\Z", max_length=900)]
#: One address, with or without a name before it.
Address = Annotated[str, msgspec.Meta(pattern=ADDRESS, max_length=320)]
#: As image/png.
MediaType = Annotated[str, msgspec.Meta(pattern=r"\A[\w.+-]+/[\w.+-]+\Z", max_length=100)]


class Attachment(msgspec.Struct, frozen=True):
    """A file to go with a mail. type: as "image/png"; data: travels as base64."""

    name: Line
    data: bytes
    type: MediaType = "application/octet-stream"


@dataclass(frozen=True)
class Mail:
    """What is to be sent to whom. Addresses fit ADDRESS."""

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
        return list(dict.fromkeys(mailbox(each).addr_spec for each in (*self.to, *self.cc, *self.bcc)))

    @property
    def family(self) -> str:
        """What mails of a loop have in common that are not quite the same: the subject without its numbers."""
        return re.sub(r"\d+", "#", " ".join(self.subject.split()))

    @cached_property
    def _content(self) -> list[str]:
        """What a person would call the same, whatever mail programs changed on the way."""
        parts = [" ".join(self.subject.split()), _plain(self.body), _plain(self.html or "")]
        return parts + [hashlib.sha256(each.data).hexdigest() + each.name for each in self.attachments]

    def digest(self, recipient: str) -> str:
        """The same for the same recipient, subject, text and attachments."""
        return hashlib.sha256("\0".join([recipient.lower(), *self._content]).encode()).hexdigest()[:32]

    def addressed(self, sender: str, recipient: str) -> Addressed:
        """The mail as recipient gets it."""
        mailboxes = [
            mailbox(each) for each in (sender, *self.to, *self.cc, *([self.reply_to] if self.reply_to else []))
        ]
        utf8 = not all(wired(each.addr_spec).isascii() for each in mailboxes)
        return Addressed(mailboxes[0].addr_spec, recipient, utf8, lambda utf8: self._text(sender, recipient, utf8))

    def _text(self, sender: str, recipient: str, utf8: bool) -> bytes:
        """Headers and text; nobody sees the bcc. utf8: addresses may be other than ASCII, else those are left out."""
        headers = {"From": _people([sender])}
        shown = {"To": self.to, "Cc": self.cc, "Reply-To": [self.reply_to] if self.reply_to else []}
        for name, addresses in shown.items():
            legible = [each for each in addresses if utf8 or mailbox(each).addr_spec.isascii()]
            if legible:
                headers[name] = _people(legible)
        headers["Subject"] = _encoded(self.subject)
        headers["Date"] = formatdate(SYSTEM.now())
        headers["Message-ID"] = self.message_id(sender, recipient)
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        return "".join(lines).encode() + self._parts()

    def _parts(self) -> bytes:
        """What follows the headers that people see: those of MIME, and the text."""
        message = EmailMessage(forms.default.clone(cte_type="7bit"))  # not every server takes eight
        message.set_content(self.body)
        if self.html is not None:
            message.add_alternative(self.html, subtype="html")
        for each in self.attachments:
            main, _, sub = each.type.partition("/")
            message.add_attachment(each.data, maintype=main, subtype=sub)
            *_, part = message.iter_attachments()
            # With a charset, or the email package would read "=?" in it as the beginning of an encoded word.
            part.set_param("filename", each.name, "Content-Disposition", charset="utf-8")
        return message.as_bytes(policy=forms.SMTP)

    def message_id(self, sender: str, recipient: str) -> str:
        """The same for the same content: who got the mail already recognises it."""
        domain = wired(mailbox(sender).addr_spec).rpartition("@")[2]
        return f"<{self.digest(recipient)}@{domain}>"


def mailer(
    app: App,
    server: str | None = None,
    *,
    sender: str,
    name: str = "kq.mail",
    queue: str = "mail",
    singleton: bool = True,
    on_doubt: OnDoubt = "bury",
    remember: float = KEEP,
    retry_policy: RetryPolicy | None = None,
    patience: float = 30.0,
    per_minute: float = 600.0,
    per_recipient: int = 50,
    per_family: int = 5000,
    fallback: Sequence[JobType[..., Any] | str] = (),
) -> JobType[..., dict[str, str]]:
    """A job type that sends mail.

    server: smtp://host:port, smtps:// (TLS from the first byte) or smtp+starttls://, with user:password@ before the
    host where it asks for a login; file:///folder, which writes mails there instead; log:, which only tells of them. By
    default what `mail:` in kq.yaml or KQ_MAIL says.
    sender: as in a From header. singleton: one mail at a time, over all workers (see App.job). patience: seconds that
    the server may take for one answer. on_doubt: what becomes of a mail when nobody knows whether the server took it.
    remember: seconds (see App.effect). retry_policy: for mails that the server did not take now; 25 retries over 20
    days by default.
    per_minute: mails of all workers together; further ones wait. per_recipient, per_family: mails within an hour to
    one address, and with one subject but for its numbers. When there are more something sends in a loop: the job type
    is paused, and who has mended that resumes it (kq queues resume --type).
    fallback: job types that run instead, with the same arguments, where a mail would be buried (see App.job).
    The job's result says for each recipient "sent" or "sent before". Raises ConfigError for a wrong server or sender.
    """
    if not re.match(ADDRESS, sender):
        raise ConfigError(f"sender {sender!r} is no address; use name@example.org or Name <name@example.org>")
    check_terms(on_doubt, remember)
    url = None if server is None else parse_mail_url(server)

    def where() -> MailUrl:
        return url or parse_mail_url(app.mail)

    gate = Gate(app, name, per_minute, per_recipient, per_family)
    postman = Postman(app, name, sender, on_doubt, remember, gate, lambda: post_to(where(), patience))

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
    job_type = app.job(name=name, queue=queue, singleton=singleton, retry_policy=policy, fallback=fallback)(send)
    _servers[job_type] = where
    return job_type


#: Where the mails of each mailer go.
_servers: WeakKeyDictionary[JobType[..., Any], Callable[[], MailUrl]] = WeakKeyDictionary()


def server_of(job_type: JobType[..., Any]) -> MailUrl | None:
    """Where the mails of a mailer go; None for what is no mailer. Raises ConfigError when `mail:` is no server."""
    where = _servers.get(job_type)
    return None if where is None else where()


@dataclass
class Postman:
    """Sends a mail to each of its recipients, once. open_post: makes what takes mails, when it is first needed."""

    app: App
    name: str
    sender: str
    on_doubt: OnDoubt
    remember: float
    gate: Gate
    open_post: Callable[[], Post]

    @cached_property
    def post(self) -> Post:
        return self.open_post()

    def deliver(self, mail: Mail) -> dict[str, str]:
        """What became of mail, by recipient. Goes on when one is refused, and raises that at the end."""
        told: dict[str, str] = {}
        wrong: dict[str, NotDone | InDoubt] = {}
        for recipient in mail.recipients:
            try:
                told[recipient] = self._to(recipient, mail)
            except (NotDone, InDoubt) as error:
                wrong[recipient] = error
        if wrong:
            raise _summed(wrong)
        return told

    def _to(self, recipient: str, mail: Mail) -> str:
        job, addressed = current_job(), mail.addressed(self.sender, recipient)
        if job is None:  # called here and now, by somebody who knows
            with self.post.ready(addressed) as send:
                return send()
        effect = job.once(f"{self.name}:{mail.digest(recipient)}", on_doubt=self.on_doubt, keep=self.remember)
        if job.rehearsal:
            effect.deed = Deed("mail", to=recipient, subject=redacted_text(mail.subject))
            with effect:
                return "would be sent" if effect.before is None else _told(effect, job)
        if not self.post.real:
            with self.post.ready(addressed) as send:
                send()
            return "would be sent"
        if not effect.was_done():
            self.gate.enter(recipient, mail.family)
            try:
                # What takes time comes first: begun and done are milliseconds apart, so that few kills leave a doubt.
                with self.post.ready(addressed) as send, effect:
                    if effect.due:
                        effect.done(send())
            except MailRefused:
                with effect:  # it was tried: the ledger is to know it if a fallback answers
                    raise
            if effect.before is None:
                self.gate.count(recipient, mail.family)
        return _told(effect, job)


def mailbox(address: str) -> Mailbox:
    """address, which fits ADDRESS, in its parts."""
    name, _, bare = address.removesuffix(">").rpartition("<")
    local, _, domain = bare.strip().rpartition("@")
    return Mailbox(name.strip().strip('"'), local, domain)


def _people(addresses: Sequence[str]) -> str:
    """Addresses, which fit ADDRESS, as a header has them: one in a line."""
    return ",\r\n ".join(_person(mailbox(each)) for each in addresses)


def _person(person: Mailbox) -> str:
    name = f'"{person.display_name}"' if _is_plain(person.display_name) else _encoded(person.display_name)
    return f"{name} <{person.addr_spec}>" if person.display_name else person.addr_spec


def _encoded(text: str) -> str:
    """One line of text as a header has it (RFC 2047).

    Not by the email package's header objects (Python 3.11): what looks like an encoded word they decode, and write what
    is in it as it is, be it a line's end and one more header. Here it is encoded, and stays the text that it is.
    """
    return Header(text, "us-ascii" if _is_plain(text) else "utf-8").encode(linesep="\r\n")


def _is_plain(text: str) -> bool:
    return text.isascii() and "=?" not in text


def _told(effect: Once, job: CurrentJob) -> str:
    """What became of a mail: an earlier attempt of the same job sent it too."""
    return "sent" if effect.before is None or effect.before.job == job.id else "sent before"


def _summed(wrong: Mapping[str, NotDone | InDoubt]) -> NotDone | InDoubt:
    """The one error that says what becomes of the job: what may pass comes first, and then what a human must answer."""
    ranks: tuple[type[NotDone | InDoubt], ...] = (MailDelayed, InDoubt, MailRefused)
    first = min(wrong.values(), key=lambda error: ranks.index(type(error)) if type(error) in ranks else 0)
    summed = type(first)("; ".join(f"{recipient}: {error.message}" for recipient, error in wrong.items()))
    summed.__cause__ = first
    return summed


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
