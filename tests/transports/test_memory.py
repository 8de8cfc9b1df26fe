"""The memory transport: the shared suites, and what is particular to it: names and the clock."""

from __future__ import annotations

from pathlib import Path

from kq_transports.conformance.engine import EngineSuite
from kq_transports.engine import Engine, Options
from kq_transports.memory import MemoryBroker, MemoryEngine


class TestMemoryEngine(EngineSuite):
    def open(self, where: Path, options: Options) -> Engine:
        return MemoryEngine(MemoryBroker.named(str(where)), options)
