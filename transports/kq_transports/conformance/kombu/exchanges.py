"""Queues and exchanges that processes share. Part of KombuSuite."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import kombu
import pytest

from kq_transports.conformance.kombu.world import (
    ARGUMENTS,
    SILENCE,
    SINGLE,
    Connect,
    Declare,
    Exchange,
    Inbox,
    KombuWorld,
    Place,
    bodies,
    hold,
    publish,
    send,
    speak,
)
from kq_transports.conformance.peer import peer

LEASE = 2  # seconds
PROMPT = 1.0  # seconds within which what happens at once has happened on a busy machine


class Routing(KombuWorld):
    """Exchanges and bindings live in the broker, not in a client."""

    def test_a_fanout_gives_each_queue_its_copy(
        self, connection: kombu.Connection, declare: Declare, exchange: Exchange
    ) -> None:
        queues = [declare(word) for word in ("one", "two", "three")]
        name = exchange("fanout", dict.fromkeys(queues[:2], ""))
        with connection.channel() as channel:
            send(channel, "", "a", exchange=name)
        assert [bodies(Inbox(connection, queue).rest()) for queue in queues] == ["a", "a", ""]

    def test_a_topic_goes_where_its_pattern_matches(
        self, connection: kombu.Connection, declare: Declare, exchange: Exchange
    ) -> None:
        star, hash, plain = declare("star"), declare("hash"), declare("plain")
        name = exchange("topic", {star: "job.*", hash: "job.#", plain: "job.done.mail"})
        with connection.channel() as channel:
            for key in ("job.done", "job", "job.done.mail", "other"):
                send(channel, key, key, exchange=name)
        seen = {queue: bodies(Inbox(connection, queue).rest()) for queue in (star, hash, plain)}
        assert seen == {star: "job.done", hash: "job.done job job.done.mail", plain: "job.done.mail"}

    def test_a_direct_exchange_goes_by_its_key(
        self, connection: kombu.Connection, declare: Declare, exchange: Exchange
    ) -> None:
        one, two = declare("one"), declare("two")
        name = exchange("direct", {one: "x", two: "y"})
        with connection.channel() as channel:
            send(channel, "y", "a", exchange=name)
        assert [bodies(Inbox(connection, queue).rest()) for queue in (one, two)] == ["", "a"]

    def test_bindings_hold_before_any_consumer_is_there(
        self, connect: Connect, declare: Declare, exchange: Exchange
    ) -> None:
        queue = declare()
        name = exchange("fanout", {queue: ""})
        publisher = connect()
        with publisher.channel() as channel:
            send(channel, "", "a", exchange=name)
        publisher.close()
        assert bodies(Inbox(connect(), queue).take()) == "a"

    def test_another_process_publishes_by_bindings_that_it_never_saw(
        self, place: Place, connection: kombu.Connection, declare: Declare, exchange: Exchange
    ) -> None:
        self.requires(connection, "shared")
        by_topic, by_fanout = declare("topic"), declare("fanout")
        topic, fanout = exchange("topic", {by_topic: "a.*"}), exchange("fanout", {by_fanout: ""})
        for name, queue in ((topic, by_topic), (fanout, by_fanout)):
            with peer(speak, place, name, "a.b", "hello") as process:
                assert process.receive() == "said"
                assert bodies(Inbox(connection, queue).take()) == "hello"
                process.join()

    def test_an_unbound_queue_gets_no_more(self, connection: kombu.Connection, queue: str, exchange: Exchange) -> None:
        name = exchange("direct", {queue: "x"})
        with connection.channel() as channel:
            channel.queue_unbind(queue, name, "x")
            send(channel, "x", "a", exchange=name)
        assert Inbox(connection, queue).rest() == []

    def test_acking_one_copy_leaves_the_other(
        self, connect: Connect, connection: kombu.Connection, declare: Declare, exchange: Exchange
    ) -> None:
        one, two = declare("one"), declare("two")
        name = exchange("topic", {one: "#", two: "#"})
        with connection.channel() as channel:
            send(channel, "k", "a", exchange=name)
        first, second = connect(), connect()
        Inbox(second, two).take()
        Inbox(first, one).take()[0].ack()
        first.close()
        second.close()
        assert bodies(Inbox(connection, two).take()) == "a"
        assert Inbox(connection, one).rest() == []

    def test_one_channel_may_hold_both_copies(
        self, connection: kombu.Connection, declare: Declare, exchange: Exchange
    ) -> None:
        one, two = declare("one"), declare("two")
        name = exchange("fanout", {one: "", two: ""})
        with connection.channel() as channel:
            send(channel, "", "a", exchange=name)
        inbox = Inbox(connection, one, two)
        copies = inbox.take(2)
        assert len({message.delivery_tag for message in copies}) == 2
        copies[0].ack()
        copies[1].requeue()
        assert redelivered_from(inbox) == copies[1].delivery_info["routing_key"]


def redelivered_from(inbox: Inbox) -> object:
    """The routing key of the message that comes again."""
    (again,) = inbox.take()
    return again.delivery_info["routing_key"]


class Declaring(KombuWorld):
    """Queues, their arguments, and what is refused."""

    def test_a_queue_that_is_not_there_is_an_error_for_who_asks(self, connection: kombu.Connection) -> None:
        with pytest.raises(connection.channel_errors):
            connection.channel().queue_declare("nowhere.at.all", passive=True)

    def test_declaring_tells_how_many_messages_there_are(self, connection: kombu.Connection, queue: str) -> None:
        publish(connection, queue, *"abc")
        with connection.channel() as channel:
            assert channel.queue_declare(queue, passive=True).message_count == 3

    def test_declaring_with_other_arguments_is_refused(self, connection: kombu.Connection, queue: str) -> None:
        with pytest.raises(connection.channel_errors):
            connection.channel().queue_declare(queue, durable=True, auto_delete=False, arguments={"x-max-priority": 3})

    def test_declaring_again_is_harmless(
        self, connection: kombu.Connection, other: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, "a")
        with other.channel() as channel:
            channel.queue_declare(queue, durable=True, auto_delete=False, arguments=dict(ARGUMENTS))
        assert bodies(Inbox(other, queue).take()) == "a"

    def test_a_message_for_no_queue_is_an_error_for_its_publisher(self, connection: kombu.Connection) -> None:
        with pytest.raises((*connection.channel_errors, *connection.connection_errors)):
            publish(connection, "nowhere.at.all", "a", mandatory=True)

    def test_a_message_for_a_full_queue_is_an_error_for_its_publisher(
        self, connection: kombu.Connection, declare: Declare
    ) -> None:
        queue = declare("small", **{"x-max-length": 2, "x-overflow": "reject-publish"})
        publish(connection, queue, "a", "b")
        with pytest.raises((*connection.channel_errors, *connection.connection_errors)):
            publish(connection, queue, "c")
        assert bodies(Inbox(connection, queue).rest()) == "a b"

    @pytest.mark.parametrize("how", ["alone", "in a batch", "in a transaction"])
    def test_a_message_that_is_too_large_is_an_error_for_its_publisher(
        self, connect: Connect, queue: str, how: str
    ) -> None:
        connection = connect(max_message_size=1000)
        channel = connection.channel()
        send_all: Callable[[], None] = {
            "alone": lambda: send(channel, queue, "x" * 1000, message_id="large"),
            "in a batch": lambda: batched(channel, queue, "a", "x" * 1000),
            "in a transaction": lambda: together(channel, queue, "a", "x" * 1000),
        }[how]
        with pytest.raises(connection.channel_errors, match="max_message_size"):
            send_all()
        publish(connection, queue, "b")
        inbox = Inbox(connection, queue)
        assert bodies(inbox.take()) == "b"
        assert inbox.rest() == []

    def test_purge_empties_a_queue(self, connection: kombu.Connection, queue: str) -> None:
        publish(connection, queue, *"abc")
        with connection.channel() as channel:
            assert channel.queue_purge(queue) == 3
        assert Inbox(connection, queue).rest() == []

    def test_an_exclusive_queue_ends_with_its_connection(self, connect: Connect, connection: kombu.Connection) -> None:
        owner = connect()
        name = f"mine.{uuid.uuid4().hex[:8]}"
        owner.channel().queue_declare(name, durable=False, exclusive=True, auto_delete=True)
        publish(owner, name, "a")
        owner.close()
        with pytest.raises(connection.channel_errors):
            connection.channel().queue_declare(name, passive=True)

    def test_an_entity_of_kombu_declares_itself(self, connection: kombu.Connection) -> None:
        exchange = kombu.Exchange(f"ex.{uuid.uuid4().hex[:8]}", "topic", durable=True)
        queue = kombu.Queue(f"q.{uuid.uuid4().hex[:8]}", exchange, routing_key="a.#", max_priority=9)
        with connection.channel() as channel:
            bound = queue(channel)
            bound.declare()
            kombu.Producer(channel, exchange, routing_key="a.b.c", serializer="json").publish("hello")
            got = bound.get()
            assert got is not None
            assert got.payload == "hello"
            got.ack()
            bound.delete()
            exchange(channel).delete()


class SingleActive(KombuWorld):
    """A queue with x-single-active-consumer has one consumer at a time."""

    @pytest.fixture
    def single(self, declare: Declare) -> str:
        """The name of such a queue."""
        return declare("single", **SINGLE)

    def test_the_first_consumer_gets_all_until_it_ends(
        self, connect: Connect, connection: kombu.Connection, single: str
    ) -> None:
        first, second = connect(), connect()
        one = Inbox(first, single, prefetch=2, single=True)
        one.rest()
        two = Inbox(second, single, prefetch=2, single=True)
        publish(connection, single, *"abc")
        assert bodies(one.take(2)) == "a b"
        assert two.rest() == []
        first.close()
        closed = time.monotonic()
        again = two.take(2)
        assert time.monotonic() - closed < PROMPT
        assert bodies(again) == "a b"
        for message in again:
            message.ack()
        assert bodies(two.take()) == "c"

    def test_a_cancelled_consumer_makes_room(
        self, connection: kombu.Connection, other: kombu.Connection, single: str
    ) -> None:
        one = Inbox(connection, single, single=True)
        publish(connection, single, "a")
        one.take()[0].ack()
        two = Inbox(other, single, single=True)
        one.consumer.cancel()
        publish(connection, single, "b")
        assert bodies(two.take(within=PROMPT)) == "b"

    def test_what_a_channel_gives_back_by_closing_is_the_first_that_the_next_consumer_gets(
        self, connection: kombu.Connection, other: kombu.Connection, single: str
    ) -> None:
        publish(connection, single, *"abc")
        one = Inbox(connection, single, prefetch=1, single=True)
        assert bodies(one.take()) == "a"
        two = Inbox(other, single, single=True)
        one.channel.close()
        assert bodies(two.take(3, within=PROMPT)) == "a b c"

    def test_nobody_is_next_before_the_lease_of_a_process_that_was_killed_is_over(
        self, place: Place, connection: kombu.Connection, single: str
    ) -> None:
        self.requires(connection, "shared")
        publish(connection, single, "a", "b")
        with peer(hold, place, single, 1, LEASE, True) as process:
            assert process.receive() == "a"
            held = time.monotonic()
            process.kill()
            assert bodies(Inbox(connection, single, single=True).take(2, within=SILENCE)) == "a b"
            assert time.monotonic() - held >= LEASE / 2  # it had begun before the message came

    def test_who_comes_back_is_not_waited_for_by_himself_when_he_left_in_good_order(
        self, connect: Connect, connection: kombu.Connection, single: str
    ) -> None:
        publish(connection, single, "a")
        for _ in range(3):
            worker = connect()
            assert bodies(Inbox(worker, single, single=True).take(within=PROMPT)) == "a"
            worker.close()


def batched(channel: Any, queue: str, *words: str) -> None:
    """Publish words to queue in one batch."""
    producer = kombu.Producer(channel, serializer="json", auto_declare=False)
    with producer.batch(max_size=len(words)):
        for word in words:
            producer.publish(word, routing_key=queue)


def together(channel: Any, queue: str, *words: str) -> None:
    """Publish words to queue in one transaction."""
    channel.tx_select()
    for word in words:
        send(channel, queue, word, message_id=word[:9])
    channel.tx_commit()
