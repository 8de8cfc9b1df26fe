"""Unique keys while their jobs are submitted (promise C11): claimed before the publish, confirmed after it.

A key whose claim is neither confirmed nor given up is that of a submit which still goes on, or whose producer died, or
which does not know whether its job was stored. While it may go on others wait; afterwards they look into the broker. So
nobody is given a handle to a job that was never stored, and none gets in beside one that was.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing

from kq.errors import BrokerUnreachable
from kq.handle import Looks
from kq.message import Envelope
from kq.reading import text
from kq.record import Claim, claim_key, decode_claim, encode, unique_key
from kq.state.store import StoreUnreachable, Write

#: Seconds between two looks at a key that somebody else has claimed.
LOOK = 0.02
#: Seconds that a claim of which nobody knows what became is remembered.
REMEMBERED = 7 * 86400.0


class Claims:
    """The unique keys that one submit is about. until: when that submit ends, by the monotonic clock."""

    def __init__(self, app: Looks, wanted: Sequence[tuple[str, Envelope]], until: float) -> None:
        self._app = app
        self._until = until
        self._ours: dict[str, Claim] = {}  # by unique key
        self._taken: set[str] = set()  # keys that nobody held before
        #: For each job whose key another one has, the id of that one.
        self.held: dict[str, str] = {}
        try:
            for key, envelope in wanted:
                self._take(key, Claim(envelope.id, envelope.queue))
        except StoreUnreachable as error:
            raise BrokerUnreachable(f"can't take a unique key: {error}; stored: no", stored="no") from error
        except BrokerUnreachable:
            self.give_up()
            raise

    def _take(self, key: str, mine: Claim) -> None:
        while True:
            holder = self._ours[key].job if key in self._ours else self._claim(key, mine)
            if holder == mine.job:
                self._ours[key] = mine
                return
            if holder:
                self.held[mine.job] = holder
                return
            if time.monotonic() + LOOK > self._until:
                why = f"another submit with the unique key {key!r} has not ended, or its producer died"
                raise BrokerUnreachable(f"{why}; stored: no", stored="no", fix="Submit it again in a few seconds.")
            time.sleep(LOOK)

    def _claim(self, key: str, mine: Claim) -> str | None:
        """Who has key now; None when that is not decided yet."""
        unique, claim = unique_key(key), claim_key(key)
        job, said, lasts = mine.job.encode(), encode(mine), self._lasts
        free, alone = (unique, None), (claim, said)
        renewed, taken, _ = self._app.store.write(
            [
                Write(unique, job, lasts, must=alone),  # an earlier submit of this job has claimed it
                Write(claim, said, REMEMBERED, unless=alone, must=free),
                Write(unique, job, lasts, unless=alone, must=free),
            ]
        )
        if taken:
            self._taken.add(key)
        if taken or renewed:
            return mine.job
        holder, claimed = self._app.store.get([unique, claim])
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
        with closing(self._app.inspector()) as inspector:
            stored = inspector.has(theirs.queue, theirs.job)
        end = Write(unique, job if stored else None, must=(unique, job))
        self._app.store.write([end, Write(claim, None, must=(claim, said))])
        return theirs.job if stored else None

    def confirm(self) -> None:
        """The jobs are stored: hold their keys until they end."""
        writes: list[Write] = []
        for key, mine in self._ours.items():
            unique, claim, job, said = unique_key(key), claim_key(key), mine.job.encode(), encode(mine)
            writes += [Write(unique, job, must=(unique, job)), Write(claim, None, must=(claim, said))]
        try:
            if writes:
                self._app.store.write(writes)
        except StoreUnreachable as error:
            message = f"the job is stored, but nobody knows whether its unique key is held: {error}; stored: yes"
            raise BrokerUnreachable(message, stored="yes", fix="Submit the same job again.") from error

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
