"""ContractSuite: what kq promises to people, C1 to C20, asked of real workers on one broker.

A broker's test module is a subclass that says where the broker is:

    class TestContractOnMyBroker(ContractSuite):
        @pytest.fixture
        def broker_url(self, my_server: MyServer) -> str:
            return my_server.url

The tests are in the modules of this package, by subject. What differs between brokers is asked of their traits.
`page` makes a page of the docs of what was kept, with figures.
"""

from __future__ import annotations

from kq.conformance.contract.alerting import AlertSuite
from kq.conformance.contract.alone import Alone, AloneOnAWire
from kq.conformance.contract.conflicts import Conflicts
from kq.conformance.contract.counting import Counts, Retries
from kq.conformance.contract.effects import Once
from kq.conformance.contract.fallbacks import Fallbacks
from kq.conformance.contract.gathering import Gathered
from kq.conformance.contract.hearing import Hearing, Telling
from kq.conformance.contract.hygiene import Hygiene
from kq.conformance.contract.leases import AtLeastOnce, Fencing, Lease
from kq.conformance.contract.lottery import LotterySuite
from kq.conformance.contract.order import Delay, Priority
from kq.conformance.contract.orders import Broadcast, Revoke
from kq.conformance.contract.outages import Outage, Weather
from kq.conformance.contract.quiet import Bounded, Quiet
from kq.conformance.contract.reasons import Supervision, Why
from kq.conformance.contract.remedies import Remedies
from kq.conformance.contract.repairing import Repairing
from kq.conformance.contract.results import Results
from kq.conformance.contract.scarcity import ScarcityAtWork, ScarcitySuite
from kq.conformance.contract.seeing import Seeing
from kq.conformance.contract.storing import Atomic, Kept
from kq.conformance.contract.unique import Unique


class ContractSuite(
    Kept,
    Unique,
    Conflicts,
    AtLeastOnce,
    Lease,
    Fencing,
    Priority,
    Delay,
    Counts,
    Retries,
    Revoke,
    Broadcast,
    Why,
    Supervision,
    Remedies,
    Repairing,
    Seeing,
    Alone,
    Hearing,
    Telling,
    Once,
    Fallbacks,
    Results,
    Atomic,
    Gathered,
    Quiet,
    Hygiene,
    Bounded,
):
    """Every promise, on a broker that stays well."""


class WireSuite(Outage, Weather, AloneOnAWire):
    """What is promised of brokers behind a network, while it or they fail."""


__all__ = ["AlertSuite", "ContractSuite", "LotterySuite", "ScarcityAtWork", "ScarcitySuite", "WireSuite"]
