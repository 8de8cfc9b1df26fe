"""The audit trail: who did what to which job, queue or worker, when and why."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from kq.clock import new_id
from kq.handles.act import Act
from kq.state.store import Store, Write
from kq.values.reading import reader
from kq.values.record import audit_key, encode

log = logging.getLogger("kq.audit")

#: Seconds that a line is kept, 30 days; what was done to a job also stays in its history.
KEEP = 30 * 86400.0


@contextmanager
def leaving(store: Store, act: Act) -> Iterator[None]:
    """Write the trail's line about act, which the block does, and say in the log that it was done."""
    store.write([line(act)])
    yield
    log.info("%s", act)


def leave(store: Store, act: Act) -> None:
    """The same at once, of what was done, or is whatever comes now."""
    store.write([line(act)])
    log.info("%s", act)


def line(act: Act) -> Write:
    """The trail's line about act, to be written before it is done: a crash must not leave an act without one."""
    return Write(audit_key(act.at, new_id()), encode(act), KEEP)


def read(store: Store, limit: int) -> list[Act]:
    """The latest acts, the newest first."""
    found = [_read(value) for _, value in store.scan("audit:", limit)]
    return [act for act in found if act is not None]


_read = reader(Act)
