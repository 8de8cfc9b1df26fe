"""A mail server that counts what it accepted, misbehaves when told, and says at which point of a mail it is."""

from __future__ import annotations

import base64
import contextlib
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage

#: A line of text that may be the last one: at that point the client has said all but the end.
LAST_LINE = b"that is all\r\n"


@dataclass
class Accepted:
    """A mail that the server said yes to."""

    sender: str
    recipient: str
    data: bytes

    @property
    def message(self) -> EmailMessage:
        return message_from_bytes(self.data, policy=policy.default)


@dataclass
class MailServer:
    """Speaks SMTP on a free port of the loopback while it is entered.

    replies: what to answer instead of yes: to "MAIL", "RCPT", "DATA" or "." (the end of the text); "" hangs up.
    offers: its extensions. context: its certificate; tls: "smtps" or "smtp+starttls". login: the user and password that
    it wants. moment: called with the name of each point that a mail reaches ("MAIL", "RCPT", "DATA", "text", "end",
    "accepted", "replied") and its recipient; a test may kill somebody there.
    """

    replies: dict[str, str] = field(default_factory=dict)
    offers: tuple[str, ...] = ("SMTPUTF8", "8BITMIME")
    context: ssl.SSLContext | None = None
    tls: str = "smtp"
    login: tuple[str, str] | None = None
    moment: Callable[[str, str], None] = lambda moment, recipient: None
    accepted: list[Accepted] = field(default_factory=list)
    connections: int = 0
    commands: list[str] = field(default_factory=list)
    _open: list[socket.socket] = field(default_factory=list)

    def __enter__(self) -> MailServer:
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                outer.connections += 1
                with contextlib.suppress(OSError):  # the client is gone
                    _Conversation(outer, self.request).hold()

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        for connection in self._open:
            with contextlib.suppress(OSError):  # it has ended
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """What a mailer is told."""
        user = f"{self.login[0]}:{self.login[1]}@" if self.login else ""
        return f"{self.tls}://{user}127.0.0.1:{self.port}"

    def subjects(self) -> list[str]:
        """Subjects of what was accepted, in order."""
        return [str(mail.message["Subject"]) for mail in self.accepted]


class _Conversation:
    """One connection."""

    def __init__(self, server: MailServer, line: socket.socket) -> None:
        self._server = server
        self._talk_over(line)
        self._sender = self._recipient = ""
        self._known = server.login is None

    def _encrypt(self) -> None:
        assert self._server.context is not None
        self._talk_over(self._server.context.wrap_socket(self._line, server_side=True))

    def _talk_over(self, line: socket.socket) -> None:
        self._line = line
        self._read = line.makefile("rb")
        self._server._open.append(line)

    def _say(self, words: str) -> None:
        self._line.sendall(words.encode() + b"\r\n")

    def hold(self) -> None:
        try:
            self._converse()
        finally:
            self._read.close()
            self._line.close()

    def _converse(self) -> None:
        if self._server.tls == "smtps":
            self._encrypt()
        self._say("220 here")
        while line := self._read.readline().decode("utf-8", "replace").strip():
            verb = line.split()[0].upper()
            self._server.commands.append(line)
            reply = self._server.replies.get(verb)
            if reply == "":
                return
            if reply is not None:
                self._say(reply)
            elif not self._answer(verb, line):
                return

    def _answer(self, verb: str, line: str) -> bool:
        """Do what the client wants; False at the end."""
        match verb:
            case "EHLO":
                self._greet()
            case "STARTTLS":
                self._say("220 go ahead")
                self._encrypt()
            case "AUTH":
                self._log_in(line)
            case "MAIL" | "RCPT" if not self._known:
                self._say("530 log in first")
            case "MAIL":
                self._sender = _address(line)
                self._say("250 ok")
            case "RCPT":
                self._recipient = _address(line)
                self._server.moment("MAIL", self._recipient)
                self._say("250 ok")
                self._server.moment("RCPT", self._recipient)
            case "DATA":
                self._say("354 go on")
                self._server.moment("DATA", self._recipient)
                return self._take()
            case "QUIT":
                self._say("221 bye")
                return False
            case _:
                self._say("250 ok")
        return True

    def _greet(self) -> None:
        offers = [*self._server.offers, *(["AUTH PLAIN"] if self._server.login else [])]
        if self._server.tls == "smtp+starttls" and not isinstance(self._line, ssl.SSLSocket):
            offers.append("STARTTLS")
        lines = ["here", *offers]
        self._say("\r\n".join(f"250{'-' if each is not lines[-1] else ' '}{each}" for each in lines))

    def _log_in(self, line: str) -> None:
        _, user, password = base64.b64decode(line.split()[2]).decode().split("\0")
        self._known = (user, password) == self._server.login
        self._say("235 welcome" if self._known else "535 who are you")

    def _take(self) -> bool:
        lines = []
        while (line := self._read.readline()) != b".\r\n":
            if not line.endswith(b"\n"):
                return False
            lines.append(line[1:] if line.startswith(b"..") else line)
            if line == LAST_LINE:
                self._server.moment("text", self._recipient)
        self._server.moment("end", self._recipient)
        reply = self._server.replies.get(".")
        if reply and len(reply) > 3 and reply[0] in "45":
            self._say(reply)
            return True
        self._server.accepted.append(Accepted(self._sender, self._recipient, b"".join(lines)))
        self._server.moment("accepted", self._recipient)
        if reply == "":
            return False
        self._say(reply or "250 taken")
        self._server.moment("replied", self._recipient)
        return True


def _address(line: str) -> str:
    return line.partition(":<")[2].partition(">")[0]
