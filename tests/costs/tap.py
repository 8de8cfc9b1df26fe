"""A wire that counts: passes bytes to a server on loopback and back, and lets a reader look at each direction."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from functools import partial
from typing import Self

#: Looks at the bytes of one direction of one connection.
Reader = Callable[[bytes], None]


class Tap:
    """Listens on a free port for as long as its block lasts. sent, got: make a reader for each connection."""

    def __init__(self, port: int, sent: Callable[[], Reader], got: Callable[[], Reader]) -> None:
        self._to = ("127.0.0.1", port)
        self._readers = (sent, got)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        self._go(self._listen)
        return self

    def __exit__(self, *exc: object) -> None:
        for end in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in self._threads:
            thread.join()

    def _go(self, what: Callable[[], None]) -> None:
        self._threads.append(threading.Thread(target=what, name="tap"))
        self._threads[-1].start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._to)
                self._ends += client, server
                sent, got = self._readers
                self._go(partial(self._pass_on, client, server, sent()))
                self._go(partial(self._pass_on, server, client, got()))

    def _pass_on(self, source: socket.socket, target: socket.socket, see: Reader) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                see(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


class Frames:
    """Reads one direction of AMQP 0-9-1; calls on_frame with each frame that is no heartbeat."""

    HEARTBEAT = 8

    def __init__(self, on_frame: Reader, *, greets: bool) -> None:
        self._on_frame = on_frame
        self._skip = 8 if greets else 0  # "AMQP" and the version, which a client begins with
        self._buffer = b""

    def __call__(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) < self._skip:
            return
        self._buffer, self._skip = self._buffer[self._skip :], 0
        while len(self._buffer) >= 7:
            kind, _, size = struct.unpack_from(">BHI", self._buffer)
            if len(self._buffer) < size + 8:
                return
            frame, self._buffer = self._buffer[: size + 8], self._buffer[size + 8 :]
            if kind != self.HEARTBEAT:
                self._on_frame(frame)
