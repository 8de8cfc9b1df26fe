"""Looking at queues and changing what waits there: what control needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import kombu
from kombu.exceptions import ChannelError

from kq.broker.letters import Seen, Swap, prepared
from kq.broker.link import Broker, establish
from kq.broker.queues import BURIED, ORDERS, declare_missing, declare_to_consume, holds_jobs
from kq.broker.translation import quietly, translated
from kq.errors import BrokerError, BrokerUnreachable
from kq_transports import engine, seen
from kq_transports.engine import Load


class Inspector:
    """Looks at queues and moves messages by id, without taking part. Not thread-safe.

    It makes no broker where there is none: every verb raises BrokerUnreachable then.
    """

    def __init__(self, broker: Broker, timeout: float | None = None) -> None:
        """timeout: seconds that connecting, and each verb, may take; submit_timeout by default."""
        self._broker = broker
        self._timeout = timeout
        self._connection: kombu.Connection | None = None

    @property
    def traits(self) -> engine.Traits:
        """What this broker can do beyond the contract."""
        return self._broker.traits

    @property
    def _connected(self) -> kombu.Connection:
        if self._connection is None:
            self._connection = self._broker.connection(timeout=self._timeout, look=True)
            establish(self._connection)
        return self._connection

    @property
    def _manager(self) -> Any:
        return self._connected.manager

    def queues(self) -> dict[str, bool]:
        """Names of all queues, in order, and whether each is a singleton queue."""
        with translated(self._broker.address):
            found = sorted(self._manager.queues().items())
            return {queue: bool(arguments.get("x-single-active-consumer")) for queue, arguments in found}

    def probable(self, queue: str) -> Iterator[str]:
        """queue, and then all other queues, for who looks for a job that waits and may have gone to another."""
        yield queue
        for name in self.queues():
            if name != queue and holds_jobs(name) and not name.endswith(BURIED):
                yield name

    def count(self, queue: str) -> engine.Counts:
        """How many messages of queue are ready, delayed and held; zeros when there is no such queue."""
        with translated(self._broker.address):
            try:
                counts: engine.Counts = self._manager.count(queue)
            except (engine.NotFound, ChannelError):
                return engine.Counts()
            return counts

    def survey(self) -> dict[str, Load]:
        """What waits in every queue, and how long the oldest job of each has been ready, in one round trip."""
        with translated(self._broker.address):
            return dict(self._manager.survey())

    def browse(self, queue: str, state: engine.State, limit: int = 100, offset: int = 0) -> list[Seen]:
        """Messages of queue in the order of delivery."""
        with translated(self._broker.address):
            try:
                return list(self._manager.browse(queue, state, limit, offset))
            except (engine.NotFound, ChannelError):
                return []

    def find(self, queue: str, ids: Sequence[str]) -> list[Seen]:
        """Those messages of queue that have one of ids."""
        with translated(self._broker.address):
            try:
                return list(self._manager.find(queue, ids))
            except (engine.NotFound, ChannelError):
                return []

    def has(self, queue: str, id: str) -> bool:
        """Whether queue has a message of that id; where there is no broker yet there is none."""
        with translated(self._broker.address):
            try:
                return bool(self._manager.find(queue, [id]))
            except (engine.NotFound, engine.Absent, ChannelError):
                return False

    def remove(self, queue: str, ids: Sequence[str]) -> list[str]:
        """Take waiting or delayed messages out for good; returns the ids that were removed."""
        with translated(self._broker.address):
            try:
                return list(self._manager.remove(queue, ids))
            except (engine.NotFound, ChannelError):
                return []

    def delete(self, queue: str) -> bool:
        """End a queue that has no messages; False when it has some, or somebody consumes it."""
        with translated(self._broker.address):
            try:
                self._connected.default_channel.queue_delete(queue, if_unused=True, if_empty=True)
            except engine.NotFound:
                return True
            except ChannelError:
                return False
            return True

    def swap(self, queue: str, swaps: Sequence[Swap]) -> list[bool]:
        """Take messages off queue that wait and are still as they were seen, and store others instead, in one step.

        False for each that is gone, is held, or has changed. Raises BrokerUnreachable, whose .stored says whether it
        may have been done, or BrokerFull.
        """
        with translated(self._broker.address):
            channel = self._connected.default_channel
            queues = {each.queue for swap in swaps for each in swap.publish}
            declare_missing(channel, queues, set(), self._broker.singletons)
            asked = [
                seen.Swap(
                    cast(Any, swap.seen),
                    [(each.queue, prepared(channel, each)) for each in swap.publish],
                    swap.keeps_due,
                )
                for swap in swaps
            ]
            return list(self._manager.swap(queue, asked))

    def misfits(self, queues: Iterable[str]) -> list[BrokerError]:
        """What is wrong with those of queues that are there, and were declared otherwise than kq declares them."""
        found: list[BrokerError] = []
        for queue in sorted(set(queues)):
            try:
                with translated(self._broker.address), self._connected.channel() as channel:
                    if self._is_there(queue) and queue in self._broker.singletons:
                        declare_to_consume(channel, queue, self._broker.singletons)
                    elif self._is_there(queue):
                        declare_missing(channel, [queue], set())
            except BrokerUnreachable:
                raise
            except BrokerError as error:
                found.append(error)
        return found

    def _is_there(self, queue: str) -> bool:
        try:
            self._manager.count(queue)
        except (engine.NotFound, ChannelError):
            return False
        return True

    def leases(self) -> list[engine.Lease]:
        with translated(self._broker.address):
            return list(self._manager.leases())

    def expel(self, name: str) -> bool:
        """End a worker's connection from outside: its jobs go back in the same step."""
        with translated(self._broker.address):
            return bool(self._manager.expel(name))

    def nudge(self, token: str) -> None:
        """Tell all workers that live to look at their orders, and to answer under token (promise C15)."""
        with translated(self._broker.address), self._connected.channel() as channel:
            channel.exchange_declare(ORDERS, "fanout", durable=True, auto_delete=False)
            channel.basic_publish(channel.prepare_message(token), exchange=ORDERS)

    def facts(self) -> dict[str, str]:
        """What the server says of itself, for people."""
        with translated(self._broker.address):
            return dict(self._manager.facts())

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            quietly(connection.close)
