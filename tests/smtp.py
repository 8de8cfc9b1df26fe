"""A mail server for tests: it remembers what it accepted, and misbehaves when told."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage


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
class SmtpServer:
    """Listens on a free port of the loopback while it is entered.

    replies: what to answer instead of yes: to "MAIL", "RCPT", "DATA" or "." (the end of the data); "" hangs up.
    after: called with each accepted mail before the server says so: a test may kill somebody there.
    """

    replies: dict[str, str] = field(default_factory=dict)
    after: Callable[[Accepted], None] = lambda mail: None
    accepted: list[Accepted] = field(default_factory=list)
    connections: int = 0
    commands: list[str] = field(default_factory=list)
    _open: list[socket.socket] = field(default_factory=list)

    def __enter__(self) -> SmtpServer:
        outer = self

        class Conversation(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                outer.connections += 1
                outer._open.append(self.connection)
                outer._talk(self)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Conversation)
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
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self._server.server_address[1]}"

    def subjects(self) -> list[str]:
        """Subjects of what was accepted, in order."""
        return [str(mail.message["Subject"]) for mail in self.accepted]

    def _talk(self, peer: socketserver.StreamRequestHandler) -> None:
        def say(words: str) -> None:
            peer.wfile.write(words.encode() + b"\r\n")

        sender = recipient = ""
        try:
            say("220 here")
            while line := peer.rfile.readline().decode("utf-8", "replace").strip():
                verb = line.split()[0].upper()
                self.commands.append(line)
                reply = self.replies.get(verb)
                if reply == "":
                    return
                if reply is not None:
                    say(reply)
                    continue
                if verb == "EHLO":
                    say("250-here\r\n250 SMTPUTF8")
                elif verb == "MAIL":
                    sender = line.partition(":<")[2].partition(">")[0]
                    say("250 ok")
                elif verb == "RCPT":
                    recipient = line.partition(":<")[2].partition(">")[0]
                    say("250 ok")
                elif verb == "DATA":
                    say("354 go on")
                    if not self._take(peer, sender, recipient, say):
                        return
                elif verb == "QUIT":
                    say("221 bye")
                    return
                else:
                    say("250 ok")
        except OSError:
            return  # the client is gone

    def _take(
        self, peer: socketserver.StreamRequestHandler, sender: str, recipient: str, say: Callable[[str], None]
    ) -> bool:
        lines = []
        while (line := peer.rfile.readline()) != b".\r\n":
            if not line:
                return False
            lines.append(line[1:] if line.startswith(b"..") else line)
        reply = self.replies.get(".")
        if reply is not None and reply != "" and not reply.startswith("2"):
            say(reply)
            return True
        mail = Accepted(sender, recipient, b"".join(lines))
        self.accepted.append(mail)
        self.after(mail)
        if reply == "":
            return False
        say("250 taken")
        return True
