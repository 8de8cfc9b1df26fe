"""What is particular to RabbitMQ when things go wrong, and what AMQP has no verbs for."""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import kombu
import pytest
from amqp import exceptions
from kombu.asynchronous import Hub
from msgspec.structs import replace

from kq_transports.amqp.connection import Connection
from kq_transports.amqp.management import Peek
from kq_transports.amqp.seat import SIGN
from kq_transports.conformance.kombu.swapping import letter
from kq_transports.conformance.kombu.world import (
    DEADLINE,
    HEARTBEAT,
    SILENCE,
    SINGLE,
    Connect,
    Declare,
    Inbox,
    KombuWorld,
    Place,
    bodies,
    drain,
    eventually,
    hold,
    publish,
    send,
)
from kq_transports.conformance.peer import peer
from kq_transports.conformance.proxy import Proxy
from kq_transports.engine import Counts, EngineError, Full, LeaseLost, NotFound, TooLarge, Unreachable, Unsupported
from kq_transports.seen import Swap
from tests.conftest import MORTAL, available, lasting
from tests.servers import AGAIN, RabbitServer, free_port, require

SHORT = 0.5  # seconds: the timeout of a verb that is to fail
SLACK = 5.0  # seconds by which a broker that has just started may be late, on a busy machine
RESTART = 20.0  # seconds in which a broker that was started again has told everybody everything


@pytest.fixture
def server(mortal_rabbit: RabbitServer) -> RabbitServer:
    """A RabbitMQ that these tests end and start as they like."""
    return mortal_rabbit


class OnOwnRabbit(KombuWorld):
    @pytest.fixture(autouse=True)
    def address(self, server: RabbitServer) -> None:
        self.port = server.port

    def url(self, where: Path) -> str:
        return address(self.port)


def address(port: int, user: str = "guest:guest", vhost: str = "/") -> str:
    return f"kq-amqp://{user}@127.0.0.1:{port}/{vhost}"


@contextmanager
def alarm(server: RabbitServer) -> Iterator[None]:
    """Let the server be short of disk."""
    server.fill()
    try:
        yield
    finally:
        server.free()


class TestSeats(OnOwnRabbit):
    """Who alone consumes a queue says so by a sign that ends with his lease."""

    def test_an_alarm_ends_no_seat(
        self, server: RabbitServer, connect: Connect, connection: kombu.Connection, declare: Declare
    ) -> None:
        single = declare("single", **SINGLE)
        publish(connection, single, "a")
        worker = connect(heartbeat=HEARTBEAT)
        Inbox(worker, single, single=True).take()
        with alarm(server):
            until = time.monotonic() + 2 * HEARTBEAT
            while time.monotonic() < until:
                worker.heartbeat_check()
                drain(worker, HEARTBEAT / 4)
            assert connection.channel().queue_purge(SIGN + single) == 0  # it is there
        worker.close()
        with pytest.raises(NotFound):
            connection.channel().queue_purge(SIGN + single)


class TestSlowNetwork(OnOwnRabbit):
    """No answer is late that comes within the time that one may take."""

    @pytest.mark.parametrize("holds", [False, True])
    def test_a_queue_is_made_where_two_answers_take_longer_than_one_may(
        self, server: RabbitServer, proxy_to: Any, queue: str, holds: bool
    ) -> None:
        wire: Proxy = proxy_to(server.port)
        with Place(address(wire.port), {"timeout": 2.5}).connect(heartbeat=60) as connection:
            channel = connection.channel()
            if holds:  # then a line of its own is for publishes
                channel.basic_consume(queue, callback=lambda message: None)
            wire.delay(0.75)
            channel.queue_declare(f"{queue}-late", durable=True, auto_delete=False)
            wire.delay(0)
            assert channel.queue_delete(f"{queue}-late") == 0

    def test_the_first_delayed_message_is_stored_in_few_answers(
        self, server: RabbitServer, proxy_to: Any, queue: str
    ) -> None:
        wire: Proxy = proxy_to(server.port)
        with Place(address(wire.port), {"timeout": 10.0}).connect() as publisher:
            channel = publisher.channel()
            wire.delay(0.3)
            began = time.monotonic()
            send(channel, queue, "a", headers={"x-delay": 600_000})
            assert time.monotonic() - began < 20.0  # some 15 of 0.6 s each; 45 when a channel is opened after the other
            wire.delay(0)
            assert publisher.manager.count(queue).delayed == 1

    def test_what_is_delayed_and_whose_way_took_all_the_time_is_not_sent(
        self, server: RabbitServer, connection: kombu.Connection, proxy_to: Any, queue: str
    ) -> None:
        wire: Proxy = proxy_to(server.port)
        with Place(address(wire.port), {"timeout": 1.5}).connect() as publisher:
            channel, began = publisher.channel(), time.monotonic()
            wire.delay(0.4)
            with pytest.raises(Unreachable) as caught:
                send(channel, queue, "a", headers={"x-delay": 600_000})
            assert not caught.value.sent
            assert time.monotonic() - began < DEADLINE
        publish(connection, queue, "b", headers={"x-delay": 600_000})
        assert [each.id for each in connection.manager.find(queue, ["a", "b"])] == ["b"]


class TestConfirms(OnOwnRabbit):
    """A publish that returns was stored; one that raises says what is known."""

    def test_a_confirm_that_comes_late_is_not_taken_for_that_of_the_next(
        self, server: RabbitServer, connect: Connect, declare: Declare, queue: str
    ) -> None:
        full = declare("full", **{"x-max-length": 1})
        publisher = connect(timeout=SHORT)
        publish(publisher, full, "a")
        channel = publisher.channel()
        with server.frozen(), pytest.raises(Unreachable) as caught:
            send(channel, queue, "late")
        assert caught.value.sent
        with pytest.raises(Full):
            send(channel, full, "b")
        assert bodies(Inbox(publisher, queue).rest()) == "late"

    def test_what_was_published_on_a_connection_that_had_ended_was_not_sent(
        self, server: RabbitServer, proxy_to: Any, queue: str
    ) -> None:
        wire: Proxy = proxy_to(server.port)
        with Place(address(wire.port), {}).connect() as publisher:
            channel = publisher.channel()
            send(channel, queue, "a")
            wire.drop()
            with pytest.raises(Unreachable) as caught:
                send(channel, queue, "b")
        assert not caught.value.sent

    def test_a_large_group_is_stored_whole(self, connection: kombu.Connection, queue: str) -> None:
        channel = connection.channel()
        channel.tx_select()
        send(channel, queue, *(f"m{i}" for i in range(5000)), headers={"pad": "x" * 200})
        channel.tx_commit()
        assert channel.queue_declare(queue, passive=True).message_count == 5000

    @pytest.mark.parametrize(("body", "exchange"), [("b", "there.is.none"), ("b" * 135_000_000, "")])
    def test_a_publish_that_the_broker_refuses_costs_nobody_a_delivery(
        self, connection: kombu.Connection, other: kombu.Connection, queue: str, body: str, exchange: str
    ) -> None:
        publish(connection, queue, "a")
        (held,) = Inbox(connection, queue).take()
        with pytest.raises(connection.channel_errors):
            publish(connection, queue, body, exchange=exchange, message_id="b")
        held.ack()
        publish(connection, queue, "c")
        connection.close()
        assert bodies(Inbox(other, queue).rest()) == "c"

    def test_headers_that_fit_no_frame_are_refused_and_end_no_connection(
        self, connection: kombu.Connection, queue: str
    ) -> None:
        channel = connection.channel()
        send(channel, queue, "a", headers={"pad": "x" * 130_000})
        with pytest.raises(TooLarge, match="has headers of 131,1.. bytes, more than the 131,052"):
            send(channel, queue, "b", headers={"pad": "x" * 131_072})
        send(channel, queue, "c")
        assert bodies(Inbox(connection, queue).rest()) == "a c"

    def test_what_was_delivered_gets_away_however_large_its_headers_have_become(
        self, connection: kombu.Connection, queue: str, declare: Declare
    ) -> None:
        aside = declare("aside")
        publish(connection, queue, "a")
        channel = connection.channel()
        channel.tx_select()
        got: list[Any] = []
        channel.basic_consume(queue, callback=got.append)
        assert drain(connection, 10)
        send(channel, aside, "a", headers={"many": [1] * 50_000, "text": "é" * 90_000, "small": "s"})
        channel.basic_ack(got[0].delivery_tag)
        channel.tx_commit()
        (kept,) = Inbox(connection, aside).take()
        assert (kept.headers.keys(), kept.headers["small"]) == ({"text", "small"}, "s")
        assert kept.headers["text"].startswith("é" * 45_000)

    def test_a_full_queue_refuses_and_drops_nothing(self, connection: kombu.Connection, declare: Declare) -> None:
        queue = declare("small", **{"x-max-length": 2})
        channel = connection.channel()
        channel.tx_select()
        send(channel, queue, *"abc")
        with pytest.raises(Full, match="1 of 3"):
            channel.tx_commit()
        assert bodies(Inbox(connection, queue).rest()) == "a b"


class TestDeliveries(OnOwnRabbit):
    """No ack meets another's message, and nothing is delivered behind one's back."""

    def test_a_routing_key_that_is_no_text_breaks_nobodys_connection(
        self, connection: kombu.Connection, queue: str
    ) -> None:
        inbox = Inbox(connection, queue)
        inbox.channel.queue_bind(queue, "amq.topic", "#")
        message = inbox.channel.prepare_message("a", content_type="text/plain", content_encoding="utf-8")
        inbox.channel.basic_publish(message, exchange="amq.topic", routing_key=b"\xff")
        publish(connection, queue, "b")
        assert bodies(inbox.take(2)) == "a b"

    def test_an_ack_that_is_said_twice_is_refused_before_it_is_sent(
        self, connection: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, "a", "b")
        inbox = Inbox(connection, queue)
        a, b = inbox.take(2)
        a.ack()
        with pytest.raises(exceptions.PreconditionFailed):
            inbox.channel.basic_ack(a.delivery_tag)
        b.ack()
        assert connection.manager.count(queue) == Counts()

    def test_waiting_for_an_answer_runs_no_callback(
        self, connection: kombu.Connection, other: kombu.Connection, queue: str
    ) -> None:
        inbox = Inbox(connection, queue)
        publish(other, queue, *"abc")
        eventually(lambda: other.manager.count(queue).ready == 0, "all of it is on its way")
        publish(connection, "nowhere.", exchange="amq.topic")
        inbox.channel.queue_declare(queue, passive=True)
        assert inbox.messages == []
        assert bodies(inbox.take(3)) == "a b c"

    def test_what_a_broker_that_was_killed_had_delivered_is_delivered_again(
        self, server: RabbitServer, connect: Connect, queue: str
    ) -> None:
        holder = connect(heartbeat=HEARTBEAT)
        publish(holder, queue, *"abc")
        held = Inbox(holder, queue, prefetch=2).take(2)
        server.remember()
        server.restart()
        with pytest.raises(LeaseLost):
            held[0].ack()
        with pytest.raises(LeaseLost):
            drain(holder, 0)
        again = Inbox(connect(), queue).take(3)
        assert sorted(bodies(again).split()) == ["a", "b", "c"]

    def test_a_queue_that_is_deleted_under_its_consumer_is_an_error_for_it(
        self, connection: kombu.Connection, other: kombu.Connection, queue: str
    ) -> None:
        Inbox(connection, queue)
        with other.channel() as channel:
            channel.queue_delete(queue)
        with pytest.raises(NotFound, match="deleted"):
            drain(connection, DEADLINE)
        with connection.channel() as channel:  # for those who delete it after the test
            channel.queue_declare(queue, durable=True, auto_delete=False)

    def test_a_forked_child_leaves_its_parents_connection_alone(self, connection: kombu.Connection, queue: str) -> None:
        channel = connection.channel()
        child = os.fork()
        if not child:
            try:
                send(channel, queue, "child")
            except Unreachable:
                connection.collect()
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        send(channel, queue, "parent")
        assert bodies(Inbox(connection, queue).rest()) == "parent"

    def test_an_outer_loop_is_told_of_what_came_with_an_answer(
        self, connection: kombu.Connection, other: kombu.Connection, queue: str
    ) -> None:
        hub, inbox = Hub(), Inbox(connection, queue)
        connection.register_with_event_loop(hub)
        publish(other, queue, "a")
        eventually(lambda: other.manager.count(queue).ready == 0, "it is on its way")
        hub.call_soon(inbox.channel.queue_declare, queue, True)
        until = time.monotonic() + DEADLINE
        while not inbox.messages and time.monotonic() < until:
            hub.run_once()
        assert bodies(inbox.messages) == "a"
        hub.close()


class TestAlarms(OnOwnRabbit):
    """A broker that is short of memory or disk takes no messages, and everything else."""

    def test_a_publish_ends_in_time_and_says_why(self, server: RabbitServer, connect: Connect, queue: str) -> None:
        publisher = connect(timeout=SHORT)
        channel = publisher.channel()
        with alarm(server):
            begin = time.monotonic()
            with pytest.raises(Unreachable, match="low on disk") as caught:
                send(channel, queue, "a")
            with pytest.raises(Full, match="nothing was stored"):
                send(channel, queue, "b")
            assert time.monotonic() - begin < 2 * SHORT
        assert caught.value.sent
        eventually(lambda: published(channel, queue, "c"), "the broker takes messages again")
        assert bodies(Inbox(publisher, queue).rest()) == "a c"

    def test_who_holds_messages_is_heard_though_it_published(
        self, server: RabbitServer, connect: Connect, connection: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, "a", "b")
        worker = connect(heartbeat=HEARTBEAT, timeout=SHORT)
        inbox = Inbox(worker, queue)
        held = inbox.take(2)
        with alarm(server):
            with pytest.raises(Unreachable):
                send(inbox.channel, queue, "c")
            held[0].ack()
            worker.heartbeat_check()
            worker.collect()
            eventually(lambda: connection.manager.count(queue).ready == 1, "the other one is back", SILENCE)


def published(channel: Any, queue: str, word: str, delay: int = 0) -> bool:
    """Whether the broker took it."""
    try:
        send(channel, queue, word, headers={"x-delay": delay})
    except EngineError:
        return False
    return True


class TestSwap(OnOwnRabbit):
    """A swap is made wholly or not at all, wherever its client dies."""

    def test_a_client_that_dies_within_a_swap_leaves_one_of_each_message(
        self, server: RabbitServer, connection: kombu.Connection, declare: Declare, queue: str, proxy_to: Any
    ) -> None:
        aside = declare("aside")
        wire: Proxy = proxy_to(server.port)
        whole = self._swapped(wire, connection, aside, queue, None)
        assert self._where(connection, aside, queue) == {"a": [queue], "b": [aside], "c": [queue]}
        # Every few bytes of the end, where it is published and acknowledged, and some of the long way there.
        made = set[bool]()
        for cut in [*range(whole - 800, whole, 40), *range(40, whole, whole // 8)]:
            self._swapped(wire, connection, aside, queue, cut)
            eventually(lambda: sum(map(len, self._where(connection, aside, queue).values())) >= 3, "all are back")
            places = self._where(connection, aside, queue)
            assert {word: len(where) for word, where in places.items()} == {"a": 1, "b": 1, "c": 1}, cut
            made.add(places["a"] == [queue])
            assert places["c"] == places["a"]
        assert made == {True, False}

    def test_in_an_alarm_nothing_is_swapped_and_nothing_hidden(
        self, server: RabbitServer, connection: kombu.Connection, declare: Declare, queue: str
    ) -> None:
        aside = declare("aside")
        publish(connection, aside, *"ab")
        (seen,) = connection.manager.find(aside, ["a"])
        with alarm(server):
            with pytest.raises(Full, match="takes no messages"):
                connection.manager.swap(aside, [Swap(seen, [letter(connection, queue, "a", "a")])])
            assert {each.id for each in connection.manager.find(aside, [*"ab"])} == {"a", "b"}
            assert connection.manager.swap(aside, [Swap(seen)]) == [True]  # who only takes away is heard

    def _swapped(self, wire: Proxy, connection: kombu.Connection, aside: str, queue: str, cut: int | None) -> int:
        """Move a and c to queue, and change b, through a wire that is cut; returns how many bytes that took."""
        for place in (aside, queue):
            connection.default_channel.queue_purge(place)
        publish(connection, aside, *"abc")
        with Place(address(wire.port), {"timeout": 5.0}).connect() as client:
            found = {seen.id: seen for seen in client.manager.find(aside, [*"abc"])}
            swaps = [
                Swap(found["a"], [letter(client, queue, "a", "a")]),
                Swap(found["b"], [letter(client, aside, "mended", "b")]),
                Swap(found["c"], [letter(client, queue, "c", "c", delay_ms=600_000)]),
            ]
            before = wire.heard
            if cut is not None:
                wire.drop_at(before + cut)
            with suppress(Unreachable):
                client.manager.swap(aside, swaps)
            wire.restore()
            return wire.heard - before

    def _where(self, connection: kombu.Connection, *queues: str) -> dict[str, list[str]]:
        """In which queues each message is."""
        found: dict[str, list[str]] = {}
        for queue in queues:
            for seen in connection.manager.find(queue, [*"abc"]):
                found.setdefault(seen.id, []).append(queue)
        return found


class TestDelays(OnOwnRabbit):
    """The ladders keep promise C6."""

    def test_never_early_and_as_a_rule_late_by_less_than_a_tenth_of_a_second(
        self, connection: kombu.Connection, other: kombu.Connection, queue: str
    ) -> None:
        inbox, random_ = Inbox(other, queue, prefetch=1000), random.Random(3)
        due: dict[str, float] = {}
        late: dict[str, float] = {}
        for priority in range(3):  # the ladders are built
            publish(connection, queue, f"first{priority}", headers={"x-delay": 2000}, priority=priority)
        begin = time.monotonic()
        while len(late) < 300:
            if len(due) < 300 and time.monotonic() > begin + len(due) * 0.01:
                word, delay = f"m{len(due)}", random_.randrange(1, 2000)
                due[word] = time.time() + delay / 1000
                headers = {"x-delay": delay}
                publish(connection, queue, word, headers=headers, priority=random_.randrange(3))
            drain(other, 0.002)
            late.update({m.payload: time.time() - due[m.payload] for m in inbox.messages if m.payload in due})
            inbox.messages.clear()
            assert time.monotonic() < begin + DEADLINE
        assert min(late.values()) >= 0
        assert median(late.values()) < 0.1  # the last of them tell more of what else this machine does

    def test_a_long_wait_of_one_priority_holds_up_no_other(self, connection: kombu.Connection, queue: str) -> None:
        inbox = Inbox(connection, queue)
        publish(connection, queue, "low", headers={"x-delay": 400}, priority=0)
        publish(connection, queue, "high", headers={"x-delay": 60_000}, priority=9)
        assert bodies(inbox.take()) == "low"

    def test_a_killed_broker_forgets_none(self, server: RabbitServer, connect: Connect, queue: str) -> None:
        publisher, random_ = connect(), random.Random(5)
        words = [f"m{i}" for i in range(1500)]
        channel = publisher.channel()
        channel.tx_select()
        for word in words:
            send(channel, queue, word, headers={"x-delay": random_.randrange(20, 2000)})
        channel.tx_commit()
        server.remember()
        server.restart()
        consumer = connect()
        inbox, seen, until = Inbox(consumer, queue, prefetch=500), set[str](), time.monotonic() + RESTART
        while len(seen) < len(words) and time.monotonic() < until:
            for message in inbox.rest():
                seen.add(message.payload)
                message.ack()
        assert set(words) - seen == set()

    def test_what_is_due_while_the_broker_is_down_is_late_by_the_outage_and_one_try(
        self, server: RabbitServer, connect: Connect, connection: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, "the ladder is built", headers={"x-delay": 12_000})
        due, random_ = dict[str, float](), random.Random(6)
        server.remember()
        channel = connection.channel()
        channel.tx_select()
        for word in map(str, range(800)):
            delay = random_.randrange(20, 12_000)
            send(channel, queue, word, headers={"x-delay": delay})
            due[word] = time.monotonic() + delay / 1000
        channel.tx_commit()
        killed = time.monotonic()
        server.restart()
        outage, late = time.monotonic() - killed, dict[str, float]()
        inbox = Inbox(connect(), queue, prefetch=1000)
        until = max(due.values()) + outage + AGAIN + RESTART
        while due.keys() - late.keys() and time.monotonic() < until:
            for message in inbox.rest():
                message.ack()
                if message.payload in due:
                    late.setdefault(message.payload, time.monotonic() - due[message.payload])
        assert late.keys() == due.keys()
        assert min(late.values()) >= 0
        assert max(late.values()) <= outage + AGAIN + SLACK

    def test_who_looks_as_a_wait_ends_leaves_no_message_behind(self, connection: kombu.Connection, queue: str) -> None:
        inbox, random_ = Inbox(connection, queue, prefetch=1000), random.Random(7)
        link = connection.connection
        looks = Connection(connection, link.address, replace(link.options, name=""), link.queue_type)
        looks.connect()
        peek = Peek(looks)
        for word in map(str, range(40)):
            publish(connection, queue, word, headers={"x-delay": 60})
            time.sleep(0.058 - random_.uniform(0.0, 0.015))
            for seen in peek.delayed(queue):
                peek.basic_reject(seen.tag, True)
            assert bodies(inbox.take()) == word
        looks.close()

    def test_a_message_is_swapped_while_it_climbs(self, connection: kombu.Connection, queue: str) -> None:
        random_ = random.Random(7)
        for number in range(25):
            climbs = time.monotonic() + random_.choice((0.08, 0.28))  # to the rung of 200 ms, and to that of 7 s
            publish(connection, queue, str(number), headers={"x-delay": 7_280})
            (seen,) = connection.manager.find(queue, [str(number)])
            # Not for an event: to look in the very milliseconds in which nobody can see where it is.
            time.sleep(max(0.0, climbs + random_.uniform(-0.03, 0.01) - time.monotonic()))
            assert connection.manager.swap(queue, [Swap(seen)]) == [True]

    def test_of_two_copies_that_which_is_due_first_is_found_first(
        self, connection: kombu.Connection, queue: str
    ) -> None:
        ids = [f"m{number}" for number in range(10)]
        for delay in (9_000, 9_900):  # the later one is on a lower rung at first
            publish(connection, queue, *ids, headers={"x-delay": delay, "delay": delay})
        found = connection.manager.find(queue, ids)
        delays = {id: [each.headers["delay"] for each in found if each.id == id] for id in ids}
        assert delays == {id: [9_000, 9_900] for id in ids}

    def test_what_is_sent_behind_others_waits_for_so_much_less(
        self, server: RabbitServer, connection: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, "the ladder is built", headers={"x-delay": 60_000})
        channel = connection.channel()
        channel.tx_select()
        for number in range(1000):
            send(channel, queue, str(number), headers={"x-delay": 60_000})
        commit = threading.Thread(target=channel.tx_commit)
        with (
            server.frozen()
        ):  # so it takes the first ones later than they were sent, which a busy machine does late too
            commit.start()
            time.sleep(2.0)
        commit.join(DEADLINE)
        link = connection.connection
        looks = Connection(connection, link.address, replace(link.options, name=""), link.queue_type)
        looks.connect()
        spans = [
            sum(int(wait.removesuffix("ms")) for wait in seen.key.split(".")[1:]) for seen in Peek(looks).delayed(queue)
        ]
        looks.close()
        assert len(spans) > 500
        assert max(spans) - min(spans) >= 480

    def test_who_looks_while_a_ladder_is_built_looks_on(
        self, connect: Connect, connection: kombu.Connection, declare: Declare
    ) -> None:
        for number in range(5):
            queue, line = declare(f"built{number}"), connect()
            building = threading.Thread(
                target=publish, args=(connection, queue, "a"), kwargs={"headers": {"x-delay": 60_000}}
            )
            building.start()
            while building.is_alive():
                assert line.manager.remove(queue, ["nothing"]) == []
                assert line.manager.swap(queue, []) == []
                assert len(line.manager.browse(queue, "delayed")) in (0, 1)
            line.close()

    def test_a_ladder_ends_with_its_queue(self, connection: kombu.Connection, declare: Declare) -> None:
        queue = declare()
        publish(connection, queue, "a", headers={"x-delay": 60_000})
        publish(connection, queue, "b", headers={"x-delay": 60_000}, priority=7)
        channel = connection.channel()
        delays, topology = connection.connection.delays, connection.connection.topology
        rungs = delays.names(queue)
        long = [rung for rung, seconds in rungs.items() if seconds > 1.0]  # what goes to the next one is not counted
        eventually(lambda: sum(topology.counts(long).values()) == 2, "both wait where they will for long")
        assert channel.queue_delete(queue) == 2
        assert [rung for rung in rungs if topology.has(rung)] == []
        assert queue not in connection.manager.queues()

    def test_a_queue_that_somebody_deleted_and_made_again_gets_its_delayed_messages(
        self, connection: kombu.Connection, server: RabbitServer, queue: str
    ) -> None:
        channel = connection.channel()
        send(channel, queue, "a", headers={"x-delay": 1000})
        with kombu.Connection(f"amqp://guest:guest@127.0.0.1:{server.port}//") as stranger:
            stranger.default_channel.queue_delete(queue)
        eventually(lambda: not published(channel, queue, "b", 20), "it is known")
        channel.queue_declare(queue, durable=True, auto_delete=False)
        send(channel, queue, "c", headers={"x-delay": 20})
        came = Inbox(connection, queue).rest(2.0)
        assert {"a", "c"} <= {message.payload for message in came}

    def test_a_delay_needs_the_default_exchange(self, connection: kombu.Connection) -> None:
        with pytest.raises(EngineError, match="default exchange"):
            publish(connection, "key", "a", exchange="amq.topic", headers={"x-delay": 20})

    def test_delayed_messages_are_found_and_removed_wherever_they_are(
        self, connection: kombu.Connection, queue: str
    ) -> None:
        delays = {"a": 1, "b": 77, "c": 5_321, "d": 61_000, "e": 99_999_999}
        for word, delay in delays.items():
            publish(connection, queue, word, headers={"x-delay": 60_000 + delay, "k": word}, priority=len(word))
        manager = connection.manager
        # A look may come between two waits of a message.
        eventually(
            lambda: [each.id for each in manager.browse(queue, "delayed", 10, 0)] == list("abcde"), "all are there"
        )
        assert [each.headers for each in manager.find(queue, ["c"])] == [{"k": "c"}]
        assert sorted(manager.remove(queue, ["b", "d"])) == ["b", "d"]
        eventually(lambda: manager.count(queue).delayed == 3, "three are left")


class TestPresence(OnOwnRabbit):
    """Connections are listed, looked into and ended, whatever their owners do."""

    def test_what_another_process_holds_is_seen_though_it_is_busy(
        self, place: Place, connection: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, *"abc")
        with peer(hold, place, queue, 2, 0) as process:
            process.receive()
            manager = connection.manager
            assert manager.count(queue) == Counts(ready=1, held=2)
            held = manager.browse(queue, "held", 10, 0)
            assert [(each.id, each.state) for each in held] == [("a", "held"), ("b", "held")]
            assert [each.body for each in manager.find(queue, ["b"])] == [b'"b"']
            assert [lease.held for lease in manager.leases()] == [2]

    def test_another_process_is_ended_though_it_is_busy(
        self, place: Place, connection: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, "a")
        named = Place(place.url, {"name": f"worker-{queue}"})
        with peer(hold, named, queue, 1, 10) as process:
            process.receive()
            begin = time.monotonic()
            assert connection.manager.expel(f"worker-{queue}")
            assert bodies(Inbox(connection, queue).take()) == "a"
            assert time.monotonic() - begin < 1.0
            process.send("acknowledge")
            assert process.receive() == "LeaseLost"

    def test_one_that_is_frozen_is_left_to_its_lease(
        self, place: Place, connect: Connect, connection: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, "a")
        with peer(hold, Place(place.url, {"name": f"worker-{queue}"}), queue, 1, HEARTBEAT) as process:
            process.receive()
            process.pause()
            with pytest.raises(EngineError, match="when its lease is over"):
                connect(timeout=SHORT).manager.expel(f"worker-{queue}")
            assert bodies(Inbox(connection, queue).take(within=SILENCE)) == "a"

    def test_connections_may_have_the_same_name(self, connect: Connect, queue: str) -> None:
        first, second = connect(name="twin"), connect(name="twin")
        publish(first, queue, "a", "b")
        held = Inbox(first, queue, prefetch=1).take() + Inbox(second, queue, prefetch=1).take()
        assert bodies(held) == "a b"
        names = [lease.connection for lease in first.manager.leases()]
        assert "twin" in names
        assert len(set(names)) == 2

    def test_a_second_line_that_breaks_is_replaced(
        self, server: RabbitServer, proxy_to: Any, connection: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, "a")
        with Place(address(server.port), {}).connect(HEARTBEAT, name=f"w-{queue}") as worker:
            Inbox(worker, queue).take()
            worker.connection.second().collect()
            rest_until = time.monotonic() + DEADLINE
            while not worker.connection.second().alive and time.monotonic() < rest_until:
                worker.heartbeat_check()
            assert [lease.held for lease in connection.manager.leases()] == [1]

    def test_two_who_ask_for_the_names_of_queues_both_hear_all(
        self, connection: kombu.Connection, other: kombu.Connection, declare: Declare
    ) -> None:
        names = {declare("one"), declare("two")}
        for _ in range(5):
            assert names <= set(connection.manager.queues())
            assert names <= set(other.manager.queues())


class TestNames(OnOwnRabbit):
    """What AMQP can't carry is refused before anything is written."""

    @pytest.mark.parametrize(
        ("name", "why"), [("q" * 300, "has 300 bytes"), ("ma\nil", "has a line break"), ("\ud800", "is no text")]
    )
    def test_a_queue_that_can_not_be_named_so_is_refused_and_leaves_no_trace(
        self, connection: kombu.Connection, name: str, why: str
    ) -> None:
        channel = connection.channel()
        with pytest.raises(EngineError, match=why):
            channel.queue_declare(name, durable=True, auto_delete=False)
        with pytest.raises(NotFound):
            channel.queue_declare(name, passive=True)
        assert not any(name[:1] == known[:1] for known in connection.manager.queues())

    @pytest.mark.parametrize("body", [b"\xff", b"[1]", b'{"queue": 7}', b'{"queue": "\\ud800"}', b"[" * 100_000])
    def test_what_a_stranger_put_among_the_names_of_queues_hides_none(
        self, connection: kombu.Connection, declare: Declare, body: bytes
    ) -> None:
        name = declare("one")
        with connection.Producer() as producer:
            producer.publish(
                body, routing_key="kq.registry", content_type="application/json", content_encoding="binary"
            )
        assert name in connection.manager.queues()

    def test_who_asks_while_others_do_is_told_all_names(self, connect: Connect, declare: Declare) -> None:
        names, crowd, ask, stop = {declare("one"), declare("two")}, 3, connect(), threading.Event()
        told, writer = list[set[str]](), connect()

        def look(mine: kombu.Connection) -> None:
            while not stop.is_set():
                told.append(set(mine.manager.queues()))

        def come_and_go() -> None:
            while not stop.is_set():
                with writer.channel() as channel:
                    channel.queue_declare("passing", durable=True, auto_delete=False)
                    channel.queue_delete("passing")

        lookers = [threading.Thread(target=look, args=(connect(),)) for _ in range(crowd)]
        others = [*lookers, threading.Thread(target=come_and_go)]
        for other in others:
            other.start()
        try:
            for _ in range(60):
                begin = time.monotonic()
                told.append(set(ask.manager.queues()))
                assert time.monotonic() - begin < 5
        finally:
            stop.set()
            for other in others:
                other.join(30)
        assert [names - each for each in told if not names <= each] == []


class TestQuorum(OnOwnRabbit):
    """Replicated queues, as far as they keep the contract."""

    @pytest.fixture
    def replicated(self, connect: Connect) -> Iterator[kombu.Connection]:
        connection = connect(queue_type="quorum")
        with connection.channel() as channel:
            channel.queue_declare("replicated", durable=True, auto_delete=False)
        yield connection
        with connection.channel() as channel:
            channel.queue_delete("replicated")

    def test_priorities_are_refused(self, replicated: kombu.Connection) -> None:
        with pytest.raises(Unsupported, match="classic"):
            replicated.channel().queue_declare(
                "prioritised", durable=True, auto_delete=False, arguments={"x-max-priority": 9}
            )

    def test_a_message_that_is_given_back_often_is_kept_at_its_place_and_counted(
        self, replicated: kombu.Connection
    ) -> None:
        publish(replicated, "replicated", *"abc")
        inbox = Inbox(replicated, "replicated", prefetch=1)
        for i in range(25):  # by default RabbitMQ drops it at the 21st
            (message,) = inbox.take()
            assert (message.payload, message.headers.get("x-delivery-count", 0)) == ("a", i)
            message.requeue()

    def test_the_credit_may_be_raised(self, replicated: kombu.Connection) -> None:
        publish(replicated, "replicated", *"abcd")
        inbox = Inbox(replicated, "replicated", prefetch=1)
        assert bodies(inbox.rest()) == "a"
        inbox.consumer.qos(prefetch_count=3)
        assert bodies(inbox.rest()) == "b c"


class TestDoor(OnOwnRabbit):
    """Who can't get in is told why, at once."""

    @pytest.mark.parametrize(
        ("user", "vhost", "why"), [("guest:no", "/", "user 'guest'"), ("guest:guest", "no", "vhost")]
    )
    def test_who_is_not_let_in_is_not_told_to_try_again(self, user: str, vhost: str, why: str) -> None:
        with kombu.Connection(address(self.port, user, vhost)) as connection:
            with pytest.raises(EngineError, match=why) as caught:
                connection.connect()
            assert not isinstance(caught.value, connection.connection_errors)
            assert "guest:no" not in str(caught.value)

    @pytest.mark.parametrize("options", [{"queue_type": "stream"}, {"colour": "red"}])
    def test_options_that_there_are_not_are_named(self, options: dict[str, Any]) -> None:
        with (
            kombu.Connection(address(self.port), transport_options=options) as connection,
            pytest.raises(EngineError, match="stream|colour"),
        ):
            connection.connect()

    def test_a_server_that_takes_connections_and_says_nothing_is_given_up(self, server: RabbitServer) -> None:
        with server.frozen(), kombu.Connection(address(self.port), transport_options={"timeout": SHORT}) as connection:
            begin = time.monotonic()
            with pytest.raises(connection.connection_errors):
                connection.transport.establish_connection()
            assert time.monotonic() - begin < 2 * SHORT


class SecureRabbit(RabbitServer):
    """A RabbitMQ with a certificate for localhost, signed by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.secure_port = free_port()
        self.certificate = self.folder / "certificate.pem"
        key = self.folder / "key.pem"
        about = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "1"]
        command = [require("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", *about]
        subprocess.run([*command, "-keyout", key, "-out", self.certificate], check=True, capture_output=True)
        with (self.folder / "rabbitmq.conf").open("a") as settings:
            settings.write(f"listeners.ssl.1 = 127.0.0.1:{self.secure_port}\nssl_options.verify = verify_none\n")
            settings.write(f"ssl_options.certfile = {self.certificate}\nssl_options.keyfile = {key}\n")


@pytest.fixture(scope="module")
def secure() -> Iterator[SecureRabbit]:
    with available(SecureRabbit) as server, lasting(server):
        yield server


@MORTAL
class TestTls:
    def connect(self, secure: SecureRabbit, host: str, **options: Any) -> kombu.Connection:
        url = f"kq-amqps://guest:guest@{host}:{secure.secure_port}//"
        connection = kombu.Connection(url, ssl={"ca_certs": str(secure.certificate), **options})
        connection.connect()
        return connection

    def test_messages_of_any_size_go_both_ways(self, secure: SecureRabbit) -> None:
        body = os.urandom(2_000_000)
        with self.connect(secure, "localhost") as connection:
            with connection.channel() as channel:
                channel.queue_declare("large", durable=True, auto_delete=False)
                producer = kombu.Producer(channel)
                for _ in range(3):
                    producer.publish(body, routing_key="large", content_type="x/y", content_encoding="binary")
            assert [message.body for message in Inbox(connection, "large").take(3)] == [body] * 3

    def test_a_server_of_another_name_is_not_trusted(self, secure: SecureRabbit) -> None:
        with pytest.raises(EngineError, match="not who it should be"), suppress(Unreachable):
            self.connect(secure, "127.0.0.1")
