"""A side effect in the hands of a running job: begun once, ended once, and asked about in doubt (promise C13)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, TypeAlias

import msgspec

from kq.errors import EffectBusy, InDoubt, LeaseLost, NotDone
from kq.ledger import Busy, Doubtful, Due, Entry, Happened, Ledger
from kq.message import one_line

OnDoubt: TypeAlias = Literal["bury", "repeat", "skip"]

_encode = msgspec.json.Encoder().encode

#: Errors that prove that nothing happened: there was nobody to talk to.
NOTHING_HAPPENED: tuple[type[BaseException], ...] = (NotDone, ConnectionRefusedError)


@dataclass(slots=True)
class Once:
    """A context manager around one side effect; made by `current_job().once(key)`.

        with job.once(f"invoice {number}") as effect:
            if effect.due:
                effect.done(post(number))
        return effect.outcome

    due: whether it is to be done now; False when it was done before, and outcome is what was recorded then.
    A block that ends without done() records None. A block that raises leaves a doubt, unless the error proves that
    nothing happened (kq.NotDone, a refused connection).
    """

    ledger: Ledger
    mine: Entry
    on_doubt: OnDoubt
    check: Callable[[], bool | None] | None = None
    due: bool = False
    outcome: Any = None
    _told: bool = field(default=False, init=False)

    def __enter__(self) -> Once:
        found = self.ledger.intend(self.mine)
        if isinstance(found, Doubtful):
            found = self._resolved(found.entry)
        match found:
            case Happened(entry):
                self.outcome = msgspec.json.decode(entry.outcome)
            case Busy(entry):
                raise EffectBusy(f"job {entry.job} is at the effect {entry.key!r} on {entry.worker}")
            case Due(mine):
                self.mine, self.due = mine, True
        return self

    def still_mine(self) -> None:
        """Raise LeaseLost when this worker's lease is over: another may be at it. For right before an act."""
        if not self.ledger.may_speak(self.mine.worker):
            raise LeaseLost(f"this worker's lease is over, so the effect {self.mine.key!r} is left alone")

    def done(self, outcome: Any = None) -> None:
        """Record that it happened, and what came of it (anything that JSON has). Raises LeaseLost."""
        self.ledger.end(self.mine, "done", _encode(outcome))
        self.outcome, self.due, self._told = outcome, False, True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self.due or self._told:
            return
        if error is None:
            self.done()
        elif isinstance(error, NOTHING_HAPPENED) or self.on_doubt == "repeat":
            self.ledger.withdraw(self.mine)
        elif not isinstance(error, LeaseLost):
            self._leave(error)

    def _leave(self, error: BaseException) -> None:
        """The act broke off somewhere."""
        note = f"attempt {self.mine.attempt} broke off with {type(error).__name__}: {one_line(error)}"
        if self.on_doubt == "skip":
            self.ledger.end(self.mine, "done", note=note)
            return
        entry = self.ledger.end(self.mine, "doubt", note=note)
        if isinstance(error, Exception):
            raise InDoubt(told(entry)) from error

    def _resolved(self, entry: Entry) -> Due | Happened:
        """What is to be done about a doubt. Raises InDoubt when a human has to say."""
        answer = None if self.check is None else self.check()
        if answer is False or (answer is None and self.on_doubt == "repeat"):
            return self.ledger.take_over(entry, self.mine)
        if answer or self.on_doubt == "skip":
            mine = self.ledger.take_over(entry, self.mine).mine
            note = "check found that it had happened" if answer else "in doubt, and skipped"
            return Happened(self.ledger.end(mine, "done", note=note))
        if entry.stage != "doubt":
            mine = self.ledger.take_over(entry, self.mine).mine
            note = f"attempt {entry.attempt} on {entry.worker} ended without a word"
            entry = self.ledger.end(mine, "doubt", note=note)
        raise InDoubt(told(entry))


def told(entry: Entry) -> str:
    """What is known of a doubt, and what a human may do."""
    return (
        f"nobody knows whether the effect {entry.key!r} happened: {entry.note}; find out, then "
        f"kq effects done or kq effects lift it, and kick the job"
    )
