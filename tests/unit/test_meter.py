"""The meter: what a worker counts of its jobs."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from kq.broker import Delivery
from kq.values.failure import Failure
from kq.values.job import Counters
from kq.values.message import Head
from kq.values.outcome import (
    Bury,
    Complete,
    Drop,
    Expire,
    FallBack,
    GiveBack,
    Park,
    PassOn,
    Retry,
    Revoke,
    Rules,
    Verdict,
)
from kq.values.policy import Fixed
from kq.values.tally import MINUTE, Tally, Work, quantile
from kq.worker.meter import GROUPS, LATEST, Meter
from kq.worker.task import Kind, Task

FAILURE = Failure(("ValueError",), "row 7", '  File "/srv/shop/bill.py", line 3, in total\n')
OTHER = Failure(("KeyError",), "'x'", '  File "/srv/shop/bill.py", line 9, in total\n')


def task(
    queue: str = "mail", type: str = "send", id: str = "1", ran: float | None = 0.1, began: float = 0.0, **head: Any
) -> Task:
    delivery, kind = Delivery(1, queue, id, {}, b"", 0, False, ""), Kind(type, Rules(), 60.0, 0.0)
    return Task(delivery, Head(id=id, type=type, **head), kind, Counters(), began=began, ran=ran)


def retry(delay: float = 5.0) -> Retry:
    return Retry(delay, Counters(1), FAILURE, "raised")


def only(tally: Tally) -> Work:
    (work,) = tally.work
    return work


@pytest.mark.parametrize(
    ("verdict", "counted"),
    [
        (Complete(b"1"), {"completed": 1}),
        (retry(), {"failed": 1, "retried": 1}),
        (FallBack(FAILURE, Counters(1), "raised"), {"failed": 1, "fell": 1}),
        (Bury(FAILURE, Counters(1), "raised"), {"failed": 1, "buried": 1}),
        (Bury(FAILURE, Counters()), {"buried": 1}),
        (Revoke("no"), {"revoked": 1}),
        (Expire(), {"expired": 1}),
        (GiveBack(), {}),
        (Park(), {}),
        (PassOn(1.0), {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_verdict_counts_as_what_it_is(verdict: Verdict, counted: dict[str, int]) -> None:
    meter = Meter()
    meter.started([task(began=10.0)], 0.0)
    meter.ended(task(), verdict, 12.0)
    work = only(meter.tally("w", 0.0, 12.0))
    names = ("completed", "failed", "retried", "fell", "buried", "revoked", "expired")
    assert {name: number for name in names if (number := getattr(work, name))} == counted
    assert work.started == 1
    assert sum(work.ran.counts) == bool(counted)


def test_copies_and_side_effects_are_counted_beside_the_jobs() -> None:
    meter = Meter()
    meter.ended(task(), Drop(), 1.0)
    ended = task()
    ended.effects = {"done": 2, "duplicate": 1, "no such thing": 9}
    meter.ended(ended, Complete(b""), 2.0)
    meter.doubted(task())
    work = only(meter.tally("w", 0.0, 3.0))
    assert (work.completed, work.dropped) == (1, 1)
    assert (work.done, work.duplicate, work.unknown) == (2, 1, 1)


@pytest.mark.parametrize(
    ("head", "waited"),
    [({"submitted": 7.0}, 3.0), ({"submitted": 1.0, "due": 9.5}, 0.5), ({"submitted": 11.0}, 0.0)],
    ids=["from when it was submitted", "from when it was due", "never less than nothing"],
)
def test_a_job_waited_since_it_might_have_started(head: dict[str, Any], waited: float) -> None:
    meter = Meter()
    meter.started([task(began=10.0, **head)], 0.0)
    tally = meter.tally("w", 0.0, 10.0)
    assert only(tally).waited.seconds == waited
    assert [(each.queue, each.priority, each.waited.seconds) for each in tally.waits] == [("mail", 0, waited)]


def test_a_job_that_completes_after_a_fallback_does_so_the_simple_way() -> None:
    meter = Meter()
    for degraded in (0, 2):
        meter.ended(task(degraded_by=degraded), Complete(b""), 1.0)
    work = only(meter.tally("w", 0.0, 1.0))
    assert (work.completed, work.degraded) == (2, 1)


def test_queues_and_types_are_counted_apart() -> None:
    meter = Meter()
    for each in (task(), task(type="other"), task("bulk"), task()):
        meter.ended(each, Complete(b""), 1.0)
    counted = {(work.queue, work.type): work.completed for work in meter.tally("w", 0.0, 1.0).work}
    assert counted == {("mail", "send"): 2, ("mail", "other"): 1, ("bulk", "send"): 1}


def test_the_last_minute_forgets_what_is_older() -> None:
    meter = Meter()
    meter.ended(task(), Complete(b""), 1.0)
    assert meter.tally("w", 0.0, 2.0).span == 2.0
    for now in range(5, 100, 5):
        tally = meter.tally("w", 0.0, float(now))
    assert (tally.recent, only(tally).completed) == ([], 1)
    meter.ended(task(), Complete(b""), 96.0)
    tally = meter.tally("w", 0.0, 97.0)
    assert [work.completed for work in tally.recent] == [1]
    assert MINUTE - 10 <= tally.span <= MINUTE


def test_beats_that_are_far_apart_do_not_lose_the_last_minute() -> None:
    meter = Meter()
    meter.tally("w", 0.0, 1.0)
    meter.ended(task(), Complete(b""), 200.0)
    tally = meter.tally("w", 0.0, 300.0)
    assert [work.completed for work in tally.recent] == [1]


def test_failures_that_are_alike_are_one_group() -> None:
    meter = Meter()
    for number, failure in enumerate([FAILURE, OTHER, FAILURE]):
        meter.ended(task(id=str(number)), Bury(failure, Counters(1), "raised"), float(number))
    other, group = meter.tally("w", 0.0, 3.0).groups
    assert (group.exception, group.place, group.number, group.last, group.job) == (
        "ValueError",
        "bill.py:total",
        2,
        2.0,
        "2",
    )
    assert (other.exception, other.number, other.message) == ("KeyError", 1, "KeyError: 'x'")


@pytest.mark.parametrize(
    ("counters", "verdict", "tries"),
    [
        (Counters(), retry(), (1, 5)),
        (Counters(failed=2, lost=1), retry(), (4, 6)),
        (Counters(failed=4), Bury(FAILURE, Counters(5), "raised"), (5, 5)),
        (Counters(), Bury(FAILURE, Counters(1), "raised"), (1, 1)),
    ],
    ids=["the first", "one was lost besides", "the last", "one that is not retried"],
)
def test_an_attempt_that_failed_says_how_many_there_are_at_most(
    counters: Counters, verdict: Verdict, tries: tuple[int, int]
) -> None:
    meter = Meter()
    kind = Kind("send", Rules(retry_policy=Fixed(delay=1, retries=4)), 60.0, 0.0)
    meter.ended(replace(task(), kind=kind, counters=counters), verdict, 1.0)
    (latest,) = meter.tally("w", 0.0, 1.0).latest
    assert (latest.attempt, latest.of) == tries
    meter.ended(task(), retry(), 2.0)  # without a policy it depends on the error
    assert meter.tally("w", 0.0, 2.0).latest[-1].of == 0


def test_memory_is_bounded_whatever_fails() -> None:
    meter = Meter()
    for number in range(GROUPS * 3):
        meter.ended(task(type=f"t{number}"), Bury(FAILURE, Counters(1), "raised"), float(number))
    tally = meter.tally("w", 0.0, 1.0)
    assert [group.type for group in tally.groups] == [f"t{number}" for number in range(GROUPS * 2, GROUPS * 3)]
    assert len(tally.latest) == LATEST


def test_a_retry_is_known_until_it_is_due() -> None:
    meter = Meter()
    for delay in (5.0, 5.0, 500.0):
        meter.ended(task(), retry(delay), 100.0)
    assert sum(number for _, number in meter.tally("w", 0.0, 101.0).returning["mail"]) == 3
    assert sum(number for _, number in meter.tally("w", 0.0, 110.0).returning["mail"]) == 1
    assert meter.tally("w", 0.0, 700.0).returning == {}


def test_many_retries_take_few_numbers() -> None:
    meter = Meter()
    for number in range(10_000):
        meter.ended(task(), retry(3600.0 + number), 100.0)
    assert len(meter.tally("w", 0.0, 101.0).returning["mail"]) < 10


def test_what_took_how_long_can_be_asked() -> None:
    meter = Meter()
    for ran in (0.2, 0.3, 40.0):
        meter.ended(task(ran=ran), Complete(b""), 1.0)
    half = quantile([only(meter.tally("w", 0.0, 1.0)).ran], 0.5)
    assert half is not None
    assert 0.1 <= half <= 0.5
