"""The scene: all that the monitor knows at one moment. The screen is drawn of it and of nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from kq.values.snapshot import Snapshot

#: How the numbers are. waiting: there are none yet. stale: they are old. lost: the broker does not answer.
Freshness: TypeAlias = Literal["waiting", "live", "stale", "lost", "frozen", "replay"]
#: Numbers are stale that are older than so many times the pause between two looks, and older than so many seconds.
STALE_TIMES, STALE_LEAST = 3.0, 4.0


@dataclass(frozen=True, slots=True)
class Page:
    """What was opened: a queue, a worker, a group of failures or a job. name: of it; a group has the other four."""

    kind: Literal["queue", "worker", "group", "job"]
    name: str
    queue: str = ""
    type: str = ""
    exception: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job in a list. at: since when it is so, or when it failed; due: when it starts or is tried again.

    of: how many attempts it has at most, 0 where nobody knows.
    """

    id: str
    type: str
    queue: str
    state: str
    attempt: int = 0
    at: float | None = None
    due: float | None = None
    note: str = ""
    worker: str = ""
    of: int = 0


@dataclass(frozen=True, slots=True)
class Book:
    """What was found of a page. facts: names and texts, as `kq jobs show` prints them; jobs: those of it."""

    page: Page
    facts: tuple[tuple[str, str], ...] = ()
    jobs: tuple[JobRow, ...] = ()
    trouble: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """shot: the latest snapshot, age seconds old; None when there is none yet. now: seconds since the epoch.

    trouble: why the latest look failed, "" when it did not; retry: seconds until the next one. every: seconds between
    two looks. met: the conditions of --fail-if that are met. replay: which of how many recorded snapshots it is.
    """

    now: float
    shot: Snapshot | None = None
    age: float = 0.0
    trouble: str = ""
    retry: float = 0.0
    every: float = 1.0
    app: str = ""
    met: tuple[str, ...] = ()
    replay: str = ""
    book: Book | None = None
    frozen: bool = False

    @property
    def freshness(self) -> Freshness:
        """How the numbers are."""
        if self.replay:
            return "replay"
        if self.trouble or (self.shot is not None and self.shot.broker):
            return "lost"
        if self.shot is None:
            return "waiting"
        if self.frozen:
            return "frozen"
        return "stale" if self.age > max(STALE_LEAST, STALE_TIMES * self.every) else "live"

    def page(self, page: Page) -> Book:
        """What was found of a page; an empty book until it was."""
        return self.book if self.book is not None and self.book.page == page else Book(page)
