"""The job that is running here: what its own code may know of it, and do."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from kq.ledger import KEEP, Entry, Ledger
from kq.once import Once, OnDoubt
from kq.state.store import Store


@dataclass(slots=True)
class Footing:
    """What jobs stand on: the name of their worker, which has another one each time that it joins, and its store."""

    store: Callable[[], Store]
    worker: str = ""


@dataclass(frozen=True, slots=True)
class CurrentJob:
    """The running job. attempt: 1 for the first start. until: when its timeout ends, on the monotonic clock."""

    id: str
    type: str
    queue: str
    attempt: int
    until: float
    footing: Footing

    def once(
        self,
        key: str,
        *,
        on_doubt: OnDoubt = "bury",
        check: Callable[[], bool | None] | None = None,
        keep: float = KEEP,
    ) -> Once:
        """A context manager around a side effect that is to happen once under this key (promise C13); see Once.

        on_doubt: what becomes of it when it was begun and nobody knows whether it happened: "bury" this job for a
        human, "repeat" it (at least once) or "skip" it (at most once). check: asks the world first: True it happened,
        False it did not, None it can't tell. keep: seconds that it is remembered, a year by default.
        Entering raises InDoubt, EffectBusy when another job is at it, and LeaseLost.
        """
        mine = Entry(key, "intended", self.type, self.id, self.attempt, self.footing.worker, keep=keep)
        return Once(Ledger(self.footing.store()), mine, on_doubt, check)


running: ContextVar[CurrentJob | None] = ContextVar("kq-current-job", default=None)


def current_job() -> CurrentJob | None:
    """The job that this code runs in; None outside of a worker."""
    return running.get()
