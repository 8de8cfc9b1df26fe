"""The queues of kq, and how each of them is declared."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

from kq.errors import BrokerError
from kq.values.job import OTHERS
from kq_transports import engine

#: Every queue of kq is declared like this, so that all of them keep promise C5; and a singleton queue with this too.
QUEUE_ARGUMENTS = {"x-max-priority": 9}
SINGLE = {"x-single-active-consumer": True}
BURIED = ".buried"
#: Where jobs of a type that is paused wait, beside their queue.
PARKED = ".paused"
#: The fanout exchange through which workers are told to look at their orders.
ORDERS = "kq.orders"


def holds_jobs(queue: str) -> bool:
    """Whether a queue of the broker is one of an application, or beside one."""
    return not queue.startswith(OTHERS)


def home_of(queue: str) -> str:
    """The queue that one is beside, for those that are buried or parked; itself, where it is none of these."""
    return queue.removesuffix(BURIED).removesuffix(PARKED)


def declare_missing(
    channel: Any, queues: Iterable[str], declared: set[str], singletons: Container[str] = frozenset()
) -> None:
    """Declare those of queues that were not declared before, as kq declares its queues.

    Who publishes may not know which are singletons: a queue that is there as the other kind stays so.
    """
    for queue in queues:
        if queue not in declared:
            try:
                declare(channel, queue, single=queue in singletons)
            except engine.Mismatch as error:
                if not _is_there(channel, queue, single=queue not in singletons):
                    raise error from None
            declared.add(queue)


def declare_to_consume(channel: Any, queue: str, singletons: Container[str]) -> None:
    """Declare queue, in which who consumes must not be mistaken. Raises BrokerError when it is of the other kind."""
    single = queue in singletons
    try:
        declare(channel, queue, single=single)
    except engine.Mismatch as error:
        if not _is_there(channel, queue, single=not single):
            raise
        kinds = ["is an ordinary queue of the broker, but here singleton=True says that one job of it runs at a time"]
        kinds += ["is a singleton queue of the broker, but no job type here says singleton=True of it"]
        raise BrokerError(
            f"queue {queue!r} {kinds[not single]}",
            fix=f"When nothing is left in it: kq queues rm {queue}. Or give the job types another queue=.",
        ) from error


def declare(channel: Any, queue: str, *, single: bool) -> None:
    """Declare queue as kq declares its queues."""
    arguments = {**QUEUE_ARGUMENTS, **SINGLE} if single else QUEUE_ARGUMENTS
    channel.queue_declare(queue, durable=True, auto_delete=False, arguments=arguments)


def _is_there(channel: Any, queue: str, *, single: bool) -> bool:
    """Whether a queue that exists is of that kind."""
    try:
        declare(channel, queue, single=single)
    except engine.Mismatch:
        return False
    return True
