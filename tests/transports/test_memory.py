"""The memory transport: the shared suite, and what is particular to it: names, the clock, and no growth."""

from __future__ import annotations

import gc
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import kombu
import pytest

from kq_transports.conformance.engine import EngineSuite
from kq_transports.conformance.kombu.world import eventually
from kq_transports.engine import Action, Counts, Delivery, Engine, LeaseLost, Message, NotFound, Options, Verdict, Want
from kq_transports.memory import MemoryBroker, MemoryEngine

DAY = 86400.0


class HandClock:
    """A clock that stands still, or runs with the computer's, and is moved by hand."""

    def __init__(self, *, runs: bool = False) -> None:
        self.time = 1_000_000.0
        self._begin = time.monotonic() if runs else None

    def now(self) -> float:
        return self.time + (0.0 if self._begin is None else time.monotonic() - self._begin)


class TestMemoryEngine(EngineSuite):
    def open(self, where: Path, options: Options) -> Engine:
        self.broker = MemoryBroker.named(str(where), HandClock(runs=True))
        return MemoryEngine(self.broker, options)

    def elapse(self, seconds: float) -> None:
        clock = self.broker.clock
        assert isinstance(clock, HandClock)
        clock.time += seconds
        self.broker.clock_moved()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def broker(clock: HandClock) -> MemoryBroker:
    """A broker of this test alone, with a queue."""
    return MemoryBroker(clock)


@pytest.fixture
def engine(broker: MemoryBroker) -> Iterator[Engine]:
    engine = MemoryEngine(broker, Options("first"))
    engine.declare("q", {})
    yield engine
    engine.close()


@pytest.fixture
def other(broker: MemoryBroker) -> Iterator[Engine]:
    other = MemoryEngine(broker, Options("second"))
    yield other
    other.close()


def take(engine: Engine, limit: int = 10) -> list[Delivery]:
    return engine.reserve([Want(("q",), limit)])


class TestNames:
    def test_connections_to_one_name_share_their_queues(self) -> None:
        name = uuid.uuid4().hex
        with kombu.Connection(f"kq-memory://{name}") as one, kombu.Connection(f"kq-memory://{name}") as two:
            one.SimpleQueue("q").put({"a": 1})
            assert two.SimpleQueue("q").get(timeout=1).payload == {"a": 1}
        MemoryBroker.forget(name)

    def test_another_name_is_another_broker(self) -> None:
        with kombu.Connection("kq-memory://here") as here, kombu.Connection("kq-memory://there") as there:
            here.SimpleQueue("q")
            assert (list(here.manager.queues()), list(there.manager.queues())) == (["q"], [])
        MemoryBroker.forget("here")
        MemoryBroker.forget("there")

    def test_no_name_is_a_name(self) -> None:
        with kombu.Connection("kq-memory://") as connection:
            connection.connect()
            assert connection.connection.engine.queues() == {}
        MemoryBroker.forget("default")

    def test_a_broker_outlives_its_connections_until_it_is_forgotten(self) -> None:
        name = uuid.uuid4().hex
        for expected in ([], ["q"]):
            with kombu.Connection(f"kq-memory://{name}") as connection:
                assert list(connection.manager.queues()) == expected
                connection.SimpleQueue("q")
        MemoryBroker.forget(name)
        with kombu.Connection(f"kq-memory://{name}") as connection:
            assert connection.manager.queues() == {}
        MemoryBroker.forget(name)

    def test_a_namesake_ends_the_connection_before_it(self, broker: MemoryBroker, engine: Engine) -> None:
        engine.publish([Message("a", "q", b"")])
        take(engine)
        namesake = MemoryEngine(broker, Options("first"))
        assert [delivery.id for delivery in take(namesake)] == ["a"]
        with pytest.raises(LeaseLost):
            engine.beat()
        namesake.close()


class TestClock:
    def test_the_clock_of_a_named_broker_is_given_by_its_first_connection(self, clock: HandClock) -> None:
        name = uuid.uuid4().hex
        with kombu.Connection(f"kq-memory://{name}", transport_options={"clock": clock}) as connection:
            channel = connection.channel()
            channel.queue_declare("q")
            later = channel.prepare_message("x", headers={"x-delay": int(DAY * 1000)})
            channel.basic_publish(later, routing_key="q")
            clock.time += DAY - 1
            assert connection.manager.count("q") == Counts(delayed=1)
            clock.time += 1
            assert connection.manager.count("q") == Counts(ready=1)
        MemoryBroker.forget(name)

    @pytest.mark.parametrize("step", [3600.0, -3600.0])
    def test_a_step_of_the_computers_clock_ends_no_lease_and_makes_nothing_due(
        self, monkeypatch: pytest.MonkeyPatch, step: float
    ) -> None:
        broker = MemoryBroker()
        engine, other = MemoryEngine(broker, Options("first")), MemoryEngine(broker, Options("second"))
        engine.declare("q", {})
        engine.publish([Message("a", "q", b""), Message("later", "q", b"", delay=60.0)])
        (held,) = take(engine)
        right = time.time
        monkeypatch.setattr(time, "time", lambda: right() + step)
        assert take(other) == []
        engine.publish([Message("soon", "q", b"", delay=0.05)])
        (soon,) = eventually(lambda: take(other), "it is due", within=5)
        assert soon.id == "soon"
        assert engine.settle([Verdict(held.receipt, Action.DONE)]) == []
        assert engine.count("q") == Counts(delayed=1, held=1)
        engine.close()
        other.close()

    def test_days_of_beats_keep_a_lease(self, clock: HandClock, engine: Engine, other: Engine) -> None:
        engine.publish([Message("a", "q", b"")])
        held = take(engine)
        for _ in range(1000):
            clock.time += 14
            engine.beat()
            assert take(other) == []
            other.beat()
        assert engine.settle([Verdict(held[0].receipt, Action.DONE)]) == []

    def test_a_sleeper_is_woken_when_the_clock_is_moved(self, clock: HandClock, broker: MemoryBroker) -> None:
        engine = MemoryEngine(broker, Options(keep_alive=True))
        engine.declare("q", {})
        engine.publish([Message("a", "q", b"", delay=DAY)])
        assert take(engine) == []
        woken: list[bool] = []
        sleeper = threading.Thread(target=lambda: woken.append(engine.wait(["q"], 10)))
        sleeper.start()
        sleeper.join(0.05)
        clock.time += DAY
        broker.clock_moved()
        sleeper.join(5)
        assert (woken, len(take(engine))) == ([True], 1)
        engine.close()

    def test_a_sleeper_knows_when_anothers_lease_ends(self, clock: HandClock, engine: Engine, other: Engine) -> None:
        engine.publish([Message("a", "q", b"")])
        take(other)
        assert take(engine) == []
        assert engine.due == other.options.lease
        clock.time += 5
        engine.arm(["q"])
        assert engine.due == other.options.lease - 5

    def test_an_unused_queue_ends_when_it_said_so(self, clock: HandClock, engine: Engine) -> None:
        engine.declare("short", {"x-expires": 1000})
        clock.time += 0.9
        engine.declare("short", {"x-expires": 1000})
        clock.time += 0.9
        assert "short" in engine.queues()
        clock.time += 0.2
        assert "short" not in engine.queues()
        with pytest.raises(NotFound):
            engine.count("short")

    def test_a_queue_that_somebody_waits_for_is_used(self, clock: HandClock, engine: Engine) -> None:
        engine.declare("short", {"x-expires": 1000})
        engine.reserve([Want(("short",), 1)])
        engine.arm(["short"])
        clock.time += 2
        assert "short" in engine.queues()


class TestSize:
    def test_what_is_removed_leaves_nothing_behind(self, engine: Engine) -> None:
        def churn() -> None:
            for delay in (0.0, DAY):
                for _ in range(3000):
                    engine.publish([Message("x", "q", b"body", delay=delay)])
                    engine.remove("q", ["x"])

        churn()
        gc.collect()
        before = sys.getallocatedblocks()
        churn()
        gc.collect()
        assert sys.getallocatedblocks() - before < 2000
        assert engine.count("q") == Counts()

    def test_a_body_is_a_copy(self, engine: Engine) -> None:
        body = bytearray(b"before")
        engine.publish([Message("a", "q", body)])  # type: ignore[arg-type]
        body[:] = b"after!"
        assert take(engine)[0].body == b"before"
