"""KombuSuite: what kq asks of any Kombu transport, through Kombu's own API.

A test module of a transport is a subclass that says where the broker is:

    class TestMyTransport(KombuSuite):
        def url(self, where: Path) -> str:
            return f"my-scheme:///{where}/jobs"

Where brokers differ, the transport's `traits` decide. WireSuite is for those whose broker is a server: what
becomes of messages when the network fails.
"""

from __future__ import annotations

from kq_transports.conformance.kombu.exchanges import Declaring, Routing, SingleActive
from kq_transports.conformance.kombu.failures import Deaths, Leases
from kq_transports.conformance.kombu.messages import Consuming, GivingBack, Later, Prefetch
from kq_transports.conformance.kombu.swapping import Swapping
from kq_transports.conformance.kombu.together import EventLoops, Groups, Looking, Once, Threads
from kq_transports.conformance.kombu.wire import WireSuite

__all__ = ["KombuSuite", "WireSuite"]


# The tests of the last run first.
class KombuSuite(
    Deaths,
    Leases,
    Swapping,
    Looking,
    EventLoops,
    Threads,
    Once,
    Groups,
    SingleActive,
    Declaring,
    Routing,
    Later,
    GivingBack,
    Prefetch,
    Consuming,
):
    """Every promise that travels through Kombu's API."""
