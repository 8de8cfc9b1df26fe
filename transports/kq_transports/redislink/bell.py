"""The second socket of a consumer: asleep in BLPOP on wake lists.

What comes out is a wake-up, never a job: a bell that breaks, or rings for somebody who just died,
costs the others at most INTERVAL.
"""

from __future__ import annotations

import contextlib
import socket
import time

from redis import Connection, RedisError

from kq_transports.engine import sleep_on
from kq_transports.redislink.link import explained
from kq_transports.redislink.place import Place

INTERVAL = 1.0  # seconds of sleep, after which it rings without cause


class Bell:
    """A descriptor that becomes readable when one of some lists gets an element, or after INTERVAL."""

    def __init__(self, place: Place, timeout: float) -> None:
        self._place = place
        self._timeout = timeout
        self._connection: Connection | None = None
        self._asked_at: float | None = None  # when BLPOP was sent whose answer nobody has read
        self._lists: tuple[str, ...] = ()

    def asleep(self) -> bool:
        """Whether the server still has us in BLPOP. A ring that has come is used up by asking this."""
        if self._asked_at is None or self._connection is None:
            return False
        try:
            if not self._connection.can_read():
                return True
            self._connection.read_response()
        except (RedisError, OSError):
            self.close()
        self._asked_at = None
        return False

    def stirred(self) -> None:
        """The server was told to end our sleep; its answer is read before the next one."""
        self._lists = ()

    def arm(self, lists: tuple[str, ...]) -> int:
        """The descriptor. Raises Unreachable."""
        connection = self._connection or self._place.connection(self._timeout)
        try:
            if self._asked_at is not None and self._lists != lists:
                connection.read_response()
                self._asked_at = None
            if self._asked_at is None:
                connection.send_command("BLPOP", *lists, INTERVAL)
                self._asked_at, self._lists = time.monotonic(), lists
        except (RedisError, OSError) as error:
            self.close()
            raise explained(error, self._place, sent=False) from error
        self._connection = connection
        return _socket(connection).fileno()

    def check(self) -> None:
        """Wake up who sleeps on the descriptor when the server should have rung long ago."""
        asked_at, connection = self._asked_at, self._connection
        if asked_at is None or connection is None or time.monotonic() < asked_at + INTERVAL + self._timeout:
            return
        with contextlib.suppress(OSError):
            # What it said long ago may be unread, where its owner waited as long for another answer.
            if not sleep_on([_socket(connection).fileno()], 0):
                _socket(connection).shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the socket."""
        connection, self._connection, self._asked_at = self._connection, None, None
        if connection is not None:
            connection.disconnect()


def _socket(connection: Connection) -> socket.socket:
    found: object = connection._sock  # redis-py has no public way to its descriptor
    assert isinstance(found, socket.socket)
    return found
