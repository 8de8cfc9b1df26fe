"""The audit trail: who did what to which job, queue or worker, when and why."""

from __future__ import annotations

import logging

import msgspec

from kq.clock import new_id
from kq.reading import reader
from kq.record import audit_key, encode
from kq.state.store import Store, Write

log = logging.getLogger("kq.audit")

#: Seconds that a line is kept, 30 days; what was done to a job also stays in its history.
KEEP = 30 * 86400.0


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


def line(act: Act) -> Write:
    """The trail's line about act, to be written before it is done: a crash must not leave an act without one."""
    return Write(audit_key(act.at, new_id()), encode(act), KEEP)


def read(store: Store, limit: int) -> list[Act]:
    """The latest acts, the newest first."""
    found = [_read(value) for _, value in store.scan("audit:", limit)]
    return [act for act in found if act is not None]


_read = reader(Act)
