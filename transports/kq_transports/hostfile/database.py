"""One connection to an SQLite file that processes share, and its transactions."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import suppress
from pathlib import Path

from kq_transports.engine import EngineError, Unreachable
from kq_transports.hostfile.bell import Bell, ring, sweep
from kq_transports.hostfile.clock import HostClock
from kq_transports.hostfile.inherit import finish_before_fork
from kq_transports.hostfile.lock import FileLock
from kq_transports.hostfile.log import Log
from kq_transports.hostfile.mounts import network_file_system
from kq_transports.hostfile.schema import Row, Schema, Values
from kq_transports.hostfile.trouble import explain, failing, locked, opening, read_only

# Closing a descriptor of a file drops every lock that this process has on it, SQLite's own
# included (POSIX), so no thread may open the database while another one creates it.
_creating = threading.Lock()
finish_before_fork(_creating)


class Removed(Unreachable):
    """The file that was opened is not the one of that name any more: who goes on opens that."""


class Database:
    """The file at path, created for its owner only when it is missing.

    timeout: seconds that a transaction may wait for its turn before Unreachable.
    synchronous: "full" (what is committed survives a power failure) or "normal" (it survives the
        death of every process).
    The log is put on the disk by us, when the turn is over, and not by SQLite's commit: that lets nobody see what was
        committed before it is on the disk, so it is lost with a process that is killed meanwhile, and all who want to
        write wait for it. Nobody who saw it is ahead of the disk: what he commits comes after it in the log.
    May be used by several threads, in the process that opened it. Raises EngineError when the file
    cannot be used, Unreachable and Full as the engine does.
    """

    clock: HostClock

    def __init__(self, path: str, schema: Schema, *, timeout: float, synchronous: str = "full") -> None:
        self.path = _usable(path)
        self._name = str(self.path)
        self._timeout = timeout
        if synchronous not in ("full", "normal"):
            raise EngineError(f"synchronous must be full or normal, not {synchronous!r}")
        self._synchronous = synchronous == "full"
        self._patience = 0  # milliseconds, as SQLite knows it
        self._pid = os.getpid()
        self._mutex = threading.Lock()
        finish_before_fork(self._mutex)
        self._closed = False
        mode = os.stat(self.path).st_mode & 0o666
        self._lock = FileLock(self._beside(".lock"), mode)
        self._bells = self._beside(".wake")
        self._bell_mode = mode
        try:
            with self._mutex:
                self._connect(schema)
            try:
                self._make_bells()
            except BaseException:
                self._connection.close()
                raise
        except BaseException:
            self._lock.close()
            raise

    def turn(self, *, durable: bool = True) -> Turn:
        """A write transaction: committed at the end, undone when the body raises.

        durable: False for what may be forgotten at a power failure; it saves the wait for the disk.
        """
        return Turn(self, durable)

    def begin(self) -> sqlite3.Connection:
        """Wait for this connection's turn and begin a write transaction, which end() ends."""
        start = time.monotonic()
        self._enter()
        try:
            if not self._lock.acquire(self._timeout):
                raise locked(self.path)
        except BaseException:
            self._mutex.release()
            raise
        try:
            if _identity(self._name) != self._file:
                raise Removed(f"{self.path} was removed or replaced while it was in use", sent=False)
            self._be_patient(time.monotonic() - start)
            self._connection.execute("BEGIN IMMEDIATE")
            self._changes = self._connection.total_changes
        except BaseException as error:
            self._leave()
            if isinstance(error, sqlite3.Error):
                raise explain(error, self.path) from error
            raise
        return self._connection

    def end(self, error: BaseException | None, durable: bool) -> None:
        """Commit what begin() began or, after an error, undo it and raise what that means, where it is SQLite's."""
        connection, log = self._connection, None
        try:
            if error is None:
                connection.execute("COMMIT")
                if durable and self._synchronous and connection.total_changes != self._changes:
                    log = self._log
        except sqlite3.Error as failed:
            raise explain(failed, self.path, committing=True) from failed
        finally:
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            self._leave()
        if isinstance(error, sqlite3.Error):
            raise explain(error, self.path) from error
        if log is not None:
            try:
                log.sync()
            except OSError as failed:
                raise failing(self.path, failed, sent=True) from failed

    def read(self, statement: str, values: Values = ()) -> list[Row]:
        """The rows that statement selects, as of one moment."""
        self._enter()
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise explain(error, self.path) from error
        finally:
            self._mutex.release()

    def checkpoint(self) -> None:
        """Copy what the log holds into the file, as far as readers allow; for an idle moment."""
        self._enter()
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error:
            pass  # the next one will do
        finally:
            self._mutex.release()

    def bell(self) -> Bell:
        """A new bell by which other processes may wake this one."""
        try:
            return Bell(self._bells, self._bell_mode)
        except FileNotFoundError:  # somebody tidied up beside the file
            self._make_bells()
            return Bell(self._bells, self._bell_mode)

    def ring(self, bell: str) -> bool:
        """Ring the bell of that name; False when its owner is gone."""
        return ring(self._bells, bell)

    def bells(self) -> list[str]:
        """The names of all bells, those of processes that have just been killed included."""
        return os.listdir(self._bells)

    def close(self) -> None:
        """Let go of the file. May be repeated. In a forked child it stays the parent's."""
        if self._closed or os.getpid() != self._pid:
            return
        self._enter()
        self._closed = True
        self._connection.close()
        self._lock.close()
        self._mutex.release()

    # Opening.

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def _connect(self, schema: Schema) -> None:
        self._file = _identity(self._name)
        if not self._lock.acquire(self._timeout):
            raise locked(self.path)
        try:
            self._connection = sqlite3.connect(
                self.path, timeout=self._timeout, isolation_level=None, check_same_thread=False, cached_statements=256
            )
            try:
                self._prepare(schema)
                self._log = Log(self._beside("-wal"))
            except BaseException:
                self._connection.close()
                raise
        except sqlite3.Error as error:
            raise explain(error, self.path) from error
        finally:
            self._lock.release()

    def _prepare(self, schema: Schema) -> None:
        journal = self._connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if journal != "wal":
            raise EngineError(f"the file system of {self.path} has no shared memory, which SQLite's log needs")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        # On macOS fsync() leaves the data in the disk's own memory; elsewhere these two do nothing.
        self._connection.execute(f"PRAGMA fullfsync = {self._synchronous}")
        self._connection.execute(f"PRAGMA checkpoint_fullfsync = {self._synchronous}")
        self._connection.execute("BEGIN IMMEDIATE")
        self._make_tables(schema)
        self.clock = HostClock.begun(self._connection)
        self._connection.execute("COMMIT")

    def _make_tables(self, schema: Schema) -> None:
        self._connection.execute("CREATE TABLE IF NOT EXISTS host_user (name TEXT PRIMARY KEY, version INTEGER)")
        row = self._connection.execute("SELECT version FROM host_user WHERE name = ?", (schema.user,)).fetchone()
        if row is not None:
            schema.check(row[0], self.path)
        self._connection.execute("INSERT OR REPLACE INTO host_user VALUES (?, ?)", (schema.user, schema.version))
        for statement in filter(str.strip, schema.tables.split(";")):
            self._connection.execute(statement)

    def _make_bells(self) -> None:
        """The folder of bells; who may use the file may hang up bells there and ring them."""
        mode = 0o700 | self._bell_mode | (self._bell_mode & 0o444) >> 2
        try:
            with suppress(FileExistsError):
                self._bells.mkdir()
            folder = os.open(self._bells, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise opening(error, self._bells) from error
        try:
            with suppress(PermissionError):  # it is another user's, who took care of that
                os.fchmod(folder, mode)
        finally:
            os.close(folder)
        sweep(self._bells)

    # A transaction.

    def _enter(self) -> None:
        """Take this process' own turn, among its threads."""
        if os.getpid() != self._pid:
            raise EngineError(f"the connection to {self.path} belongs to the parent process; open one after the fork")
        if self._closed:
            raise EngineError(f"the connection to {self.path} was closed")
        if not self._mutex.acquire(blocking=False) and not self._mutex.acquire(timeout=self._timeout):
            raise locked(self.path)

    def _leave(self) -> None:
        self._lock.release()
        self._mutex.release()

    def _be_patient(self, waited: float) -> None:
        # SQLite's own lock may be held by somebody who does not use the lock file: a shell, a backup.
        patience = max(1, int((self._timeout - waited) * 1000)) if waited > 0.01 else int(self._timeout * 1000)
        if self._patience != patience:
            # Not execute(): this pragma acts while it is compiled, so from sqlite3's cache of compiled statements it
            # would do nothing the second time. Outside of a transaction, for executescript() ends one.
            self._connection.executescript(f"PRAGMA busy_timeout = {patience}")
            self._patience = patience


class Turn:
    """A write transaction of database, for the length of a block."""

    def __init__(self, database: Database, durable: bool) -> None:
        self._database = database
        self._durable = durable

    def __enter__(self) -> sqlite3.Connection:
        return self._database.begin()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._database.end(error, self._durable)


def _usable(name: str) -> Path:
    """The file's absolute path, created if missing; EngineError with the remedy when it can't be used."""
    if not name or name.startswith(":") or name.endswith("/"):
        raise EngineError(f"an SQLite broker needs the path of a file, not {name!r}: sqlite:///jobs.db")
    path = Path(name).absolute()
    if not path.parent.is_dir():
        raise EngineError(f"the folder {path.parent} does not exist; create it or name another file")
    network = network_file_system(path)
    if network:
        raise EngineError(f"{path} is on a network file system ({network}), where SQLite loses data; use a local disk")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise EngineError(f"the folder {path.parent} is not writable to this user; SQLite keeps its log there")
    _create(path)
    if not path.is_file():
        raise EngineError(f"{path} is not a file; name another one")
    if not os.access(path, os.R_OK | os.W_OK):
        raise read_only(path)
    return path


def _create(path: Path) -> None:
    with _creating:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            pass
        except OSError as error:
            raise EngineError(f"cannot create {path}: {error.strerror}") from error


def _identity(path: str) -> tuple[int, int]:
    """What tells this file from another of the same name; (0, 0) when there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return 0, 0
    return status.st_dev, status.st_ino
