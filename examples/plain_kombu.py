"""Plain Kombu, without kq: a producer and a consumer on a broker that keeps AMQP's promises.

    python examples/plain_kombu.py
    python examples/plain_kombu.py kq-redis://localhost:6379/0

`import kq_transports` lets Kombu know the schemes kq-sqlite, kq-redis, kq-memory and kq-amqp. All that follows is
Kombu's own API; what Kombu's transports for Redis and SQL make of it, docs/kombu-transports.md tells.
"""

from __future__ import annotations

import contextlib
import sys
import uuid
from typing import Any

from kombu import Connection, Consumer, Producer, Queue

import kq_transports

kq_transports.register()

#: Seconds of silence after which a connection is dead.
HEARTBEAT = 1


def publish(connection: Connection, queue: Queue, *names: str, delay_ms: int = 0, **properties: Any) -> None:
    """Store a message for each name; stored on return. The header x-delay keeps it back in the broker."""
    headers = {"x-delay": delay_ms} if delay_ms else {}
    producer = Producer(connection, serializer="json")
    for name in names:
        producer.publish(name, routing_key=queue.name, declare=[queue], headers=headers, **properties)


def receive(connection: Connection, queue: Queue, number: int, prefetch: int = 10) -> list[Any]:
    """Take so many messages; they are this connection's until they are settled or it is dead."""
    messages: list[Any] = []
    with Consumer(connection, [queue], on_message=messages.append, prefetch_count=prefetch):
        while len(messages) < number:
            connection.drain_events(timeout=10)
    return messages


def names(messages: list[Any]) -> str:
    return ", ".join(message.payload for message in messages)


def order(connection: Connection, queue: Queue) -> None:
    """Priority 9 before 0, equals in order; what is delayed is stored in the broker and comes on time."""
    publish(connection, queue, "late", delay_ms=300, priority=9)
    publish(connection, queue, "low", priority=0)
    publish(connection, queue, "high", "second high", priority=9)
    messages = receive(connection, queue, 4)
    print("order:", names(messages))
    for message in messages:
        message.ack()


def give_back(connection: Connection, queue: Queue) -> None:
    """A message that is given back keeps its place, and says that it was delivered before."""
    publish(connection, queue, "one", "two", "three")
    first, *others = receive(connection, queue, 3, prefetch=3)
    first.requeue()
    for message in reversed(others):
        message.requeue()
    again = receive(connection, queue, 3, prefetch=3)
    print("given back:", names(again))
    print("delivered before:", [message.delivery_info["redelivered"] for message in again])
    for message in again:
        message.ack()


def lease(url: str, queue: Queue) -> None:
    """heartbeat_check() keeps what was delivered; a connection that misses it is dead, and others get it."""
    with Connection(url, heartbeat=HEARTBEAT) as living, Connection(url, heartbeat=HEARTBEAT) as frozen:
        publish(living, queue, "kept", "lost")
        (kept,), (lost,) = receive(living, queue, 1, prefetch=1), receive(frozen, queue, 1, prefetch=1)
        again: list[Any] = []
        with Consumer(living, [queue], on_message=again.append, prefetch_count=10):
            while not again:  # for a second here; a worker may go on like this for hours
                living.heartbeat_check()
                drain(living, HEARTBEAT / 4)
        print(f"the living one has {names([kept])}, and now {names(again)}")
        for message in (kept, *again):
            message.ack()
        try:
            lost.ack()
            drain(frozen, HEARTBEAT)
        except frozen.connection_errors:
            print("the frozen one is refused")


def drain(connection: Connection, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        connection.drain_events(timeout=seconds)


def main(url: str = "kq-sqlite:///plain.db") -> None:
    queue = Queue(f"plain-{uuid.uuid4().hex[:8]}", max_priority=9)
    with Connection(url) as connection:
        order(connection, queue)
        give_back(connection, queue)
        lease(url, queue)
        left = queue(connection.default_channel).delete()
        print("left:", left)


if __name__ == "__main__":
    main(*sys.argv[1:])

# prints: order: high, second high, low, late
# prints: given back: one, two, three
# prints: delivered before: [True, True, True]
# prints: the living one has kept, and now lost
# prints: the frozen one is refused
# prints: left: 0
