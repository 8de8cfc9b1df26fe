"""Any engine as a Kombu transport. A transport of its own is a subclass that says how to open the engine:

class Transport(EngineTransport):
    traits = TRAITS
    driver_name = "my-driver"

    def open_engine(self, options: Options) -> Engine:
        return MyEngine(self.client.host, options)
"""

from __future__ import annotations

from typing import Any, ClassVar

from amqp import exceptions
from kombu.exceptions import ChannelError
from kombu.exceptions import ConnectionError as KombuConnectionError
from kombu.transport import base

from kq_transports.channel import Channel
from kq_transports.connection import Connection
from kq_transports.engine import (
    MESSAGE_LIMIT,
    Engine,
    Full,
    LeaseLost,
    Mismatch,
    NotFound,
    Options,
    Stale,
    TooLarge,
    Traits,
    Unreachable,
)
from kq_transports.eventloop import Pump
from kq_transports.management import Management
from kq_transports.routing import KINDS

#: Seconds; the lease of a connection that asked for no heartbeat and named no other.
LEASE = 15.0

#: Transport options that Kombu reads itself, or writes there when a publish is retried.
KOMBUS = frozenset(
    {"callback", "connect_retries_timeout", "errback"}
    | {"interval_max", "interval_start", "interval_step", "max_retries", "retry_errors"}
)


class EngineTransport(base.Transport):
    """A Kombu transport on an engine. heartbeat=… is the length of the lease, in seconds; without one the
    engine keeps it alive by itself.

    transport_options: name (of the connection, unique), lease, timeout and connect_timeout (seconds), look,
    max_message_size (bytes); all others go to the engine as Options.extra.
    """

    traits: ClassVar[Traits]

    client: Any
    Management = Management
    driver_type = "kq"

    connection_errors: Any = (Unreachable, LeaseLost, KombuConnectionError, exceptions.ConnectionError)
    recoverable_connection_errors: Any = (Unreachable, LeaseLost, exceptions.RecoverableConnectionError)
    channel_errors: Any = (NotFound, Mismatch, Full, TooLarge, Stale, ChannelError, exceptions.ChannelError)
    recoverable_channel_errors: Any = ()

    implements = base.Transport.implements.extend(
        asynchronous=True, batch_publish=True, exchange_type=KINDS, heartbeats=True
    )

    def __init__(self, client: Any, **_: Any) -> None:
        self.client = client
        #: Kombu forgets a connection that it replaces.
        self._last: Connection | None = None

    def open_engine(self, options: Options) -> Engine:
        """A new connection to the broker that self.client (a kombu.Connection) names.

        self.client has hostname, port, userid, password, virtual_host, ssl and connect_timeout. Raises
        Unreachable(sent=False) when the broker does not answer within connect_timeout seconds.
        """
        raise NotImplementedError

    def establish_connection(self) -> Connection:
        if self._last is not None:
            self._last.close()
        options = self._options()
        self._last = Connection(self.client, self.open_engine(options), beats=not options.keep_alive)
        return self._last

    def _options(self) -> Options:
        given = {key: value for key, value in self.client.transport_options.items() if key not in KOMBUS}
        heartbeat = self.client.heartbeat or 0.0
        lease = float(given.pop("lease", LEASE))
        return Options(
            name=given.pop("name", ""),
            lease=heartbeat or lease,
            keep_alive=not heartbeat,
            timeout=float(given.pop("timeout", Options().timeout)),
            connect_timeout=given.pop("connect_timeout", None),
            look=bool(given.pop("look", False)),
            max_message_size=int(given.pop("max_message_size", MESSAGE_LIMIT)),
            extra=given,
        )

    def close_connection(self, connection: Connection) -> None:
        connection.close()

    def _collect(self, connection: Connection | None) -> None:
        """Kombu's way to drop a connection that failed, or is a parent's."""
        if connection is not None:
            connection.close()

    def verify_connection(self, connection: Connection) -> bool:
        return connection.connected

    def create_channel(self, connection: Connection) -> Channel:
        channel = Channel(connection)
        connection.channels.append(channel)
        return channel

    def drain_events(self, connection: Connection, timeout: float | None = None, **_: Any) -> bool:
        """Hand over what there is, or wait for it; raises socket.timeout after timeout seconds.

        False when that was all; then one need not ask again before one sleeps on what watch() returns.
        """
        return connection.drain(timeout)

    def watch(self, connection: Connection) -> tuple[int, float | None]:
        """For an event loop of one's own, after drain_events(timeout=0) found nothing, or said that that was all.

        A descriptor that becomes readable when drain_events may find something, and the seconds after which
        to call it anyway (None: no limit). Watch again after each drain, ack, and change of consumers.
        """
        return connection.watch()

    def register_with_event_loop(self, connection: Connection, loop: Any) -> None:
        Pump(connection, loop)

    def heartbeat_check(self, connection: Connection, rate: float = 2) -> None:
        """Renew the lease; cheap when called more often than needed. Raises LeaseLost."""
        connection.beat()

    def assured(self, connection: Connection) -> float:
        """Until when, on the monotonic clock, nobody else is given what connection holds, whatever becomes of it.

        Known once it has beaten. Who stops before that never works beside his successor.
        """
        return connection.assured

    def get_heartbeat_interval(self, connection: Connection) -> float:
        return connection.engine.options.lease if connection.beats else 0.0
