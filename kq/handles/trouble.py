"""Troubles: what a human is to be told of, in groups of what failed alike, counted where it happens.

A worker that buries jobs writes down a case of each group, and how many it has buried of it, in the same step as
their ends and before the broker is told: what is buried is told of, whatever dies. That is one write for each group in
a batch, whatever waits or lies buried; nobody ever looks through that. Control reads the counts and makes alerts of
them (`kq.control.bell`), and a worker sends these (`kq.alert`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from kq.clock import new_id
from kq.state.store import Store, Write
from kq.values.failure import group_of
from kq.values.job import HIGHEST, Job, Settings
from kq.values.reading import reader
from kq.values.record import encode
from kq.values.redaction import redacted_text

#: Seconds that a group is remembered after its last case; then it is new again.
KEEP = 7 * 86400.0
#: Seconds after which a worker writes another case down, so that one lasts as long as the counts.
AGAIN = 86400.0
#: Characters of a traceback, of which the end says most.
TRACEBACK = 4000
CASES, COUNTS = "trouble:", "troubles:"
#: The job type of alerts.
ALERT = "kq.alert"


class Trouble(msgspec.Struct, frozen=True, omit_defaults=True):
    """A case of a group. error, traceback, call: without secrets. at: seconds since the epoch.

    worker, code: where it happened, with which version of the application.
    """

    type: str
    exception: str
    place: str = ""
    queue: str = ""
    job: str = ""
    error: str = ""
    traceback: str = ""
    call: str = ""
    at: float = 0.0
    worker: str = ""
    code: str = ""

    @property
    def id(self) -> str:
        """The same for all cases of the group."""
        return hashlib.sha256("\0".join([self.type, self.exception, self.place]).encode()).hexdigest()[:16]


class Count(msgspec.Struct, frozen=True):
    """How many cases one worker had since it joined, and when the last of them was."""

    number: int
    last: float


class Alert(msgspec.Struct, frozen=True):
    """What is told. groups: the same for programs; rule: where it is about one, what there is to know of that.

    See docs/control.md.
    """

    id: str
    subject: str
    text: str
    groups: list[dict[str, Any]] = []
    rule: dict[str, Any] | None = None

    def job(self, app: str) -> Job[None]:
        """The job that tells it. Submitted again it is the same one. app: by whose workers."""
        settings = Settings(queue=queue_of(app), priority=HIGHEST)
        said = {} if self.rule is None else {"rule": self.rule}
        return Job(self.id, ALERT, (self.subject, self.text, self.groups), said, settings=settings)


def queue_of(app: str) -> str:
    """The queue of an app's alerts, which all its workers take where alerts are wanted."""
    return f"kq-alerts-{re.sub(r'[^a-zA-Z0-9_.-]+', '-', app)[:60]}"


def trouble_of(type: str, error: str, traceback: str) -> Trouble:
    """The group that a failure belongs to, with this one as its case."""
    error, shown = redacted_text(error), redacted_text(traceback)
    return Trouble(type, *group_of(error, traceback), error=error, traceback=shown[-TRACEBACK:])


def case_write(trouble: Trouble, alive: str | None = None) -> Write:
    """Writes trouble down, in the place of an earlier case."""
    return Write(CASES + trouble.id, encode(trouble), KEEP, alive)


def count_write(id: str, who: str, count: Count, alive: str | None = None) -> Write:
    """Writes down how many cases of a group who had: in all, so that it may be repeated."""
    return Write(f"{COUNTS}{id}:{who}", encode(count), KEEP, alive)


def tell(store: Store, trouble: Trouble) -> None:
    """Let a human be told of something that is no job's failure."""
    store.write([case_write(trouble), count_write(trouble.id, new_id(), Count(1, trouble.at))])


def counts_of(rows: Mapping[str, bytes]) -> dict[str, dict[str, Count]]:
    """Counts by group and by who counted. rows: what the store has that begins with COUNTS."""
    found: dict[str, dict[str, Count]] = {}
    for key, value in rows.items():
        id, _, who = key.removeprefix(COUNTS).partition(":")
        if (count := decode_count(value)) is not None:
            found.setdefault(id, {})[who] = count
    return found


decode_trouble = reader(Trouble)
decode_count = reader(Count)
