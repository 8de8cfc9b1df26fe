"""EngineSuite: all that `kq_transports/engine.py` promises, for any engine.

A test module of a transport is a subclass that says how to open a connection:

    class TestMyEngine(EngineSuite):
        def open(self, where: Path, options: Options) -> Engine:
            return MyEngine(where / "jobs", options)

The tests are in the modules of this package, by subject.
"""

from __future__ import annotations

from itertools import count

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from kq_transports.conformance.engine.faults import Faults
from kq_transports.conformance.engine.leases import Fencing, Leases, Mortal, SingleActive
from kq_transports.conformance.engine.life import Delay, FollowUps, GiveBack, Order, Publish, Settle
from kq_transports.conformance.engine.load import Load
from kq_transports.conformance.engine.surveying import Surveying
from kq_transports.conformance.engine.swapping import Swapping
from kq_transports.conformance.engine.topology import Exchanges, Looking, Queues
from kq_transports.conformance.engine.waiting import Waiting
from kq_transports.conformance.engine.world import Connect, requires
from kq_transports.conformance.model import EngineModel
from kq_transports.engine import Engine


class Random(Faults):
    """Steps that nobody thought of."""

    examples = 25  # of up to 30 steps each

    def test_random_steps_agree_with_a_sorted_list(self, connect: Connect, engine: Engine) -> None:
        requires(engine.traits, "indexed")
        names = count()
        run_state_machine_as_test(
            lambda: EngineModel(connect, self.elapse, f"model{next(names)}"),  # type: ignore[arg-type]
            settings=settings(
                max_examples=self.examples,
                stateful_step_count=30,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )


# The tests of the last run first: who begins a transport meets the simple ones before the others.
class EngineSuite(
    Random,
    Load,
    Swapping,
    Surveying,
    Looking,
    Exchanges,
    Queues,
    Waiting,
    Mortal,
    SingleActive,
    Fencing,
    Leases,
    Delay,
    Publish,
    FollowUps,
    Settle,
    GiveBack,
    Order,
):
    """Every promise of the seam."""
