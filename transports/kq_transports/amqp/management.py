"""Looking at the messages of RabbitMQ, and taking them out by id, with AMQP alone.

Who looks takes the messages for a moment, on a connection of its own; when it closes they are back at their
places, marked as redelivered. AMQP knows no ids: finding one reads the queue, up to MOST messages of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from amqp import spec
from kombu.transport import base

from kq_transports.amqp.connection import Connection
from kq_transports.amqp.frames import ack_frame
from kq_transports.amqp.message import DUE_HEADER, Arrival, Message
from kq_transports.amqp.presence import Holder, expel, roll_call
from kq_transports.amqp.question import Request, Side, ask_all
from kq_transports.amqp.values import unpacked_properties
from kq_transports.engine import Arguments, Counts, EngineError, Lease, State
from kq_transports.envelope import COUNT_HEADER
from kq_transports.management import Browsed

#: So many messages of a queue are looked at, at most.
MOST = 10_000
#: So many are asked for at once.
PAGE = 500


@dataclass(frozen=True, slots=True)
class Held:
    """A message that we hold while we look at it. tag: its delivery's."""

    tag: int
    message: Browsed


class Management(base.Management):
    """Looks at the broker of one connection."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport

    def queues(self) -> dict[str, Arguments]:
        """Every queue that was declared through this transport, and its arguments."""
        link = self._link
        return {name: arguments for name, arguments in link.registry.queues().items() if link.topology.has(name)}

    def count(self, queue: str) -> Counts:
        """How many messages of queue are ready, delayed and held. Those that a frozen process holds are not seen."""
        link = self._link
        ready = link.topology.find(queue).message_count
        held = sum(holder.held.get(queue, 0) for holder in self._holders())
        return Counts(ready, link.delays.count(queue), held)

    def browse(self, queue: str, state: State = "ready", limit: int = 100, offset: int = 0) -> list[Browsed]:
        """Messages of queue in the order in which they will be delivered.

        Of what is delayed, MOST are looked at. What others hold can't be seen: an empty list.
        """
        if state == "held":
            self._link.topology.find(queue)
            return []
        with self._peek() as peek:
            if state == "ready":
                seen = [held.message for held in peek.ready(queue, min(MOST, offset + limit))]
            else:
                seen = sorted((held.message for held in peek.delayed(queue)), key=lambda each: each.due or 0)
        return seen[offset : offset + limit]

    def find(self, queue: str, ids: Sequence[str]) -> list[Browsed]:
        """Those messages of queue that have one of ids and are ready or delayed."""
        wanted = set(ids)
        with self._peek() as peek:
            return [held.message for held in peek.all(queue) if held.message.id in wanted]

    def remove(self, queue: str, ids: Sequence[str]) -> list[str]:
        """Take ready or delayed messages out for good; returns the ids of those that were."""
        wanted = set(ids)
        with self._peek() as peek:
            found = [held for held in peek.all(queue) if held.message.id in wanted]
            peek.end([held.tag for held in found])
        return list(dict.fromkeys(held.message.id for held in found))

    def leases(self) -> list[Lease]:
        """Every connection that holds messages, or may, and answers."""
        now = time.time()
        return [Lease(holder.name, now + holder.lease, sum(holder.held.values())) for holder in self._holders()]

    def expel(self, name: str) -> bool:
        """End a connection from outside; what it held goes back. False when there is none of that name.

        Raises EngineError when its process does not listen; the broker ends it when its lease is over.
        """
        link = self._link
        for one in link.siblings():
            if one.name == name:
                one.end()
                return True
        return expel(link, name)

    def facts(self) -> dict[str, str]:
        """What the server says of itself, for people."""
        told = self._link.server_properties
        return {name: str(told[name]) for name in ("product", "version", "platform", "cluster_name") if name in told}

    def get_bindings(self, exchange: str = "") -> list[dict[str, str]]:
        raise EngineError("RabbitMQ does not tell bindings by AMQP; use rabbitmqctl list_bindings")

    def _holders(self) -> list[Holder]:
        link = self._link
        ours = [one.holder() for one in link.siblings()]
        return ours + roll_call(link.second(), {holder.name for holder in ours})

    @contextmanager
    def _peek(self) -> Iterator[Peek]:
        """Something to look through; all it took is back when it is closed, but for what it ended."""
        link = self._link
        own = Connection(link.client, link.address, replace(link.options, name="", lease=60.0), link.queue_type)
        own.connect()
        try:
            yield Peek(own)
        finally:
            own.close()

    @property
    def _link(self) -> Connection:
        link: Connection = self.transport.client.connection
        link.check()
        return link


class Peek(Side):
    """A channel that takes messages to look at them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        super().__init__(connection)

    def ready(self, queue: str, limit: int) -> list[Held]:
        """The first messages of queue."""
        number = min(limit, self._connection.topology.find(queue).message_count)
        return [self._held(queue, got, "ready") for got in self._got(queue, number)]

    def delayed(self, queue: str) -> list[Held]:
        """What waits for queue, the shortest waits first: a message that climbs meanwhile is met further up."""
        delays = self._connection.delays
        self._connection.topology.find(queue)
        held: list[Held] = []
        # Again, until nothing is left that moved on to a rung we had passed.
        while (waiting := delays.waiting(queue)) and len(held) < MOST:
            for rung, number in waiting.items():
                number = min(number, MOST - len(held))
                held += [self._held(queue, got, "delayed") for got in self._got(rung, number)]
        return held

    def all(self, queue: str) -> list[Held]:
        """What waits for queue, then what is ready in it."""
        return self.delayed(queue) + self.ready(queue, MOST)

    def end(self, tags: Sequence[int]) -> None:
        """Take these off their queues for good."""
        frames = b"".join(ack_frame(self.channel_id, tag, False) for tag in tags)
        self.link.write(frames, time.monotonic() + self.link.options.timeout, self)

    def _got(self, queue: str, number: int) -> Iterator[tuple[Any, ...]]:
        """The first messages of queue, as the broker gave them."""
        answers = [spec.Basic.GetOk, spec.Basic.GetEmpty]
        ask: list[Request] = [(spec.Basic.Get, "Bsb", (0, queue, False))] * number
        for begin in range(0, number, PAGE):
            for got in ask_all(self, ask[begin : begin + PAGE], answers):
                if len(got) > 1:
                    yield got

    def _held(self, queue: str, got: tuple[Any, ...], state: State) -> Held:
        tag, redelivered, exchange, key, _, method = got
        message = Message(queue, Arrival(self, "", tag, redelivered, exchange, key, method.header, method.body))
        headers, properties = message.headers, message.properties
        due = None
        if state == "delayed":
            told = unpacked_properties(method.header, 12).get("application_headers", {})
            due = told.get(DUE_HEADER, 0) / 1000
        count = headers.pop(COUNT_HEADER, 0)
        seen = Browsed(
            id=properties.get("message_id", ""),
            queue=queue,
            body=message.body,
            headers=headers,
            properties=properties,
            content_type=message.content_type or "",
            content_encoding=message.content_encoding or "",
            priority=properties.get("priority", 0),
            state=state,
            count=0 if state == "delayed" else count,
            due=due,
            holder="",
        )
        return Held(tag, seen)
