"""What is said on a connection that redis-py has opened: its own ways to send and to read take twice the CPU."""

from __future__ import annotations

import socket
import struct
import time
from typing import Any, TypeAlias

from hiredis import Reader
from redis import Connection, InvalidResponse
from redis import ConnectionError as Broken

from kq_transports.engine import sleep_on

#: What the server answers: int, bytes, None, or a list of these.
Reply: TypeAlias = Any

#: Bytes read at once.
PIECE = 65536
#: Bytes of the largest reply that is read.
LARGEST = 512 << 20
#: Timeouts within which a reply must be complete, however steadily it comes.
TIMEOUTS = 6

_SPAN = struct.Struct("@ll")


class Wire:
    """Sends commands and reads answers on connection, which is open. Each wait ends after timeout seconds.

    Raises redis-py's errors, OSError, and TimeoutError or BlockingIOError when the time is over.
    """

    def __init__(self, connection: Connection, timeout: float) -> None:
        self.connection = connection
        self._timeout = timeout
        sock: Any = connection._sock  # redis-py has no public way to it
        self._socket: socket.socket = sock
        self._reader = Reader(protocolError=InvalidResponse, replyError=connection._parser.parse_error)
        self._buffer: Any = bytearray(PIECE)
        if type(sock) is socket.socket and type(sock).__module__ == "socket":
            _wait_in_the_kernel(sock, timeout)

    def ask(self, command: bytes) -> Reply:
        """What the server answers to a command."""
        self._socket.sendall(command)
        return self.read()

    def read(self) -> Reply:
        """The next that the server says. Raises InvalidResponse for more than LARGEST bytes."""
        taken, pieces, until = 0, 0, 0.0
        while (reply := self._reader.gets()) is False:
            if pieces:  # the clock is read for no reply that comes in one piece
                until = until or time.monotonic() + TIMEOUTS * self._timeout
                if time.monotonic() > until:
                    raise TimeoutError
            pieces += 1
            size = self._socket.recv_into(self._buffer)
            if not size:
                raise Broken("the server closed the connection")
            taken += size
            if taken > LARGEST:
                raise InvalidResponse(f"a reply has more than {LARGEST:,} bytes")
            self._reader.feed(self._buffer, 0, size)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def hears(self, timeout: float) -> bool:
        """Whether something comes within timeout seconds; the end of the connection does too."""
        pending = getattr(self._socket, "pending", None)  # what TLS has read already
        return self._reader.has_data() or bool(pending and pending()) or sleep_on([self._socket.fileno()], timeout)


def _wait_in_the_kernel(sock: socket.socket, timeout: float) -> None:
    """Let it be the system that ends waits; Python asks it twice for each, to end them itself.

    Not for sockets of other libraries, under which the system does not wait.
    """
    seconds, rest = divmod(max(1, round(timeout * 1_000_000)), 1_000_000)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, option, _SPAN.pack(seconds, rest))
    sock.settimeout(None)
