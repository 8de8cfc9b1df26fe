"""A gate that keeps a mailer from running wild: a rate over all workers, and a breaker of loops.

Both are facts in the state store, changed by compare and set. A rate is one number, the time at which the next turn is
due ("generic cell rate algorithm", of ATM networks). A breaker counts what passed in this hour and the last one: when
that is more than anybody wants, a human is needed, and the job type is paused until somebody resumes it.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable

import msgspec

from kq.app import App
from kq.effects.context import current_job
from kq.errors import NotDone, Retry
from kq.handles.standing import Kind, Order, give, order_key
from kq.handles.trouble import Trouble, tell
from kq.state.store import Write
from kq.units import format_duration
from kq.values.record import encode

log = logging.getLogger("kq.mail")

HOUR = 3600.0
#: So many may pass at once after a rest.
BURST = 10
#: Seconds that a turn is waited for; who has to wait longer comes again later.
PATIENCE = 60.0
#: Seconds after which who met a tripped breaker asks again: by then its type is known to be paused.
LATER = 30.0
#: The settings of a mailer that say how many may pass, by what is counted.
_SETTINGS = {"to": "per_recipient", "like": "per_family"}


class Tally(msgspec.Struct, frozen=True, omit_defaults=True):
    """What passed under one key. began: this hour; count: in it; before: in the hour before it. tripped: too many."""

    began: float
    count: int = 0
    before: int = 0
    tripped: bool = False

    def at(self, now: float) -> Tally:
        """The same, seen from now."""
        hours = int((now - self.began) // HOUR)
        if hours < 0:  # the clock was set back
            return Tally(now, self.count, self.before, self.tripped)
        if hours < 1:
            return self
        before = self.count if hours == 1 else 0
        return Tally(self.began + hours * HOUR, 0, before, self.tripped)

    def within_an_hour(self, now: float) -> float:
        """About how many passed in the last hour: those of the hour before are taken for evenly spread."""
        return self.count + self.before * (1 - (now - self.began) / HOUR)


class Gate:
    """Lets mails of one job type pass.

    per_minute: in all. per_recipient, per_family: within an hour, to one person and of one kind.
    """

    def __init__(self, app: App, type: str, per_minute: float, per_recipient: int, per_family: int) -> None:
        self._app = app
        self._type = type
        self._interval = 60.0 / per_minute
        self._limits = {"to": per_recipient, "like": per_family}

    def enter(self, recipient: str, family: str) -> None:
        """Wait for one's turn. Raises Retry when something sends in a loop, NotDone when the turn is far away."""
        for kind, what in (("to", recipient), ("like", family)):
            self._look(kind, what)
        if wait := self._turn():
            job = current_job()
            if job:  # who looks for what holds the queue up finds it with the job that runs
                job.progress(0, 1, f"waits its turn: {60 / self._interval:g} mails a minute at most")
            time.sleep(wait)
            if job:
                job.progress(0, 1)

    def count(self, recipient: str, family: str) -> None:
        """Note that a mail passed."""
        for kind, what in (("to", recipient), ("like", family)):
            self._change(self._key(kind, what), lambda tally: msgspec.structs.replace(tally, count=tally.count + 1))

    def _look(self, kind: str, what: str) -> None:
        """Raise Retry, and see to it that the type is paused, when too many have passed."""
        key, limit = self._key(kind, what), self._limits[kind]
        tally, _ = self._read(key)
        passed = tally.within_an_hour(self._app.store.now())
        if passed < limit:
            return
        order = order_key(Kind.PAUSE_TYPE, self._type)
        if not tally.tripped:
            passed_in = f"{limit} mails {kind} {what!r} within an hour"
            reason = f"something sends in a loop, or {_SETTINGS[kind]}= is too low: {passed_in}"
            give(
                self._app.store,
                Kind.PAUSE_TYPE,
                self._type,
                Order(by=f"the loop breaker of {self._type}", reason=reason),
            )
            self._change(key, lambda tally: msgspec.structs.replace(tally, tripped=True))
            told = Trouble(
                self._type, "something sends in a loop", f"{kind} {what}", error=reason, at=self._app.store.now()
            )
            tell(self._app.store, told)
            log.error("paused %s: %s; mend it, then kq queues resume --type %s", self._type, reason, self._type)
        elif self._app.store.get([order])[0] is None:
            self._change(key, lambda tally: Tally(tally.began))  # somebody has looked, and resumed it
            return
        raise Retry(f"{self._type} is paused: {limit} mails {kind} {what!r} within an hour", delay=LATER)

    def _turn(self) -> float:
        """Seconds until our turn."""
        store, key = self._app.store, f"gate:{self._type}"
        while True:
            stored, now = store.get([key])[0], store.now()
            due = 0.0 if stored is None else float(stored)
            if due > now + PATIENCE + self._interval:  # nobody took a turn so far away: the clock was set back
                due = now
            turn = max(due, now - (BURST - 1) * self._interval)
            wait = max(0.0, turn - now)
            if wait > PATIENCE:
                raise NotDone(f"{self._type} sends no faster: the next turn comes in {format_duration(wait)}")
            after = repr(turn + self._interval).encode()
            if store.write([Write(key, after, HOUR, must=(key, stored))])[0]:
                return wait

    def _read(self, key: str) -> tuple[Tally, bytes | None]:
        stored, now = self._app.store.get([key])[0], self._app.store.now()
        return (Tally(now) if stored is None else _decode(stored).at(now)), stored

    def _change(self, key: str, change: Callable[[Tally], Tally]) -> None:
        while True:
            tally, stored = self._read(key)
            if self._app.store.write([Write(key, encode(change(tally)), 2 * HOUR, must=(key, stored))])[0]:
                return

    def _key(self, kind: str, what: str) -> str:
        return f"gate:{self._type}:{kind}:{hashlib.sha256(what.lower().encode()).hexdigest()[:32]}"


_decode = msgspec.json.Decoder(Tally).decode
