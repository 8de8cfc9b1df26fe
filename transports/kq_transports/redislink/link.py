"""One socket to a Redis, and the scripts that run there.

Not for threads: its owner uses it in one at a time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import hiredis
from redis import (
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis import ConnectionError as Broken
from redis import TimeoutError as TooLate
from redis.exceptions import ClusterError, MovedError, NoPermissionError, NoScriptError

from kq_transports.engine import EngineError, Full, Unreachable
from kq_transports.redislink.place import Place
from kq_transports.redislink.script import Script
from kq_transports.redislink.wire import Reply, Wire

T = TypeVar("T")

#: A command as it is sent, of a tuple of its words: text, bytes or numbers. Its own types know tuples of one only.
packed: Any = hiredis.pack_command


class Refused(Exception):
    """A script said no. reason: the first word of its answer; about: the rest."""

    def __init__(self, answer: str) -> None:
        super().__init__(answer)
        self.reason, _, self.about = answer.partition(" ")


class Link:
    """A socket that is opened when it is needed, and another one when it broke.

    opened: how many sockets that were so far; the first argument of every script.
    """

    def __init__(self, place: Place, timeout: float) -> None:
        self.place = place
        self.opened = 0
        self._timeout = timeout
        self._wire: Wire | None = None

    def run(self, script: Script, *arguments: str | bytes | int) -> Reply:
        """What script returns; the whole of it is one transaction.

        Raises Refused when the script says no, Unreachable, Full, or EngineError with the remedy.
        """
        return self._surely(script.repeatable, self._attempt, script, arguments)

    def ask(self, *command: str | bytes | int) -> Reply:
        """What the server answers to one plain command that changes nothing; raises as run()."""
        return self._surely(True, self._ask, command)

    def subscribe(self, channels: Sequence[str]) -> None:
        """Let the server send what is published on channels, until unsubscribe()."""
        self.ask("SUBSCRIBE", *channels)
        for _ in channels[1:]:
            self._exchange(self._open(), b"")

    def unsubscribe(self, channels: int) -> None:
        """End that, on so many channels, and read past what was sent meanwhile, within one timeout."""
        until = time.monotonic() + self._timeout
        answer = self.ask("UNSUBSCRIBE")
        while channels := channels - (self.read(lambda told: bytes(told[0]), answer) == b"unsubscribe"):
            if time.monotonic() > until:
                raise self.senseless("it goes on sending on channels that were given up")
            answer = self._exchange(self._open(), b"")

    def read(self, read: Callable[[Reply], T], reply: Reply) -> T:
        """read(reply); what that raises means that the reply makes no sense. Raises Unreachable."""
        try:
            return read(reply)
        except EngineError:
            raise
        except Exception as error:
            raise self.senseless(f"{error!r} in its answer") from error

    def senseless(self, why: str) -> Unreachable:
        """An error for an answer that makes no sense. The socket is closed: what follows on it is not understood."""
        self.close()
        return Unreachable(f"Redis at {self.place} sent what makes no sense: {why}", sent=True)

    def listen(self, timeout: float) -> bool:
        """Whether something comes within timeout seconds from a server that was told to send by itself."""
        wire = self._open()
        try:
            heard = wire.hears(max(0.0, timeout))
            if heard:
                wire.read()
        except (Broken, TooLate, ResponseError, InvalidResponse, OSError) as error:
            self.close()
            raise explained(error, self.place, sent=True) from error
        return heard

    def open(self) -> None:
        """Get in now; raises as run()."""
        self._open()

    def close(self) -> None:
        """Let go of the socket; the next call opens another one."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.connection.disconnect()

    def _surely(self, repeatable: bool, attempt: Callable[..., Reply], *arguments: object) -> Reply:
        """What attempt returns, made again when the socket turns out to be dead.

        It may have been so for long: a server that was restarted says so only to the next command.
        """
        if not repeatable:
            self._drop_if_dead()
        fresh = self._wire is None
        try:
            return attempt(*arguments)
        except Unreachable as error:
            # After a wait for an answer the time is used up.
            if fresh or isinstance(error.__cause__, SILENT) or (error.sent and not repeatable):
                raise
            sent = error.sent
        try:
            return attempt(*arguments)
        except Unreachable as error:
            error.sent = error.sent or sent
            raise

    def _drop_if_dead(self) -> None:
        try:
            if self._wire is not None:
                self._wire.connection.can_read()
        except (Broken, OSError):
            self.close()

    def _attempt(self, script: Script, arguments: tuple[str | bytes | int, ...]) -> Reply:
        wire = self._wire or self._open()
        try:
            return self._exchange(wire, packed(("EVALSHA", script.sha, 0, self.opened, *arguments)))
        except NoScriptError:
            # A server that was restarted, or a SCRIPT FLUSH: nothing has run. This also makes it known.
            return self._exchange(wire, packed(("EVAL", script.text, 0, self.opened, *arguments)))

    def _ask(self, command: tuple[str | bytes | int, ...]) -> Reply:
        return self._exchange(self._open(), packed(command))

    def _open(self) -> Wire:
        if self._wire is None:
            connection = self.place.connection(self._timeout)
            try:
                connection.connect()
            except (Broken, TooLate, ResponseError, InvalidResponse, OSError) as error:
                raise explained(error, self.place, sent=False) from error
            except Exception as error:  # whatever redis-py's handshake raises over an answer of another type
                connection.disconnect()
                raise self.senseless(f"{error!r} while the connection was opened") from error
            self._wire = Wire(connection, self._timeout)
            self.opened += 1
        return self._wire

    def _exchange(self, wire: Wire, command: bytes) -> Reply:
        """What is answered to command; b"": what comes next."""
        try:
            return wire.ask(command) if command else wire.read()
        except NoScriptError:
            raise
        except ResponseError as error:
            raise explained(error, self.place, sent=True) from error
        except (Broken, TooLate, InvalidResponse, OSError) as error:
            self.close()
            raise explained(error, self.place, sent=not isinstance(error, BusyLoadingError)) from error
        except MemoryError as error:
            raise self.senseless("an answer needs more memory than there is") from error
        except BaseException:
            self.close()  # an answer that nobody read would be taken for that of the next call
            raise


def explained(error: Exception, place: Place, *, sent: bool) -> EngineError | Refused:
    """What redis-py raised, as an error of the seam that names the next step. Holds no password."""
    answer = str(error)
    match _code(error):
        case "NOPERM" | "ACL":
            lacks = re.sub(r" script: \w+, on @user_script:\d+\.?$", "", answer)
            return EngineError(f"Redis at {place} forbids this user what is needed: {lacks}; give it {RIGHTS}")
        case "NOAUTH":
            return EngineError(f"Redis at {place} refuses this user: {answer}; check user and password in the URL")
        case "READONLY":
            return EngineError(f"Redis at {place} is a read-only replica; use the URL of its primary")
        case "CLUSTER":
            return EngineError(f"Redis at {place} is part of a cluster; kq needs a single server")
        case "OOM":
            return Full(f"Redis at {place} has no memory left; raise its maxmemory or wait until jobs are done")
        case "MISCONF":
            return Full(f"Redis at {place} can't save to its disk and refuses to store: {answer}")
        case "BUSY":
            return Unreachable(f"Redis at {place} is busy with somebody's script", sent=False)
        case "SILENT":
            return Unreachable(f"Redis at {place} did not answer in time", sent=sent)
        case "BROKEN":
            return Unreachable(f"Redis at {place} can't be reached: {answer}", sent=sent)
        case "SENSELESS":
            return Unreachable(f"Redis at {place} sent what makes no sense: {answer}", sent=sent)
        case code if code.startswith("KQ"):
            return Refused(answer)
    return EngineError(f"Redis at {place} answers: {answer}")


def _code(error: Exception) -> str:
    """The word that a Redis error begins with, or our own for what redis-py has classes for."""
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return code
    # Redis 6.2 puts words of its own before the error of a command in a script.
    found = re.search(r"(?:^|: -)([A-Z]+)\b", str(error))
    if found:
        return found[1]
    # What a command in a script meets in a cluster has no word of its own.
    return "CLUSTER" if re.search(r"\b(cluster|slot)\b", str(error)) else ""


#: What a user of the server must be allowed, as ACL SETUSER has it.
RIGHTS = "~kq:* &kq:* +@all -@admin -@dangerous"

#: The time for an answer is over.
SILENT = (TooLate, TimeoutError, BlockingIOError)

# From the special to the general: to redis-py a wrong password is a broken connection.
_CODES = {
    AuthenticationError: "NOAUTH",
    NoPermissionError: "NOPERM",
    ReadOnlyError: "READONLY",
    ClusterError: "CLUSTER",
    MovedError: "CLUSTER",
    OutOfMemoryError: "OOM",
    **dict.fromkeys(SILENT, "SILENT"),
    Broken: "BROKEN",
    InvalidResponse: "SENSELESS",
    OSError: "BROKEN",
}
