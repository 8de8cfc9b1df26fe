"""ContractSuite: what kq promises to people, C1 to C20, asked of real workers on one broker.

A broker's test module is a subclass that says where the broker is:

    class TestContractOnMyBroker(ContractSuite):
        @pytest.fixture
        def broker_url(self, my_server: MyServer) -> str:
            return my_server.url

The tests are in the modules of this package, by subject. What differs between brokers is asked of their traits.
`page` makes a page of the docs of what was kept, with figures.

The suites are imported when they are first asked for: workers import `jobs` of this package, and the suites, with
pytest, would cost each of them 0.2 s of processor time.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kq.conformance.contract.alerting import AlertSuite, RuleSuite
    from kq.conformance.contract.lottery import LotterySuite
    from kq.conformance.contract.scarcity import ScarcityAtWork, ScarcitySuite
    from kq.conformance.contract.suites import ContractSuite, WireSuite

_HOME = {
    "AlertSuite": "alerting",
    "ContractSuite": "suites",
    "LotterySuite": "lottery",
    "RuleSuite": "alerting",
    "ScarcityAtWork": "scarcity",
    "ScarcitySuite": "scarcity",
    "WireSuite": "suites",
}

__all__ = ["AlertSuite", "ContractSuite", "LotterySuite", "RuleSuite", "ScarcityAtWork", "ScarcitySuite", "WireSuite"]


def __getattr__(name: str) -> object:
    """Import a suite from its module on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
