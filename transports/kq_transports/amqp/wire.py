"""A socket to the broker on which every wait has a deadline: name look-up, connecting, TLS, reading and writing.

One thread may read while another one writes. What is read comes in pieces as large as the system has them;
py-amqp asks for each frame in three.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import ceil
from typing import Any

from amqp.transport import SSLTransport

from kq_transports.engine import EngineError, Unreachable, sleep_on
from kq_transports.tcp import connected

#: Bytes read at once.
PIECE = 65536
#: Seconds after which another thread has read what was waited for.
TAKEN = 0.05


class Wire:
    """A connected socket. Raises Unreachable, whose .sent is False as long as not one byte of a write went out."""

    def __init__(self, sock: socket.socket, peer: str) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.peer = peer
        self.connected = True
        self._tls = sock if isinstance(sock, ssl.SSLSocket) else None
        # OpenSSL wants one thread at a time.
        self._turn = threading.Lock()
        self._receive = self._receive_in_turn if self._tls else sock.recv
        self._send = self._send_in_turn if self._tls else sock.send
        self._readable = _waiter(sock, select.POLLIN)
        self._writable = _waiter(sock, select.POLLOUT)

    def read(self, until: float | None) -> bytes:
        """What arrived; b"" when nothing did before until (monotonic; None: no limit). A past until: no wait."""
        if self._tls and self._has_rest():
            return self._read()
        if until is not None and until <= time.monotonic():
            return self._read()
        return self._read() if self._readable(until) else b""

    @property
    def has_news(self) -> bool:
        """Whether something has arrived that was not read, if only the end."""
        if self._tls and self._has_rest():
            return True
        try:
            return sleep_on([self.sock.fileno()], 0)  # not on what another thread may be waiting with
        except ValueError:  # it was closed meanwhile, as who reads will learn
            return True

    def _has_rest(self) -> bool:
        """Whether TLS has taken something off the socket that was not read: no wait for that would end."""
        with self._turn:
            return self._tls is not None and self._tls.pending() > 0

    def _read(self) -> bytes:
        try:
            data = self._receive(PIECE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return b""
        except (OSError, ValueError) as error:
            raise Unreachable(f"the connection to {self.peer} broke: {error}", sent=True) from error
        if not data:
            raise Unreachable(f"{self.peer} hung up", sent=True)
        return data

    def write(self, data: bytes, until: float) -> None:
        """Send all of data before until. After an error nothing more can be sent."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._send(rest) :]
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
                wants_read = isinstance(error, ssl.SSLWantReadError)
                if not (self._answered(until) if wants_read else self._writable(until)):
                    raise Unreachable(f"{self.peer} takes no data", sent=len(rest) < len(data)) from None
            except (OSError, ValueError) as error:
                sent = len(rest) < len(data)
                raise Unreachable(f"the connection to {self.peer} broke: {error}", sent=sent) from error

    def _answered(self, until: float) -> bool:
        """Wait for what TLS must hear before it says more; False when until has passed.

        A socket may be writable all the time then. Whoever reads may take it off the socket: then nothing comes, and it
        is time to go on.
        """
        left = until - time.monotonic()
        sleep_on([self.sock.fileno()], max(0.0, min(left, TAKEN)))
        return left > 0

    def _receive_in_turn(self, size: int) -> bytes:
        with self._turn:
            return self.sock.recv(size)

    def _send_in_turn(self, data: memoryview) -> int:
        with self._turn:
            return self.sock.send(data)

    def hang_up(self) -> None:
        """End the connection and wake who waits for it; the descriptor stays until close()."""
        self.connected = False
        with suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the descriptor without a word. May be repeated."""
        self.connected = False
        self.sock.close()


def dial(host: str, port: int, *, within: float, tls: Mapping[str, Any] | None) -> Wire:
    """A connection to a port, made within so many seconds. tls: py-amqp's options, None for none.

    Raises Unreachable, and EngineError when the server has the wrong certificate.
    """
    until, peer = time.monotonic() + within, f"{host}:{port}"
    try:
        sock = connected(host, port, until)
        return Wire(sock if tls is None else _secured(sock, tls, until), peer)
    except ssl.SSLCertVerificationError as error:
        raise EngineError(f"{peer} is not who it should be: {error.verify_message}; see the option ssl") from error
    except ssl.SSLError as error:
        raise Unreachable(f"no TLS with {peer}: {error}", sent=False) from error
    except OSError as error:
        why = "it did not answer in time" if isinstance(error, TimeoutError) else str(error)
        raise Unreachable(f"can't connect to {peer}: {why}", sent=False) from error


def _secured(sock: socket.socket, options: Mapping[str, Any], until: float) -> ssl.SSLSocket:
    """sock under TLS, as py-amqp reads the options."""
    try:
        secure: ssl.SSLSocket = SSLTransport("")._wrap_socket(sock, **options)
    except BaseException:
        sock.close()
        raise
    try:
        secure.setblocking(False)
        _shake_hands(secure, until)
    except BaseException:
        secure.close()
        raise
    return secure


def _shake_hands(secure: ssl.SSLSocket, until: float) -> None:
    readable, writable = _waiter(secure, select.POLLIN), _waiter(secure, select.POLLOUT)
    while True:
        try:
            secure.do_handshake()
            return
        except ssl.SSLWantReadError:
            ready = readable(until)
        except ssl.SSLWantWriteError:
            ready = writable(until)
        if not ready:
            raise TimeoutError


def _waiter(sock: socket.socket, event: int) -> Callable[[float | None], bool]:
    """A function that waits for event until an instant (monotonic; None: no limit); False when that passed first."""
    poll = select.poll()
    poll.register(sock, event)

    def wait(until: float | None) -> bool:
        return bool(poll.poll(None if until is None else ceil(max(0.0, until - time.monotonic()) * 1000)))

    return wait
