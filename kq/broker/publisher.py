"""Storing messages: what a submit needs."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, Protocol

import kombu
from kombu.exceptions import ChannelError

from kq.broker.inspector import Inspector
from kq.broker.letters import Swap, put
from kq.broker.link import Broker, establish
from kq.broker.queues import declare_missing
from kq.broker.translation import CONNECTION_ERRORS, quietly, stored_by, text_of
from kq.errors import BrokerError, BrokerFull, BrokerUnreachable, Stored
from kq.values.message import Envelope, replacing
from kq_transports import engine

#: How often a job is looked for that somebody else moved meanwhile, as one that waits for its turn is again and again.
LOOKS = 3


class Publishes(Protocol):
    """What stores messages: a Publisher, or something that passes them on to one."""

    def publish(self, envelopes: Sequence[Envelope], until: float, rider: engine.Rider | None = None) -> bool:
        """Store envelopes, all or none, before until (monotonic).

        rider: of the state store, where the broker carries it; False when it refused, and then nothing was stored.
        """

    def replace(self, id: str, envelope: Envelope, now: float, until: float) -> bool:
        """Put envelope in the place of the job of that id, in one step, under that one's id and with its past.

        False when that does not wait. now: by the state store's clock. until: monotonic. Raises as publish does.
        """

    def has(self, queues: Sequence[str], id: str, until: float) -> bool:
        """Whether one of queues, looked through in this order, has a message of that id, as far as can be seen."""

    def close(self) -> None:
        """End the connection."""


class Publisher:
    """Puts messages into queues, all or nothing. May be shared by threads and survives a fork."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._begin()
        _publishers.add(self)

    def _begin(self) -> None:
        """Be without a connection."""
        self._lock = threading.Lock()
        self._connection: kombu.Connection | None = None
        self._channel: Any = None
        self._declared: set[str] = set()

    def publish(self, envelopes: Sequence[Envelope], until: float, rider: engine.Rider | None = None) -> bool:
        """Store envelopes before until (monotonic); on return they are in the broker (promise C1).

        Repeats after a failure; an id that is already there is stored once. Raises BrokerUnreachable, whose .stored
        says what is known, or BrokerFull. rider: see Publishes.publish.
        """
        began = time.monotonic()
        if not self._lock.acquire(blocking=False) and not self._lock.acquire(timeout=max(0.0, until - began)):
            raise BrokerUnreachable(f"{self._where} is busy with another submit; stored: no", stored="no")
        try:
            return self._publish(envelopes, until, rider, began)
        finally:
            self._lock.release()

    def replace(self, id: str, envelope: Envelope, now: float, until: float) -> bool:
        """See Publishes.replace."""
        with closing(Inspector(self._broker, max(0.05, until - time.monotonic()))) as inspector:
            for queue in inspector.probable(envelope.queue):
                for _ in range(LOOKS):
                    seen = inspector.find(queue, [id])
                    if not seen:
                        break
                    swap = Swap(seen[0], (replacing(seen[0].headers, envelope, now),))
                    if inspector.swap(queue, [swap])[0]:
                        return True
                else:
                    return False
        return False

    def has(self, queues: Sequence[str], id: str, until: float) -> bool:
        """See Publishes.has; where there is no broker yet there is none."""
        with closing(Inspector(self._broker, max(0.05, until - time.monotonic()))) as inspector:
            return any(inspector.has(queue, id) for queue in queues)

    def close(self) -> None:
        """End the connection. Publishing again opens another."""
        with self._lock:
            self._discard()

    @property
    def _where(self) -> str:
        return self._broker.address.redacted

    def _publish(self, envelopes: Sequence[Envelope], until: float, rider: engine.Rider | None, began: float) -> bool:
        stored: Stored = "no"
        waits: Iterator[float] | None = None
        while True:
            try:
                self._attempt(envelopes, until, rider, began)
                return True
            except engine.Declined as error:
                if stored == "no":
                    return False
                # The attempt that was not answered may have stored them, and they may have ended since.
                raise BrokerUnreachable(
                    f"{self._where} did not answer, and then: {error}; stored: {stored}", stored=stored
                ) from error
            except engine.Full as error:
                raise BrokerFull(f"{self._where} refuses to store more: {error}; nothing was stored") from error
            except CONNECTION_ERRORS as error:
                self._discard()
                if stored_by(error) != "no":
                    stored = "unknown"
                    envelopes = [envelope.again() for envelope in envelopes]
                waits = waits or self._broker.publishing.waits()
                wait = next(waits, None)
                if wait is None or time.monotonic() + wait >= until:
                    raise BrokerUnreachable(
                        f"could not submit to {self._where}: {text_of(error)}; stored: {stored}", stored=stored
                    ) from error
                time.sleep(wait)
            except (engine.EngineError, ChannelError) as error:
                # What another attempt cannot mend: a wrong password, an unknown option, another declaration.
                self._discard()
                raise BrokerError(f"could not submit to {self._where}: {text_of(error)}") from error
            except BaseException:
                # Half of the envelopes may lie in the channel's transaction: they must not go with the next ones.
                self._discard()
                raise

    def _attempt(self, envelopes: Sequence[Envelope], until: float, rider: engine.Rider | None, began: float) -> None:
        channel = self._channel or self._open(until)
        if missing := {envelope.queue for envelope in envelopes} - self._declared:
            declare_missing(channel, missing, self._declared, self._broker.singletons)
        try:
            for envelope in envelopes:
                put(channel, envelope)
            if rider is not None:
                channel.carry(rider)
            channel.since(began)
            channel.tx_commit()
        except engine.NotFound:
            # The queue was deleted behind our back: declare it again and let the caller repeat.
            self._declared.clear()
            raise

    def _open(self, until: float) -> Any:
        # Half of the time that is left for connecting, half for publishing.
        self._connection = self._broker.connection(timeout=max(0.05, (until - time.monotonic()) / 2))
        establish(self._connection)
        self._channel = self._connection.channel()
        self._channel.tx_select()
        self._declared.clear()
        return self._channel

    def _discard(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        self._declared.clear()
        if connection is not None:
            quietly(connection.close)


_publishers: weakref.WeakSet[Publisher] = weakref.WeakSet()


def _after_fork() -> None:
    """A child must not speak on its parent's socket, nor wait for a thread that it hasn't got: it begins anew."""
    for publisher in list(_publishers):
        publisher._begin()


os.register_at_fork(after_in_child=_after_fork)
