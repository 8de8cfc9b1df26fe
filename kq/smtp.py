"""Where mails go: a server that speaks SMTP (RFC 5321), a folder, or the log.

A mail is handed over in two steps. All that takes time and may fail harmlessly comes first: connecting, greeting,
saying from whom and to whom, and the whole text but for its end. Whatever breaks off there, the server must forget (RFC
5321, 4.1.1.4). The second step is the end of the text, five bytes: only there nobody may know whether it was taken.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import smtplib
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol, TypeAlias

from kq.clock import SYSTEM
from kq.errors import BadJob, NotDone
from kq.mailurl import MailUrl
from kq.values.redaction import one_line

log = logging.getLogger("kq.mail")

#: Seconds that an open connection may wait for the next mail.
IDLE = 20.0
END = b".\r\n"


class MailRefused(BadJob, NotDone):
    """The server will never take this mail; its words are the message."""

    code = "KQ231"


class MailDelayed(NotDone):
    """The server did not take this mail now."""

    code = "KQ232"


@dataclass(frozen=True, slots=True)
class Addressed:
    """One mail to one person. sender, recipient: bare addresses.

    text: all of it, as it is with SMTPUTF8 or without; utf8: whether that makes a difference to its headers.
    """

    sender: str
    recipient: str
    utf8: bool
    text: Callable[[bool], bytes]


#: The second step: returns the server's words. Raises MailRefused or MailDelayed when it was not taken; what else it
#: raises leaves open whether it was.
Send: TypeAlias = Callable[[], str]


class Post(Protocol):
    """Takes mails. real: whether they are sent, so that it is to be remembered."""

    real: ClassVar[bool]

    def ready(self, mail: Addressed) -> AbstractContextManager[Send]:
        """The first step. Raises MailRefused or MailDelayed. Who leaves the block without the second sends nothing."""

    def reach(self) -> str:
        """Find out whether mails would be taken: connect, encrypt, log in; returns the server's words."""


def post_to(url: MailUrl, timeout: float) -> Post:
    """What takes mails for url. timeout: seconds that one answer may take."""
    if url.scheme == "log":
        return Log()
    return Folder(Path(url.path)) if url.scheme == "file" else Server(url, timeout)


@dataclass(slots=True)
class Log:
    """Tells of mails in the log `kq.mail`."""

    real: ClassVar[bool] = False

    @contextmanager
    def ready(self, mail: Addressed) -> Iterator[Send]:
        def send() -> str:
            log.info(
                "dry run: this would go to %s:\n%s", mail.recipient, mail.text(mail.utf8).decode("utf-8", "replace")
            )
            return "told in the log"

        yield send

    def reach(self) -> str:
        return "a dry run: nothing is sent"


@dataclass(slots=True)
class Folder:
    """Writes mails to a folder instead of sending them: for development and tests."""

    real: ClassVar[bool] = True

    path: Path

    @contextmanager
    def ready(self, mail: Addressed) -> Iterator[Send]:
        self.path.mkdir(parents=True, exist_ok=True)
        data = f"X-Recipient: {mail.recipient}\r\n".encode() + mail.text(mail.utf8)
        file = self.path / f"{hashlib.sha256(data).hexdigest()[:32]}.eml"

        def send() -> str:
            # Whole or not at all, so that who looks into the folder finds no halves.
            part = file.with_name(f".{file.name}.{os.getpid()}")
            part.write_bytes(data)
            part.replace(file)
            return f"written to {file.name}"

        yield send

    def reach(self) -> str:
        self.path.mkdir(parents=True, exist_ok=True)
        return f"mails become files in {self.path}"


@dataclass(slots=True)
class Server:
    """Talks SMTP. Connections are kept for the next mail; threads have one each while they send."""

    real: ClassVar[bool] = True

    url: MailUrl
    timeout: float
    _idle: deque[tuple[smtplib.SMTP, float]] = field(default_factory=deque)
    _pid: int = field(default_factory=os.getpid)

    @contextmanager
    def ready(self, mail: Addressed) -> Iterator[Send]:
        smtp = self._connected()
        try:
            self._announce(smtp, mail)
        except (OSError, smtplib.SMTPException) as error:
            smtp.close()
            raise _delayed(error) from error
        except NotDone:
            self._put_back(smtp)  # it has said no to this mail, and may say yes to the next
            raise
        except BaseException:
            smtp.close()
            raise
        ended = False

        def send() -> str:
            nonlocal ended
            smtp.send(END)
            reply = smtp.getreply()
            ended = 200 <= reply[0] < 600
            return _agreed(reply, *range(200, 300))

        try:
            yield send
        finally:
            if ended:
                self._put_back(smtp)
            else:
                smtp.close()  # in the middle of a text there is no other way back

    def reach(self) -> str:
        smtp = self._connected()
        words = _agreed(smtp.noop(), 250)
        self._put_back(smtp)
        return words

    def __del__(self) -> None:
        if self._pid == os.getpid():
            while self._idle:
                self._idle.pop()[0].close()

    def _connected(self) -> smtplib.SMTP:
        """A connection on which nothing was begun. Raises MailDelayed."""
        if self._pid != os.getpid():
            self._idle, self._pid = deque(), os.getpid()  # those are the parent's
        while self._idle:
            smtp, since = self._idle.pop()
            try:
                if SYSTEM.monotonic() - since < IDLE and smtp.rset()[0] == 250:
                    return smtp
            except (OSError, smtplib.SMTPException):
                pass  # it has ended meanwhile
            smtp.close()
        try:
            return self._connect()
        except (OSError, smtplib.SMTPException) as error:
            raise _delayed(error) from error

    def _connect(self) -> smtplib.SMTP:
        context = ssl.create_default_context(cafile=self.url.ca or None)
        host, port = self.url.host, self.url.port
        if self.url.scheme == "smtps":
            smtp: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=self.timeout, context=context)
        else:
            smtp = smtplib.SMTP(host, port, timeout=self.timeout)
        try:
            if smtp.sock is not None:
                # Else the end of the text waits until the other side has acknowledged the text itself, 40 ms later.
                smtp.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            smtp.ehlo_or_helo_if_needed()
            if self.url.scheme == "smtp+starttls":
                smtp.starttls(context=context)
                smtp.ehlo_or_helo_if_needed()
            if self.url.login:
                smtp.login(*self.url.login)
        except BaseException:
            smtp.close()
            raise
        return smtp

    def _announce(self, smtp: smtplib.SMTP, mail: Addressed) -> None:
        """Say from whom and to whom, and the text but for its end."""
        sender, recipient = wired(mail.sender), wired(mail.recipient)
        needed, offered = not (sender + recipient).isascii(), smtp.has_extn("smtputf8")
        if needed and not offered:
            raise MailRefused(f"{self.url.host} takes no addresses like {recipient!r}: it does not offer SMTPUTF8")
        utf8 = needed or (mail.utf8 and offered)
        _agreed(smtp.mail(sender, ["SMTPUTF8", "BODY=8BITMIME"] if utf8 else []), 250)
        _agreed(smtp.rcpt(recipient), 250, 251, 252)
        _agreed(smtp.docmd("DATA"), 354)
        smtp.send(_on_the_wire(mail.text(utf8)))

    def _put_back(self, smtp: smtplib.SMTP) -> None:
        self._idle.append((smtp, SYSTEM.monotonic()))


def _on_the_wire(data: bytes) -> bytes:
    """data in whole lines, none of which looks like the end (RFC 5321, 4.5.2)."""
    lines = re.sub(rb"\r\n|\r|\n", b"\r\n", data)
    stuffed = re.sub(rb"(?m)^\.", b"..", lines)
    return stuffed if stuffed.endswith(b"\r\n") else stuffed + b"\r\n"


def _agreed(reply: tuple[int, bytes], *wanted: int) -> str:
    """The server's words. Raises MailRefused (5xx) or MailDelayed (4xx) for another answer than what was wanted.

    SMTPException for what is no answer: one that broke off ("25"), or that has no place here. It says neither yes nor
    no.
    """
    code, words = reply[0], " ".join(reply[1].decode("utf-8", "replace").split())
    if code in wanted:
        return f"{code} {words}"
    if 400 <= code < 600:
        raise MailRefused(f"{code} {words}") if code >= 500 else MailDelayed(f"{code} {words}")
    raise smtplib.SMTPException(f"this is no answer: {f'{code} {words}'!r}" if code != -1 else "the server hung up")


def _delayed(error: Exception) -> MailDelayed:
    return MailDelayed(f"the mail server did not take it now: {type(error).__name__}: {one_line(error)}")


def wired(address: str) -> str:
    """address with its domain as DNS knows it (RFC 5890). Raises MailRefused for a domain that is none."""
    local, _, domain = address.rpartition("@")
    try:
        return f"{local}@{domain if domain.isascii() else domain.encode('idna').decode()}"
    except UnicodeError as error:
        raise MailRefused(f"the domain of {address!r} is none: {error}") from error
