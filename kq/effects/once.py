"""A side effect in the hands of a running job: begun once, ended once, and asked about in doubt (promise C13)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from types import TracebackType
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from kq.aside import aside
from kq.effects.ledger import Busy, Doubtful, Due, Entry, Finding, Happened, Ledger
from kq.errors import DoubtStands, EffectBusy, InDoubt, LeaseLost, NotDone
from kq.state.store import StoreUnreachable
from kq.values.deed import Deed
from kq.values.message import encode_result
from kq.values.redaction import one_line

OnDoubt: TypeAlias = Literal["bury", "fallback", "repeat", "skip"]
#: What a side effect came to. duplicate: it was not done again. unknown: it broke off, and nobody knows if it happened.
CameTo: TypeAlias = Literal["done", "duplicate", "unknown"]


@dataclass(slots=True)
class Once:
    """A context manager around one side effect; made by `current_job().once(key)`.

        with job.once(f"invoice {number}") as effect:
            if effect.due:
                effect.done(post(number))
        return effect.outcome

    due: whether it is to be done now; False when it was done before, and outcome is what was recorded then. before: the
    ledger's entry of that, if so. count: is told what it came to. rehearse: is told, as a deed, what would be done now;
    then it is not due. A block that ends without done() records None. A block that raises leaves a doubt, unless the
    error says that nothing happened (kq.NotDone). In a coroutine write `async with`, so that others go on while the
    ledger is asked.
    """

    ledger: Ledger
    mine: Entry
    on_doubt: OnDoubt
    check: Callable[[], bool | None] | None = None
    due: bool = False
    outcome: Any = None
    before: Entry | None = None
    count: Callable[[CameTo], None] = field(default=lambda came_to: None, repr=False)
    rehearse: Callable[[Deed], None] | None = field(default=None, repr=False)
    deed: Deed | None = field(default=None, repr=False)
    _told: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if not self.mine.key:
            raise ValueError("the key of a side effect is empty; name what is to happen once")
        check_terms(self.on_doubt, self.mine.keep)

    def was_done(self) -> bool:
        """Whether it is known to be done; nothing is begun. Where preparing takes long: ask, prepare, enter, act."""
        found = self.ledger.look(self.mine)
        if isinstance(found, Happened):
            self._is_known(found.entry)
        return isinstance(found, Happened)

    def __enter__(self) -> Once:
        try:
            self._begin(self.ledger.intend(self.mine))
            if self.rehearse is not None:
                self._rehearsed(self.rehearse)
            if self.due:
                # This process may have slept since its words reached the store. Nothing has happened yet.
                self.ledger.check_time(self.mine.worker)
        except BaseException:
            if self.due:
                self._forget()
            raise
        return self

    def still_mine(self) -> None:
        """Raise LeaseLost when this worker's lease is over: another may be at it. For right before an act."""
        self.ledger.check_lease(self.mine.worker)

    def done(self, outcome: Any = None) -> None:
        """Record that it happened, and what came of it (anything that JSON has). Raises LeaseLost.

        What has no JSON form is not recorded, but that it happened is; then TypeError is raised.
        """
        try:
            encoded = encode_result(outcome)
        except TypeError:
            self._record(b"null", "what came of it has no JSON form")
            raise
        self._record(encoded, "")
        self.outcome = outcome

    def _record(self, outcome: bytes, note: str) -> None:
        self.ledger.done(self.mine, outcome, note)
        self.due, self._told = False, True
        self.count("done")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self.due or self._told:
            return
        if error is None:
            self.done()
        elif isinstance(error, NotDone) or self.on_doubt == "repeat":
            self._forget()
        elif not isinstance(error, LeaseLost):
            self._leave(error)

    async def __aenter__(self) -> Once:
        return await aside(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await aside(self.__exit__, kind, error, at)

    def _begin(self, found: Finding) -> None:
        """Make ours what may be begun, or learn why not."""
        if isinstance(found, Doubtful):
            found = self._resolved(found.entry)
        match found:
            case Happened(entry):
                self._is_known(entry)
            case Busy(entry):
                raise EffectBusy(f"job {entry.job} is at the effect {entry.key!r} on {entry.worker}")
            case Due(mine):
                self.mine, self.due = mine, True

    def _rehearsed(self, tell: Callable[[Deed], None]) -> None:
        """Tell what would be done, in the place of doing it. For the rest of the rehearsal it has been."""
        if self.due:
            self._record(b"null", "rehearsed")
        deed = self.deed or Deed("effect")
        before = "" if self.before is None else self.before.job
        tell(msgspec.structs.replace(deed, key=self.mine.key, before=before))

    def _is_known(self, entry: Entry) -> None:
        if self.before is None:
            self.count("duplicate")
        self.before, self.outcome = entry, msgspec.json.decode(entry.outcome)

    def _forget(self) -> None:
        """Take the intention back, where that can be said: nothing happened."""
        self.due = False
        with suppress(LeaseLost, StoreUnreachable):  # then it stays in doubt
            self.ledger.withdraw(self.mine)

    def _leave(self, error: BaseException) -> None:
        """The act broke off somewhere."""
        self.count("unknown")
        note = f"attempt {self.mine.attempt} broke off with {type(error).__name__}: {one_line(error)}"
        if self.on_doubt == "skip":
            self.ledger.done(self.mine, note=note)
            return
        entry = self.ledger.doubt(self.mine, self.mine, note)
        if isinstance(error, Exception):
            raise self._asks(entry) from error

    def _resolved(self, entry: Entry) -> Due | Happened:
        """What is to be done about a doubt. Raises InDoubt, or DoubtStands when a fallback answers."""
        if entry.stage != "doubt":
            self.count("unknown")
        if entry.stage != "doubt" and self.on_doubt in ("bury", "fallback"):
            # Before anything else: if check() takes this process down, the question stands all the same.
            entry = self.ledger.doubt(
                entry, self.mine, f"attempt {entry.attempt} on {entry.worker} ended without a word"
            )
        answer = None if self.check is None else self.check()
        if answer is False or (answer is None and self.on_doubt == "repeat"):
            return self.ledger.take_over(entry, self.mine)
        if answer or self.on_doubt == "skip":
            mine = self.ledger.take_over(entry, self.mine).mine
            note = "check found that it had happened" if answer else "in doubt, and skipped"
            return Happened(self.ledger.done(mine, note=note))
        self.ledger.doubt(entry, self.mine, entry.note)
        raise self._asks(entry)

    def _asks(self, entry: Entry) -> Exception:
        """What the job ends with: a human has to say, or its fallback answers and the doubt stays."""
        kind = DoubtStands if self.on_doubt == "fallback" else InDoubt
        return kind(told(entry, self.mine.job))


def check_terms(on_doubt: OnDoubt, keep: float) -> None:
    """Raise ValueError for what means nothing: a word that is none, or an effect that is forgotten as it is done."""
    if on_doubt not in get_args(OnDoubt):
        raise ValueError(f"on_doubt {on_doubt!r} is none; use one of {', '.join(get_args(OnDoubt))}")
    if not isinstance(keep, int | float):
        raise TypeError(f"an effect can't be remembered for {keep!r}; use seconds")
    if not 0 < keep < inf:
        raise ValueError(f"an effect that is remembered for {keep} s means nothing; use more than 0 s")


def told(entry: Entry, job: str) -> str:
    """What is known of a doubt, and what a human may do about the job that found it."""
    return (
        f"nobody knows whether the effect {entry.key!r} happened: {entry.note}; find out, then "
        f"kq jobs kick {job} --done or --repeat"
    )
