"""Where a job goes that its place failed: to another worker, while a better one lives. Pure: no clock, no I/O.

Nothing is written down for it but the job's history, which says where bad storage, or a lack of memory, ended it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kq.values.message import Attempt

#: Endings that say something of the place, and nothing of the job.
OF_THE_PLACE = frozenset({"bad storage", "out of memory"})
#: Seconds after the last such ending here during which a job is passed on; then it runs here again after all.
PATIENCE = 600.0
#: A job is passed on after a part of the time that it has been, so some 30 times at most. In seconds.
PART, SHORTEST, LONGEST = 0.25, 0.5, 30.0


@dataclass(frozen=True, slots=True)
class Place:
    """A worker and its host. A worker's name is its host, its process, and a part of each of its sessions' own."""

    worker: str
    host: str

    @property
    def process(self) -> str:
        return self.worker.rpartition("-")[0]


def of_type(history: Sequence[Attempt], type: str) -> Sequence[Attempt]:
    """What a job's type met with; not what others did that it runs instead of."""
    return [attempt for attempt in history if attempt.type in ("", type)]


def failed_here(history: Sequence[Attempt], here: Place) -> float | None:
    """When a job last met with bad storage on this host, by this host's clock; None when it never did."""
    ends = [attempt.ended for attempt in history if attempt.outcome in OF_THE_PLACE and attempt.host == here.host]
    return max(ends, default=None)


def wait_for_another(history: Sequence[Attempt], here: Place, others: Iterable[Place], now: float) -> float | None:
    """Seconds after which the job is to be offered again, so that a better place may take it; None: it runs here.

    others: the other workers that live and take jobs of its queue.
    """
    last = failed_here(history, here)
    if last is None or not 0 <= now - last < PATIENCE:
        return None
    mine = _badness(history, here)
    if all(_badness(history, other) >= mine for other in others):
        return None
    return min(LONGEST, max(SHORTEST, PART * (now - last)))


def _badness(history: Sequence[Attempt], place: Place) -> int:
    """0: nothing is known against it; 1: the job failed on its host; 2: in its very process."""
    failed = [Place(attempt.worker, attempt.host) for attempt in history if attempt.outcome in OF_THE_PLACE]
    if any(place.process == each.process for each in failed):
        return 2
    return int(any(place.host == each.host for each in failed))
