"""Where mails go: a server that speaks SMTP (RFC 5321), or a folder."""

from __future__ import annotations

import re
import smtplib
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import parseaddr
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

from kq.clock import SYSTEM
from kq.errors import BadJob, ConfigError, NotDone
from kq.message import one_line
from kq.url import redact

#: Known schemes and their usual ports.
PORTS = {"smtp": 25, "smtps": 465, "smtp+starttls": 587}
#: Seconds that an open connection may wait for the next mail.
IDLE = 20.0


class MailRefused(BadJob, NotDone):
    """The server will never take this mail; its words are the message."""

    code = "KQ231"


class MailDelayed(NotDone):
    """The server did not take this mail now."""

    code = "KQ232"


#: Hands one message to one recipient and returns the server's words. Calls the last argument right before it acts.
#: Raises MailRefused or MailDelayed when it is certain that nothing was sent.
Post: TypeAlias = Callable[[str, str, EmailMessage, Callable[[], None]], str]


def post_to(server: str, timeout: float) -> Post:
    """What sends mails to server. Raises ConfigError for what is no server."""
    url = urlsplit(server)
    if url.scheme == "file" and url.path:
        return Folder(Path(url.path))
    if url.scheme not in PORTS or not url.hostname:
        raise ConfigError(
            f"mail server {redact(server)!r} is none; use smtp://host:25, smtps://…, smtp+starttls://… or file:///folder"
        )
    login = (unquote(url.username), unquote(url.password or "")) if url.username else None
    return Server(url.scheme, url.hostname, url.port or PORTS[url.scheme], login, timeout)


@dataclass(slots=True)
class Folder:
    """Writes mails to a folder instead of sending them: for development and tests."""

    path: Path

    def __call__(self, sender: str, recipient: str, message: EmailMessage, last_look: Callable[[], None]) -> str:
        last_look()
        self.path.mkdir(parents=True, exist_ok=True)
        message["X-Recipient"] = recipient
        file = self.path / f"{message['Message-ID'].strip('<>').partition('@')[0]}.eml"
        file.write_bytes(message.as_bytes(policy=SMTP))
        return f"written to {file.name}"


@dataclass(slots=True)
class Server:
    """Talks SMTP (RFC 5321). One connection, kept for the next mail."""

    scheme: str
    host: str
    port: int
    login: tuple[str, str] | None
    timeout: float
    _smtp: smtplib.SMTP | None = None
    _used: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, sender: str, recipient: str, message: EmailMessage, last_look: Callable[[], None]) -> str:
        with self._lock:
            try:
                smtp = self._connected()
                data = self._announced(smtp, parseaddr(sender)[1], recipient, message)
                last_look()
                _agreed(smtp.docmd("DATA"), 354)
            except (OSError, smtplib.SMTPException) as error:
                self._drop()
                raise _delayed(error) from error
            except BaseException:
                self._drop()
                raise
            # From here on, silence means that nobody knows.
            try:
                smtp.send(data)
                words = _agreed(smtp.getreply(), 250)
            except BaseException:
                self._drop()
                raise
            self._used = SYSTEM.monotonic()
            return words

    def __del__(self) -> None:
        self._drop()

    def _connected(self) -> smtplib.SMTP:
        """The open connection, when it still is; else a new one."""
        smtp = self._smtp
        if smtp is not None and SYSTEM.monotonic() - self._used < IDLE:
            try:
                if smtp.noop()[0] == 250:
                    return smtp
            except (OSError, smtplib.SMTPException):
                pass
        self._drop()
        if self.scheme == "smtps":
            smtp = smtplib.SMTP_SSL(self.host, self.port, timeout=self.timeout, context=ssl.create_default_context())
        else:
            smtp = smtplib.SMTP(self.host, self.port, timeout=self.timeout)
        self._smtp = smtp
        smtp.ehlo_or_helo_if_needed()
        if self.scheme == "smtp+starttls":
            smtp.starttls(context=ssl.create_default_context())
        if self.login:
            smtp.login(*self.login)
        return smtp

    def _announced(self, smtp: smtplib.SMTP, sender: str, recipient: str, message: EmailMessage) -> bytes:
        """Say from whom and to whom; returns what is to be said after DATA."""
        sender, recipient = _wired(sender), _wired(recipient)
        utf8 = not (sender + recipient).isascii()
        if utf8 and not smtp.has_extn("smtputf8"):
            raise MailRefused(f"{self.host} takes no addresses like {recipient!r} (it does not offer SMTPUTF8)")
        _agreed(smtp.mail(sender, ["SMTPUTF8", "BODY=8BITMIME"] if utf8 else []), 250)
        _agreed(smtp.rcpt(recipient), 250, 251, 252)
        data = message.as_bytes(policy=SMTPUTF8 if utf8 else SMTP)
        return re.sub(rb"(?m)^\.", b"..", data).removesuffix(b"\r\n") + b"\r\n.\r\n"

    def _drop(self) -> None:
        smtp, self._smtp = self._smtp, None
        if smtp is not None:
            smtp.close()


def _agreed(reply: tuple[int, bytes], *wanted: int) -> str:
    """The server's words. Raises MailRefused (5xx) or MailDelayed for another answer than what was wanted."""
    code, words = reply[0], " ".join(reply[1].decode("utf-8", "replace").split())
    if code in wanted:
        return f"{code} {words}"
    if code == -1:
        raise smtplib.SMTPServerDisconnected("the server hung up")
    raise MailRefused(f"{code} {words}") if 500 <= code < 600 else MailDelayed(f"{code} {words}")


def _delayed(error: Exception) -> MailDelayed:
    return MailDelayed(f"the mail server did not take it now: {type(error).__name__}: {one_line(error)}")


def _wired(address: str) -> str:
    """address with its domain as DNS knows it (RFC 5890)."""
    local, _, domain = address.rpartition("@")
    return f"{local}@{domain if domain.isascii() else domain.encode('idna').decode()}"
