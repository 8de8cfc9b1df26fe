"""Clients that take their time: who sends his request byte by byte, or does not read the answer, gives up his place.

uvicorn waits for them as long as they like, and serves so many at a time. Where another server stands before the page
this is its matter.
"""

from __future__ import annotations

import asyncio
import logging

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from kq.web.limits import crowding, group_of, is_among

log = logging.getLogger("kq.web")

#: Seconds that a client has to say what it wants, from when it is connected or begins to; and for all of its body.
ASKS, SENDS = 10.0, 60.0
#: Seconds for which it may read less than LEAST bytes a look of an answer that waits for it, and between two looks.
READS, LEAST, LOOK = 30.0, 1024, 1.0


class Patient(H11Protocol):
    """A connection that is looked at once a second as long as it lives.

    address, since, waits: see `kq.web.limits.Connection`.
    """

    address = ""
    since = 0.0
    _asks: float | None = None  # since when it says what it wants
    _sends = 0.0  # since when it sends its body
    _reads = 0.0  # when it last read
    _waits = 0  # bytes that wait for it
    _look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._asks = self._reads = self.since = self.loop.time()
        self.address = group_of(self.client[0]) if self.client else ""
        self._look_again()
        if (crowded := crowding(self._others(), self, self._is_shared)) is not None:
            crowded.end("too many connections wait for their clients")

    @property
    def waits(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        is_asking = cycle is None or cycle.response_complete or self.conn.their_state is h11.SEND_BODY
        return is_asking or self.flow.write_paused

    def end(self, why: str) -> None:
        """End the connection at once."""
        log.info("connection from %s ended: %s", self.client[0] if self.client else "nowhere", why)
        self.transport.abort()

    def _others(self) -> list[Patient]:
        """Return all connections of this server that are not about to be closed."""
        return [each for each in self.connections if isinstance(each, Patient) and not each.transport.is_closing()]

    def _is_shared(self, address: str) -> bool:
        return is_among(address, self.config.forwarded_allow_ips)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._asks is None and self.conn.their_state is h11.IDLE:
            self._asks = self.loop.time()
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._asks, self._sends = None, self.loop.time()
            self.since = self._sends

    def resume_writing(self) -> None:
        super().resume_writing()
        self._reads = self.loop.time()

    def _look_again(self) -> None:
        self._look = self.loop.call_later(LOOK, self._end_or_look_again)

    def _end_or_look_again(self) -> None:
        if why := self._too_slow(self.loop.time()):
            self.end(why)
        else:
            self._look_again()

    def _too_slow(self, now: float) -> str:
        """What the client takes too long for; "" while it does not."""
        before, self._waits = self._waits, self.transport.get_write_buffer_size()
        if self._waits <= before - LEAST or not self._waits:
            self._reads = now
        if self._asks is not None and now - self._asks > ASKS:
            return "it did not say what it wants"
        if self.conn.their_state is h11.SEND_BODY and now - self._sends > SENDS:
            return "it did not send all of its request"
        return "it does not read the answer" if now - self._reads > READS else ""
