"""Unique keys while their jobs are submitted (promise C11): claimed before the publish, confirmed after it.

Who finds a key held is counted (kq.handles.duplicate), with what is written anyway where something is.

A key whose claim is neither confirmed nor given up is that of a submit which still goes on, or whose producer died, or
which does not know whether its job was stored. While it may go on others wait; afterwards they look into the broker. So
nobody is given a handle to a job that was never stored, and none gets in beside one that was. A worker that has the job
ready to start confirms it too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from kq.broker import BURIED, PARKED, Publishes
from kq.clock import SYSTEM, made_at
from kq.errors import BrokerUnreachable, NotUnique
from kq.handles import duplicate
from kq.handles.lock import REMEMBERED
from kq.handles.standing import Kind, order_key
from kq.handles.whereabouts import Looks
from kq.state.store import Rider, StoreUnreachable, Write
from kq.values.message import Envelope
from kq.values.reading import text
from kq.values.record import Claim, claim_key, decode_claim, encode, unique_key
from kq.values.unique import Unique

#: Seconds between two looks at a key that somebody else has claimed.
LOOK = 0.02
#: What no job is called: a fact that must be this, if it is there, must not be there.
NOBODY = b""


class Submits(Looks, Protocol):
    """Where jobs are submitted: the app."""

    @property
    def publisher(self) -> Publishes: ...


def rider_for(app: Submits, wanted: Sequence[tuple[Unique, Envelope]]) -> Rider | None:
    """What takes the unique keys of all of wanted in the step that stores their jobs, if nobody has one of them.

    None where that is not possible: KeyClaims is then the way. May be repeated: who was not answered meets himself.
    """
    if not app.broker.carries:
        return None
    writes: dict[str, Write] = {}
    for unique, envelope in wanted:
        if unique.replaces:
            return None
        key = str(unique.key)
        writes[key] = _taken(key, envelope.id.encode())
    if len(writes) < len(wanted):
        return None
    try:
        return app.store.rider([*writes.values()])
    except StoreUnreachable as error:
        raise _untakable(error) from error


def _taken(key: str, job: bytes) -> Write:
    name = unique_key(key)
    return Write(name, job, None, None, (name, job), (claim_key(key), None))


def _untakable(error: StoreUnreachable) -> BrokerUnreachable:
    return BrokerUnreachable(f"can't take a unique key: {error}; stored: no", stored="no")


class KeyClaims:
    """The unique keys that one submit is about. until: when that submit ends, by the monotonic clock.

    refused: whether their rider just was, so that some of them are held.
    Raises NotUnique when one is held by another job and its own says "reject".
    """

    def __init__(
        self, app: Submits, wanted: Sequence[tuple[Unique, Envelope]], until: float, refused: bool = False
    ) -> None:
        self._app = app
        self._until = until
        self._ours: dict[str, Claim] = {}  # by unique key
        self._taken: set[str] = set()  # keys that nobody held before
        #: For each job whose key another one has, the id of that one; of its own, when it takes the place of itself.
        self.held: dict[str, str] = {}
        self._counts = list[Write]()
        try:
            claims = [(str(unique.key), _claim(unique, envelope)) for unique, envelope in wanted]
            first = dict(reversed(claims))
            #: Who has which key, as far as that was asked for all of them at once and nobody has made use of it.
            self._known: dict[str, str | None] = {}
            if refused:  # to look costs less than to claim what is held
                self._known |= {key: job for key, job in self._found([*first]).items() if job is not None}
            if free := {key: claim for key, claim in first.items() if key not in self._known}:
                self._known |= self._ask(free)
            for (key, mine), (unique, envelope) in zip(claims, wanted, strict=True):
                if self._ours.get(key) is not mine:
                    self._take(key, mine, unique, envelope)
        except StoreUnreachable as error:
            raise _untakable(error) from error
        except (BrokerUnreachable, NotUnique):
            self.give_up()
            self._count()
            raise

    def _take(self, key: str, mine: Claim, unique: Unique, envelope: Envelope) -> None:
        why = ""
        while True:
            holder = self._holder(key, mine)
            if holder == mine.job and (key in self._ours or not unique.replaces):
                self._ours[key] = mine
                return
            if holder is None:
                why = f"another submit with the unique key {key!r} has not ended, or its producer died"
            elif self._is_revoked(holder, unique):
                why = f"job {holder}, which has the unique key {key!r}, was revoked and has not ended"
            elif self._meets(holder, key, unique, envelope):
                self.held[mine.job] = holder
                self._counts += _counted(unique, envelope, holder)
                return
            else:
                why = f"job {holder}, which has the unique key {key!r}, can't be replaced: a worker has it, or too many"
                why += " others wait before it"
            if time.monotonic() + LOOK > self._until:
                raise BrokerUnreachable(f"{why}; stored: no", stored="no", fix="Submit it again in a few seconds.")
            time.sleep(LOOK)

    def _is_revoked(self, holder: str, unique: Unique) -> bool:
        """Whether the job that has the key will never begin: a worker had it when it was revoked."""
        if unique.holds not in ("start", "turn") or unique.period is not None:
            return False
        return self._app.store.get([order_key(Kind.REVOKE, holder)]) != [None]

    def _meets(self, holder: str, key: str, unique: Unique, envelope: Envelope) -> bool:
        """Whether the job that has the key stands for this one from now on. Raises NotUnique."""
        if unique.conflict == "reject":
            self._counts = _counted(unique, envelope, holder)
            raise NotUnique(f"job {holder} has the unique key {key!r}; nothing was stored", job=holder)
        if not unique.replaces:
            return True
        return self._app.publisher.replace(holder, envelope, self._app.store.now(), self._until)

    def _holder(self, key: str, mine: Claim) -> str | None:
        """Who has key now; None when that is not decided yet."""
        if key not in self._ours and key not in self._known:
            self._known |= self._ask({key: mine})
        return self._ours[key].job if key in self._ours else self._known.pop(key)

    def _ask(self, wanted: Mapping[str, Claim]) -> dict[str, str | None]:
        """Claim keys that nobody has; who has the others, in one or two round trips, more where a producer died."""
        writes, lasts = list[Write](), self._lasts
        for key, mine in wanted.items():
            unique, claim, job, said = unique_key(key), claim_key(key), mine.job.encode(), encode(mine)
            writes += [
                Write(claim, said, REMEMBERED, unless=(unique, NOBODY), must=(claim, None)),
                # Not only after the first: an earlier submit of this job may have claimed it.
                Write(unique, job, lasts, unless=(unique, job), must=(claim, said)),
            ]
        made = iter(self._app.store.write(writes))
        others = list[str]()
        for key, (claimed, held) in zip(wanted, zip(made, made, strict=True), strict=True):
            if claimed:
                self._taken.add(key)
            if held:
                self._ours[key] = wanted[key]
            else:
                others.append(key)
        return self._found(others)

    def _found(self, keys: Sequence[str]) -> dict[str, str | None]:
        """Who has keys that others have claimed."""
        asked = [name for key in keys for name in (unique_key(key), claim_key(key))]
        values = iter(self._app.store.get(asked) if asked else [])
        pairs = zip(values, values, strict=True)
        return {key: self._decided(key, holder, claimed) for key, (holder, claimed) in zip(keys, pairs, strict=True)}

    def _decided(self, key: str, holder: bytes | None, claimed: bytes | None) -> str | None:
        theirs = decode_claim(claimed)
        if theirs is None or (holder is not None and holder != theirs.job.encode()):
            return None if holder is None else text(holder)
        return None if holder is not None else self._inherited(key, theirs)

    @property
    def _lasts(self) -> float:
        """Seconds after which this submit is over, the answer to confirm() included."""
        return max(0.0, self._until - time.monotonic()) + self._app.store.timeout

    def _inherited(self, key: str, theirs: Claim) -> str | None:
        """The job of a submit that is over and was never confirmed, if it was stored and has not ended."""
        unique, claim = unique_key(key), claim_key(key)
        job, said = theirs.job.encode(), encode(theirs)
        # Hold the key for it first: whoever ends it while we look frees that.
        self._app.store.write([Write(unique, job, self._lasts, unless=(unique, job), must=(claim, said))])
        # It may be set aside while its type is paused, or buried, and be put back while we look.
        queues = [
            theirs.queue,
            theirs.queue + PARKED,
            *([theirs.queue + BURIED] if theirs.buried else []),
            theirs.queue,
        ]
        stored = self._app.publisher.has(queues, theirs.job, self._until)
        # Without the claim it was a worker that took the job meanwhile, and has confirmed it or told its end.
        end = Write(unique, job if stored else None, alive=claim, must=(unique, job))
        self._app.store.write([end, Write(claim, None, must=(claim, said))])
        return theirs.job if stored else None

    def confirm(self) -> None:
        """The jobs are stored: hold their keys until they end."""
        writes: list[Write] = []
        for key, mine in self._ours.items():
            unique, claim, job, said = unique_key(key), claim_key(key), mine.job.encode(), encode(mine)
            # A loss of power may undo this: then it is a claim again of which nobody knows, and the next submit looks.
            writes.append(Write(unique, job, must=(unique, job), durable=False))
            writes.append(Write(claim, None, must=(claim, said), durable=False))
        try:
            if writes:
                self._app.store.write([*writes, *self._counts])
            else:
                self._count()
        except StoreUnreachable as error:
            message = f"the job is stored, but nobody knows whether its unique key is held: {error}; stored: yes"
            raise BrokerUnreachable(message, stored="yes", fix="Submit the same job again.") from error

    def _count(self) -> None:
        """Count those who found their keys held; a count is not worth an error."""
        with suppress(StoreUnreachable):
            if self._counts and time.monotonic() < self._until:
                self._app.store.write(self._counts)

    def give_up(self) -> None:
        """The jobs were surely not stored: let others have their keys, now if there is time, else when they look."""
        writes: list[Write] = []
        for key in self._taken:
            unique, claim, said = unique_key(key), claim_key(key), encode(self._ours[key])
            writes += [Write(unique, None, must=(claim, said)), Write(claim, None, must=(claim, said))]
        try:
            if writes and time.monotonic() < self._until:
                self._app.store.write(writes)
        except StoreUnreachable:
            return


def _counted(unique: Unique, envelope: Envelope, holder: str) -> list[Write]:
    """That a submit found its key held; nothing where it met itself."""
    if holder == envelope.id:
        return []
    submitted = envelope.headers.get("submitted") or made_at(envelope.id) or SYSTEM.now()
    return duplicate.counted(envelope.queue, unique.conflict, holder, submitted)


def _claim(unique: Unique, envelope: Envelope) -> Claim:
    return Claim(envelope.id, envelope.queue, unique.holds == "gone")
