"""Failures as data, and the four classes that they are of.

Most errors are the job's own: they may pass, or a second run cannot mend them. Others are no fault of the job's: the
storage or the network that it stood on failed. Which error is what says `FAILURES`, the public list, and before
it what an app or a job type says. What follows from a class is decided in `outcome.py`.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from traceback import TracebackException
from types import TracebackType
from typing import Literal, TypeAlias, get_args

import msgspec

from kq.errors import ConfigError
from kq.values.policy import error_name
from kq.values.redaction import ends_of

#: passing: it may be gone on a second run. final: a second run cannot mend it. storage: this machine can't do
#: it, another one may. network: nobody can do it now.
FailureClass: TypeAlias = Literal["passing", "final", "storage", "network"]

#: As people write it: exception classes or their dotted names.
Failures: TypeAlias = Mapping[type[BaseException] | str, FailureClass]

#: The class of an error, by the dotted name of its class or of one that it is derived from: the nearest one counts.
#: Where an error has a code that says more than its class, the code has a name too, which is nearer.
FAILURES: Mapping[str, FailureClass] = {
    # Bugs and bad input.
    "TypeError": "final",
    "ValueError": "final",
    "LookupError": "final",
    "AttributeError": "final",
    "NameError": "final",
    "ImportError": "final",
    "SyntaxError": "final",
    "AssertionError": "final",
    "NotImplementedError": "final",
    "ArithmeticError": "final",
    "RecursionError": "final",
    "msgspec.ValidationError": "final",
    "sqlite3.Error.SQLITE_ERROR": "final",
    "kq.errors.BadJob": "final",
    "kq.errors.Bury": "final",
    # What others do, and may do better next time.
    "ConnectionError": "passing",
    "TimeoutError": "passing",
    "BlockingIOError": "passing",
    "InterruptedError": "passing",
    "sqlite3.OperationalError": "passing",
    "socket.gaierror": "passing",
    "http.client.HTTPException": "passing",
    "smtplib.SMTPServerDisconnected": "passing",
    "smtplib.SMTPConnectError": "passing",
    "urllib.error.URLError": "passing",
    "kq.errors.NotDone": "passing",
    "redis.exceptions.ConnectionError": "passing",
    "redis.exceptions.TimeoutError": "passing",
    # This machine has no room, or its disk no health.
    "kq.errors.BadStorage": "storage",
    "MemoryError": "storage",
    "OSError.ENOSPC": "storage",
    "OSError.EDQUOT": "storage",
    "OSError.EROFS": "storage",
    "OSError.EIO": "storage",
    "OSError.ESTALE": "storage",
    "OSError.ENOMEM": "storage",
    "OSError.EMFILE": "storage",
    "OSError.ENFILE": "storage",
    "sqlite3.Error.SQLITE_FULL": "storage",
    "sqlite3.Error.SQLITE_IOERR": "storage",
    "sqlite3.Error.SQLITE_READONLY": "storage",
    "sqlite3.Error.SQLITE_NOMEM": "storage",
    # What kq itself needs is away or full, wherever the job runs; or all lines of this machine are down.
    "kq.errors.BadNetwork": "network",
    "kq.errors.BrokerUnreachable": "network",
    "kq.errors.BrokerFull": "network",
    "kq.errors.LeaseLost": "network",
    "kq.state.store.StoreUnreachable": "network",
    "OSError.ENETDOWN": "network",
    "OSError.ENETUNREACH": "network",
}


class Failure(msgspec.Struct, frozen=True):
    """An exception as data. names: of its code, where it has one, its class and base classes, nearest first.

    log: the last lines that were logged in an executor that died.
    """

    names: tuple[str, ...]
    message: str
    traceback: str = ""
    log: str = ""

    @property
    def name(self) -> str:
        return self.names[0] if self.names else "Exception"

    def __str__(self) -> str:
        name = self.name.removeprefix("kq.errors.")
        return f"{name}: {self.message}" if self.message else name


def group_of(error: str, traceback: str) -> tuple[str, str]:
    """By what failures are alike: the exception's class, and file and function of the innermost frame, or "".

    Not its line, which changes with every edit. An error that names no class is a group of its own. Where kq raised a
    doubt is of no use to anybody: its place is that of the error it came of, or where it was met.
    """
    name = error.partition(":")[0]
    return name if _NAME.fullmatch(name) else error, _place_of(traceback)


def _place_of(traceback: str) -> str:
    """Where it failed."""
    for part in reversed(_CHAINED.split(traceback)):
        frames = _FRAME.findall(part)
        own = [number for number, (file, _) in enumerate(frames) if _OWN.search(file)]
        if own and own[-1] == len(frames) - 1:
            # What stands before the first of kq's frames called it; what stands between them is how kq did it.
            frames = frames[: own[0]]
        if frames:
            file, function = frames[-1]
            return f"{file.rpartition('/')[2]}:{function}"
    return ""


#: The classes that a code divides.
_DIVIDED = re.compile(r"OSError|sqlite3\.\w+")
_FRAME = re.compile(r'^ *File "([^"]*)", line \d+, in (.+)$', re.MULTILINE)
#: Between the tracebacks of an error and of what it came of.
_CHAINED = re.compile(r"^(?:The above exception was|During handling of the above).*$", re.MULTILINE)
#: Modules of kq that stand between a job and its side effects.
_OWN = re.compile(r"(?:^|[/\\])kq[/\\]effects[/\\](?:effect|once)\.py$")
_NAME = re.compile(r"[\w.<>]+")  # one that a function made is called f.<locals>.Error


def classified(failures: Failures | None) -> dict[str, FailureClass]:
    """failures by dotted name. Raises ConfigError for a class that there is not."""
    known = get_args(FailureClass)
    for error, kind in (failures or {}).items():
        if kind not in known:
            raise ConfigError(f"{error_name(error)} is of class {kind!r}; use one of {', '.join(known)}")
    return {error_name(error): kind for error, kind in (failures or {}).items()}


def names_of(error: BaseException) -> tuple[str, ...]:
    """The names by which the class of an error is looked up, nearest first.

    A code stands before the class that it divides: OSError.ENOSPC before OSError, sqlite3.Error.SQLITE_FULL
    before sqlite3.OperationalError; after those that were derived from it, ConnectionError or a user's own.
    """
    names: list[str] = []
    codes = [*_system_code(error), *_sqlite_codes(error)]
    for each in type(error).__mro__:
        if codes and _DIVIDED.fullmatch(error_name(each)):
            names += codes
            codes = []
        if issubclass(each, BaseException):
            names.append(error_name(each))
    return tuple(names)


def laid_out(error: BaseException, frames: TracebackType | None, longest: int) -> TracebackException:
    """error as it is told, from frames on, where so many characters of that are shown.

    Of each of its texts there is no more than is looked at for that: to lay out one of many megabytes takes seconds.
    """
    told = TracebackException(type(error), error, frames, compact=True)
    parts = [told]
    for each in parts:
        for name, value in vars(each).items():
            if isinstance(value, str):
                setattr(each, name, ends_of(value, longest))
        if isinstance(each.__notes__, list):
            each.__notes__ = [ends_of(str(note), longest) for note in each.__notes__]
        parts += [part for part in (each.__cause__, each.__context__, *(each.exceptions or ())) if part is not None]
    return told


def _system_code(error: BaseException) -> list[str]:
    number = error.errno if isinstance(error, OSError) else None
    return [f"OSError.{errno.errorcode[number]}"] if isinstance(number, int) and number in errno.errorcode else []


def _sqlite_codes(error: BaseException) -> list[str]:
    """SQLITE_IOERR_WRITE and the SQLITE_IOERR that it is a case of."""
    code = getattr(error, "sqlite_errorname", None)
    if not isinstance(code, str):
        return []
    family = "_".join(code.split("_")[:2])
    return [f"sqlite3.Error.{each}" for each in dict.fromkeys((code, family))]
