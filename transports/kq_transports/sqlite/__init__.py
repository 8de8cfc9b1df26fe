"""Queues in an SQLite file: durable, without a server, for the processes of one host.

`kq-sqlite:///jobs.db` is a file in the current folder, `kq-sqlite:////var/lib/shop/jobs.db` one by its whole path.
"""

from __future__ import annotations

import sqlite3

from kq_transports.engine import Engine, EngineError, Options
from kq_transports.sqlite.engine import TRAITS, SqliteEngine
from kq_transports.transport import EngineTransport

__all__ = ["SqliteEngine", "Transport"]


class Transport(EngineTransport):
    """kq-sqlite:///path.

    transport_options beyond those of every kq transport: synchronous, "full" (what is committed survives a
    power failure) or "normal" (it survives the death of every process, and nobody waits for the disk); shared, True for
    a file of which a part may belong to another user of the host: its folder, log, lock or the file itself.
    """

    traits = TRAITS
    driver_name = "sqlite3"

    def driver_version(self) -> str:
        return sqlite3.sqlite_version

    def open_engine(self, options: Options) -> Engine:
        host = self.client.hostname
        if host and host != "localhost":
            raise EngineError(
                f"an SQLite file has no host ({host}); three slashes come before its path: kq-sqlite:///{host}"
            )
        return SqliteEngine(self.client.virtual_host or "", options)
