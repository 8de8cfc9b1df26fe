"""One connection to an SQLite file that processes share, and its transactions."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

from kq_transports.engine import EngineError, Unreachable
from kq_transports.hostfile.bell import Bell, ring, sweep
from kq_transports.hostfile.clock import HostClock
from kq_transports.hostfile.folder import Folder, real
from kq_transports.hostfile.inherit import finish_before_fork
from kq_transports.hostfile.lock import FileLock
from kq_transports.hostfile.log import Log
from kq_transports.hostfile.mounts import network_file_system
from kq_transports.hostfile.owner import all_must_be_ours, must_be_ours, parts
from kq_transports.hostfile.schema import Row, Schema, Values
from kq_transports.hostfile.spare import NOTHING, Spare, identity, size, spares
from kq_transports.hostfile.trouble import crowded, explain, failing, is_busy, locked, logless, opening, read_only

log = logging.getLogger("kq_transports.hostfile")

#: Bytes that the log keeps of what it once had, when all of it has gone into the file.
LOG_LIMIT = 64 * 2**20

#: Times that who opens the file may find its log taken away in that moment, before he gives up.
OPENINGS = 5

#: Seconds that who closes the file waits for his turn, to take his leave of the log; without it he goes all the same.
LEAVING = 1.0

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

    def __init__(
        self, path: str, schema: Schema, *, timeout: float, synchronous: str = "full", shared: bool = False
    ) -> None:
        self._shared = shared
        self.path = _usable(path, shared)
        self._schema = schema
        self._name, self._log_name = str(self.path), f"{self.path}-wal"
        self._timeout = timeout
        if synchronous not in ("full", "normal"):
            raise EngineError(f"synchronous must be full or normal, not {synchronous!r}")
        self._synchronous = synchronous == "full"
        self._patience = 0  # milliseconds, as SQLite knows it
        self._pid = os.getpid()
        self._mutex = threading.Lock()
        finish_before_fork(self._mutex)
        self._closed = False
        self._news = ""  # for the log of the program, when the turn is over
        mode = os.stat(self.path).st_mode & 0o666
        self._lock = FileLock(self._beside(".lock"), mode, shared=shared)
        self._folder = Folder(self.path.parent)
        self._bells, self._spares = self._beside(".wake"), spares(self.path)
        self._mode = mode
        try:
            with self._mutex:
                self._connect()
        except BaseException:
            self._lock.close()
            raise
        try:
            self._make_bells()
        except BaseException:
            self.close()
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
            if not self._acquired():
                raise locked(self.path)
        except BaseException:
            self._mutex.release()
            raise
        try:
            if self._folder.has_changed():
                self._look_around()
            if self._log.is_cut():
                self._mend_log()
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
        connection, unwritten = self._connection, None
        try:
            if error is None:
                connection.execute("COMMIT")
                if durable and self._synchronous and connection.total_changes != self._changes:
                    unwritten = self._log
        except sqlite3.Error as failed:
            raise explain(failed, self.path, committing=True) from failed
        finally:
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            self._leave()
        if isinstance(error, sqlite3.Error):
            raise explain(error, self.path) from error
        if unwritten is not None:
            try:
                unwritten.sync()
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

    @property
    def log_size(self) -> int:
        """Bytes of the log."""
        return size(self._log_name)

    def checkpoint(self) -> None:
        """Copy what the log holds into the file, as far as readers allow; for an idle moment."""
        self._enter()
        try:
            if self._log.has_name:  # else whoever has the next turn sees to it
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error:
            pass  # the next one will do
        finally:
            self._mutex.release()

    def bell(self) -> Bell:
        """A new bell by which other processes may wake this one."""
        try:
            return Bell(self._bells, self._mode)
        except FileNotFoundError:  # somebody tidied up beside the file
            self._make_bells()
            return Bell(self._bells, self._mode)
        except OSError as error:
            raise opening(error, self._bells) from error

    def ring(self, bell: str) -> bool:
        """Ring the bell of that name; False when its owner is gone."""
        try:
            return ring(self._bells, bell, shared=self._shared)
        except OSError as error:
            raise opening(error, self._bells) from error

    def bells(self) -> list[str]:
        """The names of all bells, those of processes that have just been killed included."""
        return os.listdir(self._bells)

    def close(self) -> None:
        """Let go of the file. May be repeated. In a forked child it stays the parent's."""
        if self._closed or os.getpid() != self._pid:
            return
        self._enter()
        self._closed = True
        in_turn = False
        try:
            with suppress(EngineError, OSError):
                in_turn = self._lock.acquire(min(self._timeout, LEAVING))
            self._leave_log(in_turn)
        finally:
            self._lock.close()
            self._mutex.release()

    # Opening.

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def _connect(self) -> None:
        if not self._acquired():
            raise locked(self.path)
        try:
            self._make_folder(self._spares)
            self._file = identity(self._name)
            self._spare = Spare(self.path, self._spares)
            self._spare.clear()
            self._spare.put_back()
            if identity(self._log_name) == NOTHING and self._is_open() and identity(self._log_name) == NOTHING:
                raise logless(self.path)  # who has it open sees to that in his next turn
            self._must_be_ours()
            self._open()
            self._must_be_ours()  # also if it was laid there meanwhile
        except sqlite3.Error as error:
            raise explain(error, self.path) from error
        finally:
            self._lock.release()

    def _must_be_ours(self) -> None:
        if not self._shared:
            all_must_be_ours(parts(self._name, self.path))

    def _open(self) -> None:
        """Open the file, and no log but the one that others have. Raises Unreachable where that is not to be had."""
        for _ in range(OPENINGS):
            connection = sqlite3.connect(
                self.path, timeout=self._timeout, isolation_level=None, check_same_thread=False, cached_statements=256
            )
            try:
                if self._has_opened(connection):
                    self._prepare(connection)
                    self._spare.keep()
                    self._log = Log(self._log_name)
                    self._connection, self._patience = connection, 0
                    return
            except FileNotFoundError:
                pass  # the log has just been removed
            except BaseException:
                connection.close()
                raise
            connection.close()
        raise logless(self.path)

    def _has_opened(self, connection: sqlite3.Connection) -> bool:
        """Let SQLite open log and index; False when one was removed just before, so that it has made another one."""
        try:
            self._set_up(connection)
        except sqlite3.Error:
            if self._spare.put_back():
                return False
            raise
        return not self._spare.put_back()

    def _is_open(self) -> bool:
        """Whether anybody has the file open."""
        with closing(sqlite3.connect(self.path, timeout=0, isolation_level=None)) as connection:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            try:
                connection.execute("SELECT 1 FROM sqlite_master").fetchone()
            except sqlite3.OperationalError as error:
                return is_busy(error)
        return False

    def _set_up(self, connection: sqlite3.Connection) -> None:
        """What makes SQLite open log and index, and write nothing to them yet."""
        journal = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if journal != "wal":
            raise EngineError(f"the file system of {self.path} has no shared memory, which SQLite's log needs")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {LOG_LIMIT}")
        # On macOS fsync() leaves the data in the disk's own memory; elsewhere these two do nothing.
        connection.execute(f"PRAGMA fullfsync = {self._synchronous}")
        connection.execute(f"PRAGMA checkpoint_fullfsync = {self._synchronous}")
        connection.execute("PRAGMA schema_version").fetchone()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        _make_tables(connection, self._schema, self.path)
        self.clock = HostClock.begun(connection)
        connection.execute("COMMIT")

    def _make_bells(self) -> None:
        self._make_folder(self._bells)
        sweep(self._bells)

    def _make_folder(self, path: Path) -> None:
        """A folder beside the file, in which who may use the file may make and use what belongs there."""
        mode = 0o700 | self._mode | (self._mode & 0o444) >> 2
        try:
            with suppress(FileExistsError):
                path.mkdir()
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise opening(error, path) from error
        try:
            if not self._shared:
                must_be_ours(path, os.fstat(folder))
            with suppress(PermissionError):  # it is another user's, who took care of that
                os.fchmod(folder, mode)
        finally:
            os.close(folder)

    # What others may have done to the files. In one's turn.

    def _look_around(self) -> None:
        """See to it that file, log and index are where they were."""
        if identity(self._name) != self._file:
            raise Removed(f"{self.path} was removed or replaced while it was in use", sent=False)
        if self._spare.is_lost or not self._log.has_name:
            self._find_log()
        if self._spare.is_gone:
            self._make_folder(self._spares)
            self._spare.keep()
        self._folder.is_well()

    def _find_log(self) -> None:
        """Let there be one log, to which we write, although ours has its name no more."""
        what = f"the log of {self.path} (-wal, with its index -shm) was removed or moved away while it was in use"
        back = self._spare.put_back()
        if self._log.has_name:
            if back:
                self._news = f"{what}; it is back, with all that is in it"
            return
        if self._spare.is_empty:
            self._empty_log()
        elif not self._spare.goes_on:
            raise Removed(f"{what}, and another one has its place; who goes on does so in that", sent=False)
        # The new connection first: the last one that is closed takes the log's name away, whoever has it.
        left, left_log = self._connection, self._log
        self._make_folder(self._spares)
        self._open()
        left_log.leave()
        left.close()
        self._news = f"{what}; what was in it is in the file, and there is another one"

    def _empty_log(self) -> None:
        """Copy all that our log holds into the file."""
        busy, pages, copied = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if busy or pages != copied:
            raise logless(self.path)

    def _mend_log(self) -> None:
        """See what has become of a log that is shorter than it was: SQLite may have done that, or somebody cut it."""
        cut = f"{self._log_name} was cut while it was in use; what was in it and not yet in the file is lost"
        checkpoint = "PRAGMA wal_checkpoint({})".format
        try:
            _, pages, copied = self._connection.execute(checkpoint("PASSIVE")).fetchone()
        except sqlite3.OperationalError as error:
            raise Removed(cut, sent=False) from error
        (page_size,) = self._connection.execute("PRAGMA page_size").fetchone()
        if self._log.size < pages * page_size:
            if pages != copied:
                raise Removed(cut, sent=False)
            # All of it is in the file, but what is written behind a part that is missing is not found after a crash.
            (busy, *_) = self._connection.execute(checkpoint("TRUNCATE")).fetchone()
            if busy:
                raise locked(self.path)
        self._log.accept()

    def _leave_log(self, in_turn: bool) -> None:
        """Close the connection. The last one copies the log into the file and takes its name away."""
        with suppress(OSError, sqlite3.Error):
            if identity(self._name) != self._file:  # SQLite copies nothing into a file that was moved
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            elif in_turn:
                self._spare.put_back()
        self._log.leave()
        self._connection.close()
        if in_turn:
            with suppress(OSError):
                Spare(self.path, self._spares).tidy()

    # A transaction.

    def _enter(self) -> None:
        """Take this process' own turn, among its threads."""
        if os.getpid() != self._pid:
            raise EngineError(f"the connection to {self.path} belongs to the parent process; open one after the fork")
        if self._closed:
            raise EngineError(f"the connection to {self.path} was closed")
        if not self._mutex.acquire(blocking=False) and not self._mutex.acquire(timeout=self._timeout):
            raise locked(self.path)

    def _acquired(self) -> bool:
        """Whether it is this process' turn among all; to wait for that takes a file and a thread."""
        try:
            return self._lock.acquire(self._timeout)
        except EngineError:
            raise
        except OSError as error:
            raise crowded(error, self.path) from error

    def _leave(self) -> None:
        news, self._news = self._news, ""
        self._lock.release()
        self._mutex.release()
        if news:
            log.warning(news)

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


def _usable(name: str, shared: bool) -> Path:
    """The file's absolute path, created if missing; EngineError with the remedy when it can't be used."""
    if not name or name.startswith(":") or name.endswith("/"):
        raise EngineError(f"an SQLite broker needs the path of a file, not {name!r}: sqlite:///jobs.db")
    path = real(name)
    if not path.parent.is_dir():
        raise EngineError(f"the folder {path.parent} does not exist; create it or name another file")
    if not shared:
        all_must_be_ours(parts(name, path))
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


def _make_tables(connection: sqlite3.Connection, schema: Schema, path: Path) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS host_user (name TEXT PRIMARY KEY, version INTEGER)")
    row = connection.execute("SELECT version FROM host_user WHERE name = ?", (schema.user,)).fetchone()
    if row is not None:
        schema.check(row[0], path)
    connection.execute("INSERT OR REPLACE INTO host_user VALUES (?, ?)", (schema.user, schema.version))
    for statement in filter(str.strip, schema.tables.split(";")):
        connection.execute(statement)
