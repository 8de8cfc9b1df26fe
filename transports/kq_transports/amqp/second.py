"""The second line of a connection: for publishes that must not stop the first, and for who asks about it.

A broker that is short of memory or disk stops listening to those who publish; it must go on hearing the acks and
heartbeats of those who hold messages, and that they died. And who asks what a connection holds, or wants it to end, is
heard whatever its owner does: a thread attends to this line.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

from amqp import exceptions
from msgspec.structs import replace

from kq_transports.amqp.presence import Presence
from kq_transports.amqp.publisher import Publisher
from kq_transports.engine import EngineError
from kq_transports.thread import begin

if TYPE_CHECKING:
    from kq_transports.amqp.connection import Connection

#: Seconds between attempts to have a second line again.
PAUSE = 1.0
#: Seconds after which who does not publish is thought to have stopped.
QUIET = 0.1


class Second(Publisher):
    """The second line of first. Raises Unreachable."""

    def __init__(self, first: Connection) -> None:
        super().__init__(first.address, replace(first.options, name=f"{first.name}.second", keep_alive=False))
        self.connect()

    def attend(self, first: Connection) -> None:
        """Let first be known, and hear what it is told, from now on."""
        try:
            Presence(self, first)
        except EngineError as error:
            if isinstance(error, ConnectionError):
                raise
            # Somebody has that name; Kombu gives the options of one connection to its clones too.
            first.name = f"{first.name}.{os.urandom(4).hex()}"
            Presence(self, first)
        given = (self, weakref.ref(first))
        begin(threading.Thread(target=_attend, args=given, name="kq-amqp attendant", daemon=True))

    def hear(self) -> None:
        """Read what comes until it is time for a heartbeat, and send that.

        Who publishes reads for himself, mail included; to take turns with him for each confirm would cost him half
        his time. So he is left alone until he has been quiet for a while.
        """
        begin = time.monotonic()
        if begin - self.spoke < QUIET:
            self.stopped.wait(QUIET)
        else:
            self.wait_for(lambda: self.spoke >= begin, begin + self.heartbeat / 2)
        self.beat()


def _attend(second: Second, reference: weakref.ref[Connection]) -> None:
    """Hear what comes on second as long as its connection lives; have another one when it breaks alone."""
    while (first := reference()) is not None and first.alive:
        del first
        try:
            second.hear()
        except (EngineError, exceptions.AMQPError):
            break
    while (first := reference()) is not None and first.alive and not second.stopped.wait(PAUSE):
        with suppress(EngineError, exceptions.AMQPError):
            first.second()
            return
    second.collect()
