"""The names of things, kept in a queue: AMQP has no way to ask which queues there are.

One message for each shared queue that was declared through this transport, and one for each ladder of delays
(delay.py). Who reads takes all of them for a moment and gives them back; an exclusive consumer keeps two readers from
seeing half each. Written before what it names is made, so that nothing exists that is not listed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from kq_transports.amqp.frames import Method, ack_frame
from kq_transports.amqp.message import arrival
from kq_transports.amqp.outlet import Publishing
from kq_transports.amqp.question import Side
from kq_transports.amqp.values import no_name, packed_properties
from kq_transports.engine import Arguments, EngineError, NotFound, Unreachable

if TYPE_CHECKING:
    from kq_transports.amqp.connection import Connection

NAME = "kq.registry"
_DURABLE = packed_properties({"delivery_mode": 2, "content_type": "application/json"})


@dataclass(frozen=True, slots=True)
class Ladder:
    """The delays of a queue for one priority, up to a level."""

    queue: str
    priority: int
    top: int


class Entry(msgspec.Struct):
    """What one message of the registry says: of a queue, or of a ladder."""

    queue: str = ""
    arguments: dict[str, Any] = {}
    ladder: str = ""
    priority: int = 0
    top: int = 0


def _entry(body: bytes) -> Entry | None:
    """An entry; None for what somebody else wrote, or what names a queue that there can't be."""
    try:
        entry = msgspec.json.decode(body, type=Entry)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return None if no_name(entry.queue or entry.ladder) else entry


class Registry:
    """The names known at the broker of one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, queue: str, arguments: Arguments) -> None:
        """Note that queue will be declared."""
        self._write({"queue": queue, "arguments": dict(arguments)})

    def add_ladder(self, ladder: Ladder) -> None:
        """Note that ladder will be built."""
        self._write({"ladder": ladder.queue, "priority": ladder.priority, "top": ladder.top})

    def queues(self) -> dict[str, Arguments]:
        """Each queue that was declared, and with what."""
        with self._held() as entries:
            return {entry.queue: entry.arguments for entry in entries if entry.queue}

    def ladders(self, queue: str) -> list[Ladder]:
        """The ladders of queue, each as high as it is."""
        with self._held() as entries:
            return [ladder for ladder in _highest(entries) if ladder.queue == queue]

    def names(self) -> tuple[dict[str, Arguments], list[Ladder]]:
        """Each queue that was declared, and with what, and each ladder as high as it is."""
        with self._held() as entries:
            return {entry.queue: entry.arguments for entry in entries if entry.queue}, _highest(entries)

    def forget(self, queue: str) -> None:
        """Strike out queue and its ladders."""
        with self._held(lambda entry: queue in (entry.queue, entry.ladder)):
            pass

    def _write(self, entry: dict[str, Any]) -> None:
        self._make()
        body = json.dumps(entry, sort_keys=True).encode()
        self._connection.open_outlet()  # before the time begins that a confirm may take: this takes answers of its own
        until = time.monotonic() + self._connection.options.timeout
        self._connection.publish([Publishing("", NAME, True, _DURABLE, body)], until)

    def _make(self) -> None:
        """See to it that there is a registry."""
        side = self._connection.topology.side
        side.queue_declare(NAME, durable=True, auto_delete=False, arguments={"x-queue-type": "classic"})

    @contextmanager
    def _held(self, dropped: Callable[[Entry], bool] = lambda entry: False) -> Iterator[list[Entry]]:
        """All entries, nobody else's for so long. Those that are there twice, to be dropped, or none, end."""
        reader = self._reader()
        try:
            yield reader.entries(dropped)
        finally:
            reader.close()

    def _reader(self) -> Reader:
        until = time.monotonic() + self._connection.options.timeout
        while True:
            reader = Reader(self._connection)
            try:
                reader.read(until)
                return reader
            except Unreachable:
                raise
            except NotFound:
                self._make()
            except EngineError:  # somebody else reads
                if time.monotonic() > until:
                    raise
                self._connection.wait_for(lambda: False, time.monotonic() + 0.01)


def _highest(entries: Iterable[Entry]) -> list[Ladder]:
    """The ladders among entries: of each queue and priority the highest."""
    tops: dict[tuple[str, int], int] = {}
    for entry in entries:
        if entry.ladder:
            one = entry.ladder, entry.priority
            tops[one] = max(entry.top, tops.get(one, 0))
    return [Ladder(queue, priority, top) for (queue, priority), top in sorted(tops.items())]


class Reader(Side):
    """A channel that holds all entries until it is closed."""

    def __init__(self, connection: Connection) -> None:
        self._read: dict[int, bytes] = {}
        super().__init__(connection)

    def read(self, until: float) -> None:
        """Take all entries; raises when another reader has them, and NotFound when there is no registry.

        How many there are is known to nobody before he has them: others read and strike out until then. Entries that
        are not ready any more are on their way, and get here before the answer to the next question.
        """
        self.basic_consume(NAME, exclusive=True)
        while self._left():
            if time.monotonic() > until:
                raise Unreachable(f"{self.link.peer} did not tell the names of its queues in time", sent=True)
        self._left()

    def _left(self) -> int:
        """How many entries the broker has not begun to send."""
        ready: int = self.queue_declare(NAME, passive=True).message_count
        return ready

    def take(self, method: Method) -> None:
        if method.header:
            arrived = arrival(self, method)
            self._read[arrived.tag] = arrived.body
        else:
            super().take(method)

    def entries(self, dropped: Callable[[Entry], bool]) -> list[Entry]:
        """What was read, without doubles, what is dropped, and what is no entry; these are struck out."""
        kept: dict[bytes, Entry] = {}
        ends = []
        for tag, body in list(self._read.items()):
            entry = _entry(body)
            if entry is None or body in kept or dropped(entry):
                ends.append(ack_frame(self.channel_id, tag, False))
            else:
                kept[body] = entry
        if ends:
            self.link.write(b"".join(ends), time.monotonic() + self.link.options.timeout, self)
        return list(kept.values())
