"""The world of a Kombu transport's tests: connections, queues of one's own, and an inbox.

Knows Kombu's API only: whatever runs here runs on any transport of Kombu.
"""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, Protocol, TypeVar

import kombu
import pytest

from kq_transports.engine import Traits

ARGUMENTS: Mapping[str, Any] = {"x-max-priority": 9}
SINGLE: Mapping[str, Any] = {"x-single-active-consumer": True}
HEARTBEAT = 1  # seconds: that of a connection which is going to fall silent
SILENCE = 4.0  # seconds within which a silent connection is known to be dead: RabbitMQ looks twice
DEADLINE = 10.0  # seconds until a test gives up

T = TypeVar("T")
MOMENT = 0.15  # seconds in which nothing must happen

Messages = list[Any]
Declare = Callable[..., str]
Exchange = Callable[[str, Mapping[str, str]], str]


@dataclass(frozen=True)
class Place:
    """How to connect, for this process and for others."""

    url: str
    options: Mapping[str, Any]

    def connect(self, heartbeat: int = 0, **options: Any) -> kombu.Connection:
        """A new connection that is established. heartbeat: seconds, 0 for none."""
        connection = kombu.Connection(self.url, heartbeat=heartbeat, transport_options={**self.options, **options})
        connection.connect()
        return connection


class Connect(Protocol):
    """Opens one more connection to the test's broker."""

    def __call__(self, heartbeat: int = 0, **options: Any) -> kombu.Connection: ...


class KombuWorld:
    """What every part of KombuSuite stands on. A subclass says where the broker is."""

    transport_options: Mapping[str, Any] = {}

    def url(self, where: Path) -> str:
        """The URL of a broker. where: a folder of this test. The broker may be shared by many tests."""
        raise NotImplementedError

    def traits(self, connection: kombu.Connection) -> Traits:
        """What the transport says of itself."""
        traits: Traits = connection.transport.traits
        return traits

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        """Where the test's broker is."""
        return Place(self.url(tmp_path), self.transport_options)

    @pytest.fixture
    def connect(self, place: Place) -> Iterator[Connect]:
        """Open connections, closed after the test."""
        opened: list[kombu.Connection] = []

        def connect(heartbeat: int = 0, **options: Any) -> kombu.Connection:
            opened.append(place.connect(heartbeat, **options))
            return opened[-1]

        yield connect
        for connection in opened:
            connection.close()

    @pytest.fixture
    def connection(self, connect: Connect) -> kombu.Connection:
        """A connection."""
        return connect()

    @pytest.fixture
    def other(self, connect: Connect) -> kombu.Connection:
        """A second connection to the same broker."""
        return connect()

    @pytest.fixture
    def declare(self, place: Place, connection: kombu.Connection) -> Iterator[Declare]:
        """Declare queues under names of the test's own; they are deleted after it."""
        names: list[str] = []

        def declare(word: str = "jobs", **arguments: Any) -> str:
            names.append(f"{word}.{uuid.uuid4().hex[:8]}")
            with connection.channel() as channel:
                channel.queue_declare(names[-1], durable=True, auto_delete=False, arguments={**ARGUMENTS, **arguments})
            return names[-1]

        yield declare
        with place.connect() as fresh, fresh.channel() as channel:
            for name in names:
                channel.queue_delete(name)

    @pytest.fixture
    def exchange(self, connection: kombu.Connection) -> Iterator[Exchange]:
        """Declare an exchange of a kind with its bindings, queue to key; it is deleted after the test."""
        made: list[kombu.Exchange] = []

        def declare(kind: str, bindings: Mapping[str, str]) -> str:
            channel = connection.channel()
            made.append(kombu.Exchange(f"{kind}.{uuid.uuid4().hex[:8]}", kind, durable=True, channel=channel))
            made[-1].declare()
            for queue, key in bindings.items():
                channel.queue_bind(queue, made[-1].name, key)
            name: str = made[-1].name
            return name

        yield declare
        for each in made:
            each.delete()

    @pytest.fixture
    def queue(self, declare: Declare) -> str:
        """The name of a queue."""
        return declare()

    def requires(self, connection: kombu.Connection, name: str) -> None:
        """Skip a test that speaks of a trait which this broker says it hasn't got."""
        traits = self.traits(connection)
        if not getattr(traits, name):
            pytest.skip(f"{traits.name} is not {name}, as its traits say")


class Inbox:
    """A consumer on a channel of its own that keeps what it is given.

    single: its queues are declared by it too, as those of a single active consumer.
    """

    def __init__(
        self,
        connection: kombu.Connection,
        *queues: str,
        prefetch: int = 100,
        no_ack: bool = False,
        single: bool = False,
    ) -> None:
        self.connection = connection
        self.channel = connection.channel()
        for name in queues if single else ():
            self.channel.queue_declare(name, durable=True, auto_delete=False, arguments={**ARGUMENTS, **SINGLE})
        self.messages: Messages = []
        self.consumer = kombu.Consumer(
            self.channel,
            [kombu.Queue(name, durable=True, no_declare=True) for name in queues],
            on_message=self.messages.append,
            prefetch_count=prefetch,
            auto_declare=False,
            no_ack=no_ack,
        )
        self.consumer.consume()

    def take(self, number: int = 1, within: float = DEADLINE) -> Messages:
        """The next messages, waited for; fails when they don't come within so many seconds."""
        until = time.monotonic() + within
        while len(self.messages) < number and time.monotonic() < until:
            drain(self.connection, until - time.monotonic())
        taken, self.messages[:] = self.messages[:number], self.messages[number:]
        assert len(taken) == number, f"only {len(taken)} of {number} messages came: {bodies(taken)}"
        return taken

    def rest(self, seconds: float = MOMENT) -> Messages:
        """All that comes within so many seconds."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            drain(self.connection, left)
        taken, self.messages[:] = list(self.messages), []
        return taken


def drain(connection: kombu.Connection, timeout: float) -> bool:
    """Deliver what comes; False when nothing came within timeout seconds."""
    try:
        connection.drain_events(timeout=max(0.0, timeout))
    except socket.timeout:  # noqa: UP041  Kombu's word for it
        return False
    return True


def publish(connection: kombu.Connection, queue: str, *words: str, **properties: Any) -> None:
    """Put one message for each word into queue; the word is its body and its id."""
    with connection.channel() as channel:
        send(channel, queue, *words, **properties)


def send(channel: Any, queue: str, *words: str, exchange: str = "", **properties: Any) -> None:
    """Publish words on channel; queue is the routing key."""
    producer = kombu.Producer(channel, serializer="json", auto_declare=False)
    for word in words:
        producer.publish(word, exchange=exchange, routing_key=queue, **{"message_id": word, **properties})


def bodies(messages: Sequence[Any]) -> str:
    """What messages say, in order."""
    return " ".join(str(message.payload) for message in messages)


def redelivered(messages: Sequence[Any]) -> list[bool]:
    """Which of messages had been delivered before."""
    return [bool(message.delivery_info.get("redelivered")) for message in messages]


def eventually(claim: Callable[[], T], what: str, within: float = DEADLINE) -> T:
    """Wait until claim() is true, and return what it said; fails with what it last said."""
    until = time.monotonic() + within
    while not (last := claim()):
        assert time.monotonic() < until, f"{what}: not within {within} s, it was {last!r}"
        time.sleep(0.01)
    return last


# The lives of other processes. Each is told and tells through a pipe.


def hold(pipe: Pipe, place: Place, queue: str, number: int, heartbeat: int, single: bool = False) -> None:
    """Take messages, tell what they say, and acknowledge them when told to; tell what came of that."""
    connection = place.connect(heartbeat)
    held = Inbox(connection, queue, prefetch=number, single=single).take(number)
    pipe.send(bodies(held))
    pipe.recv()
    errors = (*connection.connection_errors, *connection.channel_errors)
    try:
        for message in held:
            message.ack()
        drain(connection, MOMENT)
        connection.heartbeat_check()
    except errors as error:
        pipe.send(type(error).__name__)
    else:
        pipe.send("settled")


def work(pipe: Pipe, place: Place, queue: str, diary: Path, prefetch: int) -> None:
    """Write each message into the diary, then acknowledge it, until somebody kills us."""
    connection = place.connect(HEARTBEAT)
    inbox = Inbox(connection, queue, prefetch=prefetch)
    pipe.send("ready")
    with diary.open("a", buffering=1) as lines:
        while True:
            for message in inbox.take(1, within=3600):
                lines.write(message.payload + "\n")
                message.ack()


def speak(pipe: Pipe, place: Place, exchange: str, key: str, word: str) -> None:
    """Publish to an exchange that somebody else declared."""
    with place.connect() as connection, connection.channel() as channel:
        send(channel, key, word, exchange=exchange)
    pipe.send("said")
