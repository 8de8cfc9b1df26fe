"""Acts: what a human did, and what he is about to do to a job, as facts in the state store.

An act on a job is two changes, in two places: its message at the broker, and what is recorded of it here. So what is
meant is written down first and struck out last, and whoever finds it later can tell how far it came: the message is
where it was, or it is not (docs/decisions/0023-what-is-meant-is-written-down-first.md).
"""

from __future__ import annotations

import msgspec

from kq.broker import Seen
from kq.errors import BrokerError, BrokerUnreachable
from kq.state.store import Write
from kq.values.reading import reader
from kq.values.record import Record, digest, encode, job_key, meant_key

#: Seconds that is remembered what somebody meant to do, should nobody ever look.
REMEMBERED = 30 * 86400.0


class Act(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a human did. at: seconds since the epoch. changed: what of a job was edited, not how."""

    at: float
    by: str
    act: str
    job: str = ""
    type: str = ""
    queue: str = ""
    reason: str = ""
    changed: tuple[str, ...] = ()
    worker: str = ""
    effect: str = ""

    def __str__(self) -> str:
        what = f" ({', '.join(self.changed)})" if self.changed else ""
        return f"{self.by} {self.act} {self.about}{what}: {self.reason or 'no reason given'}"

    @property
    def about(self) -> str:
        """What it was done to."""
        if self.effect:
            return f"effect {self.effect}"
        if self.job:
            return f"{self.type} {self.job}".strip()
        return self.worker or (f"queue {self.queue}" if self.queue else f"type {self.type}")


class Meant(msgspec.Struct, frozen=True, omit_defaults=True):
    """An act on a job that is under way: what it is about to make of the job's message and record.

    id: of the job's message. at: when it was begun, by the state store's clock. place: the queue that the message is
    in; stamp: a digest of what tells it from one that has changed. record: how the job has ended, or lies, when it is
    done; of a kick, how it lay. keep: seconds that this is kept.
    """

    id: str
    at: float
    act: Act
    place: str
    stamp: str
    record: Record
    keep: float

    @property
    def token(self) -> tuple[str, bytes]:
        """What stands in the state store until it is done, or somebody else finishes it."""
        return meant_key(self.id), encode(self)

    def is_about(self, seen: Seen) -> bool:
        """Whether that is the message, where it was and as it was: nothing was done to it."""
        return seen.state != "held" and seen.queue == self.place and stamp_of(seen) == self.stamp

    def begun(self, standing: bytes | None) -> Write:
        """What is written before it is done. standing: what was meant before, and was not done."""
        key, mine = self.token
        return Write(key, mine, REMEMBERED, must=(key, standing))

    def undone(self, standing: bytes | None) -> Write:
        """What takes begun() back."""
        return Write(meant_key(self.id), standing, REMEMBERED, must=self.token)

    def done(self, before: bytes | None) -> list[Write]:
        """What is written when it is done. before: what is recorded of the job now."""
        return [self.told(before), Write(meant_key(self.id), None, must=self.token)]

    def told(self, before: bytes | None) -> Write:
        """What is recorded of the job when it is done. Refused when others have finished this, or told its end."""
        key, alive = job_key(self.id), meant_key(self.id)
        if self.act.act == KICKED:
            return Write(key, None, None, alive, must=(key, before))
        return Write(key, encode(self.record), self.keep, alive, must=(key, before))


def nothing_done(error: BrokerError) -> bool:
    """Whether an act at which the broker failed so was not done: what was meant by it is to be taken back."""
    return not isinstance(error, BrokerUnreachable) or error.stored == "no"


def stamp_of(seen: Seen) -> str:
    """What tells a message that was looked at from one that has changed."""
    return digest(seen.stamp)


#: The acts that leave a job there; all others on a message end it, or edit it.
KICKED, BURIED_BY_HAND = "kicked", "buried"

decode_meant = reader(Meant)
