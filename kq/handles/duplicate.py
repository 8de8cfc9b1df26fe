"""Duplicates: submits that found their unique key held. They are counted where that is found, in the state store.

By queue and by what they said of the conflict, for metrics; and by the job that holds the key, for who looks at it. A
submit that has its key to itself writes nothing of this.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec

from kq.state.store import Write
from kq.values.reading import number

#: The family of what is counted by queue.
FAMILY = "duplicates:"
#: Seconds after the latest duplicate for which counts are kept: of a queue, and of a job.
KEEP_QUEUE, KEEP_JOB = 30 * 86400.0, 86400.0


class Duplicates(msgspec.Struct, frozen=True):
    """How many submits found a unique key held by a job, and when the latest of them was; by the producer's clock."""

    count: int
    latest: float


def counted(queue: str, conflict: str, holder: str, at: float) -> list[Write]:
    """Count a submit to queue. conflict: what becomes of such a one; holder: the job that has the key."""
    count, latest = job_keys(holder)
    return [
        Write(f"{FAMILY}{conflict}:{queue}", b"1", KEEP_QUEUE, durable=False, adds=True),
        Write(count, b"1", KEEP_JOB, durable=False, adds=True),
        Write(latest, str(at).encode(), KEEP_JOB, durable=False),
    ]


def job_keys(holder: str) -> tuple[str, str]:
    """Where it is kept of a job: how many there were, and when the latest was."""
    return f"duplicate:{holder}:count", f"duplicate:{holder}:latest"


def of_job(values: Sequence[bytes | None]) -> Duplicates | None:
    """What stands under job_keys; None where there was no duplicate."""
    count, latest = values
    found = number(count)
    return Duplicates(int(found), number(latest)) if found else None


def by_queue(facts: Mapping[str, bytes]) -> dict[str, dict[str, int]]:
    """What stands in the family: for each queue how many there were, by what became of them."""
    found: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for key, value in facts.items():
        conflict, _, queue = key.removeprefix(FAMILY).partition(":")
        found[queue][conflict] = int(number(value))
    return dict(found)
