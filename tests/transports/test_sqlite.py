"""The SQLite engine under the suite that every engine must pass."""

from __future__ import annotations

from pathlib import Path

from kq_transports.conformance.engine import EngineSuite
from kq_transports.engine import Engine, Options
from kq_transports.sqlite import SqliteEngine


class TestSqliteEngine(EngineSuite):
    def open(self, where: Path, options: Options) -> Engine:
        return SqliteEngine(str(where / "kq.db"), options)
