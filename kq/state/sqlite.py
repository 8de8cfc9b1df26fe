"""The state store in an SQLite file, shared by the processes of one host.

It may be the broker's own file: the tables are named `state_…` and writers queue for the same lock.
Who waits for a key hangs up a bell and is listed in a table; who writes the key rings it, so nobody polls.
What is to vanish does so by the time that the host was awake, which no correction of the wall clock moves.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from kq.clock import SYSTEM
from kq.state.store import Gathered, Store, StoreUnreachable, Write, summed, there
from kq_transports.engine import Absent, EngineError, sleep_on
from kq_transports.hostfile import Bell, Database, Reader, Removed, Row, Schema

_TABLES = """
CREATE TABLE IF NOT EXISTS state_fact (key TEXT PRIMARY KEY, value BLOB NOT NULL, ends REAL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS state_fact_ends ON state_fact (ends) WHERE ends IS NOT NULL;
CREATE TABLE IF NOT EXISTS state_waiter (key TEXT, bell TEXT, PRIMARY KEY (key, bell)) WITHOUT ROWID
"""
_GET = "SELECT value FROM state_fact WHERE key = ? AND (ends IS NULL OR ends > ?)"
_SCHEMA = Schema("state", 2, _TABLES)

# Joins, and no "key IN (SELECT …)": for that SQLite makes a table in memory, which takes some µs however short it is.
_GET_MANY = """SELECT fact.key, fact.value FROM json_each(?) AS asked CROSS JOIN state_fact AS fact
    ON fact.key = asked.value WHERE ends IS NULL OR ends > ?"""
_DELETE = "DELETE FROM state_fact WHERE key = ?"
_PUT = "INSERT OR REPLACE INTO state_fact (key, value, ends) VALUES (?, ?, ?)"
_SCAN = """SELECT key, value FROM state_fact
    WHERE key >= ? AND key < ? AND (ends IS NULL OR ends > ?) ORDER BY key LIMIT ?"""
_GATHER = """SELECT prefix.key, fact.key, fact.value FROM json_each(?) AS prefix CROSS JOIN state_fact AS fact
    WHERE fact.key IN (SELECT key FROM state_fact
        WHERE key >= prefix.value AND key < prefix.value || ? AND (ends IS NULL OR ends > ?) LIMIT ?)"""
# What is known of facts, and then the bells of those who wait for others.
_LOOK = f"""{_GET_MANY.replace("fact.value", "fact.value, NULL")}
    UNION ALL SELECT waiter.key, NULL, bell FROM json_each(?) AS stored CROSS JOIN state_waiter AS waiter
    ON waiter.key = stored.value"""
# A bounded number in each transaction, so that the end of a million results delays no one write.
_ENDED = "SELECT key FROM state_fact WHERE ends <= ? LIMIT 200"

_UNLIST = "DELETE FROM state_waiter WHERE key = ? AND bell = ?"

#: Bells that a store keeps for those who wait next.
KEPT = 2

_LAST = "\U0010ffff"  # no key has it, so it sorts behind all that start with the prefix before it

# Databases of the parent, in a forked child: never closed there, for SQLite would end the parent's locks.
_inherited: list[Database] = []


class SqliteStore(Store):
    """Facts in the file at path, which is created when it is missing.

    synchronous: "full" (what is written survives a power failure) or "normal" (it survives a crash).
    shared: a part of the file, its folder or what lies beside it may be another user's.
    look: nothing is created before something is written, and what is there can be read where nothing can be written.
    A store that was opened before a fork opens the file anew in the child, and one whose file was removed or replaced
    opens what is there by then, after it has said so once.
    """

    def __init__(
        self,
        path: str,
        *,
        timeout: float = 5.0,
        synchronous: str = "full",
        shared: bool = False,
        look: bool = False,
    ) -> None:
        self.timeout = timeout
        self._shared = shared
        self._synchronous = synchronous
        self._path = path
        self._pid = os.getpid()
        self._bells: list[Bell] = []
        #: The file to write to; None before the first write of one who looks.
        self._opened = None if look else self._open()

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        if len(keys) == 1:  # as who waits for a result asks: to read a list of keys takes as long as to find one
            rows = self._read(_GET, keys[0])
            return [rows[0][0] if rows else None]
        found: dict[str, bytes] = dict(self._read(_GET_MANY, json.dumps(keys)))
        return [found.get(key) for key in keys]

    def write(self, writes: Sequence[Write]) -> list[bool]:
        durable = any(write.durable for write in writes)
        database = self._mine()
        try:
            with database.turn(durable=durable) as connection:
                return _carry_out(database, connection, writes)
        except EngineError as error:
            raise self._unreachable(database, error) from error

    def rider(self, writes: Sequence[Write]) -> Callable[[Database, sqlite3.Connection], bool]:
        self._mine()  # which makes the tables
        return partial(_all_or_none, writes)

    def scan(self, prefix: str, limit: int = 1000) -> list[tuple[str, bytes]]:
        return self._read(_SCAN, prefix, prefix + _LAST, limit=limit)

    def gather(self, prefixes: Sequence[str], limit: int = 1000) -> Gathered:
        found = tuple(dict[str, bytes]() for _ in prefixes)
        for number, key, value in self._read(_GATHER, json.dumps(list(prefixes)), _LAST, limit=limit):
            found[number][key] = value
        return Gathered(self.now(), found)

    def wait_any(self, keys: Sequence[str], timeout: float) -> dict[str, bytes]:
        until = SYSTEM.monotonic() + timeout
        found = there(keys, self.get(keys))
        if found or timeout <= 0:
            return found
        bell = self._bell()
        try:
            while not (found := self._found(keys, bell)) and (left := until - SYSTEM.monotonic()) > 0:
                sleep_on([bell.descriptor], left)
                bell.quiet()
            return found
        finally:
            if not found:
                self._unlist(keys, bell)
            self._keep(bell)

    def now(self) -> float:
        return SYSTEM.now()

    def close(self) -> None:
        if self._opened is not None:
            with suppress(StoreUnreachable), self._using() as database:
                for bell in self._bells:
                    bell.close()
                database.close()

    def _read(self, statement: str, *values: object, limit: int | None = None) -> list[Row]:
        """What statement selects of the file; last of its values are the time and a limit. Nothing without a file."""
        rest = () if limit is None else (limit,)
        if self._opened is not None:
            with self._using() as database:
                return database.read(statement, (*values, database.clock.awake(), *rest))
        try:
            reader = Reader(self._path, _SCHEMA, timeout=self.timeout, shared=self._shared)
            return reader.read(statement, (*values, reader.clock.awake(), *rest))
        except Absent:
            return []
        except EngineError as error:
            raise StoreUnreachable(str(error)) from error

    def _open(self) -> Database:
        try:
            database = Database(
                self._path, _SCHEMA, timeout=self.timeout, synchronous=self._synchronous, shared=self._shared
            )
            _forget_killed(database)
        except EngineError as error:
            raise StoreUnreachable(str(error)) from error
        return database

    def _mine(self) -> Database:
        """The database, opened by this process."""
        if os.getpid() != self._pid:
            if self._opened is not None:
                _inherited.append(self._opened)
            self._opened, self._bells, self._pid = None, [], os.getpid()
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    @contextmanager
    def _using(self) -> Iterator[Database]:
        """The same; its errors become the store's."""
        database = self._mine()
        try:
            yield database
        except EngineError as error:
            raise self._unreachable(database, error) from error

    def _unreachable(self, database: Database, error: EngineError) -> StoreUnreachable:
        """What error of database is to the store. A file that was removed is let go: the next verb opens anew."""
        if isinstance(error, Removed):
            if self._opened is database:
                self._opened = None
            with suppress(EngineError):
                database.close()
        return StoreUnreachable(str(error))

    def _bell(self) -> Bell:
        """A bell of this process to which nobody else listens."""
        with self._using() as database:
            while self._bells:
                with suppress(IndexError):  # another thread had the last one
                    bell = self._bells.pop()
                    if bell.hangs:
                        return bell
                    bell.close()
            return database.bell()

    def _keep(self, bell: Bell) -> None:
        """Have bell for who waits next: to make one takes as long as to look for a result."""
        if len(self._bells) < KEPT:
            self._bells.append(bell)
        else:
            bell.close()

    def _found(self, keys: Sequence[str], bell: Bell) -> dict[str, bytes]:
        """Those of keys that are there when no write is under way, for bells ring before the commit.

        If none is, bell is listed for them; if one is, bell is listed for none any more.
        """
        rows = [(key, bell.name) for key in keys]
        with self._using() as database, database.turn(durable=False) as connection:
            found: dict[str, bytes] = dict(connection.execute(_GET_MANY, (json.dumps(keys), database.clock.awake())))
            if not found:
                connection.executemany("INSERT OR IGNORE INTO state_waiter VALUES (?, ?)", rows)
            elif len(keys) > len(found):  # who wrote the others has taken theirs off the list
                connection.executemany(_UNLIST, rows)
        return found

    def _unlist(self, keys: Sequence[str], bell: Bell) -> None:
        rows = [(key, bell.name) for key in keys]
        with suppress(StoreUnreachable), self._using() as database, database.turn(durable=False) as connection:
            connection.executemany(_UNLIST, rows)


def _carry_out(database: Database, connection: sqlite3.Connection, writes: Sequence[Write]) -> list[bool]:
    """Carry out writes in their order; False for each that its conditions refuse."""
    now = database.clock.awake()
    database.clock.note(connection)
    seen = _look(connection, writes, now)
    known = dict(seen.known)
    made: list[bool] = []
    last: dict[str, Write] = {}
    for write in writes:
        made.append(not write.is_refused(known.get))
        if made[-1]:
            last[write.key] = told = _summed(known, write) if write.adds else write
            known[write.key] = told.value
    _store(database, connection, last.values(), seen, now)
    return made


def _all_or_none(writes: Sequence[Write], database: Database, connection: sqlite3.Connection) -> bool:
    """Carry out writes, of different keys; False when one of them is refused, and then none is made."""
    now = database.clock.awake()
    seen = _look(connection, writes, now)
    agrees = not any(write.is_refused(seen.known.get) for write in writes)
    if agrees:
        _store(
            database, connection, [_summed(seen.known, write) if write.adds else write for write in writes], seen, now
        )
    return agrees


class _Seen(NamedTuple):
    """What was seen before writes. known: facts of which they make conditions; bells: of those who wait, by key."""

    known: dict[str, bytes | None]
    bells: dict[str, list[str]]


def _look(connection: sqlite3.Connection, writes: Iterable[Write], now: float) -> _Seen:
    asked: set[str] = set()
    stored: list[str] = []
    for write in writes:
        if write.value is not None:
            stored.append(write.key)
        if write.alive is not None:
            asked.add(write.alive)
        if write.unless is not None:
            asked.add(write.unless[0])
        if write.must is not None:
            asked.add(write.must[0])
        if write.adds or write.replaces is not None:
            asked.add(write.key)
    known: dict[str, bytes | None] = dict.fromkeys(asked)
    bells: dict[str, list[str]] = {}
    for key, value, bell in connection.execute(_LOOK, (_list([*asked]), now, _list(stored))).fetchall():
        if bell is None:
            known[key] = value
        else:
            bells.setdefault(key, []).append(bell)
    return _Seen(known, bells)


def _list(keys: Sequence[str]) -> str:
    """Keys as SQLite reads a list of them; json.dumps() takes as long as it takes to find what they name."""
    return _encode(keys).decode()


_encode = msgspec.json.Encoder().encode


def _summed(known: Mapping[str, bytes | None], write: Write) -> Write:
    """write, which adds to what is known, with the sum."""
    if write.value is None:
        return write
    return replace(write, value=summed(known.get(write.key), write.value))


def _store(
    database: Database, connection: sqlite3.Connection, writes: Iterable[Write], seen: _Seen, now: float
) -> None:
    """Carry out writes, whose conditions hold, of different keys. Where some are to end, forget some that have."""
    stored: list[tuple[str, bytes, float | None]] = []
    gone: list[tuple[str]] = []
    mortal = False
    for write in writes:
        if write.value is not None:
            stored.append((write.key, write.value, None if write.keep is None else now + write.keep))
            mortal = mortal or write.keep is not None
        elif seen.known.get(write.key, b"") is not None:
            gone.append((write.key,))
    if mortal:
        gone += connection.execute(_ENDED, (now,)).fetchall()
    if gone:
        connection.executemany(_DELETE, gone)
    if stored:
        connection.executemany(_PUT, stored)
    if seen.bells:
        # Before the commit: whoever is woken waits for it, and nobody sleeps on if this process dies right after.
        _wake(database, connection, [(key, bell) for key, *_ in stored for bell in seen.bells.get(key, ())])


def _wake(database: Database, connection: sqlite3.Connection, waiters: Sequence[tuple[str, str]]) -> None:
    """Ring the bells of keys, and take them off the list: who still waits puts himself there again.

    Those whose owners were killed are listed for no other key either.
    """
    connection.executemany(_UNLIST, waiters)
    for bell in {bell for _, bell in waiters}:
        if not database.ring(bell):
            connection.execute("DELETE FROM state_waiter WHERE bell = ?", (bell,))


def _forget_killed(database: Database) -> None:
    """Take those off the list of waiters who were killed while they waited."""
    with database.turn(durable=False) as connection:
        connection.execute(
            "DELETE FROM state_waiter WHERE bell NOT IN (SELECT value FROM json_each(?))",
            (json.dumps(database.bells()),),
        )
