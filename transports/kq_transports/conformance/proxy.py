"""A network that misbehaves on command: a TCP proxy on loopback, in one thread.

For tests of what a client does when the network fails; the server behind it stays well.
"""

from __future__ import annotations

import contextlib
import heapq
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Self

CHUNK = 65536  # bytes
PATIENCE = 5.0  # seconds for a full buffer to drain before its connection ends


class Proxy:
    """Listens on a free loopback port and passes bytes to and from another one.

    All commands are carried out before they return and may be given from any thread.
    """

    def __init__(self, to_port: int) -> None:
        self._to = ("127.0.0.1", to_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._waker, self._wake = socket.socketpair()
        self._pairs: set[_Pair] = set()
        self._late: list[tuple[float, int, _Pair, socket.socket, bytes]] = []
        self._commands: deque[tuple[Callable[[], None], threading.Event]] = deque()
        self._refusing = self._frozen = self._closed = False
        self._delay, self._sequence = 0.0, 0
        #: How many bytes the clients have sent.
        self.heard = 0
        self._until: int | None = None
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._waker, selectors.EVENT_READ, lambda: self._waker.recv(CHUNK))
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    @property
    def connections(self) -> int:
        """How many connections are open through it."""
        return len(self._pairs)

    @property
    def descriptors(self) -> int:
        """How many descriptors the connections through it take."""
        return sum(len(pair.ends()) for pair in list(self._pairs))

    def cut(self) -> None:
        """Reset every open connection (RST to both sides); new ones work."""
        self._do(lambda: self._end_all(abruptly=True))

    def drop(self) -> None:
        """Close every open connection in good order (FIN); new ones work."""
        self._do(lambda: self._end_all(abruptly=False))

    def drop_at(self, heard: int) -> None:
        """Close every open connection when clients have sent so many bytes; what comes behind is not passed on."""

        def drop_at() -> None:
            self._until = heard

        self._do(drop_at)

    def refuse(self) -> None:
        """Reset every open connection, and each new one at once, until restore()."""

        def refuse() -> None:
            self._refusing = True
            self._end_all(abruptly=True)

        self._do(refuse)

    def freeze(self) -> None:
        """Be a black hole until restore(): nothing passes, nothing is answered, nothing closes.

        What was sent meanwhile arrives late, as it does after a stall of the network.
        """
        self._do(lambda: self._set_frozen(True))

    def forget(self) -> None:
        """Leave every open connection half-open: the server's side ends, the client is never told."""

        def forget() -> None:
            for pair in self._pairs:
                pair.forget_server()
            self._watch()

        self._do(forget)

    def delay(self, seconds: float) -> None:
        """Hold every byte back for so long, in each direction; 0 undoes it."""

        def set_delay() -> None:
            self._delay = seconds

        self._do(set_delay)

    def restore(self) -> None:
        """Be a good network again (half-open connections stay half-open)."""

        def restore() -> None:
            self._refusing, self._delay, self._until = False, 0.0, None
            self._set_frozen(False)

        self._do(restore)

    def close(self) -> None:
        """Reset everything and end. May be repeated."""
        if self._closed:
            return

        def close() -> None:
            self._closed = True
            self._end_all(abruptly=True)

        self._do(close)
        self._thread.join()
        for end in (self._listener, self._waker, self._wake):
            end.close()
        self._selector.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # Below: the proxy's own thread.

    def _do(self, command: Callable[[], None]) -> None:
        done = threading.Event()
        self._commands.append((command, done))
        self._wake.send(b"!")
        assert done.wait(10), "the proxy's thread is dead"

    def _run(self) -> None:
        while not self._closed:
            for key, _ in self._selector.select(self._patience()):
                key.data()
            self._pass_on_late()
            self._obey()

    def _patience(self) -> float | None:
        if self._frozen or not self._late:
            return None
        return max(0.0, self._late[0][0] - time.monotonic())

    def _obey(self) -> None:
        while self._commands:
            command, done = self._commands.popleft()
            command()
            done.set()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        if self._refusing:
            _reset(client)
            return
        try:
            server = socket.create_connection(self._to)
        except OSError:
            _reset(client)
            return
        self._pairs.add(_Pair(client, server))
        self._watch()

    def _set_frozen(self, frozen: bool) -> None:
        self._frozen = frozen
        self._watch()

    def _watch(self) -> None:
        """Register what should be read now: nothing of a frozen network, the client only when half-open."""
        for key in list(self._selector.get_map().values()):
            if key.fileobj is not self._waker:
                self._selector.unregister(key.fileobj)
        if self._frozen:
            return
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        for pair in self._pairs:
            for end in pair.ends():
                self._selector.register(end, selectors.EVENT_READ, lambda pair=pair, end=end: self._read(pair, end))

    def _read(self, pair: _Pair, end: socket.socket) -> None:
        if pair not in self._pairs:
            return  # ended by an event of the same round
        try:
            data = end.recv(CHUNK)
        except OSError:
            data = b""
        if self._delay:
            self._sequence += 1
            heapq.heappush(self._late, (time.monotonic() + self._delay, self._sequence, pair, end, data))
            if not data:
                self._selector.unregister(end)
        else:
            self._pass_on(pair, end, data)

    def _pass_on_late(self) -> None:
        while self._late and not self._frozen and self._late[0][0] <= time.monotonic():
            _, _, pair, end, data = heapq.heappop(self._late)
            if pair in self._pairs:
                self._pass_on(pair, end, data)

    def _pass_on(self, pair: _Pair, end: socket.socket, data: bytes) -> None:
        if pair.is_client(end):
            before, self.heard = self.heard, self.heard + len(data)
            if self._until is not None and self.heard >= self._until:
                pair.pass_on(end, data[: self._until - before])
                self._until = None
                self._end_all(abruptly=False)
                return
        if not (data and pair.pass_on(end, data)):
            self._end(pair, abruptly=False)

    def _end_all(self, *, abruptly: bool) -> None:
        for pair in list(self._pairs):
            self._end(pair, abruptly=abruptly)

    def _end(self, pair: _Pair, *, abruptly: bool) -> None:
        self._pairs.discard(pair)
        for end in pair.ends():
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(end)
        pair.close(abruptly=abruptly)


class _Pair:
    """A client's connection and the one to the server that goes with it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self._client = client
        self._server: socket.socket | None = server
        for end in self.ends():
            end.settimeout(PATIENCE)

    def ends(self) -> list[socket.socket]:
        return [self._client, *([self._server] if self._server else [])]

    def is_client(self, end: socket.socket) -> bool:
        return end is self._client

    def pass_on(self, end: socket.socket, data: bytes) -> bool:
        """Give data from one end to the other; False when that is not possible any more."""
        if self._server is None:
            return True  # half-open: swallowed
        other = self._server if end is self._client else self._client
        try:
            other.sendall(data)
        except OSError:
            return False
        return True

    def forget_server(self) -> None:
        if self._server is not None:
            _reset(self._server)
            self._server = None

    def close(self, *, abruptly: bool) -> None:
        for end in self.ends():
            _reset(end) if abruptly else end.close()


def _reset(end: socket.socket) -> None:
    """Close with RST instead of FIN."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()
