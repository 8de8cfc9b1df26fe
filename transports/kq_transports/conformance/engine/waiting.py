"""Waiting: a sleeping consumer is woken, and nobody polls. Part of EngineSuite.

These tests sleep in real time, with a second engine at work in another thread: an engine whose clock is
moved by hand is woken by it like any other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

from kq_transports.conformance.engine.world import (
    DEADLINE,
    QUEUE,
    Connect,
    EngineWorld,
    done,
    given_back,
    ids,
    message,
    messages,
    readable,
    requires,
    take,
)
from kq_transports.conformance.peer import peer
from kq_transports.engine import Binding, Delivery, Engine, Options, Want

PROMPT = 0.25  # seconds; far below the second after which a safety net would wake the sleeper anyway


class Waiting(EngineWorld):
    """arm(), wait() and due."""

    def woken_by(self, sleeper: Engine, act: Callable[[], object]) -> float:
        """Seconds between act and the wake-up of sleeper, who sleeps when it happens."""
        while readable(descriptor := sleeper.arm([QUEUE]), within=0.02):  # an alarm without cause
            take(sleeper, 0)
        begin = time.monotonic()
        act()
        assert readable(descriptor, within=DEADLINE), "not woken"
        return time.monotonic() - begin

    def test_a_publish_wakes(self, engine: Engine, other: Engine) -> None:
        take(engine)
        assert self.woken_by(engine, lambda: other.publish(messages("a"))) < PROMPT
        assert ids(take(engine)) == "a"

    def test_a_publish_of_ones_own_wakes(self, engine: Engine) -> None:
        take(engine)
        assert self.woken_by(engine, lambda: engine.publish(messages("a"))) < PROMPT

    def test_a_publish_between_reserve_and_arm_wakes(self, engine: Engine, other: Engine) -> None:
        assert take(engine) == []
        other.publish(messages("a"))
        assert readable(engine.arm([QUEUE]), within=PROMPT)

    def test_a_publish_before_the_first_arm_wakes(self, connect: Connect, engine: Engine) -> None:
        engine.publish(messages("a"))
        assert readable(connect().arm([QUEUE]), within=PROMPT)

    def test_a_give_back_wakes(self, engine: Engine, other: Engine) -> None:
        engine.publish(messages("a"))
        held = take(other)
        take(engine)
        assert self.woken_by(engine, lambda: other.settle(given_back(held))) < PROMPT

    def test_follow_ups_wake(self, engine: Engine, other: Engine) -> None:
        engine.publish(messages("a"))
        held = take(other)
        take(engine)
        assert self.woken_by(engine, lambda: other.settle(done(held), messages("b"))) < PROMPT

    def test_the_end_of_another_connection_wakes(self, engine: Engine, other: Engine) -> None:
        engine.publish(messages("a"))
        take(other)
        take(engine)
        assert self.woken_by(engine, other.close) < PROMPT

    def test_expelling_wakes(self, engine: Engine, other: Engine) -> None:
        engine.publish(messages("a"))
        take(other)
        take(engine)
        assert self.woken_by(engine, lambda: engine.expel("second")) < PROMPT

    def test_a_freed_seat_wakes_the_next(self, engine: Engine, other: Engine) -> None:
        engine.declare("single", {"x-single-active-consumer": True})
        take(other, queue="single")
        engine.publish([message("a", queue="single")])
        assert take(engine, queue="single") == []
        descriptor = engine.arm(["single"])
        other.release(["single"])
        assert readable(descriptor, within=PROMPT)
        assert ids(take(engine, queue="single")) == "a"

    def test_a_topic_message_wakes_by_its_queue(self, engine: Engine, other: Engine) -> None:
        engine.declare_exchange("events", "topic")
        engine.bind("events", Binding(QUEUE, "a.*"))
        take(engine)
        assert self.woken_by(engine, lambda: other.publish(messages("a"))) < PROMPT

    def test_one_of_several_queues_wakes(self, engine: Engine, other: Engine) -> None:
        engine.declare("more", {})
        engine.reserve([Want((QUEUE, "more"), 5)])
        descriptor = engine.arm([QUEUE, "more"])
        other.publish([message("a", queue="more")])
        assert readable(descriptor, within=PROMPT)

    def test_every_wake_up_in_a_long_exchange_arrives(self, engine: Engine, other: Engine) -> None:
        begin = time.monotonic()
        for i in range(50):
            other.publish(messages(f"m{i}"))
            assert engine.settle(done([self.next_of(engine, QUEUE)])) == []
        assert time.monotonic() - begin < 50 * PROMPT / 2

    def test_a_message_wakes_a_thread_that_sleeps(self, engine: Engine, other: Engine) -> None:
        got: list[tuple[str, float]] = []
        sleeper = threading.Thread(target=lambda: got.append((self.next_of(engine, QUEUE).id, time.monotonic())))
        sleeper.start()
        sleeper.join(0.05)  # let it fall asleep
        published = time.monotonic()
        other.publish(messages("a"))
        sleeper.join(DEADLINE)
        ((id, when),) = got
        assert (id, when - published < PROMPT) == ("a", True)

    def test_a_publish_by_another_process_wakes(self, tmp_path: Path, engine: Engine) -> None:
        requires(engine.traits, "shared")
        take(engine)
        with peer(publish_when_told, self, tmp_path, Options()) as process:
            process.receive()
            assert self.woken_by(engine, lambda: process.send("now")) < PROMPT
            process.join()
        assert ids(take(engine)) == "a"

    def test_a_delayed_message_comes_on_time(self, engine: Engine) -> None:
        begin = time.time()
        engine.publish([message("a", delay=0.2)])
        self.next_of(engine, QUEUE)
        assert 0.2 <= time.time() - begin < 0.2 + PROMPT

    def test_a_delayed_message_that_comes_while_one_sleeps_is_on_time(self, engine: Engine, other: Engine) -> None:
        take(engine)
        begin = time.time()
        assert self.woken_by(engine, lambda: other.publish([message("a", delay=0.4)])) < 0.4 + PROMPT
        self.next_of(engine, QUEUE)
        assert 0.4 <= time.time() - begin < 0.4 + PROMPT

    def test_what_a_dead_connection_held_comes_to_one_that_sleeps(self, connect: Connect, engine: Engine) -> None:
        engine.publish(messages("a"))
        victim = connect(lease=0.4)
        take(victim)
        begin = time.monotonic()
        assert self.next_of(engine, QUEUE).id == "a"
        assert time.monotonic() - begin < 0.4 + 1.2

    def test_wait_ends_after_its_timeout(self, engine: Engine) -> None:
        take(engine)
        begin = time.monotonic()
        while engine.wait([QUEUE], max(0.0, begin + 0.3 - time.monotonic())):
            assert take(engine) == []
            assert time.monotonic() < begin + DEADLINE
        assert time.monotonic() - begin >= 0.29

    def test_an_idle_connection_sleeps(self, engine: Engine) -> None:
        begin, cpu, wakes = time.monotonic(), time.process_time(), 0
        while (left := begin + 1.5 - time.monotonic()) > 0:
            assert take(engine) == []
            wakes += engine.wait([QUEUE], left)
        assert wakes <= 4
        assert time.process_time() - cpu < 0.1

    def next_of(self, engine: Engine, queue: str) -> Delivery:
        """The next message of queue, waited for as a consumer does."""
        give_up = time.monotonic() + DEADLINE
        while time.monotonic() < give_up:
            if got := take(engine, 1, queue=queue):
                return got[0]
            engine.wait([queue], give_up - time.monotonic())
        raise AssertionError(f"no message came within {DEADLINE} s")


def publish_when_told(pipe: Pipe, world: EngineWorld, where: Path, options: Options) -> None:
    """The life of another process: publish one message when told to."""
    engine = world.open(where, options)
    pipe.send("ready")
    pipe.recv()
    engine.publish(messages("a"))
    engine.close()
