"""A TCP connection that is there in time, name look-up included, or is given up."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from math import ceil
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

from kq_transports.thread import begin

#: Seconds after which the system may give up a connection whose bytes are not taken. py-amqp has one second: a
#: broker that holds a fast publisher back for longer would cost it the connection. Heartbeats are quicker.
PATIENCE = 60
#: Seconds after which one begins again beside what was begun. A system asks again after 1, 3 and 7 seconds (Linux from
#: 6.5 on: after 1, 2, 3 and 4): where nothing passed and then does, that is seconds late. It is also how long a host's
#: other addresses wait for one that is silent.
BESIDE = 1.0

_Address: TypeAlias = tuple[Any, Any, int, str, Any]
_Addresses: TypeAlias = list[_Address]
#: A connection that is not there yet, and whereto.
_Begun: TypeAlias = tuple[socket.socket, _Address]


def connected(host: str, port: int, until: float) -> socket.socket:
    """A socket to the first of the host's addresses that answers before until (monotonic). Raises OSError."""
    addresses, begun, poll = deque(_resolved(host, port, until)), dict[int, _Begun](), select.poll()
    trouble: OSError = ConnectionError("it has no address")
    try:
        while addresses or begun:
            if addresses:
                address = addresses[0]
                addresses.rotate(-1)
                try:
                    sock = _begin(address)
                except OSError as error:
                    trouble = error
                    addresses.remove(address)
                    continue
                begun[sock.fileno()] = sock, address
                poll.register(sock, select.POLLOUT)
            for descriptor, _ in poll.poll(ceil(min(BESIDE, _left(until)) * 1000)):
                sock, address = begun[descriptor]
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not code:
                    _prepare(sock, until)
                    return begun.pop(descriptor)[0]
                poll.unregister(descriptor)
                begun.pop(descriptor)[0].close()
                trouble = OSError(code, os.strerror(code))
                if address in addresses:
                    addresses.remove(address)
        raise trouble
    finally:
        for sock, _ in begun.values():
            sock.close()


def _begin(address: _Address) -> socket.socket:
    """A socket that is about to connect. Raises OSError."""
    family, kind, protocol, _, where = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        with suppress(BlockingIOError):
            sock.connect(where)
    except BaseException:
        sock.close()
        raise
    return sock


def _prepare(sock: socket.socket, until: float) -> None:
    sock.settimeout(_left(until))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, PATIENCE * 1000)


def _resolved(host: str, port: int, until: float) -> _Addresses:
    """getaddrinfo() that gives up in time; the system's own may take minutes."""
    # Of a str Python takes that it may be international, and imports Unicode's tables: 350 KiB in each process.
    name = host.encode() if host.isascii() else host
    with suppress(socket.gaierror):
        return socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    answers: SimpleQueue[_Addresses | OSError] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put(socket.getaddrinfo(name, port, type=socket.SOCK_STREAM))
        except OSError as error:
            answers.put(error)

    begin(threading.Thread(target=ask, name=f"look up {host}", daemon=True))
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
