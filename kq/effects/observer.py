"""Observers: told of what an app submits and of what runs, where that happens. Traces and error reports are made of it.

Who has none pays for none. What an observer raises is logged and changes nothing: it is there to look.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TypeAlias

import msgspec

from kq.clock import RANDOM
from kq.effects.context import CurrentJob
from kq.errors import MessageError, Retry, SoftTimeout
from kq.values.failure import Failure, names_of
from kq.values.job import Counters
from kq.values.message import Envelope, may_travel
from kq.values.outcome import Asked, Bury, Outcome, Raised, Revoke, Rules, TimedOut, Unusable, verdict_after

log = logging.getLogger("kq.observer")

Watch: TypeAlias = AbstractContextManager[None]


class Execution(msgspec.Struct, frozen=True):
    """One attempt at a job, where its code runs. headers: text that travelled with its message (see Observer.carry).

    size: bytes of its arguments. priority: 0 to 9. rules, counters: what is said about its failures, and how many there
    were before.
    """

    job: CurrentJob
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    size: int = 0
    priority: int = 0
    rules: Rules = msgspec.field(default_factory=Rules)
    counters: Counters = msgspec.field(default_factory=Counters)

    def is_final(self, error: BaseException) -> bool:
        """Whether the job ends with this error: it is not tried again, and nothing runs instead."""
        verdict = verdict_after(self._outcome(error), self.counters, self.rules, RANDOM)
        return isinstance(verdict, Bury | Revoke)

    def _outcome(self, error: BaseException) -> Outcome:
        failure = Failure(names_of(error), "")
        match error:
            case MessageError():
                return Unusable("")
            case Retry():
                return Asked(failure, 0.0)
            case SoftTimeout():
                return TimedOut(0.0, killed=False, failure=failure)
        return Raised(failure)


class Observer:
    """What may be told; this one does nothing with it. Each method is called where the thing happens, in its thread.

    Where the code of jobs runs these are executors, forked from the process that imported the app.
    """

    @contextmanager
    def submitting(self, jobs: Sequence[Envelope]) -> Iterator[None]:
        """Around the storing of jobs. What that raises comes through here."""
        yield

    def carry(self, headers: dict[str, str]) -> None:
        """Put into headers what is to travel with a job that is about to be submitted, through retries and fallbacks.

        Called inside submitting(), or where a job stages another. Names of kq's own headers, and x-…, do not travel.
        """

    @contextmanager
    def running(self, execution: Execution) -> Iterator[None]:
        """Around one attempt. What the job raises comes through here; SoftTimeout when it ran out of time."""
        yield

    def close(self) -> None:
        """This process is about to end: send what waits, within a second or two."""


class Watching:
    """The observers of one thing while it goes on."""

    def __init__(self, watches: Sequence[Callable[[], Watch]] = ()) -> None:
        self._open: list[Watch] = []
        for make in watches:
            try:
                watch = make()
                watch.__enter__()
            except Exception:
                log.exception("an observer failed")
            else:
                self._open.append(watch)

    def end(self, error: BaseException | None = None) -> None:
        """It is over, with error."""
        told = (None, None, None) if error is None else (type(error), error, error.__traceback__)
        for watch in reversed(self._open):
            try:
                watch.__exit__(*told)
            except BaseException as raised:
                if raised is not error:
                    log.exception("an observer failed")

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> None:
        self.end(error)


class Observers:
    """Those of an app."""

    def __init__(self) -> None:
        self._all: list[Observer] = []

    def __bool__(self) -> bool:
        return bool(self._all)

    def add(self, observer: Observer) -> None:
        self._all.append(observer)

    def submitting(self, jobs: Sequence[Envelope]) -> Watching:
        return Watching([partial(each.submitting, jobs) for each in self._all])

    def running(self, execution: Execution) -> Watching:
        return Watching([partial(each.running, execution) for each in self._all])

    def carried(self) -> dict[str, str]:
        """What travels with a job that is submitted here and now."""
        headers: dict[str, str] = {}
        for each in self._all:
            try:
                each.carry(headers)
            except Exception:
                log.exception("an observer failed")
        return {name: text for name, text in headers.items() if may_travel(name, text)}

    def close(self) -> None:
        for each in self._all:
            try:
                each.close()
            except Exception:
                log.exception("an observer failed")


#: Nobody looks.
UNWATCHED = Watching()
