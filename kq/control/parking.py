"""Parking: putting jobs of a type that was paused back into their queue.

Each goes over in one step with its end in the parking queue, as anything that a worker settles: when this process dies
halfway, the others are still parked (promises C2, C16).
"""

from __future__ import annotations

from collections.abc import Collection
from math import ceil

from kq.app import App
from kq.broker import PARKED, Delivery, Inspector, Session, Settlement
from kq.clock import new_id
from kq.values.message import Envelope

#: So many jobs go over in one step.
BATCH = 200
#: Seconds without a delivery after which somebody else has what was counted.
SILENCE = 2.0


def put_back(app: App, inspector: Inspector, parked: str, types: Collection[str]) -> int:
    """Move the jobs of types from a parking queue to the queue that it belongs to; returns how many.

    They keep their priority and, among themselves, their order. They stand behind their equals in the queue.
    """
    waiting = inspector.count(parked).ready
    if not waiting:
        return 0
    arrived: list[Delivery] = []
    moved, others = 0, 0
    session = Session(app.broker, f"resume-{new_id()}", app.lease, {parked: BATCH}, arrived.append)
    try:
        while moved + others < waiting and _comes(session):
            mine = [Settlement(each, (_envelope(each),)) for each in arrived if each.headers.get("type") in types]
            others += len(arrived) - len(mine)
            moved += len(mine) - len(session.settle(mine))
            arrived.clear()
            session.prefetch(parked, others + BATCH)  # those of other types are held until the end
            session.beat()
    finally:
        session.close()
    return moved


def _comes(session: Session) -> bool:
    """Whether there is a delivery within SILENCE seconds; the lease is kept meanwhile, which may be shorter."""
    parts = ceil(3 * SILENCE / session.lease)
    for _ in range(parts):
        if session.next(SILENCE / parts):
            return True
        session.beat()
    return False


def _envelope(parked: Delivery) -> Envelope:
    headers = {name: value for name, value in parked.headers.items() if not name.startswith("x-")}
    return Envelope(parked.id, parked.queue.removesuffix(PARKED), parked.body, headers, parked.priority)
