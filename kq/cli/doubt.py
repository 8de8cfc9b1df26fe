"""Names on a command line that the broker does not know: refused where they must exist, doubted where they may come."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection

from kq.cli.frame import warn
from kq.cli.near import did_you_mean
from kq.control import Control
from kq.errors import NotFound


def must_know_queue(control: Control, queue: str) -> None:
    """Raise NotFound when there is no such queue."""
    known = control.queue_names()
    if queue not in known:
        fix = did_you_mean(queue, known) or "kq queues ls names them."
        raise NotFound(f"there is no queue {queue!r}", fix=fix)


def doubt_queue(control: Control, queue: str | None) -> None:
    """Say on stderr when there is no such queue yet: it may be misspelt."""
    if queue:
        doubt_among(control.queue_names(), queue)


def doubt_among(known: Collection[str], queue: str) -> None:
    """Say on stderr when there was no such queue: it may be misspelt. known: those that there were."""
    if queue not in known:
        warn(f"there is no queue {queue!r} yet", did_you_mean(queue, known))


def doubt_type(control: Control, type: str | None, is_meant: Callable[[str, str], bool] = operator.eq) -> None:
    """Say on stderr when neither the application nor a worker knows a job type: it may be misspelt.

    is_meant: whether type means a name that is known.
    """
    known = control.type_names() if type else []
    if type and known and not any(is_meant(name, type) for name in known):
        warn(f"no worker that lives knows the job type {type!r}", did_you_mean(type, known))
