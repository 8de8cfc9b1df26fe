"""Start records: what went down with a worker is counted by the next; a copy is told from a message (C1, C4, C7)."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import pytest

from kq.broker import Delivery
from kq.clock import RANDOM
from kq.conformance.between import Between
from kq.state import Store, Write, open_store
from kq.values.failure import Failure
from kq.values.job import Counters, State
from kq.values.message import Envelope, Head
from kq.values.outcome import Bury, Complete, Died, GiveBack, Park, PassOn, Rules, Verdict, verdict_after
from kq.values.record import Start, decode_record, encode, job_key, lease_key
from kq.worker.scribe import Scribe
from kq.worker.starts import Starts, key_of
from kq.worker.task import Kind, Task


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


def task(tag: int = 1, *, redelivered: bool = True, rules: Rules | None = None) -> Task:
    delivery = Delivery(tag, "q", "1", {}, b"{}", 5, redelivered, "application/json")
    return Task(delivery, Head(id="1", type="t", failed=1), Kind("t", rules or Rules(), 1.0, 60.0), Counters(1, 0, 0))


def started(store: Store, holder: str, starts: int) -> None:
    store.write([Write(key_of(task()), encode(Start(holder, starts)))])


def test_starts_that_ended_with_their_workers_are_counted_as_lost(store: Store) -> None:
    started(store, "w1/q/7", 2)
    (admitted,) = Starts(store, "w2", True).admit([task()]).ready
    assert admitted.counters == Counters(failed=1, lost=2)


def test_the_last_of_them_is_in_the_history_under_the_name_of_its_worker(store: Store) -> None:
    started(store, "w1/q/7", 3)
    (lost,) = Starts(store, "w2", True).admit([task()]).lost
    verdict = verdict_after(Died("with its worker"), lost.counters, lost.kind.rules, RANDOM)
    assert isinstance(verdict, Bury)
    assert verdict.counters == Counters(failed=1, lost=3)
    (message,) = Scribe("w2", "web2", True, "").follow_ups(lost, verdict, now=100.0)
    (attempt,) = message.headers["history"]
    assert (attempt["worker"], attempt["number"], attempt["outcome"]) == ("w1", 4, "died")


@pytest.mark.parametrize(
    ("holder", "redelivered", "copy"),
    [("w1/q/7", False, True), ("w1/q/7", True, False), ("w2/q/7", True, True), ("w2/q/1", True, False)],
)
def test_where_messages_have_no_index_a_second_one_is_known_by_who_holds_the_first(
    store: Store, holder: str, redelivered: bool, copy: bool
) -> None:
    started(store, holder, 0)
    admitted = Starts(store, "w2", False).admit([task(redelivered=redelivered)])
    assert bool(admitted.copies) == copy
    assert bool(admitted.ready) != copy


def test_of_two_copies_that_run_where_messages_have_no_index_the_one_whose_job_completed_is_not_overruled(
    store: Store,
) -> None:
    store.write([Write(lease_key("w1"), b"1"), Write(lease_key("w2"), b"1")])
    (one,) = Starts(store, "w1", False).admit([task(1)]).ready
    (other,) = Starts(store, "w2", False).admit([task(2)]).ready
    store.write(list(Scribe("w2", "web2", False, "").records(other, Complete(b"5"), 100.0)))
    failed = Bury(Failure(("ValueError",), "no"), one.counters)
    assert not any(store.write(list(Scribe("w1", "web1", False, "").records(one, failed, 101.0))))
    record = decode_record(store.get([job_key("1")])[0])
    assert record is not None
    assert record.state is State.COMPLETED


@pytest.mark.parametrize("starts", [1, 2])
def test_what_was_counted_stays_until_the_broker_was_told(store: Store, starts: int) -> None:
    store.write([Write(lease_key("w2"), b"1")])
    started(store, "w1/q/7", starts - 1)
    once = task(rules=Rules(on_lost="bury")) if starts == 1 else task()
    worker = Starts(store, "w2", True)
    (counted,) = worker.count(worker.admit([once]).ready).ready
    verdict = verdict_after(Died("signal 9"), counted.counters, counted.kind.rules, RANDOM)
    store.write(list(Scribe("w2", "web2", True, "").records(counted, verdict, 100.0)))
    # The worker dies before the broker hears of it: the next one must not take the job for one that never started.
    again = Starts(store, "w3", True).admit([task(rules=counted.kind.rules)])
    assert [each.counters.lost for each in again.ready + again.lost] == [starts if again.ready else starts - 1]
    assert bool(again.lost) == (counted.kind.rules.on_lost == "bury")


def test_a_worker_whose_lease_is_over_does_not_undo_what_was_counted(store: Store) -> None:
    worker = Starts(store, "w2", True)
    (counted,) = worker.count(worker.admit([task()]).ready).ready
    verdict = verdict_after(Died("signal 9"), counted.counters, counted.kind.rules, RANDOM)
    assert not any(store.write(list(Scribe("w2", "web2", True, "").records(counted, verdict, 100.0))))
    assert store.get([key_of(counted)]) == [encode(Start("w2/q/1", 1))]


def test_who_is_overtaken_between_a_look_and_a_word_speaks_for_nothing(store: Store) -> None:
    class Overtaken(Between):
        """Another worker records the same job just before."""

        def write(self, writes: Sequence[Write]) -> list[bool]:
            started(store, "w1/q/7", 0)
            return super().write(writes)

    admitted = Starts(Overtaken(store), "w2", True).admit([task()])
    assert (len(admitted.unclear), admitted.ready) == (1, [])
    assert store.get([key_of(task())]) == [encode(Start("w1/q/7", 0))]


def test_what_goes_back_without_having_started_keeps_what_was_counted_before(store: Store) -> None:
    store.write([Write(lease_key("w2"), b"1")])
    started(store, "w1/q/7", 2)
    (admitted,) = Starts(store, "w2", True).admit([task()]).ready
    store.write(list(Scribe("w2", "web2", True, "").records(admitted, GiveBack(), 100.0)))
    (again,) = Starts(store, "w3", True).admit([task()]).ready
    assert again.counters == Counters(failed=1, lost=2)


@pytest.mark.parametrize("verdict", [Park(), PassOn(1.0)], ids=["parked", "passed on"])
def test_what_goes_elsewhere_without_having_started_takes_what_was_counted_along(
    store: Store, verdict: Verdict
) -> None:
    started(store, "w1/q/7", 2)
    (admitted,) = Starts(store, "w2", True).admit([task()]).ready
    (message,) = Scribe("w2", "web2", True, "").follow_ups(admitted, verdict, now=100.0)
    assert message.headers["lost"] == 2


@pytest.mark.parametrize("redelivered", [False, True])
def test_what_was_staged_by_a_job_that_may_have_released_it_before_says_so(redelivered: bool) -> None:
    staged = Envelope("2", "q", b"{}", {"id": "2"})
    (message,) = Scribe("w2", "web2", False, "").follow_ups(
        task(redelivered=redelivered), Complete(b"1", (staged,)), now=100.0
    )
    assert message.headers.get("again", False) is redelivered
