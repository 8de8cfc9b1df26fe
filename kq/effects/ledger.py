"""The ledger: which side effects were begun, and which are known to be done (promise C13).

An effect has a key. Right before it acts, a job writes down that it intends to; afterwards, what came of it. Who finds
the intention of an attempt that is no more cannot know whether it acted: that is a doubt, and is told as one. Entries
are written under the fence of the worker (promise C4): one that was declared dead neither begins nor ends an effect.

What was begun or is in doubt is kept until it ends or somebody decides: if it vanished, the effect would be done again.
What is done is kept for as long as its type says. Doubts stand in a list of their own beside it, by job, so that they
are found among millions of entries.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from math import inf
from typing import Literal, TypeAlias, TypeVar

import msgspec

from kq.clock import SYSTEM
from kq.errors import LeaseLost
from kq.state.store import Store, StoreUnreachable, Write
from kq.values.reading import reader, text
from kq.values.record import begun_key, cut_key, decode_cut, encode, lease_key

#: Seconds that what is done is remembered when nobody says: a year.
KEEP = 365 * 86400.0
#: Seconds that is remembered which effects a job has begun: longer than it takes until another job type runs instead.
BEGUN_KEEP = 30 * 86400.0
#: Keys longer than this are stored under their digest.
KEY_LIMIT = 200
#: Seconds for which a job asks a store again that does not answer, and between two times.
PATIENCE = 60.0
PAUSE = 0.1
#: So many doubts are looked at.
DOUBTS = 10_000

Stage: TypeAlias = Literal["intended", "doubt", "done"]
T = TypeVar("T")


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of one effect.

    stage: "intended": a job is at it; "doubt": one was, and nobody knows how far it came; "done".
    type, job, attempt, worker: who began it. since: when it was begun or, once it is done, when that was written; in
    seconds since the epoch, by that worker's clock. outcome: what came of it, as JSON. note: why it is in doubt, or who
    decided and why. keep: seconds that it is remembered once it is done. on_doubt: what its type says of doubts;
    checked: it has a hook that asks the world before. whole: it is all that its job does, and its outcome is the
    job's result.
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
    on_doubt: str = "bury"
    checked: bool = False
    whole: bool = False


class Due(msgspec.Struct, frozen=True):
    """Nobody did it: it is ours to do. mine: our entry."""

    mine: Entry


class Happened(msgspec.Struct, frozen=True):
    """It was done, and is not done again."""

    entry: Entry


class Busy(msgspec.Struct, frozen=True):
    """Another job is at it, on a worker that lives."""

    entry: Entry


class Doubtful(msgspec.Struct, frozen=True):
    """It was begun, and nobody knows whether it was done."""

    entry: Entry


Finding: TypeAlias = Due | Happened | Busy | Doubtful

_decode = msgspec.json.Decoder(Entry).decode
_read = reader(Entry)


class Ledger:
    """The entries in one state store. May be shared by threads.

    lapse: when, on the monotonic clock, the worker in whose name this speaks may do nothing more. patience: seconds for
    which a store that does not answer is asked again; who has other things to do has none.
    """

    def __init__(self, store: Store, lapse: Callable[[], float] = lambda: inf, patience: float = PATIENCE) -> None:
        self._store = store
        self._lapse = lapse
        self._patience = patience

    # What a job does.

    def intend(self, mine: Entry) -> Finding:
        """Write down that a job is about to act, unless there is something against it. Raises LeaseLost."""
        mine = msgspec.structs.replace(mine, stage="intended", since=SYSTEM.now())
        before: bytes | None = None
        while not self._put(mine, before, mine):
            before = self._stored(mine.key)
            if before is not None:
                entry = _decode(before)
                return Due(mine) if entry == mine else self._judged(entry, mine)
        return Due(mine)

    def look(self, mine: Entry) -> Finding:
        """What intend() would find, without writing anything."""
        stored = self._stored(mine.key)
        return Due(mine) if stored is None else self._judged(_decode(stored), mine)

    def take_over(self, entry: Entry, mine: Entry) -> Due:
        """Begin again what was in doubt. Raises LeaseLost, also when somebody else decided meanwhile."""
        mine = msgspec.structs.replace(mine, stage="intended", since=SYSTEM.now())
        self._replace(entry, mine, mine)
        return Due(mine)

    def doubt(self, entry: Entry, mine: Entry, note: str) -> Entry:
        """Write down that entry is in doubt, and that the job of mine waits for an answer. Raises LeaseLost."""
        doubt = entry if entry.stage == "doubt" else msgspec.structs.replace(entry, stage="doubt", note=note)
        self._replace(entry, doubt, mine)
        return doubt

    def done(self, mine: Entry, outcome: bytes = b"null", note: str = "") -> Entry:
        """Write down what came of mine. Raises LeaseLost when that is not ours to say any more."""
        done = msgspec.structs.replace(mine, stage="done", since=SYSTEM.now(), outcome=msgspec.Raw(outcome), note=note)
        self._replace(mine, done, mine)
        return done

    def withdraw(self, mine: Entry) -> None:
        """Forget mine: it is known that nothing happened. Nothing is done where it is not ours any more."""
        key = effect_key(mine.key)
        self._write([Write(key, None, alive=lease_key(mine.worker), must=(key, encode(mine)))])

    def check_lease(self, worker: str) -> None:
        """Raise LeaseLost unless worker's lease holds."""
        if not self._may_speak(worker):
            raise LeaseLost(f"the lease of {worker} is over: it begins no effect any more")
        self.check_time(worker)

    def check_time(self, worker: str) -> None:
        """Raise LeaseLost when, by this host's clock, worker's right to act is over. Asks nobody."""
        if SYSTEM.monotonic() >= self._lapse():
            raise LeaseLost(f"{worker} slept for longer than its lease: it begins no effect any more")

    def _may_speak(self, worker: str) -> bool:
        return self._patiently(lambda: self._store.get([lease_key(worker)])[0]) is not None

    def _replace(self, before: Entry, after: Entry, mine: Entry) -> None:
        """Write after in the place of before. Raises LeaseLost when that has changed, or the fence is down."""
        if not self._put(after, encode(before), mine) and self._stored(after.key) != encode(after):
            raise LeaseLost(f"somebody else decides about the effect {after.key!r} by now")
        if before.stage == "doubt" != after.stage:
            self._strike_out(before.key)

    def _put(self, entry: Entry, before: bytes | None, mine: Entry) -> bool:
        """Write entry in the place of before; False when that has changed. Raises LeaseLost when the fence is down."""
        key, fence = effect_key(entry.key), lease_key(mine.worker)
        keep = entry.keep if entry.stage == "done" else None
        writes = [Write(key, encode(entry), keep, fence, must=(key, before))]
        if entry.stage == "doubt":
            writes.append(Write(_doubt_key(entry.key, mine.job), entry.key.encode(), must=(key, encode(entry))))
        if entry.stage == "intended":
            noted = begun_key(entry.job, _digest(entry.key))
            writes.append(Write(noted, encode(entry), BEGUN_KEEP, must=(key, encode(entry))))
        if self._write(writes)[0]:
            return True
        if not self._may_speak(mine.worker):
            raise LeaseLost(f"the lease of {mine.worker} is over, so it does not touch the effect {entry.key!r}")
        return False

    def _judged(self, entry: Entry, mine: Entry) -> Finding:
        if entry.stage == "done":
            return Happened(entry)
        others = entry.job != mine.job
        return Busy(entry) if others and self.is_at_work(entry) else Doubtful(entry)

    def _stored(self, key: str) -> bytes | None:
        return self._patiently(lambda: self._store.get([effect_key(key)])[0])

    def _write(self, writes: list[Write]) -> list[bool]:
        return self._patiently(lambda: self._store.write(writes))

    def _patiently(self, ask: Callable[[], T]) -> T:
        """ask(), again while the store does not answer: who gives up between two words leaves a doubt."""
        until = SYSTEM.monotonic() + self._patience
        while True:
            try:
                return ask()
            except StoreUnreachable:
                if SYSTEM.monotonic() + PAUSE >= min(until, self._lapse()):
                    raise
                time.sleep(PAUSE)

    # What a worker asks and says of a job that another job type does instead.

    def begun(self, job: str) -> list[Entry]:
        """The effects that job has begun, as it began them."""
        entries = [_decode(stored) for _, stored in self._store.scan(begun_key(job))]
        return [entry for entry in entries if entry.job == job]

    def leave(self, before: Entry | None, left: Entry, mine: Entry) -> bool:
        """Write what is left of an effect in the place of before; False when that has changed. Raises LeaseLost."""
        return self._put(left, None if before is None else encode(before), mine)

    # What people do.

    def find(self, key: str) -> Entry | None:
        """What is known of the effect."""
        stored = self._store.get([effect_key(key)])[0]
        return None if stored is None else _decode(stored)

    def entries(self, prefix: str = "", limit: int = 1000) -> Iterator[Entry]:
        """Entries whose key begins with prefix, by key. Keys that are longer than KEY_LIMIT match no prefix."""
        for _, stored in self._store.scan(effect_key(prefix), limit):
            if (entry := _read(stored)) is not None:
                yield entry

    def doubts(self, job: str = "") -> list[Entry]:
        """Effects in doubt, by job; those that one job waits for, or all."""
        listed = self._store.scan(f"{_DOUBT}{job}:" if job else _DOUBT, DOUBTS)
        keys = list(dict.fromkeys(text(key) for _, key in listed))
        stored = self._store.get([effect_key(key) for key in keys]) if keys else []
        found = map(_read, stored)
        return [entry for entry in found if entry is not None and entry.stage == "doubt"]

    def is_at_work(self, entry: Entry) -> bool:
        """Whether a worker that lives may be acting on entry right now: it has not killed who was at it."""
        if entry.stage != "intended" or not self._may_speak(entry.worker):
            return False
        cut = decode_cut(self._patiently(lambda: self._store.get([cut_key(entry.job)])[0]))
        return cut is None or cut.worker != entry.worker or cut.at < entry.since

    def decide(self, entry: Entry, outcome: bytes, note: str) -> bool:
        """Say that entry, of which nobody knew, was done; False when it changed meanwhile."""
        done = msgspec.structs.replace(entry, stage="done", since=SYSTEM.now(), outcome=msgspec.Raw(outcome), note=note)
        return self._settle(entry, Write(effect_key(entry.key), encode(done), entry.keep))

    def lift(self, entry: Entry) -> bool:
        """Forget entry, so that the effect may happen (again); False when it changed meanwhile."""
        return self._settle(entry, Write(effect_key(entry.key), None))

    def _settle(self, entry: Entry, write: Write) -> bool:
        """Make write if entry is what it was, and take its doubt off the list."""
        write = Write(write.key, write.value, write.keep, must=(write.key, encode(entry)))
        if not self._store.write([write])[0]:
            return False
        if entry.stage == "doubt":
            self._strike_out(entry.key)
        return True

    def _strike_out(self, key: str) -> None:
        """Take a doubt that has ended off the list, for all jobs that waited for that."""
        listed = self._patiently(lambda: self._store.scan(_DOUBT, DOUBTS))
        answered = [Write(waits, None) for waits, about in listed if about == key.encode()]
        if answered:
            self._write(answered)


_DOUBT = "doubt:"


def effect_key(key: str) -> str:
    """Where the store has the entry of an effect."""
    if len(key) > KEY_LIMIT:
        key = f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"
    return f"effect:{key}"


def _doubt_key(key: str, job: str) -> str:
    """Where the store has that a job waits for an answer about the effect."""
    return f"{_DOUBT}{job}:{_digest(key)}"


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:16]
