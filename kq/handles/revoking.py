"""Revoking: ending a job from outside, where it waits or by an order to the worker that has it (promise C10)."""

from __future__ import annotations

from kq.broker import BURIED, PARKED, Inspector, Seen
from kq.clock import SYSTEM
from kq.errors import BrokerError
from kq.handles.act import Act, Meant, nothing_done, stamp_of
from kq.handles.lock import Lock
from kq.handles.standing import Kind, Order, give, nudge
from kq.handles.whereabouts import Looks, place_of
from kq.state.store import Write
from kq.values.job import State
from kq.values.record import Record, decode_record, job_key, meant_key, place_key


def revoke(job: str, queue: str, order: Order, app: Looks, inspector: Inspector) -> bool:
    """End a job of queue: take it out where it waits, else order it; False when it has ended or is not there."""
    queue = place_of(job, queue, app.store)
    for place in (queue, queue + PARKED):
        found = inspector.find(place, [job])
        if found and found[0].state != "held" and _taken_out(found[0], queue, order, app, inspector):
            return True
    if app.store.get([job_key(job)])[0] is not None or inspector.find(queue + BURIED, [job]):
        return False
    # A broker that does not index its messages may not show what a frozen worker holds: the order stands in any case.
    if inspector.traits.indexed and not inspector.find(queue, [job]):
        return False
    give(app.store, Kind.REVOKE, job, order)
    nudge(inspector)
    return True


def _taken_out(seen: Seen, queue: str, order: Order, app: Looks, inspector: Inspector) -> bool:
    """Take a waiting job out of its queue, and record its end; False when it is not there any more.

    Who dies in the middle leaves what he meant for control to finish, and the job's unique key in doubt.
    """
    store, lock = app.store, Lock.of(seen.headers, seen.id, queue)
    while True:
        record, standing = store.get([job_key(seen.id), meant_key(seen.id)])
        meant = _revoking(seen, queue, order, app) if app.keep and not _is_over(record) else None
        if meant is None or store.write([meant.begun(standing)])[0]:
            break
    if lock is not None:
        store.write(lock.doubted())
    undone = [] if meant is None else [meant.undone(standing)]
    undone += [] if lock is None else lock.confirmed()
    try:
        removed = bool(inspector.remove(seen.queue, [seen.id]))
    except BrokerError as error:
        if undone and nothing_done(error):
            store.write(undone)
        raise
    done = [] if meant is None else meant.done(record)
    done += [] if lock is None else lock.removed(store.now())
    done += [Write(place_key(seen.id), None)] if seen.headers.get("degraded_by") else []
    if after := done if removed else undone:
        store.write(after)
    return removed


def _revoking(seen: Seen, queue: str, order: Order, app: Looks) -> Meant:
    act = Act(SYSTEM.now(), order.by, "revoked", seen.id, queue=queue, reason=order.reason)
    record = Record(State.REVOKED, error=f"revoked before it started {order}", queue=queue)
    return Meant(seen.id, app.store.now(), act, seen.queue, stamp_of(seen), record, app.keep)


def _is_over(record: bytes | None) -> bool:
    known = decode_record(record)
    return known is not None and known.is_over
