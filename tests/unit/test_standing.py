"""What orders mean for a job, and how they are kept."""

from __future__ import annotations

import pytest

from kq.handles.standing import NONE, SPENT_KEEP, Kind, Order, Standing, give, order_key, read
from kq.state import open_store
from kq.state.store import Store
from kq.values.failure import Failure
from kq.values.job import Counters
from kq.values.outcome import Bury, Complete, Drop, Expire, GiveBack, Park, Retry, Revoke, Verdict

ORDER = Order(1.0, "ops@web1", "not wanted")
FAILED = Failure(("OSError",), "no")
STANDING = Standing(queues={"mail": ORDER}, types={"resize": ORDER}, revoked={"7": ORDER})


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Store:
    return open_store(f"memory://{request.node.name}")


@pytest.mark.parametrize(
    ("job", "type", "queue", "fate"),
    [
        ("1", "note", "default", None),
        ("1", "note", "mail", GiveBack()),
        ("1", "resize", "default", Park()),
        ("1", "resize", "mail", GiveBack()),  # its place in the queue is worth more than a place aside
        ("7", "resize", "mail", Revoke("revoked by ops@web1: not wanted")),
    ],
)
def test_the_narrowest_order_decides_what_becomes_of_a_job(
    job: str, type: str, queue: str, fate: Verdict | None
) -> None:
    assert STANDING.fate(job, type, queue) == fate


@pytest.mark.parametrize("verdict", [Retry(1.0, Counters(1), FAILED, "raised"), Bury(FAILED, Counters(1)), Park()])
def test_a_revoked_job_ends_where_it_would_go_on(verdict: Verdict) -> None:
    assert isinstance(STANDING.last_word("7", verdict), Revoke)
    assert STANDING.last_word("1", verdict) is verdict


@pytest.mark.parametrize("verdict", [Complete(b"1"), GiveBack(), Drop(), Expire(), Revoke("its own")])
def test_what_has_ended_or_is_anothers_stays_so_although_it_was_revoked(verdict: Verdict) -> None:
    assert STANDING.last_word("7", verdict) is verdict


def test_an_order_stands_for_whoever_reads_the_store(store: Store) -> None:
    assert read(store) is NONE
    for kind in Kind:
        give(store, kind, "a:b", ORDER)
    standing = read(store)
    for orders in (standing.queues, standing.types, standing.resumed, standing.revoked, standing.retired):
        assert {about: order.reason for about, order in orders.items()} == {"a:b": "not wanted"}
        assert abs(orders["a:b"].at - store.now()) < 5


def test_orders_that_speak_of_no_job_cost_a_job_nothing() -> None:
    assert not NONE
    assert not Standing(retired={"w": ORDER}, resumed={"resize": ORDER})
    assert STANDING


def test_an_order_about_a_job_that_has_ended_is_not_kept_for_long(store: Store) -> None:
    (write,) = STANDING.spent("7")
    assert (write.key, write.keep) == (order_key(Kind.REVOKE, "7"), SPENT_KEEP)
    assert list(STANDING.spent("1")) == []
