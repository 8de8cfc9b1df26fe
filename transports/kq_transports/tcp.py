"""A TCP connection that is there in time, name look-up included, or is given up."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

#: Seconds after which the system may give up a connection whose bytes are not taken. py-amqp has one second: a
#: broker that holds a fast publisher back for longer would cost it the connection. Heartbeats are quicker.
PATIENCE = 60

_Addresses: TypeAlias = list[tuple[Any, Any, int, str, Any]]


def connected(host: str, port: int, until: float) -> socket.socket:
    """A socket to the first of the host's addresses that answers before until (monotonic). Raises OSError."""
    trouble: OSError = ConnectionError("it has no address")
    for family, kind, protocol, _, address in _resolved(host, port, until):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(_left(until))
            sock.connect(address)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, PATIENCE * 1000)
            return sock
        except OSError as error:
            sock.close()
            trouble = error
    raise trouble


def _resolved(host: str, port: int, until: float) -> _Addresses:
    """getaddrinfo() that gives up in time; the system's own may take minutes."""
    with suppress(socket.gaierror):
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    answers: SimpleQueue[_Addresses | OSError] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            answers.put(error)

    threading.Thread(target=ask, name=f"look up {host}", daemon=True).start()
    try:
        answer = answers.get(timeout=_left(until))
    except Empty:
        raise TimeoutError(f"nobody knew the address of {host} in time") from None
    if isinstance(answer, OSError):
        raise answer
    return answer


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
