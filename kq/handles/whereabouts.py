"""Where a job is by now: what is recorded of its end, then the place of its message at the broker."""

from __future__ import annotations

from typing import Protocol

from kq.broker import BURIED, PARKED, Broker, Inspector, Seen
from kq.errors import MessageError
from kq.state.store import Store
from kq.values.job import State
from kq.values.message import decode_head
from kq.values.reading import text
from kq.values.record import decode_record, job_key, place_key


class Looks(Protocol):
    """Where one looks: the app."""

    @property
    def broker(self) -> Broker: ...

    @property
    def store(self) -> Store: ...

    def inspector(self) -> Inspector: ...

    @property
    def keep(self) -> float: ...


def find_state(job: str, queue: str, store: Store, inspector: Inspector) -> State:
    """Where job is: first what is known of its end, then where the broker has it. queue: that it was submitted to."""
    if record := decode_record(store.get([job_key(job)])[0]):
        return record.state
    queue = place_of(job, queue, store)
    for message in inspector.find(queue, [job]):
        return state_of(message)
    for place, state in ((BURIED, State.BURIED), (PARKED, State.PAUSED)):
        if inspector.find(queue + place, [job]):
            return state
    # It may have ended between the first look and the second; else it is held where we cannot look.
    record = decode_record(store.get([job_key(job)])[0])
    return State.RESERVED if record is None else record.state


def place_of(job: str, queue: str, store: Store) -> str:
    """The queue that a job is in by now which was submitted to queue: what runs instead may run elsewhere."""
    place = store.get([place_key(job)])[0]
    return queue if place is None else text(place)


def state_of(message: Seen) -> State:
    """The state of a job whose message was found in its queue."""
    if message.queue.endswith(BURIED):
        return State.BURIED
    if message.queue.endswith(PARKED):
        return State.PAUSED
    if message.state == "held":
        return State.RESERVED
    if message.state == "ready":
        return State.READY
    try:
        return State.RETRYING if decode_head(message.headers).counters.attempts else State.DELAYED
    except MessageError:
        return State.DELAYED
