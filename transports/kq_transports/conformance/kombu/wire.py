"""A network that fails between a client and its broker. For transports whose broker is a server.

WireSuite needs a `wire`: something before the server that can be told to misbehave.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Protocol

import kombu
import pytest

from kq_transports.conformance.kombu.world import (
    DEADLINE,
    HEARTBEAT,
    MOMENT,
    SILENCE,
    SINGLE,
    Connect,
    Declare,
    Inbox,
    KombuWorld,
    Place,
    bodies,
    drain,
    publish,
)

LEASE = 2  # seconds
TIMEOUT = 0.5  # seconds that one call to the broker may take here


class Wire(Protocol):
    """A network that misbehaves on command."""

    port: int

    def cut(self) -> None:
        """Reset every open connection; new ones work."""

    def freeze(self) -> None:
        """Be a black hole until restore(); what was sent arrives late."""

    def forget(self) -> None:
        """Leave every open connection half-open."""

    def refuse(self) -> None:
        """Reset every connection, new ones too, until restore()."""

    def restore(self) -> None:
        """Be a good network again."""


class WireSuite(KombuWorld):
    """Run it beside KombuSuite; url() is the server's own, and the fixture `wire` leads to the same one."""

    def through(self, wire: Wire) -> Place:
        """How to connect through wire."""
        raise NotImplementedError

    @pytest.fixture
    def shaky(self, wire: Wire) -> Place:
        """How to connect through the wire, with little patience."""
        place = self.through(wire)
        return Place(place.url, {**place.options, "timeout": TIMEOUT})

    def test_a_consumer_survives_flaps_and_loses_nothing(
        self, connection: kombu.Connection, shaky: Place, wire: Wire, queue: str
    ) -> None:
        words = [f"m{i}" for i in range(200)]
        publish(connection, queue, *words)
        with Stubborn(shaky, queue) as consumer:
            for i in range(0, len(words), 20):
                consumer.work(words[i])
                wire.cut()
            consumer.work(*words)

    def test_a_consumer_survives_an_outage(
        self, connection: kombu.Connection, shaky: Place, wire: Wire, queue: str
    ) -> None:
        with Stubborn(shaky, queue) as consumer:
            publish(connection, queue, "a")
            consumer.work("a")
            wire.refuse()
            publish(connection, queue, "b")
            threading.Timer(0.7, wire.restore).start()
            consumer.work("b")

    def test_a_consumer_survives_a_black_hole(
        self, connection: kombu.Connection, shaky: Place, wire: Wire, queue: str
    ) -> None:
        with Stubborn(shaky, queue) as consumer:
            publish(connection, queue, "a")
            consumer.work("a")
            wire.freeze()
            publish(connection, queue, "b")
            threading.Timer(1.5, wire.restore).start()
            consumer.work("b")

    def test_a_consumer_finds_out_that_its_connection_is_half_open(
        self, connection: kombu.Connection, shaky: Place, wire: Wire, queue: str
    ) -> None:
        with Stubborn(shaky, queue) as consumer:
            publish(connection, queue, "a")
            consumer.work("a")
            wire.forget()
            publish(connection, queue, "b")
            consumer.work("b")

    def test_a_publish_into_a_black_hole_ends_with_an_error_in_time(
        self, connection: kombu.Connection, shaky: Place, wire: Wire, queue: str
    ) -> None:
        with shaky.connect() as publisher:
            publish(publisher, queue, "a")
            wire.freeze()
            begin = time.monotonic()
            with pytest.raises(publisher.connection_errors):
                publish(publisher, queue, "b")
            assert time.monotonic() - begin < 5 * TIMEOUT
            wire.restore()
        assert "a" in bodies(Inbox(connection, queue).rest()).split()

    def test_a_publish_that_is_retried_through_a_black_hole_is_stored_once(
        self, connection: kombu.Connection, shaky: Place, wire: Wire, queue: str
    ) -> None:
        with shaky.connect() as publisher:
            publish(publisher, queue, "a")
            wire.freeze()
            threading.Timer(1.5, wire.restore).start()
            until = time.monotonic() + DEADLINE
            while time.monotonic() < until:
                try:
                    publish(publisher, queue, "b")
                    break
                except publisher.connection_errors:
                    reconnect(publisher)
        got = bodies(Inbox(connection, queue).rest(3 * MOMENT)).split()
        if self.traits(connection).indexed:
            assert got == ["a", "b"]
        else:
            assert set(got) == {"a", "b"}

    def test_an_answer_that_comes_late_is_not_taken_for_another(
        self, connection: kombu.Connection, shaky: Place, wire: Wire, declare: Declare, queue: str
    ) -> None:
        full = declare("full", **{"x-max-length": 1, "x-overflow": "reject-publish"})
        publish(connection, full, "a")
        with shaky.connect() as publisher:
            channel = publisher.channel()
            producer = kombu.Producer(channel, serializer="json", auto_declare=False)
            errors = errors_of(publisher)
            wire.freeze()
            with pytest.raises(errors):
                producer.publish("b", routing_key=queue, message_id="b")
            wire.restore()
            with pytest.raises(errors):
                producer.publish("c", routing_key=full, message_id="c")

    def test_a_lease_outlives_a_short_cut_or_its_loss_is_known(
        self, connect: Connect, connection: kombu.Connection, shaky: Place, wire: Wire, queue: str
    ) -> None:
        publish(connection, queue, "a")
        with shaky.connect(heartbeat=10) as worker:
            (message,) = Inbox(worker, queue).take()
            wire.cut()
            errors = errors_of(worker)
            try:
                message.ack()
                worker.heartbeat_check()
                worker.drain_events(timeout=MOMENT)
            except TimeoutError:
                settled = True
            except errors:
                settled = False
            with suppress(*errors):
                worker.close()
        left = bodies(Inbox(connection, queue).rest(2 * MOMENT))
        assert (settled, left) in [(True, ""), (False, "a")]

    def test_nobody_is_next_before_the_lease_of_who_was_cut_off_is_over(
        self, connection: kombu.Connection, shaky: Place, wire: Wire, declare: Declare
    ) -> None:
        single = declare("single", **SINGLE)
        publish(connection, single, "a", "b")
        with shaky.connect(heartbeat=LEASE) as worker:
            assert bodies(Inbox(worker, single, prefetch=1, single=True).take()) == "a"
            heir = Inbox(connection, single, single=True)
            began = time.monotonic()
            worker.heartbeat_check()
            wire.forget()
            assert bodies(heir.take(2, within=SILENCE + 1)) == "a b"
            assert time.monotonic() - began >= LEASE * 0.9 - TIMEOUT / 10  # a beat is skipped soon after another
            with suppress(*errors_of(worker)):
                worker.close()


class Stubborn:
    """A consumer that connects again whatever happens, as a worker does. seen: every word that came."""

    def __init__(self, place: Place, queue: str) -> None:
        self.seen: set[str] = set()
        self._place, self._queue = place, queue
        self._errors = errors_of(kombu.Connection(place.url))
        self._connection: kombu.Connection | None = None

    def __enter__(self) -> Stubborn:
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()

    def work(self, *words: str) -> None:
        """Consume and acknowledge until words have come, through any trouble."""
        until = time.monotonic() + DEADLINE
        while not self.seen.issuperset(words):
            assert time.monotonic() < until, f"{set(words) - self.seen} did not come"
            try:
                self._some()
            except self._errors:
                self._end()
                threading.Event().wait(0.05)  # no storm of connections

    def _some(self) -> None:
        if self._connection is None:
            self._connection = self._place.connect(HEARTBEAT)
            self._inbox = Inbox(self._connection, self._queue, prefetch=10)
        drain(self._connection, 0.2)
        self._connection.heartbeat_check()
        while self._inbox.messages:
            message = self._inbox.messages.pop(0)
            self.seen.add(message.payload)
            message.ack()

    def _end(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*self._errors):
                connection.close()


def errors_of(connection: kombu.Connection) -> tuple[type[BaseException], ...]:
    """What a transport says that may be raised when the broker or the way to it fails."""
    return (*connection.connection_errors, *connection.channel_errors)


def reconnect(connection: kombu.Connection) -> None:
    """Begin anew, as Kombu's ensure() does."""
    with suppress(*connection.connection_errors):
        connection.collect()
        connection.connect()
