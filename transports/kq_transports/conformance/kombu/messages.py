"""Publishing, consuming, acknowledging, giving back. Part of KombuSuite."""

from __future__ import annotations

import socket
import threading
import time
from queue import SimpleQueue
from statistics import median

import kombu
import pytest

from kq_transports.conformance.kombu.world import (
    DEADLINE,
    Connect,
    Declare,
    Exchange,
    Inbox,
    KombuWorld,
    bodies,
    publish,
    redelivered,
    send,
)


class Consuming(KombuWorld):
    """A message's way from a producer to a consumer."""

    def test_what_is_published_is_received(self, connection: kombu.Connection, queue: str) -> None:
        publish(connection, queue, "a", headers={"x": [1, "ü", None], "y": {"z": 1.5}}, message_id="m1", priority=4)
        (got,) = Inbox(connection, queue).take()
        assert (got.payload, got.headers["x"], got.headers["y"]) == ("a", [1, "ü", None], {"z": 1.5})
        assert (got.content_type, got.content_encoding) == ("application/json", "utf-8")
        assert (got.properties["message_id"], got.properties["priority"]) == ("m1", 4)
        assert got.delivery_info["routing_key"] == queue

    def test_properties_of_a_request_come_along(self, connection: kombu.Connection, queue: str) -> None:
        publish(connection, queue, "a", reply_to="r", correlation_id="c", type="t")
        (got,) = Inbox(connection, queue).take()
        assert [got.properties.get(name) for name in ("reply_to", "correlation_id", "type")] == ["r", "c", "t"]

    @pytest.mark.parametrize("size", [0, 1, 200_000])
    def test_a_body_may_be_any_bytes(self, connection: kombu.Connection, queue: str, size: int) -> None:
        body = (bytes(range(256)) * (size // 256 + 1))[:size]
        with connection.channel() as channel:
            kombu.Producer(channel).publish(
                body, routing_key=queue, content_type="application/octet-stream", content_encoding="binary"
            )
        (got,) = Inbox(connection, queue).take()
        assert (got.body if isinstance(got.body, bytes) else got.body.encode()) == body
        assert got.content_type == "application/octet-stream"

    def test_messages_come_in_order(self, connection: kombu.Connection, queue: str) -> None:
        words = [f"m{i}" for i in range(100)]
        publish(connection, queue, *words)
        assert bodies(Inbox(connection, queue, prefetch=30).take(30)) == " ".join(words[:30])

    def test_a_higher_priority_comes_first_and_equals_in_order(self, connection: kombu.Connection, queue: str) -> None:
        for letter in "ab":
            for priority in range(10):
                publish(connection, queue, f"{letter}{priority}", priority=priority)
        expected = " ".join(f"{letter}{priority}" for priority in range(9, -1, -1) for letter in "ab")
        assert bodies(Inbox(connection, queue).take(20)) == expected

    def test_an_acknowledged_message_is_gone(self, connect: Connect, connection: kombu.Connection, queue: str) -> None:
        publish(connection, queue, "a", "b")
        consumer = connect()
        for message in Inbox(consumer, queue).take(2):
            message.ack()
        consumer.close()
        assert Inbox(connection, queue).rest() == []

    def test_acks_in_any_order_end_nothing_else(
        self, connect: Connect, connection: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, *"abcde")
        consumer = connect()
        got = Inbox(consumer, queue, prefetch=5).take(5)
        for place in (4, 1, 3):
            got[place].ack()
        consumer.close()
        assert bodies(Inbox(connection, queue).take(2)) == "a c"

    def test_a_consumer_that_sleeps_is_woken(
        self, connection: kombu.Connection, other: kombu.Connection, queue: str
    ) -> None:
        inbox, arrivals, spans = Inbox(connection, queue), SimpleQueue[float](), []

        def consume() -> None:
            for _ in range(10):
                inbox.take()[0].ack()
                arrivals.put(time.monotonic())

        sleeper = threading.Thread(target=consume)
        sleeper.start()
        for i in range(10):
            sleeper.join(0.03)  # let it fall asleep
            begin = time.monotonic()
            publish(other, queue, f"m{i}")
            spans.append(arrivals.get(timeout=DEADLINE) - begin)
        sleeper.join(DEADLINE)
        assert median(spans) < 0.1

    def test_each_message_goes_to_one_of_two_consumers(
        self, connection: kombu.Connection, other: kombu.Connection, queue: str
    ) -> None:
        one, two = Inbox(connection, queue, prefetch=5), Inbox(other, queue, prefetch=5)
        publish(connection, queue, *"abcdefghij")
        assert sorted(bodies(one.take(5) + two.take(5)).split()) == list("abcdefghij")

    def test_a_consumer_takes_from_all_its_queues(self, connection: kombu.Connection, declare: Declare) -> None:
        one, two = declare("one"), declare("two")
        inbox = Inbox(connection, one, two)
        publish(connection, one, "a")
        publish(connection, two, "b")
        assert sorted(bodies(inbox.take(2)).split()) == ["a", "b"]

    def test_a_queue_that_is_never_empty_starves_no_other(self, connection: kombu.Connection, declare: Declare) -> None:
        full, quiet = declare("full"), declare("quiet")
        publish(connection, full, *(f"m{i}" for i in range(60)))
        publish(connection, quiet, "seen")
        inbox = Inbox(connection, full, quiet, prefetch=1)
        for _ in range(30):
            (message,) = inbox.take()
            message.ack()
            if message.payload == "seen":
                return
        raise AssertionError("30 messages of one queue went before the only one of the other")

    def test_no_ack_needs_no_ack(self, connect: Connect, connection: kombu.Connection, queue: str) -> None:
        publish(connection, queue, "a")
        consumer = connect()
        assert bodies(Inbox(consumer, queue, no_ack=True).take()) == "a"
        consumer.close()
        assert Inbox(connection, queue).rest() == []

    def test_a_cancelled_consumer_gets_no_more(
        self, connection: kombu.Connection, other: kombu.Connection, queue: str
    ) -> None:
        inbox = Inbox(connection, queue)
        publish(other, queue, "a")
        (message,) = inbox.take()
        inbox.consumer.cancel()
        publish(other, queue, "b")
        assert inbox.rest() == []
        message.ack()
        assert bodies(Inbox(other, queue).take()) == "b"

    def test_one_message_may_be_fetched_without_consuming(self, connection: kombu.Connection, queue: str) -> None:
        publish(connection, queue, "a")
        with connection.channel() as channel:
            bound = kombu.Queue(queue, durable=True, channel=channel)
            got = bound.get()
            assert got is not None
            assert got.payload == "a"
            got.ack()
            publish(connection, queue, "b")
            assert bound.get(no_ack=True).payload == "b"
            assert bound.get() is None
        assert Inbox(connection, queue).rest() == []

    def test_waiting_ends_after_its_timeout(self, connection: kombu.Connection, queue: str) -> None:
        Inbox(connection, queue)
        begin = time.monotonic()
        with pytest.raises(socket.timeout):  # noqa: PT012
            while time.monotonic() < begin + DEADLINE:
                connection.drain_events(timeout=0.3)
        assert 0.28 <= time.monotonic() - begin < 1.0

    def test_an_idle_consumer_sleeps(self, connection: kombu.Connection, queue: str) -> None:
        inbox = Inbox(connection, queue)
        cpu = time.process_time()
        assert inbox.rest(1.0) == []
        assert time.process_time() - cpu < 0.1


class Prefetch(KombuWorld):
    """No more than the credit is out at a time."""

    def test_no_more_than_the_credit_comes_until_something_is_settled(
        self, connection: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, *"abcd")
        inbox = Inbox(connection, queue, prefetch=2)
        a, _ = inbox.take(2)
        assert inbox.rest() == []
        a.ack()
        assert bodies(inbox.take(1)) == "c"
        assert inbox.rest() == []

    def test_each_channel_has_its_own_credit(self, connection: kombu.Connection, declare: Declare) -> None:
        one, two = declare("one"), declare("two")
        first, second = Inbox(connection, one, prefetch=1), Inbox(connection, two, prefetch=2)
        publish(connection, one, "a", "b")
        publish(connection, two, "c", "d", "e")
        assert (bodies(first.take(1)), bodies(second.take(2))) == ("a", "c d")
        assert first.rest() + second.rest() == []

    def test_the_credit_may_be_raised(self, connection: kombu.Connection, queue: str) -> None:
        publish(connection, queue, *"abc")
        inbox = Inbox(connection, queue, prefetch=1)
        held = inbox.take(1)
        inbox.consumer.qos(prefetch_count=3)
        held[0].ack()
        assert bodies(inbox.take(2)) == "b c"

    def test_with_a_credit_of_one_priority_is_strict_at_every_delivery(
        self, connection: kombu.Connection, other: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, "low1", "low2")
        inbox = Inbox(connection, queue, prefetch=1)
        (low,) = inbox.take()
        publish(other, queue, "high", priority=9)
        low.ack()
        assert bodies(inbox.take()) == "high"


class GivingBack(KombuWorld):
    """What is not settled comes again, at its old place, and says so."""

    def test_closing_gives_back_in_order_and_marks(
        self, connect: Connect, connection: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, *"abcd")
        consumer = connect()
        Inbox(consumer, queue, prefetch=3).take(3)
        consumer.close()
        again = Inbox(connection, queue).take(4)
        assert (bodies(again), redelivered(again)) == ("a b c d", [True, True, True, False])

    def test_closing_a_channel_gives_back_what_it_held(self, connection: kombu.Connection, queue: str) -> None:
        publish(connection, queue, "a")
        inbox = Inbox(connection, queue)
        inbox.take()
        inbox.channel.close()
        again = Inbox(connection, queue).take()
        assert (bodies(again), redelivered(again)) == ("a", [True])

    def test_a_rejected_message_comes_again_at_its_place(self, connection: kombu.Connection, queue: str) -> None:
        publish(connection, queue, "a", priority=5)
        publish(connection, queue, "b", "c", "d")
        inbox = Inbox(connection, queue, prefetch=3)
        a, b, _ = inbox.take(3)
        inbox.consumer.cancel()
        b.requeue()
        a.requeue()
        again = Inbox(connection, queue, prefetch=3).take(3)
        assert (bodies(again), redelivered(again)) == ("a b d", [True, True, False])

    def test_giving_back_to_one_queue_leaves_its_sister_alone(
        self, connection: kombu.Connection, declare: Declare, exchange: Exchange
    ) -> None:
        one, two = declare("one"), declare("two")
        name = exchange("fanout", {one: "", two: ""})
        with connection.channel() as channel:
            kombu.Producer(channel, serializer="json").publish("a", exchange=name, routing_key="")
        inbox = Inbox(connection, one)
        inbox.take()[0].requeue()
        assert bodies(inbox.take()) == "a"
        sister = Inbox(connection, two)
        assert bodies(sister.take()) == "a"
        assert sister.rest() == []

    def test_a_message_rejected_for_good_is_gone(self, connection: kombu.Connection, queue: str) -> None:
        publish(connection, queue, "a", "b")
        inbox = Inbox(connection, queue, prefetch=1)
        inbox.take()[0].reject()
        assert bodies(inbox.take()) == "b"
        assert Inbox(connection, queue).rest() == []

    def test_a_message_rejected_for_good_goes_to_the_queue_that_was_named(
        self, connection: kombu.Connection, declare: Declare
    ) -> None:
        grave = declare("grave")
        queue = declare("jobs", **{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": grave})
        publish(connection, queue, "a")
        Inbox(connection, queue).take()[0].reject()
        assert bodies(Inbox(connection, grave).take()) == "a"

    def test_recover_delivers_again_what_is_not_settled(self, connection: kombu.Connection, queue: str) -> None:
        publish(connection, queue, *"abc")
        inbox = Inbox(connection, queue)
        a, _, _ = inbox.take(3)
        a.ack()
        inbox.consumer.recover(requeue=True)
        again = inbox.take(2)
        assert (bodies(again), redelivered(again)) == ("b c", [True, True])

    def test_a_count_of_deliveries_rises_where_it_is_kept(self, connection: kombu.Connection, queue: str) -> None:
        publish(connection, queue, "a")
        inbox = Inbox(connection, queue, prefetch=1)
        counts = []
        for _ in range(22):
            (message,) = inbox.take()
            counts.append(message.headers.get("x-delivery-count", 0))
            message.requeue()
        assert counts == (list(range(22)) if self.traits(connection).indexed else [0] + [1] * 21)

    def test_an_acknowledged_group_is_gone(self, connect: Connect, connection: kombu.Connection, queue: str) -> None:
        publish(connection, queue, *"abc")
        consumer = connect()
        _, b, _ = Inbox(consumer, queue).take(3)
        b.ack(multiple=True)
        consumer.close()
        assert bodies(Inbox(connection, queue).take()) == "c"


class Later(KombuWorld):
    """The header x-delay: milliseconds, kept by the broker."""

    def test_a_delayed_message_is_never_early_and_hardly_late(self, connection: kombu.Connection, queue: str) -> None:
        inbox = Inbox(connection, queue)
        begin = time.time()
        publish(connection, queue, "later", headers={"x-delay": 400})
        publish(connection, queue, "now")
        assert bodies(inbox.take(1)) == "now"
        (later,) = inbox.take(1)
        assert 0.4 <= time.time() - begin < 0.7
        assert "x-delay" not in later.headers

    def test_one_millisecond_is_a_delay(self, connection: kombu.Connection, queue: str) -> None:
        inbox = Inbox(connection, queue)
        publish(connection, queue, "a", headers={"x-delay": 1})
        assert bodies(inbox.take(1, within=0.5)) == "a"

    def test_a_year_is_a_delay(self, connection: kombu.Connection, queue: str) -> None:
        publish(connection, queue, "a", headers={"x-delay": 365 * 86_400_000})
        publish(connection, queue, "b")
        inbox = Inbox(connection, queue)
        assert bodies(inbox.take() + inbox.rest()) == "b"

    def test_a_short_delay_overtakes_a_long_one(self, connection: kombu.Connection, queue: str) -> None:
        publish(connection, queue, "long", headers={"x-delay": 9_000})
        publish(connection, queue, "short", headers={"x-delay": 100})
        assert bodies(Inbox(connection, queue).take()) == "short"

    def test_a_delayed_message_keeps_its_priority(self, connection: kombu.Connection, queue: str) -> None:
        publish(connection, queue, "delayed", headers={"x-delay": 50}, priority=9)
        inbox = Inbox(connection, queue, prefetch=1)
        (first,) = inbox.take()
        assert (first.payload, first.properties["priority"]) == ("delayed", 9)

    def test_a_delayed_message_outlives_its_publisher(
        self, connect: Connect, connection: kombu.Connection, queue: str
    ) -> None:
        publisher = connect()
        publish(publisher, queue, "a", headers={"x-delay": 300})
        publisher.close()
        assert bodies(Inbox(connection, queue).take()) == "a"

    def test_delays_of_a_transaction_may_have_begun_before_its_commit(
        self, connection: kombu.Connection, queue: str
    ) -> None:
        channel = connection.channel()
        channel.tx_select()
        begin = time.monotonic()
        send(channel, queue, "over", headers={"x-delay": 60_000})
        send(channel, queue, "soon", headers={"x-delay": 60_500})
        channel.since(begin - 60)
        channel.tx_commit()
        send(channel, queue, "later", headers={"x-delay": 60_000})
        channel.tx_commit()  # with which its delay begins
        inbox = Inbox(connection, queue)
        assert bodies(inbox.take(2)) == "over soon"
        assert time.monotonic() - begin >= 0.5
        assert inbox.rest() == []

    def test_many_delayed_at_once_all_come_on_time(self, connection: kombu.Connection, queue: str) -> None:
        number = 1000
        inbox = Inbox(connection, queue, prefetch=number)
        publish(connection, queue, *(f"m{i}" for i in range(number)), headers={"x-delay": 1500})
        begin = time.monotonic()
        got = inbox.take(number)
        assert time.monotonic() - begin < 1.5 + 1.0
        assert len({message.payload for message in got}) == number
