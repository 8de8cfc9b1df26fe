"""The ledger: which side effects were begun, and which are known to be done (promise C13).

An effect has a key. Before it acts, a job writes down that it intends to; afterwards, what came of it. Who finds the
intention of a job that is no more cannot know whether it acted: that is a doubt, and is told as one. Entries are
written under the fence of the worker (promise C4), so a worker that was declared dead neither begins nor ends one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from kq.errors import LeaseLost
from kq.record import encode, lease_key
from kq.state.store import Store, Write

#: Seconds that an entry is kept when nobody says: a year.
KEEP = 365 * 86400.0
#: Keys longer than this are stored under their digest.
KEY_LIMIT = 200

Stage: TypeAlias = Literal["intended", "doubt", "done"]


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of one effect.

    stage: "intended": a job is at it; "doubt": one was, and nobody knows how far it came; "done".
    type, job, attempt, worker: whose it is. since: when that was written, by the store's clock, in seconds since the
    epoch. outcome: what came of it, as JSON. note: why it is in doubt, or who decided and why. keep: seconds.
    """

    key: str
    stage: Stage
    type: str = ""
    job: str = ""
    attempt: int = 0
    worker: str = ""
    since: float = 0.0
    outcome: msgspec.Raw = msgspec.Raw(b"null")
    note: str = ""
    keep: float = KEEP


@dataclass(frozen=True, slots=True)
class Due:
    """Nobody did it: it is ours to do. mine: our entry."""

    mine: Entry


@dataclass(frozen=True, slots=True)
class Happened:
    """It was done, and is not done again."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Busy:
    """Another job is at it, on a worker that lives."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Doubtful:
    """It was begun, and nobody knows whether it was done."""

    entry: Entry


Finding: TypeAlias = Due | Happened | Busy | Doubtful

_decode = msgspec.json.Decoder(Entry).decode


class Ledger:
    """The entries in one state store. May be shared by threads."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # What a job does.

    def intend(self, mine: Entry) -> Finding:
        """Write down that a job is about to act, unless there is something against it. Raises LeaseLost."""
        mine = msgspec.structs.replace(mine, stage="intended", since=self._store.now())
        while True:
            stored = self._store.get([effect_key(mine.key)])[0]
            if stored is not None:
                entry = _decode(stored)
                if not _same(entry, mine):
                    return self._judged(entry, mine)
            if self._put(mine, stored):
                return Due(mine)

    def take_over(self, entry: Entry, mine: Entry) -> Due:
        """Begin again what was in doubt. Raises LeaseLost, also when somebody else decided meanwhile."""
        mine = msgspec.structs.replace(mine, stage="intended", since=self._store.now())
        if not self._put(mine, encode(entry)):
            raise LeaseLost(f"somebody else decides about the effect {mine.key!r} now")
        return Due(mine)

    def end(self, mine: Entry, stage: Stage, outcome: bytes = b"null", note: str = "") -> Entry:
        """Write down what came of mine. Raises LeaseLost when that is not ours to say any more."""
        ended = msgspec.structs.replace(
            mine, stage=stage, since=self._store.now(), outcome=msgspec.Raw(outcome), note=note
        )
        if not self._put(ended, encode(mine)) and self._store.get([effect_key(mine.key)])[0] != encode(ended):
            raise LeaseLost(f"the effect {mine.key!r} belongs to another worker by now")
        return ended

    def withdraw(self, mine: Entry) -> None:
        """Forget mine: it is known that nothing happened."""
        key = effect_key(mine.key)
        self._store.write([Write(key, None, alive=lease_key(mine.worker), must=(key, encode(mine)))])

    def may_speak(self, worker: str) -> bool:
        """Whether worker's lease holds."""
        return self._store.get([lease_key(worker)])[0] is not None

    def _put(self, entry: Entry, before: bytes | None) -> bool:
        """Write entry in the place of before; False when that has changed. Raises LeaseLost when the fence is down."""
        key, fence = effect_key(entry.key), lease_key(entry.worker)
        if self._store.write([Write(key, encode(entry), entry.keep, fence, must=(key, before))])[0]:
            return True
        if not self.may_speak(entry.worker):
            raise LeaseLost(f"this worker's lease is over, so it does not touch the effect {entry.key!r}")
        return False

    def _judged(self, entry: Entry, mine: Entry) -> Finding:
        if entry.stage == "done":
            return Happened(entry)
        others = entry.job != mine.job and entry.stage == "intended"
        if others and self.may_speak(entry.worker):
            return Busy(entry)
        return Doubtful(entry)

    # What people do.

    def find(self, key: str) -> Entry | None:
        """What is known of the effect."""
        stored = self._store.get([effect_key(key)])[0]
        return None if stored is None else _decode(stored)

    def entries(self, prefix: str = "", limit: int = 1000) -> Iterator[Entry]:
        """Entries whose key begins with prefix, by key. Keys that are longer than KEY_LIMIT match no prefix."""
        for _, stored in self._store.scan(effect_key(prefix), limit):
            yield _decode(stored)

    def decide(self, entry: Entry, outcome: bytes, note: str) -> bool:
        """Say that entry, which is in doubt, was done; False when it changed meanwhile."""
        done = msgspec.structs.replace(
            entry, stage="done", since=self._store.now(), outcome=msgspec.Raw(outcome), note=note
        )
        key = effect_key(entry.key)
        return self._store.write([Write(key, encode(done), entry.keep, must=(key, encode(entry)))])[0]

    def lift(self, entry: Entry) -> bool:
        """Forget entry, so that the effect may happen (again); False when it changed meanwhile."""
        key = effect_key(entry.key)
        return self._store.write([Write(key, None, must=(key, encode(entry)))])[0]


def effect_key(key: str) -> str:
    """Where the store has the entry of an effect."""
    if len(key) > KEY_LIMIT:
        key = f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"
    return f"effect:{key}"


def _same(entry: Entry, mine: Entry) -> bool:
    """Whether entry is our own intention, the answer to which was lost."""
    return (entry.stage, entry.job, entry.attempt, entry.worker) == ("intended", mine.job, mine.attempt, mine.worker)
