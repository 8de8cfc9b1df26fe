"""The lease of a worker: for how long it, its executors and the state store believe in it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest

from kq.app import App
from kq.broker import Session
from kq.errors import LeaseLost
from kq.state import Write
from kq.worker.lapse import Lapse
from kq.worker.lease import Lease


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.at = time.monotonic()

    def monotonic(self) -> float:
        return self.at

    now = monotonic


class Leased:
    """A lease on a broker in memory, and what was written of it in the state store."""

    def __init__(self, length: float) -> None:
        self.app = App("lease", f"memory://{uuid.uuid4().hex}")
        self.session = Session(self.app.broker, "w", length, {}, lambda delivery: None)
        self.clock, self.lapse, self.written = Hand(), Lapse(), list[Write]()
        self.lease = Lease(self.session, self.lapse, self.clock)

    def beat(self) -> None:
        self.lease.beat(self.written.append)

    def close(self) -> None:
        self.session.close()
        self.lapse.close()
        self.app.close()


@pytest.fixture(params=[1.0, 15.0, 3600.0], ids=lambda length: f"{length:g} s")
def leased(request: pytest.FixtureRequest) -> Iterator[Leased]:
    leased = Leased(request.param)
    leased.beat()
    yield leased
    leased.close()


def test_nothing_runs_under_it_any_more_when_it_ends_and_the_state_store_has_forgotten_it(leased: Leased) -> None:
    session, (written,) = leased.session, leased.written
    assert leased.lease.until < leased.lapse.moment < session.safe_until
    assert written.keep is not None
    assert 0 < written.keep < session.span


def test_who_was_not_awake_shortly_before_its_end_has_lost_it_whatever_the_broker_says(leased: Leased) -> None:
    leased.clock.at = leased.lapse.moment
    with pytest.raises(LeaseLost, match="not awake"):
        leased.beat()
    assert len(leased.written) == 1
