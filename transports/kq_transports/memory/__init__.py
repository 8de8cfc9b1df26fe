"""Queues in the memory of one process: for tests, and for programs that need no more than themselves.

`kq-memory://name`: all connections of a process to one name share a broker, which lives as long as the process. The
clock is the broker's own and may be moved by hand, so that a test of days takes milliseconds.
"""

from __future__ import annotations

from typing import cast

from kq_transports.engine import Engine, Options
from kq_transports.memory.broker import Clock, MemoryBroker
from kq_transports.memory.engine import TRAITS, MemoryEngine
from kq_transports.transport import EngineTransport

__all__ = ["Clock", "MemoryBroker", "MemoryEngine", "Transport"]


class Transport(EngineTransport):
    """`kq-memory://name`. transport_options: clock, for the broker that is made by the first connection."""

    traits = TRAITS
    driver_name = "kq-memory"

    def open_engine(self, options: Options) -> Engine:
        name = self.client.hostname or self.client.virtual_host.strip("/") or "default"
        return MemoryEngine(MemoryBroker.named(name, cast("Clock | None", options.extra.get("clock"))), options)
