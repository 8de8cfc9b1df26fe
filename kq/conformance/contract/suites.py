"""The two large suites, put together from the modules of this package."""

from __future__ import annotations

from kq.conformance.contract.alone import Alone, AloneOnAWire
from kq.conformance.contract.conflicts import Conflicts
from kq.conformance.contract.counting import Counts, Retries
from kq.conformance.contract.effects import Once
from kq.conformance.contract.fallbacks import Fallbacks
from kq.conformance.contract.following import Following
from kq.conformance.contract.gathering import Gathered
from kq.conformance.contract.hearing import Hearing, Remembering, Telling
from kq.conformance.contract.hygiene import Hygiene
from kq.conformance.contract.leases import AtLeastOnce, Fencing, Lease
from kq.conformance.contract.order import Delay, Priority
from kq.conformance.contract.orders import Broadcast, Revoke
from kq.conformance.contract.outages import Outage
from kq.conformance.contract.quiet import Bounded, Quiet, Sharing
from kq.conformance.contract.reasons import Supervision, Why
from kq.conformance.contract.remedies import Remedies
from kq.conformance.contract.repairing import Repairing
from kq.conformance.contract.results import Results
from kq.conformance.contract.seeing import Seeing
from kq.conformance.contract.storing import Atomic, Kept
from kq.conformance.contract.streaming import Streaming
from kq.conformance.contract.unique import Unique
from kq.conformance.contract.weather import Weather


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
    Remembering,
    Telling,
    Streaming,
    Following,
    Once,
    Fallbacks,
    Results,
    Atomic,
    Gathered,
    Quiet,
    Sharing,
    Hygiene,
    Bounded,
):
    """Every promise, on a broker that stays well."""


class WireSuite(Outage, Weather, AloneOnAWire):
    """What is promised of brokers behind a network, while it or they fail."""
