"""A job's message as it is after a human's act. Pure."""

from __future__ import annotations

import msgspec

from kq.broker import BURIED, PARKED, Seen
from kq.errors import MessageError
from kq.handles.act import BURIED_BY_HAND, KICKED, Act
from kq.values.job import Counters
from kq.values.message import OF_BURIED, Attempt, Envelope, Head, again, decode_head


def made(seen: Seen, act: Act) -> tuple[Envelope, ...]:
    """What takes the place of a message: nothing when act ends its job. Raises MessageError as buried() does."""
    if act.act == KICKED:
        return (kicked(seen, act),)
    return (buried(seen, act),) if act.act == BURIED_BY_HAND else ()


def kicked(seen: Seen, act: Act) -> Envelope:
    """A buried message as it goes back to its queue: with its id, its priority and its history, and counted anew.

    One that can't be read goes as it came. A deadline that is over is taken off: a human wants it to run.
    """
    queue = seen.queue.removesuffix(BURIED)
    try:
        head = _after(seen, act)
    except MessageError:
        stays = {name: value for name, value in seen.headers.items() if not name.startswith("x-")}
        headers = {name: value for name, value in stays.items() if name not in OF_BURIED}
        return Envelope(seen.id, queue, seen.body, headers, seen.priority)
    late = head.deadline is not None and head.deadline <= act.at
    head = msgspec.structs.replace(head.counting(Counters()), **dict.fromkeys(OF_BURIED))
    head = msgspec.structs.replace(head, deadline=None if late else head.deadline, due=act.at)
    return Envelope(seen.id, queue, seen.body, again(seen.headers, head), seen.priority)


def edited(seen: Seen, act: Act, body: bytes, priority: int, delay: float | None) -> Envelope:
    """A message with another body, where it is. delay: None for the one that it has.

    Raises MessageError when its headers can't be read.
    """
    head = _after(seen, act)
    if delay is not None:
        head = msgspec.structs.replace(head, due=act.at + delay)
    return Envelope(seen.id, seen.queue, body, again(seen.headers, head), priority, delay or 0.0)


def buried(seen: Seen, act: Act) -> Envelope:
    """A message that waits, as it is set aside. Raises MessageError when its headers can't be read."""
    error = f"buried by {act.by}: {act.reason}" if act.reason else f"buried by {act.by}"
    queue = seen.queue.removesuffix(PARKED)
    head = msgspec.structs.replace(_after(seen, act), error=error, buried=act.at, queue=queue)
    return Envelope(seen.id, queue + BURIED, seen.body, again(seen.headers, head), seen.priority)


def _after(seen: Seen, act: Act) -> Head:
    """Its head, with act in its history."""
    head = decode_head(seen.headers)
    line = Attempt(number=0, worker=act.by, started=act.at, ended=act.at, outcome=act.act, error=act.reason)
    return msgspec.structs.replace(head.after(line), repaired=head.repaired + 1)
