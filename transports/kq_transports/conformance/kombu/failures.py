"""Processes that die, stop and come back; nothing is lost, and nobody is heard too late. Part of KombuSuite.

Many of these are the tests by which Kombu's own transports were seen to lose messages.
"""

from __future__ import annotations

import os
import random
import threading
import time
from contextlib import suppress
from itertools import count
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import kombu
import pytest

from kq_transports.conformance.kombu.world import (
    DEADLINE,
    HEARTBEAT,
    MOMENT,
    SILENCE,
    Connect,
    Declare,
    Exchange,
    Inbox,
    KombuWorld,
    Place,
    bodies,
    drain,
    hold,
    publish,
    redelivered,
    send,
    work,
)
from kq_transports.conformance.peer import Peer, peer


class Leases(KombuWorld):
    """A connection's heartbeats are its right to what it holds."""

    def test_heartbeats_are_a_matter_of_the_transport(self, connect: Connect) -> None:
        connection = connect(heartbeat=10)
        assert connection.supports_heartbeats
        assert 0 < connection.get_heartbeat_interval() <= 10

    def test_what_a_silent_connection_held_comes_to_another(
        self, connect: Connect, connection: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, "a", "b")
        silent = connect(heartbeat=HEARTBEAT)
        held = Inbox(silent, queue, prefetch=1).take()
        again = Inbox(connection, queue).take(2, within=SILENCE)
        assert (sorted(bodies(again).split()), any(redelivered(again))) == (["a", "b"], True)
        with pytest.raises((*silent.connection_errors, *silent.channel_errors)):  # noqa: PT012
            held[0].ack()
            for _ in range(10):
                drain(silent, MOMENT)
                silent.heartbeat_check()

    def test_what_a_silent_connection_holds_is_given_to_nobody_while_that_is_sure(
        self, connect: Connect, connection: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, "a")
        silent = connect(heartbeat=HEARTBEAT)
        Inbox(silent, queue, prefetch=1).take()
        silent.heartbeat_check()
        sure_until = silent.transport.assured(silent.connection)
        assert sure_until > time.monotonic() + HEARTBEAT / 2
        Inbox(connection, queue).take(within=SILENCE)
        assert time.monotonic() >= sure_until

    def test_a_connection_that_beats_keeps_what_it_holds(
        self, connect: Connect, connection: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, "a")
        holder = connect(heartbeat=HEARTBEAT)
        (message,) = Inbox(holder, queue, prefetch=1).take()
        other = Inbox(connection, queue)
        until = time.monotonic() + 3 * HEARTBEAT
        while time.monotonic() < until:
            drain(holder, 0.1)
            holder.heartbeat_check()
            assert other.rest(0.1) == []
        message.ack()
        holder.close()
        assert other.rest() == []

    def test_a_connection_without_heartbeats_lives_as_long_as_its_process(
        self, connect: Connect, connection: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, "a")
        held = Inbox(connect(lease=1.0), queue).take()
        assert Inbox(connection, queue).rest(2.0) == []
        held[0].ack()

    def test_a_killed_process_loses_nothing(self, place: Place, connection: kombu.Connection, queue: str) -> None:
        self.requires(connection, "shared")
        publish(connection, queue, "a", "b")
        with peer(hold, place, queue, 1, HEARTBEAT) as process:
            assert process.receive() == "a"
            process.kill()
            assert bodies(sorted(Inbox(connection, queue).take(2, within=SILENCE), key=lambda m: m.payload)) == "a b"

    def test_a_stopped_process_is_refused_when_it_wakes(
        self, place: Place, connection: kombu.Connection, queue: str
    ) -> None:
        self.requires(connection, "shared")
        publish(connection, queue, "a")
        with peer(hold, place, queue, 1, HEARTBEAT) as process:
            process.receive()
            process.pause()
            inbox = Inbox(connection, queue)
            assert redelivered(inbox.take(within=SILENCE)) == [True]
            process.resume()
            process.send("acknowledge")
            assert process.receive() != "settled"
            inbox.channel.close()
        assert bodies(Inbox(connection, queue).take()) == "a"


class Deaths(KombuWorld):
    """Ways in which messages were lost."""

    kills = int(os.environ.get("KQ_KILLS", "8"))  # tickets of the lottery

    def test_random_kills_lose_nothing(
        self, place: Place, connection: kombu.Connection, queue: str, tmp_path: Path
    ) -> None:
        self.requires(connection, "shared")
        diary, random_ = tmp_path / "diary", random.Random(7)
        diary.touch()
        published: set[str] = set()
        for kill in range(self.kills):
            words = [f"k{kill}.{i}" for i in range(40)]
            publish(connection, queue, *words)
            published.update(words)
            with peer(work, place, queue, diary, random_.choice([1, 20])) as process:
                process.receive()
                threading.Event().wait(random_.uniform(0.0, 0.05))
                process.kill()
        self.finish(connection, queue, published, diary)

    def finish(self, connection: kombu.Connection, queue: str, published: set[str], diary: Path) -> None:
        """Take the rest; each that was published must have been seen by somebody."""
        inbox, until = Inbox(connection, queue), time.monotonic() + DEADLINE + len(published) / 100
        seen = set(diary.read_text().split())
        while time.monotonic() < until and not published <= seen:
            for message in inbox.rest():
                seen.add(message.payload)
                message.ack()
        assert published - seen == set()

    def test_a_consumer_that_drained_once_and_froze_swallows_nothing(
        self, place: Place, connection: kombu.Connection, queue: str
    ) -> None:
        self.requires(connection, "shared")
        with peer(drain_once, place, queue) as process:
            process.receive()
            publish(connection, queue, "a")
            process.kill()
        assert bodies(Inbox(connection, queue).take(within=SILENCE)) == "a"

    def test_acking_one_copy_does_not_lose_the_other_with_its_process(
        self, place: Place, connection: kombu.Connection, declare: Declare, exchange: Exchange
    ) -> None:
        self.requires(connection, "shared")
        one, two = declare("one"), declare("two")
        name = exchange("topic", {one: "#", two: "#"})
        with connection.channel() as channel:
            send(channel, "k", "a", exchange=name)
        with peer(hold, place, two, 1, HEARTBEAT) as process:
            process.receive()
            Inbox(connection, one).take()[0].ack()
            drain(connection, 0)
            process.kill()
        assert bodies(Inbox(connection, two).take(within=SILENCE)) == "a"

    def test_a_stranger_who_knows_no_exchange_loses_nothing(
        self, place: Place, connection: kombu.Connection, declare: Declare, exchange: Exchange
    ) -> None:
        self.requires(connection, "shared")
        queue, unrelated = declare("jobs"), declare("unrelated")
        name = exchange("topic", {queue: "a.*"})
        with connection.channel() as channel:
            send(channel, "a.b", "a", exchange=name)
        with peer(hold, place, queue, 1, HEARTBEAT) as victim, peer(drain_for_ever, place, unrelated) as stranger:
            victim.receive()
            stranger.receive()
            victim.kill()
            self.wait_for_silence(stranger)
        assert bodies(Inbox(connection, queue).take(within=SILENCE)) == "a"

    def wait_for_silence(self, stranger: Peer) -> None:
        """Let a stranger be the only one who looks, until the victim's lease is over."""
        for _ in range(3):
            stranger.receive()

    def test_a_dead_consumers_message_comes_though_the_queue_is_never_empty(
        self, place: Place, connection: kombu.Connection, other: kombu.Connection, queue: str
    ) -> None:
        self.requires(connection, "shared")
        publish(connection, queue, "lost", "b", "c")
        with peer(hold, place, queue, 1, HEARTBEAT) as process:
            assert process.receive() == "lost"
            process.kill()
        inbox, until = Inbox(connection, queue, prefetch=1), time.monotonic() + SILENCE
        for i in count():
            (message,) = inbox.take()
            publish(other, queue, f"m{i}")
            message.ack()
            if message.payload == "lost":
                break
            assert time.monotonic() < until, f"not among {i} messages"

    def test_a_message_survives_any_number_of_dead_connections(
        self, connect: Connect, connection: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, "a")
        for _ in range(22):
            victim = connect()
            Inbox(victim, queue).take()
            victim.close()
        assert bodies(Inbox(connection, queue).take()) == "a"

    def test_a_late_ack_after_an_error_acks_nothing_else(
        self, connect: Connect, connection: kombu.Connection, queue: str
    ) -> None:
        publish(connection, queue, "a")
        clumsy = connect()
        inbox = Inbox(clumsy, queue, prefetch=1)
        (late,) = inbox.take()
        errors = (*clumsy.connection_errors, *clumsy.channel_errors)
        with pytest.raises(clumsy.channel_errors):
            inbox.channel.queue_declare("nowhere.at.all", passive=True)
        publish(connection, queue, "b")
        with suppress(*errors, AssertionError):
            revived = Inbox(clumsy, queue, prefetch=2)
            revived.rest()
            late.ack()
            drain(clumsy, MOMENT)
        with suppress(*errors):
            clumsy.close()
        assert "b" in bodies(Inbox(connection, queue).rest(2 * MOMENT)).split()


def drain_once(pipe: Pipe, place: Place, queue: str) -> None:
    """Ask for messages once, in vain, and then do something else for ever."""
    connection = place.connect(HEARTBEAT)
    Inbox(connection, queue).rest()
    pipe.send("froze")
    pipe.recv()


def drain_for_ever(pipe: Pipe, place: Place, queue: str) -> None:
    """Consume a queue in which nothing is, and tell of each second."""
    connection = place.connect(HEARTBEAT)
    inbox = Inbox(connection, queue)
    while True:
        inbox.rest(0.5)
        connection.heartbeat_check()
        pipe.send("awake")
