"""The unique key of a job as facts in the state store: who holds it, and when it is let go of.

`unique:<key>` names the job that others join or replace, `turn:<key>` the one that runs before them. Whoever takes a
message out of a queue says first that what holds the key is in doubt: should he die, the next submit looks for the job.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from kq.state.store import Write
from kq.values.record import Claim, claim_key, encode, turn_key, unique_key

#: Seconds that a claim of which nobody knows what became is remembered.
REMEMBERED = 7 * 86400.0
#: Seconds that a key is held for a job whose message somebody is taking out of its queue.
IN_DOUBT = 15.0


class Lock(msgspec.Struct, frozen=True):
    """What the message of a job says of its unique key. at_least: an instant by the state store's clock."""

    key: str
    job: str
    queue: str
    holds: str = ""
    at_least: float = 0.0

    @classmethod
    def of(cls, headers: Mapping[str, Any], job: str, queue: str) -> Lock | None:
        """The lock of a message, which may not be readable as a whole; None where it has no unique key."""
        key, at_least = headers.get("unique"), headers.get("unique_at_least")
        if not isinstance(key, str):
            return None
        since = float(at_least) if isinstance(at_least, int | float) else 0.0
        return cls(key, job, queue, str(headers.get("unique_until") or ""), since)

    def taken(self, alive: str, now: float) -> list[Write]:
        """What a worker writes that is about to start the job: its place, its turn where it needs one, then no claim.

        alive: the worker's lease. The first is refused when another job has the place; the second, where there is a
        turn, when another has that. Only who has its turn leaves the place to others.
        """
        unique, turn = unique_key(self.key), turn_key(self.key)
        mine = (unique, self._me)
        writes = [Write(unique, self._me, alive=alive, unless=mine)]
        if self.holds == "turn":
            writes.append(Write(turn, self._me, alive=alive, unless=(turn, self._me)))
            writes.append(Write(unique, None, alive=alive, unless=(turn, self._me), must=mine))
        elif self.holds == "start":
            writes.append(self._left(now, alive))
        return [*writes, self._unclaimed(alive)]

    def freed(self, now: float, alive: str | None = None, unless: tuple[str, bytes] | None = None) -> list[Write]:
        """What is written when the job has ended. now: by the state store's clock."""
        writes = [self._left(now, alive, unless)]
        if self.holds == "turn":
            turn = turn_key(self.key)
            writes.append(Write(turn, None, alive=alive, unless=unless, must=(turn, self._me)))
        return writes

    def held(self) -> Write:
        """Hold the place, unless another job does."""
        unique = unique_key(self.key)
        return Write(unique, self._me, unless=(unique, self._me))

    def claimed(self) -> list[Write]:
        """What is written before a job that does not hold its key is put into its queue; see KeyClaims."""
        unique, mine = unique_key(self.key), (unique_key(self.key), self._me)
        return [
            Write(unique, self._me, IN_DOUBT, unless=mine),
            Write(claim_key(self.key), self._said, REMEMBERED, must=mine),
        ]

    def doubted(self) -> list[Write]:
        """What is written before the job's message is taken out of its queue."""
        unique, turn = unique_key(self.key), turn_key(self.key)
        return [
            Write(claim_key(self.key), self._said, REMEMBERED, must=(unique, self._me)),
            Write(unique, self._me, IN_DOUBT, must=(unique, self._me)),
            Write(turn, self._me, IN_DOUBT, must=(turn, self._me)),
        ]

    def confirmed(self) -> list[Write]:
        """What is written when the job is in its queue, after claimed() or doubted()."""
        unique, turn = unique_key(self.key), turn_key(self.key)
        return [
            Write(unique, self._me, must=(unique, self._me)),
            Write(turn, self._me, must=(turn, self._me)),
            self._unclaimed(),
        ]

    def removed(self, now: float) -> list[Write]:
        """What is written when the job is not in its queue any more, after doubted()."""
        return [*self.freed(now), self._unclaimed()]

    @property
    def _me(self) -> bytes:
        return self.job.encode()

    @property
    def _said(self) -> bytes:
        return encode(Claim(self.job, self.queue, self.holds == "gone"))

    def _unclaimed(self, alive: str | None = None) -> Write:
        claim = claim_key(self.key)
        return Write(claim, None, alive=alive, must=(claim, self._said))

    def _left(self, now: float, alive: str | None = None, unless: tuple[str, bytes] | None = None) -> Write:
        """Leave the place, now or when the period is over."""
        unique, rest = unique_key(self.key), self.at_least - now
        return Write(
            unique,
            self._me if rest > 0 else None,
            rest if rest > 0 else None,
            alive,
            unless,
            (unique, self._me),
        )
