"""An address, and how one connects there."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import kombu

import kq_transports
from kq.broker.translation import translated
from kq.errors import Unsupported
from kq.url import Address
from kq.values.policy import PublishPolicy
from kq_transports import engine

#: So many answers may be waited for when one connects for a whole lease.
HANDSHAKE = 4


class Broker:
    """An address and how to talk to it. Cheap: connections are made by what it returns.

    singletons: the queues of which one job runs at a time (promise C12); whoever knows job types adds theirs.
    """

    def __init__(
        self,
        address: Address,
        *,
        submit_timeout: float = 5.0,
        publishing: PublishPolicy | None = None,
        singletons: set[str] | None = None,
    ) -> None:
        kq_transports.register(address.transports)
        self.address = address
        self.submit_timeout = submit_timeout
        self.publishing = publishing or PublishPolicy()
        self.singletons: set[str] = set() if singletons is None else singletons
        #: Whether it lives in another process, which publishes for this one: here would be one of that name, and empty.
        self.elsewhere = False

    @property
    def traits(self) -> engine.Traits:
        """What this broker can do beyond the contract."""
        traits: engine.Traits = kombu.Connection(self.address.kombu).get_transport_cls().traits
        return traits

    @cached_property
    def carries(self) -> bool:
        """Whether what its state store writes can ride on a publish."""
        return self.address.keeps_state and self.traits.carries

    def connection(
        self, *, timeout: float | None = None, lease: float | None = None, **options: Any
    ) -> kombu.Connection:
        """A Kombu connection, not yet established.

        timeout: seconds that connecting, and each verb, may take; submit_timeout by default. lease: seconds; None for
        one that holds nothing. One that does is used for long, and may take as long to connect as several verbs.
        Raises Unsupported in an executor of a worker that alone has the broker.
        """
        if self.elsewhere:
            what = (
                f"{self.address.redacted} lives in the process of the worker: its jobs may submit and wait for results"
            )
            raise Unsupported(f"{what}, not look at queues or change them", fix="Use sqlite:///kq.db instead.")
        timeout = timeout or self.submit_timeout
        if lease:
            options["connect_timeout"] = HANDSHAKE * timeout
        return kombu.Connection(
            self.address.kombu,
            heartbeat=lease or 0,
            connect_timeout=timeout,
            transport_options={"timeout": timeout, **self.address.options, **options},
        )

    def reach(self) -> None:
        """Connect and let go again; where the broker is a file this makes it. Raises BrokerUnreachable."""
        with translated(self.address), self.connection() as connection:
            establish(connection)


def answer_time(broker: Broker, lease: float) -> float:
    """Seconds that a worker waits for one answer: a part of its lease, so that it can ask again while that lasts."""
    return min(broker.submit_timeout, lease / 3)


def establish(connection: kombu.Connection) -> None:
    """Connect, trying each of the connection's URLs once. Kombu's connect() sleeps for two seconds and tries again."""
    tries = max(1, len(connection.alt))
    connection.ensure_connection(
        max_retries=tries - 1, interval_start=0, interval_step=0, interval_max=0, reraise_as_library_errors=False
    )
