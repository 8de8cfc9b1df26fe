"""The world of an engine's tests: connections that are closed afterwards, one queue, and broker time.

Not for tests of Kombu's API, which know nothing of engines.
"""

from __future__ import annotations

import select
import signal
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Protocol

import pytest

from kq_transports.engine import Action, Arguments, Delivery, Engine, Message, Options, Traits, Verdict, Want

QUEUE = "jobs"
ARGUMENTS: Arguments = {"x-max-priority": 9}
SHORT = 0.3  # seconds: the lease of a connection that is going to lose it
DEADLINE = 10.0  # seconds until a test gives up


class Connect(Protocol):
    """Opens one more connection to the test's broker."""

    def __call__(self, name: str = "", *, lease: float = 15.0, keep_alive: bool = False) -> Engine: ...


class EngineWorld:
    """What every part of EngineSuite stands on. A subclass says how to open and how time passes."""

    def open(self, where: Path, options: Options) -> Engine:
        """A new connection to a broker that is empty at the beginning of each test.

        where: a folder of this test. Also called in other processes, on a pickled copy of the suite.
        """
        raise NotImplementedError

    def elapse(self, seconds: float) -> None:
        """Let the broker's time pass. A subclass whose engine has a clock that can be moved moves it."""
        time.sleep(seconds)

    @pytest.fixture
    def connect(self, tmp_path: Path) -> Iterator[Connect]:
        """Open connections to the test's broker, closed after the test."""
        opened: list[Engine] = []

        def connect(name: str = "", *, lease: float = 15.0, keep_alive: bool = False) -> Engine:
            opened.append(self.open(tmp_path, Options(name=name, lease=lease, keep_alive=keep_alive)))
            return opened[-1]

        yield connect
        for engine in opened:
            engine.close()

    @pytest.fixture
    def engine(self, connect: Connect) -> Engine:
        """A connection, and the queue that most tests use."""
        engine = connect("first")
        engine.declare(QUEUE, ARGUMENTS)
        return engine

    @pytest.fixture
    def other(self, connect: Connect, engine: Engine) -> Engine:
        """A second connection to the same broker."""
        return connect("second")


def hold(pipe: Pipe, world: EngineWorld, where: Path, options: Options, limit: int) -> None:
    """The life of another process: take up to limit messages, tell their ids, and do nothing more."""
    engine = world.open(where, options)
    pipe.send([delivery.id for delivery in take(engine, limit)])
    signal.pause()


def requires(traits: Traits, name: str) -> None:
    """Skip a test that speaks of a trait which this broker says it hasn't got."""
    if not getattr(traits, name):
        pytest.skip(f"{traits.name} is not {name}, as its traits say")


def message(id: str, *, queue: str = QUEUE, priority: int = 0, delay: float = 0.0) -> Message:
    """A message whose body is its id."""
    return Message(id, queue, id.encode(), priority, delay)


def messages(ids: str) -> list[Message]:
    """Messages of equal priority, named by words."""
    return [message(id) for id in ids.split()]


def take(engine: Engine, limit: int = 100, queue: str = QUEUE) -> list[Delivery]:
    """Reserve up to limit messages of one queue."""
    return engine.reserve([Want((queue,), limit)])


def ids(deliveries: Sequence[Delivery]) -> str:
    """The ids of deliveries as words, in order."""
    return " ".join(delivery.id for delivery in deliveries)


def done(deliveries: Sequence[Delivery]) -> list[Verdict]:
    """The verdicts that end deliveries."""
    return [Verdict(delivery.receipt, Action.DONE) for delivery in deliveries]


def given_back(deliveries: Sequence[Delivery]) -> list[Verdict]:
    """The verdicts that give deliveries back."""
    return [Verdict(delivery.receipt, Action.GIVE_BACK) for delivery in deliveries]


def readable(descriptor: int, within: float) -> bool:
    """Whether descriptor becomes readable within so many seconds."""
    return bool(select.select([descriptor], [], [], within)[0])
