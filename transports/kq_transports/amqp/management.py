"""Looking at the messages of RabbitMQ, and taking them out by id, with AMQP alone.

Who looks takes the messages for a moment, on a connection of its own; when it closes they are back at their
places, marked as redelivered. AMQP knows no ids: finding one reads the queue, up to MOST messages of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from amqp import spec
from kombu.transport import base

from kq_transports.amqp.connection import Connection
from kq_transports.amqp.frames import ack_frame
from kq_transports.amqp.message import DUE_HEADER, Arrival, Message, properties_of
from kq_transports.amqp.presence import HOLDER, Answer, Held, Question, chosen, expel, roll_call
from kq_transports.amqp.question import Request, Side, ask_all
from kq_transports.engine import Arguments, Counts, EngineError, Lease, State
from kq_transports.envelope import COUNT_HEADER
from kq_transports.management import Browsed

#: So many messages of a queue are looked at, at most.
MOST = 10_000
#: So many are asked for at once.
PAGE = 500


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
        held = sum(holder.held.get(queue, 0) for holder in self._ask(Question()).holders)
        return Counts(ready, link.delays.count(queue), held)

    def browse(self, queue: str, state: State = "ready", limit: int = 100, offset: int = 0) -> list[Browsed]:
        """Messages of queue in the order in which they will be delivered.

        Of what is delayed, MOST are looked at. What a frozen process holds is not seen.
        """
        if state == "held":
            self._link.topology.find(queue)
            found = self._ask(Question(queue, offset + limit)).messages
            return [browsed(held.arrived, queue, "held", held.holder) for held in found][offset : offset + limit]
        with self._peek() as peek:
            if state == "ready":
                return [browsed(each, queue) for each in peek.ready(queue, min(MOST, offset + limit))][offset:]
            delayed = [browsed(each, queue, "delayed") for each in peek.delayed(queue)]
            return sorted(delayed, key=lambda each: each.due or 0)[offset : offset + limit]

    def find(self, queue: str, ids: Sequence[str]) -> list[Browsed]:
        """Those messages of queue that have one of ids, in any state."""
        found = [
            browsed(held.arrived, queue, "held", held.holder) for held in self._ask(Question(queue, MOST, ids)).messages
        ]
        with self._peek() as peek:
            delayed = [browsed(each, queue, "delayed") for each in peek.delayed(queue)]
            ready = [browsed(each, queue) for each in peek.ready(queue, MOST)]
        return found + [each for each in delayed + ready if each.id in set(ids)]

    def remove(self, queue: str, ids: Sequence[str]) -> list[str]:
        """Take ready or delayed messages out for good; returns the ids of those that were."""
        wanted = set(ids)
        with self._peek() as peek:
            found = {each.tag: properties_of(each).get("message_id", "") for each in peek.all(queue)}
            gone = {tag: id for tag, id in found.items() if id in wanted}
            peek.end(list(gone))
        return list(dict.fromkeys(gone.values()))

    def leases(self) -> list[Lease]:
        """Every connection that holds messages, or may, and answers."""
        now = time.time()
        return [
            Lease(holder.name, now + holder.lease, sum(holder.held.values()))
            for holder in self._ask(Question()).holders
        ]

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

    def _ask(self, question: Question) -> Answer:
        """What all connections say. Those of this process are asked in person: they may wait for this very thread."""
        link = self._link
        ours = link.siblings()
        said = roll_call(link.second(), question, {one.name for one in ours})
        held = [Held(one.name, arrived) for one in ours for arrived in chosen(question, one.holdings())]
        return Answer([one.holder() for one in ours] + said.holders, held + said.messages)

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

    def ready(self, queue: str, limit: int) -> list[Arrival]:
        """The first messages of queue."""
        number = min(limit, self._connection.topology.find(queue).message_count)
        return list(self._got(queue, number))

    def delayed(self, queue: str) -> list[Arrival]:
        """What waits for queue, the shortest waits first: a message that climbs meanwhile is met further up."""
        delays = self._connection.delays
        self._connection.topology.find(queue)
        rungs, found = delays.names(queue), list[Arrival]()
        # A broker that was just started counts none in its quorum queues: try each of them once.
        waiting = {rung: max(1, number) for rung, number in delays.counts(rungs).items()}
        while waiting and len(found) < MOST:
            for rung, number in waiting.items():
                found += self._got(rung, min(number, MOST - len(found)))
            # Again, until nothing is left that moved on to a rung we had passed.
            waiting = {rung: number for rung, number in delays.counts(rungs).items() if number}
        return found

    def all(self, queue: str) -> list[Arrival]:
        """What waits for queue, then what is ready in it."""
        return self.delayed(queue) + self.ready(queue, MOST)

    def end(self, tags: Sequence[int]) -> None:
        """Take these off their queues for good."""
        frames = b"".join(ack_frame(self.channel_id, tag, False) for tag in tags)
        self.link.write(frames, time.monotonic() + self.link.options.timeout, self)

    def _got(self, queue: str, number: int) -> Iterator[Arrival]:
        """The first messages of queue."""
        answers = [spec.Basic.GetOk, spec.Basic.GetEmpty]
        ask: list[Request] = [(spec.Basic.Get, "Bsb", (0, queue, False))] * number
        for begin in range(0, number, PAGE):
            for got in ask_all(self, ask[begin : begin + PAGE], answers):
                if len(got) > 1:
                    tag, redelivered, exchange, key, _, method = got
                    yield Arrival(self, queue, "", tag, redelivered, exchange, key, method.header, method.body)


def browsed(arrived: Arrival, queue: str, state: State = "ready", holder: str = "") -> Browsed:
    """What arrived, as somebody who looks at queue sees it."""
    message = Message(arrived)
    headers, properties = message.headers, message.properties
    due = None
    if state == "delayed":
        due = properties_of(arrived).get("application_headers", {}).get(DUE_HEADER, 0) / 1000
    headers.pop(HOLDER, None)
    count = headers.pop(COUNT_HEADER, 0)
    return Browsed(
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
        holder=holder,
    )
