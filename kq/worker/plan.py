"""What a worker is to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """What a supervisor is to do. queues: names and how many jobs of each may run at a time.

    grace: seconds that running jobs get to finish when the worker is stopped. keep: seconds that is remembered
    how a job of no known type ended. unfit_after, unfit_within: it ends itself when bad storage ended so many different
    jobs within so many seconds; 0: never. alert: the job type that tells people of what it buries; "" where nobody
    wants to be told. accept: which job types run from which queues besides those that they are declared for,
    TYPE@QUEUE; see routes. remote_control: whether it obeys orders. remember: seconds that its events are remembered,
    of which there are most at most; 0: not at all.
    """

    queues: Mapping[str, int]
    slots: int
    lease: float
    grace: float = 30.0
    keep: float = 3600.0
    unfit_after: int = 0
    unfit_within: float = 60.0
    alert: str = ""
    accept: Sequence[str] = ()
    remote_control: bool = True
    remember: float = 0.0
    most: int = 10_000
