"""What AMQP lacks: looking at messages without taking them, and taking them out by id.

Kombu's place for it is `connection.manager`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

from kombu.transport import base

from kq_transports import engine
from kq_transports.connection import Connection
from kq_transports.engine import Arguments, Counts, Engine, Lease, Load, Seen, State
from kq_transports.envelope import opened
from kq_transports.seen import Browsed, Swap

P = ParamSpec("P")
R = TypeVar("R")


class Management(base.Management):
    """Looks at the broker of one connection."""

    def queues(self) -> dict[str, Arguments]:
        """Every queue and its arguments."""
        return self._ask(self._engine.queues)

    def count(self, queue: str) -> Counts:
        """How many messages of queue are ready, delayed and held."""
        return self._ask(self._engine.count, queue)

    def survey(self) -> dict[str, Load]:
        """Every queue, as of one moment; see Engine.survey()."""
        return self._ask(self._engine.survey)

    def browse(self, queue: str, state: State = "ready", limit: int = 100, offset: int = 0) -> list[Browsed]:
        """Messages of queue in the order in which they will be delivered."""
        return [browsed(seen) for seen in self._ask(self._engine.browse, queue, state, limit, offset)]

    def find(self, queue: str, ids: Sequence[str]) -> list[Browsed]:
        """Those messages of queue that have one of ids."""
        return [browsed(seen) for seen in self._ask(self._engine.find, queue, ids)]

    def remove(self, queue: str, ids: Sequence[str]) -> list[str]:
        """Take ready or delayed messages out for good; returns the ids of those that were."""
        return self._ask(self._engine.remove, queue, ids)

    def swap(self, queue: str, swaps: Sequence[Swap]) -> list[bool]:
        """Take messages off queue that wait, as they were seen, and publish others instead; see Engine.swap()."""
        return self._ask(self._engine.swap, queue, [_stored(swap) for swap in swaps])

    def leases(self) -> list[Lease]:
        """Every connection that has a lease."""
        return self._ask(self._engine.leases)

    def expel(self, name: str) -> bool:
        """End a connection from outside; what it held goes back in the same step."""
        return self._ask(self._engine.expel, name)

    def facts(self) -> dict[str, str]:
        """What the server says of itself, for people."""
        return self._ask(self._engine.facts)

    def get_bindings(self, exchange: str = "") -> list[dict[str, str]]:
        """The queues bound to exchange, in Kombu's form."""
        _, bindings = self._ask(self._engine.bindings, exchange)
        return [{"source": exchange, "destination": each.queue, "routing_key": each.key} for each in bindings]

    @property
    def _link(self) -> Connection:
        link: Connection = self.transport.client.connection
        return link

    @property
    def _engine(self) -> Engine:
        return self._link.engine

    def _ask(self, verb: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return self._link.ask(verb, *args, **kwargs)


def browsed(seen: Seen) -> Browsed:
    """seen with its envelope opened."""
    head, body = opened(seen.id, seen.body)
    return Browsed(
        id=seen.id,
        queue=seen.queue,
        body=body,
        headers=head.h,
        properties=head.p,
        content_type=head.t or "",
        content_encoding=head.e or "",
        priority=seen.priority,
        state=seen.state,
        count=seen.count,
        due=seen.due,
        holder=seen.holder,
        stamp=seen.body,
    )


def _stored(swap: Swap) -> engine.Swap:
    messages = [each for queue, message in swap.messages for each in message.stored("", queue, [queue])]
    return engine.Swap(swap.seen.id, swap.seen.stamp, tuple(messages), swap.keeps_due)
