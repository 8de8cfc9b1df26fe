"""What went wrong with the file, in a sentence that names it and the next step."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

from kq_transports.engine import EngineError, Full, Unreachable

# The primary result codes, https://sqlite.org/rescode.html; extended codes carry them in the low byte.
_PRIMARY = 0xFF
# No room, said by the file system in a way that SQLite reports as a failed write: a quota, a limit
# on the size of a file.
_FAILED_WRITES = {
    *(sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_TRUNCATE),
    *(sqlite3.SQLITE_IOERR_SHMOPEN, sqlite3.SQLITE_IOERR_SHMSIZE),
}

_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})


def explain(error: sqlite3.Error, path: Path, *, committing: bool = False) -> EngineError:
    """The engine's error for SQLite's.

    committing: whether the transaction may have become durable all the same.
    """
    code = _code(error)
    primary = code & _PRIMARY
    if primary == sqlite3.SQLITE_FULL or code in _FAILED_WRITES:
        return Full(f"there is no room to store more in {path}; free space on its disk or raise its limit")
    if primary in _BUSY:
        return locked(path)
    if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return read_only(path)
    if primary == sqlite3.SQLITE_NOTADB:
        return EngineError(f"{path} is not an SQLite database; name another file or move this one away")
    if primary == sqlite3.SQLITE_CORRUPT:
        return EngineError(f"{path} is damaged ({error}); stop every process and run: sqlite3 {path} .recover")
    if primary == sqlite3.SQLITE_CANTOPEN:
        return _unopened(path)
    if primary == sqlite3.SQLITE_IOERR:
        return failing(path, error, sent=committing)
    return EngineError(f"SQLite refused to work on {path}: {error}")


def _unopened(path: Path) -> EngineError:
    """SQLite does not say what kept it from opening a file; whether nothing can be opened is found out."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return crowded(error, path)
    return EngineError(f"cannot open {path}; are its folder and its -wal and -shm files writable to this user?")


def failing(path: Path, error: Exception, *, sent: bool) -> Unreachable:
    return Unreachable(f"the disk of {path} fails ({error}); see the system's log", sent=sent)


def locked(path: Path) -> Unreachable:
    return Unreachable(
        f"{path} stayed locked by another process; is one stopped, or in a long transaction?", sent=False
    )


def is_busy(error: sqlite3.Error) -> bool:
    """Whether it failed because others are at work on the file."""
    return _code(error) & _PRIMARY in _BUSY


def _code(error: sqlite3.Error) -> int:
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code


def logless(path: Path) -> Unreachable:
    """What is in the file is not all of it, and the rest has lost its name."""
    what = f"the log of {path}, {path.name}-wal, was removed while it was in use"
    return Unreachable(f"{what}; end what uses the file in good order (TERM), which writes it back", sent=False)


def hidden(path: str | Path, error: OSError) -> Unreachable:
    return Unreachable(f"{path} cannot be looked at ({error.strerror}); may this user enter its folder?", sent=False)


def opening(error: OSError, path: Path) -> Exception:
    """The error for one of the files beside the database that could not be opened."""
    if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENOTDIR):
        return EngineError(f"{path} was not made by kq: it is a link or of another kind; move it away")
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return crowded(error, path)
    return read_only(path) if isinstance(error, PermissionError) else error


def crowded(error: OSError, path: Path) -> Unreachable:
    """The error for what the system has no room for, at the moment."""
    return Unreachable(f"there is no room to use {path}: {error.strerror or error}", sent=False)


def read_only(path: Path) -> EngineError:
    return EngineError(f"{path} is read-only for this user; change its owner or mode, or name another file")
