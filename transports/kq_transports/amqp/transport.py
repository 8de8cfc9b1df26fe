"""The Kombu transport."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from amqp import exceptions
from kombu.exceptions import ChannelError
from kombu.exceptions import ConnectionError as KombuConnectionError
from kombu.transport import pyamqp

from kq_transports.amqp.connection import Connection
from kq_transports.amqp.line import Address
from kq_transports.amqp.management import Management
from kq_transports.amqp.seat import LOOK
from kq_transports.engine import (
    MESSAGE_LIMIT,
    EngineError,
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
from kq_transports.transport import KOMBUS, LEASE

TRAITS = Traits("rabbitmq", atomic=False, indexed=False)

#: Kinds of queue that keep jobs.
QUEUE_TYPES = ("classic", "quorum")


class Transport(pyamqp.Transport):
    """RabbitMQ by py-amqp. heartbeat=… is the length of the lease, in seconds; without one a thread keeps it alive.

    transport_options: name (of the connection, unique), lease, timeout and connect_timeout (seconds), look,
    max_message_size (bytes of a body; the server has a limit of its own), queue_type (classic or quorum).
    """

    traits: ClassVar[Traits] = TRAITS

    client: Any
    connection_errors: Any = (Unreachable, LeaseLost, KombuConnectionError, exceptions.ConnectionError)
    recoverable_connection_errors: Any = (Unreachable, LeaseLost, exceptions.RecoverableConnectionError)
    channel_errors: Any = (NotFound, Mismatch, Full, TooLarge, Stale, ChannelError, exceptions.ChannelError)
    recoverable_channel_errors: Any = ()

    implements = pyamqp.Transport.implements.extend(
        asynchronous=True,
        batch_publish=True,
        exchange_type=frozenset(("direct", "topic", "fanout", "headers")),
        heartbeats=True,
    )

    def __init__(self, client: Any, **_: Any) -> None:
        self.client = client
        #: Kombu forgets a connection that it replaces.
        self._last: Connection | None = None

    def establish_connection(self) -> Connection:
        if self._last is not None:
            self._last.close()
        options, queue_type = self._options()
        connection = Connection(self.client, self._address(), options, queue_type)
        connection.connect()
        self._last = connection
        return connection

    def _options(self) -> tuple[Options, str]:
        given = {key: value for key, value in self.client.transport_options.items() if key not in KOMBUS}
        heartbeat = self.client.heartbeat or 0.0
        lease = float(given.pop("lease", LEASE))
        options = Options(
            name=given.pop("name", ""),
            lease=heartbeat or lease,
            keep_alive=not heartbeat,
            timeout=float(given.pop("timeout", Options().timeout)),
            connect_timeout=given.pop("connect_timeout", None),
            look=bool(given.pop("look", False)),
            max_message_size=int(given.pop("max_message_size", MESSAGE_LIMIT)),
        )
        queue_type = given.pop("queue_type", QUEUE_TYPES[0])
        if queue_type not in QUEUE_TYPES:
            raise EngineError(f"queue_type is {queue_type!r}; it may be {' or '.join(QUEUE_TYPES)}")
        if given:
            raise EngineError(f"the RabbitMQ transport has no option {', '.join(sorted(given))}")
        return options, queue_type

    def _address(self) -> Address:
        client, known = self.client, self.default_connection_params
        host = client.hostname or known["hostname"]
        password = client.password
        tls = None
        if client.ssl:
            # Without a name py-amqp would take any certificate that some authority signed.
            tls = {"server_hostname": host, **(client.ssl if isinstance(client.ssl, dict) else {})}
        return Address(
            host=host,
            port=client.port or known["port"],
            virtual_host=client.virtual_host or "/",
            user=client.userid or known["userid"],
            password=(password() if callable(password) else password) or known["password"],
            login_method=client.login_method or known["login_method"],
            tls=tls,
        )

    def close_connection(self, connection: Connection) -> None:
        connection.close()

    def verify_connection(self, connection: Connection) -> bool:
        return connection.connected

    def drain_events(self, connection: Connection, timeout: float | None = None, **_: Any) -> bool:
        """Hand over what there is, or wait for it; raises socket.timeout after timeout seconds.

        True: as the broker sends by itself, more may have come meanwhile.
        """
        connection.drain(timeout)
        return True

    def watch(self, connection: Connection) -> tuple[int, float | None]:
        """For an event loop of one's own, after drain_events(timeout=0) found nothing.

        A descriptor that becomes readable when drain_events may find something, and the seconds after which
        to call it anyway. Watch again after each drain, ack, and change of consumers.
        """
        return connection.watch()

    def register_with_event_loop(self, connection: Connection, loop: Any) -> None:
        def drain() -> None:
            """One batch at a time, so that the loop's other work has its turn."""
            if connection.alive:
                try:
                    connection.drain(timeout=0)
                except TimeoutError:
                    if connection.seats.next_look < math.inf:
                        loop.call_later(LOOK, drain)
                    return
                loop.call_soon(drain)

        connection.on_arrival = lambda: loop.call_soon(drain)
        loop.add_reader(connection.watch()[0], drain)

    def heartbeat_check(self, connection: Connection, rate: float = 2) -> None:
        """Renew the lease; cheap when called more often than needed. Raises LeaseLost."""
        connection.beat()

    def assured(self, connection: Connection) -> float:
        """Until when, on the monotonic clock, nobody else is given what connection holds, whatever becomes of it.

        Known once it has beaten. Who stops before that never works beside his successor.
        """
        return connection.assured

    def get_heartbeat_interval(self, connection: Connection) -> float:
        """Seconds within which heartbeat_check() is to be called twice; 0 when that is not needed."""
        return 0.0 if connection.options.keep_alive else float(connection.heartbeat)

    def get_manager(self, *_: Any, **__: Any) -> Management:
        return Management(self)


class SSLTransport(Transport):
    """RabbitMQ by TLS."""

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)
        client.ssl = client.ssl or True
