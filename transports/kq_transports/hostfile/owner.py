"""Whose files and folders are used: this user's own and root's.

What another user of the host has made may change under our hands, and what stands in it is his word: he could make a
database before we do, or lay a log beside ours, which SQLite would copy into it.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable
from pathlib import Path

from kq_transports.engine import EngineError

#: What SQLite reads beside a file, as if it were a part of it.
BESIDE = ("-wal", "-shm", "-journal")


def is_ours(status: os.stat_result) -> bool:
    """Whether it is this user's, or root's."""
    return status.st_uid in (0, os.geteuid())


def must_be_ours(path: str | Path, status: os.stat_result) -> None:
    """Raise EngineError where status, that of what is at path, says that it is another user's."""
    if not is_ours(status):
        raise EngineError(
            f"{path} belongs to the user {_name(status.st_uid)}, and this is {_name(os.geteuid())}; "
            "where all who can write there are trusted, add ?shared=true to the URL"
        )


def all_must_be_ours(paths: Iterable[str | Path]) -> None:
    """The same with all of paths that exist; of a link, the link itself."""
    for path in paths:
        try:
            status = os.lstat(path)
        except OSError:
            continue  # it is not there, or whoever opens it says why it can't
        must_be_ours(path, status)


def parts(name: str, path: Path) -> list[str | Path]:
    """The file at path that was named so, its folder, and what SQLite reads beside it."""
    return [name, path.parent, path, *(f"{path}{suffix}" for suffix in BESIDE)]


def _name(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} ({uid})"
    except KeyError:
        return str(uid)
