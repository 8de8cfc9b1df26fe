"""Reading an SQLite file that processes share, where nothing may or can be written.

Each read opens the file anew. It holds nothing between two of them, so the file may be replaced, or a fork come
between.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import quote

from kq_transports.engine import Absent
from kq_transports.hostfile.clock import HostClock
from kq_transports.hostfile.folder import real
from kq_transports.hostfile.owner import all_must_be_ours, parts
from kq_transports.hostfile.schema import Row, Schema, Values
from kq_transports.hostfile.spare import put_back, size
from kq_transports.hostfile.trouble import explain, logless

#: Seconds in which who makes a file makes its tables, also on a busy machine, and between two looks at that.
MAKING, PAUSE = 1.0, 0.01


class Reader:
    """The file at path for one who only reads: it is neither created nor changed, and nobody is waited for.

    timeout: seconds that a read may wait for one who repairs the file after a crash. shared: whether it may be another
    user's. Raises Absent when there is no
    file, or none of schema's tables in it, Unreachable when it has lost its log, and EngineError when it can't be read.
    """

    def __init__(self, path: str, schema: Schema, *, timeout: float, shared: bool = False) -> None:
        self.path = real(path)
        self._parts = [] if shared else parts(path, self.path)
        self._schema = schema
        self._timeout = timeout
        with self._opened() as connection:
            self.clock = HostClock.of(connection)

    def read(self, statement: str, values: Values = ()) -> list[Row]:
        """The rows that statement selects, as of one moment."""
        with self._opened() as connection:
            return connection.execute(statement, values).fetchall()

    @property
    def log_size(self) -> int:
        """Bytes of the log."""
        return size(f"{self.path}-wal")

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        if not self.path.is_file():
            raise Absent(f"there is no file {self.path}")
        all_must_be_ours(self._parts)
        try:
            with closing(self._connected()) as connection:
                self._schema.check(self._version(connection), self.path)
                yield connection
        except sqlite3.Error as error:
            raise explain(error, self.path) from error

    def _connected(self) -> sqlite3.Connection:
        put_back(self.path, self._timeout)
        try:
            return self._connect("mode=ro")
        except sqlite3.OperationalError:
            # Where nothing can be written, as on a full disk, SQLite can't make the memory that the processes share.
            # Then nobody else is at work on the file, and without a log it is whole as it stands.
            if self.log_size:
                raise
            return self._connect("mode=ro&immutable=1")

    def _connect(self, mode: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(os.fsencode(self.path))}?{mode}", timeout=self._timeout, isolation_level=None, uri=True
        )
        try:
            connection.execute("PRAGMA schema_version").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    def _version(self, connection: sqlite3.Connection) -> Any:
        """The version of the schema that the file has."""
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'host_user'").fetchone():
            row = connection.execute("SELECT version FROM host_user WHERE name = ?", (self._schema.user,)).fetchone()
            if row is not None:
                return row[0]
        if _is_bare(connection):
            # What is in it was in the log. Those that have the file open have that, too, and the last one copies it.
            raise logless(self.path)
        raise Absent(f"{self.path} is a file without {self._schema.user}")


def _is_bare(connection: sqlite3.Connection) -> bool:
    """Whether the file has been begun and holds no table, although nobody is just making them."""
    until = time.monotonic() + MAKING
    while True:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        if not pages or connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            return False
        if time.monotonic() > until:
            return True
        time.sleep(PAUSE)
