"""Groups, threads, event loops, and looking without taking. Part of KombuSuite."""

from __future__ import annotations

import select
import threading
import time
from typing import Any

import kombu
import pytest

from kq_transports.conformance.kombu.world import (
    DEADLINE,
    MOMENT,
    SILENCE,
    Connect,
    Declare,
    Inbox,
    KombuWorld,
    Place,
    bodies,
    drain,
    eventually,
    publish,
    send,
)
from kq_transports.engine import Counts, Load


class Groups(KombuWorld):
    """tx_select, tx_commit and tx_rollback."""

    def test_nothing_is_seen_before_the_commit(
        self, connection: kombu.Connection, other: kombu.Connection, queue: str
    ) -> None:
        inbox = Inbox(other, queue)
        channel = connection.channel()
        channel.tx_select()
        send(channel, queue, "a", "b")
        assert inbox.rest() == []
        channel.tx_commit()
        assert bodies(inbox.take(2)) == "a b"

    def test_what_is_rolled_back_never_was(
        self, connection: kombu.Connection, other: kombu.Connection, queue: str
    ) -> None:
        channel = connection.channel()
        channel.tx_select()
        send(channel, queue, "a")
        channel.tx_rollback()
        send(channel, queue, "b")
        channel.tx_commit()
        assert bodies(Inbox(other, queue).rest()) == "b"

    def test_an_end_and_its_follow_up_happen_together(
        self, connect: Connect, connection: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, "a")
        worker = connect()
        inbox = Inbox(worker, queue, prefetch=1)
        inbox.channel.tx_select()
        inbox.take()[0].ack()
        send(inbox.channel, queue, "b")
        inbox.channel.tx_commit()
        worker.close()
        assert bodies(Inbox(connection, queue).rest()) == "b"

    def test_an_end_that_is_rolled_back_did_not_happen(
        self, connect: Connect, connection: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, "a")
        worker = connect()
        inbox = Inbox(worker, queue, prefetch=1)
        inbox.channel.tx_select()
        inbox.take()[0].ack()
        send(inbox.channel, queue, "b")
        inbox.channel.tx_rollback()
        worker.close()
        assert bodies(Inbox(connection, queue).rest()) == "a"

    def test_a_group_that_cannot_be_stored_ends_nothing(
        self, connect: Connect, connection: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, "a")
        worker = connect()
        inbox = Inbox(worker, queue, prefetch=1)
        inbox.channel.tx_select()
        inbox.take()[0].ack()
        with pytest.raises((*worker.channel_errors, *worker.connection_errors)):  # noqa: PT012
            send(inbox.channel, "nowhere.at.all", "b", mandatory=True)
            inbox.channel.tx_commit()
        worker.close()
        assert bodies(Inbox(connection, queue).take()) == "a"

    def test_a_group_of_give_backs_and_ends(self, connect: Connect, connection: kombu.Connection, queue: str) -> None:
        publish(connection, queue, *"abc")
        worker = connect()
        inbox = Inbox(worker, queue, prefetch=3)
        inbox.channel.tx_select()
        a, b, c = inbox.take(3)
        inbox.consumer.cancel()
        a.requeue()
        b.ack()
        c.requeue()
        inbox.channel.tx_commit()
        worker.close()
        assert bodies(Inbox(connection, queue).rest()) == "a c"


class Once(KombuWorld):
    """A message with a message_id is stored once, where the broker knows ids."""

    def test_a_repeated_publish_stores_nothing(self, connection: kombu.Connection, queue: str) -> None:
        self.requires(connection, "indexed")
        for _ in range(3):
            publish(connection, queue, "a")
        publish(connection, queue, "b")
        assert bodies(Inbox(connection, queue).rest()) == "a b"

    def test_eight_threads_that_publish_the_same_store_it_once(self, connect: Connect, queue: str) -> None:
        connection = connect()
        self.requires(connection, "indexed")
        each = [connect() for _ in range(8)]
        threads = [threading.Thread(target=publish, args=(one, queue, "a", "b", "c")) for one in each]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        assert sorted(bodies(Inbox(connection, queue).rest()).split()) == ["a", "b", "c"]

    def test_messages_without_an_id_are_all_stored(self, connection: kombu.Connection, queue: str) -> None:
        publish(connection, queue, "a", "a", message_id=None)
        assert bodies(Inbox(connection, queue).rest()) == "a a"


class Threads(KombuWorld):
    """Another thread publishes while one drains."""

    def test_publishing_while_another_thread_drains_the_same_connection(
        self, connection: kombu.Connection, queue: str
    ) -> None:
        inbox = Inbox(connection, queue, prefetch=1000)
        words = [f"m{i}" for i in range(300)]
        publisher = threading.Thread(target=publish, args=(connection, queue, *words))
        publisher.start()
        got = inbox.take(len(words))
        publisher.join(DEADLINE)
        assert bodies(got) == " ".join(words)

    def test_a_publish_does_not_wait_for_one_that_sleeps_in_drain_events(
        self, connection: kombu.Connection, queue: str
    ) -> None:
        inbox = Inbox(connection, queue)
        sleeper = threading.Thread(target=inbox.take)
        sleeper.start()
        sleeper.join(0.05)  # let it fall asleep
        begin = time.monotonic()
        publish(connection, queue, "a")
        assert time.monotonic() - begin < 1.0
        sleeper.join(DEADLINE)
        assert not sleeper.is_alive()

    def test_an_ack_from_another_thread_lets_the_next_message_come(
        self, connection: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, "a", "b")
        inbox = Inbox(connection, queue, prefetch=1)
        (first,) = inbox.take()
        sleeper = threading.Thread(target=drain, args=(connection, DEADLINE))
        sleeper.start()
        sleeper.join(0.05)  # let it fall asleep
        first.ack()
        sleeper.join(DEADLINE / 2)
        assert bodies(inbox.messages) == "b"

    def test_a_thread_beats_while_another_acknowledges(
        self, connect: Connect, connection: kombu.Connection, queue: str
    ) -> None:
        words = [f"m{i}" for i in range(500)]
        publish(connection, queue, *words)
        worker, over = connect(heartbeat=60), threading.Event()

        def beat() -> None:
            while not over.is_set():
                worker.heartbeat_check()

        beats = threading.Thread(target=beat)
        beats.start()
        try:
            inbox = Inbox(worker, queue, prefetch=10)
            for word in words:
                (message,) = inbox.take()
                assert message.decode() == word
                message.ack()
        finally:
            over.set()
            beats.join()
        assert connection.manager.count(queue) == Counts(0, 0, 0)


class EventLoops(KombuWorld):
    """An outer event loop sleeps on a descriptor: Transport.watch."""

    def test_the_descriptor_tells_of_each_message(
        self, connection: kombu.Connection, other: kombu.Connection, queue: str
    ) -> None:
        inbox = Inbox(connection, queue, prefetch=100)
        for i in range(20):
            self.sleep_until_quiet(connection)
            publish(other, queue, f"m{i}")
            begin = time.monotonic()
            while not inbox.messages and time.monotonic() < begin + DEADLINE:
                self.sleep(connection, DEADLINE)
                drain(connection, 0)
            assert bodies(inbox.messages) == f"m{i}"
            inbox.messages.pop().ack()
        assert time.monotonic() - begin < 0.5

    def test_the_descriptor_and_its_patience_tell_of_a_delayed_message(
        self, connection: kombu.Connection, other: kombu.Connection, queue: str
    ) -> None:
        inbox = Inbox(connection, queue)
        self.sleep_until_quiet(connection)
        begin = time.monotonic()  # not after the publish: a slow disk would make the message look early
        publish(other, queue, "a", headers={"x-delay": 400})
        while not inbox.messages and time.monotonic() < begin + DEADLINE:
            self.sleep(connection, DEADLINE)
            drain(connection, 0)
        assert 0.4 <= time.monotonic() - begin < 0.9

    def sleep_until_quiet(self, connection: kombu.Connection) -> None:
        while drain(connection, 0):
            pass

    def sleep(self, connection: kombu.Connection, seconds: float) -> None:
        descriptor, patience = connection.transport.watch(connection.connection)
        select.select([descriptor], [], [], seconds if patience is None else min(seconds, patience))


class Looking(KombuWorld):
    """connection.manager: what AMQP lacks."""

    @pytest.fixture
    def manager(self, connection: kombu.Connection) -> Any:
        """The management of a connection that does nothing else."""
        return connection.manager

    def test_queues_are_listed(self, manager: Any, queue: str) -> None:
        assert queue in manager.queues()

    def test_counts_tell_the_states_apart(
        self, manager: Any, connection: kombu.Connection, other: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, *"abc")
        publish(connection, queue, "later", headers={"x-delay": 600_000})
        Inbox(other, queue, prefetch=1).take()

        def counted() -> bool:
            counts = manager.count(queue)
            return (counts.ready, counts.delayed, counts.held) == (2, 1, 1)

        eventually(counted, "2 ready, 1 delayed, 1 held")

    def test_a_survey_tells_the_same_of_all_queues_at_once(
        self, connect: Connect, connection: kombu.Connection, other: kombu.Connection, declare: Declare
    ) -> None:
        full, empty = declare("full"), declare("empty")
        publish(connection, full, *"abc")
        publish(connection, full, "later", headers={"x-delay": 600_000})
        Inbox(other, full, prefetch=1).take()
        eventually(lambda: connection.manager.count(full) == Counts(2, 1, 1), "2 ready, 1 delayed, 1 held")
        found = connect(look=True).manager.survey()
        assert (found[full].ready, found[full].delayed, found[full].held) == (2, 1, 1)
        assert found[empty] == Load()
        assert found[full].oldest < DEADLINE

    def test_a_survey_tells_how_long_the_first_message_has_waited(
        self, connect: Connect, connection: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, "a")
        manager = connect(look=True).manager
        eventually(lambda: 0.5 <= manager.survey()[queue].oldest < DEADLINE, "half a second passes")
        (first,) = manager.browse(queue)
        assert first.id == "a"

    def test_surveys_change_no_order_where_one_consumes_at_a_time(
        self, place: Place, connection: kombu.Connection, other: kombu.Connection, declare: Declare
    ) -> None:
        alone = declare("alone", **{"x-single-active-consumer": True})
        sent = [str(number) for number in range(200)]
        publish(connection, alone, *sent)
        over = threading.Event()

        def look() -> None:
            while not over.is_set():
                with place.connect(look=True) as fresh:
                    fresh.manager.survey()

        looker = threading.Thread(target=look)
        looker.start()
        inbox, came = Inbox(other, alone, prefetch=1), list[object]()
        try:
            while len(came) < len(sent):
                (message,) = inbox.take()
                came.append(message.decode())
                time.sleep(0.002)  # work, so that looks fall between two messages
                message.ack()
        finally:
            over.set()
            looker.join()
        assert came == sent

    def test_a_survey_looks_at_other_queues_also_where_one_is_consumed_by_one_at_a_time(
        self, connect: Connect, connection: kombu.Connection, other: kombu.Connection, declare: Declare
    ) -> None:
        alone = declare("a-alone", **{"x-single-active-consumer": True})
        shared = declare("b-shared")
        for queue in (alone, shared):
            publish(connection, queue, "a", "b")
        Inbox(other, alone, prefetch=1).take()
        eventually(lambda: connection.manager.count(alone) == Counts(1, 0, 1), "one is held")
        found = connect(look=True).manager.survey()
        assert (found[alone].single, found[shared].single) == (True, False)
        assert (found[alone].ready, found[shared].ready) == (1, 2)
        assert found[shared].oldest is not None

    def test_a_survey_counts_a_delay_from_its_end(
        self, connect: Connect, connection: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, "a", headers={"x-delay": 1500})
        manager = connection.manager
        eventually(lambda: manager.count(queue).ready == 1, "the delay is over")
        assert connect(look=True).manager.survey()[queue].oldest < 1.4

    def test_an_ack_inside_a_callback_is_carried_out_when_draining_ends(
        self, manager: Any, connection: kombu.Connection, other: kombu.Connection, queue: str
    ) -> None:
        channel = other.channel()
        entity = kombu.Queue(queue, durable=True, no_declare=True)
        seen: list[None] = []
        consumer = kombu.Consumer(channel, [entity], on_message=lambda m: seen.append(m.ack()), auto_declare=False)
        consumer.consume()
        publish(connection, queue, *"abc")
        while len(seen) < 3:
            assert drain(other, DEADLINE)
        eventually(lambda: manager.count(queue) == Counts(), "nothing is left")

    def test_messages_are_browsed_in_the_order_in_which_they_come(
        self, manager: Any, connection: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, "a", "b", headers={"k": "v"})
        publish(connection, queue, "high", priority=9)
        seen = manager.browse(queue, "ready", 10, 0)
        assert [(s.id, s.priority, s.state) for s in seen] == [
            ("high", 9, "ready"),
            ("a", 0, "ready"),
            ("b", 0, "ready"),
        ]
        assert (seen[1].body, seen[1].headers["k"]) == (b'"a"', "v")
        assert bodies(Inbox(connection, queue).take(3)) == "high a b"

    def test_a_page_has_a_limit_and_an_offset(self, manager: Any, connection: kombu.Connection, queue: str) -> None:
        publish(connection, queue, *"abcde")
        assert [s.id for s in manager.browse(queue, "ready", 2, 2)] == ["c", "d"]

    def test_delayed_messages_are_browsed_with_their_time(
        self, manager: Any, connection: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, "a", headers={"x-delay": 600_000})
        # Where a delay is made of several waits, a look may come just between two of them.
        (seen,) = eventually(lambda: manager.browse(queue, "delayed", 10, 0), "it is seen")
        assert (seen.id, seen.state) == ("a", "delayed")
        assert 500 < seen.due - time.time() < 700

    def test_messages_are_found_by_id(self, manager: Any, connection: kombu.Connection, queue: str) -> None:
        publish(connection, queue, *"abc")
        assert sorted(s.id for s in manager.find(queue, ["b", "c", "x"])) == ["b", "c"]

    def test_removed_messages_never_come(self, manager: Any, connection: kombu.Connection, queue: str) -> None:
        publish(connection, queue, *"abc")
        removed = manager.remove(queue, ["b", "x"])
        assert removed == ["b"]
        assert bodies(Inbox(connection, queue).rest()) == "a c"

    def test_a_connection_for_looking_sees_the_same_and_may_change_it(
        self, connect: Connect, connection: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, *"ab")
        looking: Any = connect(look=True).manager
        assert [seen.id for seen in looking.browse(queue, "ready", 10, 0)] == ["a", "b"]
        assert looking.remove(queue, ["a"]) == ["a"]
        assert [seen.id for seen in looking.browse(queue, "ready", 10, 0)] == ["b"]
        assert bodies(Inbox(connection, queue).rest()) == "b"

    def test_a_delayed_message_may_be_removed(self, manager: Any, connection: kombu.Connection, queue: str) -> None:
        publish(connection, queue, "a", headers={"x-delay": 300})
        assert manager.remove(queue, ["a"]) == ["a"]
        assert Inbox(connection, queue).rest(0.5) == []

    def test_what_is_held_is_not_removed(
        self, manager: Any, connection: kombu.Connection, other: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, "a")
        held = Inbox(other, queue).take()
        assert manager.remove(queue, ["a"]) == []
        held[0].ack()

    def test_a_connection_may_be_ended_from_outside(
        self, connect: Connect, connection: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, "a")
        victim = connect(name=f"victim-{queue}")
        held = Inbox(victim, queue).take()
        eventually(lambda: connection.manager.expel(f"victim-{queue}"), "the connection is known", within=SILENCE)
        assert bodies(Inbox(connection, queue).take()) == "a"
        with pytest.raises((*victim.connection_errors, *victim.channel_errors)):  # noqa: PT012
            held[0].ack()
            for _ in range(10):
                drain(victim, MOMENT)
        assert not connection.manager.expel(f"nobody-{queue}")
