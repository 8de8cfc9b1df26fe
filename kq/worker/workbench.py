"""What an executor works with: the application, and all that ties it to its supervisor."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from dataclasses import dataclass, field
from typing import Any

import msgspec

from kq.app import App
from kq.effects.context import Footing
from kq.worker.wire import Claims, Order, Page, Run, read_frame

_decode_order = msgspec.msgpack.Decoder(Order).decode

#: Seconds that an executor has for its last breath.
LEAVE_WITHIN = 5.0


@dataclass(frozen=True, slots=True)
class Workbench:
    """The one of an executor. sock: its supervisor speaks there, and is told of ends.

    coroutines: the task of each slot whose job is one, or was the last time that it was.
    """

    app: App
    sock: socket.socket
    page: Page
    claims: Claims
    footing: Footing
    coroutines: dict[int, asyncio.Task[Any]] = field(default_factory=dict)

    def order(self) -> Order | None:
        """What the supervisor says next; None when it is gone."""
        data = read_frame(self.sock)
        return None if data is None else self.understood(data)

    def understood(self, data: bytes | memoryview) -> Order:
        """An order that came, and whose it is."""
        order = _decode_order(data)
        self.footing.worker = order.worker or self.footing.worker
        return order

    def may_begin(self, run: Run, beside: int = 0) -> bool:
        """Whether the supervisor has not taken this job back. beside: how many of the next ones begin with it."""
        try:
            return self.claims.claim(run.seq, beside)
        except OSError:
            os._exit(1)  # a job closed what was not its own

    def leave(self) -> None:
        """End soon, whatever threads or an event loop still do."""
        threading.Timer(LEAVE_WITHIN, os._exit, (0,)).start()
