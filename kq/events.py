"""The event exchange: telling what happens, and hearing it. Nothing waits for it, and nothing fails of it.

Who listens says so by an order in the state store (`kq.handles.standing`), for as long as he does; workers read it
with the orders, programs that submit jobs look for it now and then. When nobody listens nothing is sent.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import kq.values.event
from kq.broker import Broker, establish, quietly, translated
from kq.clock import SYSTEM, new_id
from kq.errors import BrokerError
from kq.state.store import Store, StoreUnreachable, Write
from kq.values.event import Event, batches
from kq.values.message import CONTENT_TYPE

#: The topic exchange.
EXCHANGE = "kq.events"
#: So many events wait to be told; of more it is only told how many.
WAITING = 10_000
#: So many are told at a time, and seconds between two times: what gathers meanwhile goes together.
AT_A_TIME, PAUSE = 1000, 0.05
#: Seconds without an answer after which a broker is let alone for a while, and for how long.
TIMEOUT, ALONE = 2.0, 1.0
#: Seconds after the last event for which a connection is kept for the next.
IDLE = 10.0
#: Seconds between two times that it is asked whether anybody listens.
ASK = 2.0
#: A block that is remembered ends with so many events, or after so many seconds; so many blocks are read.
BLOCK, BLOCK_AGE, BLOCKS = 200, 10.0, 1_000_000
REMEMBERED = "event:"
#: With which each event begins in a body, and no text in one.
_EVENT = b'{"event":'
#: So many batches wait for one who listens, at most; then he is too slow, and some are not told.
BACKLOG = 10_000
#: Seconds without a word after which one who listens is taken to be gone.
LEASE = 15.0


class Tells(Protocol):
    """What tells events: a Mouth, or something that passes them on to one."""

    def tell(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish bodies under their keys; who does not listen misses them. Raises BrokerError."""

    def close(self) -> None:
        """End the connection."""


class Herald:
    """Tells events, in a thread that lives while there are some. May be used by several threads.

    listens: whether anybody does, asked in that thread now and then; None: who says something knows that somebody does.
    """

    def __init__(self, line: Callable[[], Tells], listens: Callable[[], bool] | None = None) -> None:
        self._line, self._listens = line, listens
        self._heard_until = self._deaf_until = 0.0
        self._begin()

    #: The name of the thread.
    thread = "kq-herald"

    def _begin(self) -> None:
        """Be without a thread."""
        self._process = os.getpid()
        self._waiting: deque[tuple[str, Event]] = deque()
        self._lost = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._over = False

    @property
    def listened(self) -> bool:
        """Whether an event is worth making: somebody listens, or it is time to find out."""
        return self._listens is None or time.monotonic() >= self._deaf_until

    def say(self, events: Iterable[Event], key: str = "") -> None:
        """Let events be told soon, each under its own key or under this one. Never waits, never raises."""
        if self._process != os.getpid():  # a child has none of its parent's threads, and its parent tells its own
            self._begin()
        with self._changed:
            for event in events:
                if len(self._waiting) < WAITING:
                    self._waiting.append((key or event.key, event))
                else:
                    self._lost += 1
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=self.thread, daemon=True)
                with suppress(RuntimeError):  # the system has none to give: what waits is told when it has
                    thread.start()
                    self._thread = thread
            self._changed.notify_all()

    def close(self, timeout: float = 1.0) -> None:
        """Tell what waits, within timeout seconds, and end."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
            thread = self._thread if self._process == os.getpid() else None
        if thread is not None:
            thread.join(timeout)

    def _run(self) -> None:
        line: Tells | None = None
        while self._has_more(0.0 if line is None else IDLE):
            line = self._tell(line)
            if not self._over:
                time.sleep(PAUSE)
        if line is not None:
            line.close()

    def _has_more(self, patience: float) -> bool:
        """Whether something waits, or comes within so many seconds; else this was the end of the thread."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._over, patience)
            if not self._waiting:
                self._thread = None
            return bool(self._waiting)

    def _tell(self, line: Tells | None) -> Tells | None:
        """Tell some of what waits, on line or another one; returns that."""
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), AT_A_TIME))]
        try:
            if not self._is_heard():
                return line
            if lost := self._lost:
                told = Event(event="lost", at=SYSTEM.now(), n=lost)
                batch.append((told.key, told))
            line = line or self._line()
            line.tell(batches(batch))
            with self._changed:
                self._lost -= lost  # more may have been lost meanwhile
        except BrokerError:
            self._lost += len(batch)
            if line is not None:
                line.close()
            if self._over:
                self._waiting.clear()
            else:
                time.sleep(ALONE)
            return None
        return line

    def _is_heard(self) -> bool:
        now = time.monotonic()
        if self._listens is None or now < self._heard_until:
            return True
        if now < self._deaf_until:
            return False
        heard = False
        with suppress(StoreUnreachable):
            heard = self._listens()
        self._heard_until, self._deaf_until = (now + ASK, 0.0) if heard else (0.0, time.monotonic() + ASK)
        self._lost = self._lost if heard else 0
        return heard


class Mouth:
    """A connection for telling. Raises BrokerError."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        with translated(broker.address):
            self._connection = broker.connection(timeout=min(TIMEOUT, broker.submit_timeout))
            establish(self._connection)
            self._channel = self._connection.channel()
            self._channel.exchange_declare(EXCHANGE, "topic", durable=True, auto_delete=False)
            self._channel.tx_select()

    def tell(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish bodies under their keys; who does not listen misses them."""
        with translated(self._broker.address):
            for key, body in messages:
                message = self._channel.prepare_message(body, 0, CONTENT_TYPE, "utf-8", {}, {"delivery_mode": 1})
                self._channel.basic_publish(message, exchange=EXCHANGE, routing_key=key)
            self._channel.tx_commit()

    def close(self) -> None:
        quietly(self._connection.close)


class Memory:
    """Where events are remembered for a while: blocks of them in the state store, each under the time when it began.

    keep: seconds. most: so many of those that this one was told; older ones go before their time. Raises BrokerError.
    """

    def __init__(self, store: Store, keep: float, most: int) -> None:
        self._store, self._keep, self._most = store, keep, most
        self._name = new_id()
        self._key, self._began, self._parts = "", 0.0, list[bytes]()
        self._counts: dict[str, int] = {}
        self._number = 0

    def tell(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Remember what bodies tell."""
        now = SYSTEM.now()
        if now - self._began > BLOCK_AGE or self._counts.get(self._key, 0) >= BLOCK:
            self._number += 1
            self._key, self._began, self._parts = remembered_key(now, f"{self._name}.{self._number:06d}"), now, []
        parts = [*self._parts, *(body[1:-1] for _, body in messages)]
        value = b"[" + b",".join(parts) + b"]"
        counts = {**self._counts, self._key: value.count(_EVENT)}
        forgotten = list[str]()
        while len(counts) > 1 and sum(counts.values()) > self._most:
            forgotten.append(next(iter(counts)))
            del counts[forgotten[-1]]
        writes = [Write(self._key, value, self._keep, durable=False)]
        writes += [Write(key, None, durable=False) for key in forgotten]
        try:
            self._store.write(writes)
        except StoreUnreachable as error:
            raise BrokerError(str(error)) from error
        self._parts, self._counts = parts, counts

    def close(self) -> None:
        """What is remembered stays."""


def remembered(store: Store, since: float) -> list[Event]:
    """The events since an instant that are remembered, in the order of their time."""
    found = [event for _, body in store.scan(REMEMBERED, BLOCKS) for event in heard(body)]
    return sorted((event for event in found if event.at >= since), key=lambda event: event.at)


def remembered_key(at: float, who: str) -> str:
    """Where a block is remembered that who began at that instant."""
    return f"{REMEMBERED}{int(at * 1000):015d}.{who}"


class Ear:
    """A connection that hears events of the given keys (topic patterns). Not thread-safe. Raises BrokerError."""

    def __init__(self, broker: Broker, keys: Iterable[str], heard: Callable[[Event], None]) -> None:
        self._broker, self._heard = broker, heard
        self.name = f"listen-{new_id()}"
        with translated(broker.address):
            self._connection = broker.connection(lease=LEASE, name=self.name)
            establish(self._connection)
            channel = self._connection.channel()
            channel.exchange_declare(EXCHANGE, "topic", durable=True, auto_delete=False)
            queue = f"{EXCHANGE}.{self.name}"
            channel.queue_declare(queue, exclusive=True, auto_delete=True, arguments={"x-max-length": BACKLOG})
            for key in keys:
                channel.queue_bind(queue, EXCHANGE, key)
            channel.basic_consume(queue, no_ack=True, callback=self._on_message)

    def listen(self, timeout: float) -> None:
        """Hear what comes within timeout seconds."""
        with translated(self._broker.address), suppress(TimeoutError):
            self._connection.drain_events(timeout=timeout)

    def beat(self) -> None:
        """Say that somebody still listens; to be called three times in a LEASE."""
        with translated(self._broker.address):
            self._connection.heartbeat_check()

    def close(self) -> None:
        quietly(self._connection.close)

    def _on_message(self, message: Any) -> None:
        body = message.body
        for event in heard(body.encode() if isinstance(body, str) else bytes(body)):
            self._heard(event)


def heard(body: bytes) -> list[Event]:
    """The events in a message; none where somebody else wrote it."""
    with suppress(ValueError):
        return kq.values.event.decode(body)
    return []
