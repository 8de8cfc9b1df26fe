"""What the parts of a supervisor stand on together."""

from __future__ import annotations

from dataclasses import dataclass

from kq.clock import Clock
from kq.state.store import Store
from kq.worker.plan import Plan
from kq.worker.skew import Skew


@dataclass(frozen=True, slots=True)
class Ground:
    """What a worker is to do, where, and by which clock. indexed: whether the broker knows its messages by id.

    covers: whether what the broker is told brings to the disk what the state store was told before: they are one.
    """

    plan: Plan
    host: str
    store: Store
    clock: Clock
    skew: Skew
    indexed: bool
    covers: bool = False
