"""Late words: what was refused is kept, once, and told by what it would have changed (promise C4)."""

from __future__ import annotations

import uuid

import msgspec
import pytest

from kq.broker import Delivery
from kq.control.view import refusal
from kq.state import Store, Write, open_store
from kq.values.failure import Failure
from kq.values.job import Counters, State
from kq.values.message import Head
from kq.values.outcome import Complete, GiveBack, Retry, Rules, Verdict
from kq.values.record import Record, decode_late, encode, job_key, late_key
from kq.worker.late import LIMIT, LateWords
from kq.worker.scribe import Scribe
from kq.worker.task import Kind, Task

ZOMBIE = Scribe("web1-10-aaaaaaaa", "web1", True, "7")
FAILED = Retry(0, Counters(failed=1), Failure(("OSError",), "gone"), "raised")


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


def task(id: str = "1", keep: float = 60.0) -> Task:
    delivery = Delivery(1, "q", id, {}, b"", 5, False, "application/json")
    return Task(delivery, Head(id=id, type="t"), Kind("t", Rules(), 1.0, keep), Counters())


def record(worker: str, value: bytes = b"5", state: State = State.COMPLETED) -> Record:
    return Record(state, value=msgspec.Raw(value), worker=worker)


def kept(store: Store, words: LateWords, verdict: Verdict, then: Record | None, keep: float = 60.0) -> str:
    """What the history says after a late word; "" when nothing was kept."""
    words.add(task(keep=keep), verdict, ZOMBIE, now=100.0)
    if then is not None:
        store.write([Write(job_key("1"), encode(then))])
    words.tell()
    late = decode_late(store.get([late_key("1")])[0])
    return "" if late is None else refusal(late, then).error


@pytest.mark.parametrize(
    ("verdict", "then", "told"),
    [
        (Complete(b"5"), record("web2-1-b"), "it completed too late, with the same result"),
        (Complete(b"6"), record("web2-1-b"), "it completed too late, with another result"),
        (Complete(b"5"), record("web2-1-b", state=State.BURIED), "it completed too late, with another result"),
        (Complete(b"5"), None, "it completed too late"),
        (FAILED, record("web2-1-b"), "too late: OSError: gone"),
        (GiveBack(), record("web2-1-b"), ""),
        # The word was heard after all, and only its answer was lost.
        (Complete(b"5"), record(ZOMBIE.worker), ""),
    ],
)
def test_a_late_word_is_told_by_what_it_would_have_changed(
    store: Store, verdict: Verdict, then: Record | None, told: str
) -> None:
    assert kept(store, LateWords(store), verdict, then) == told


def test_it_is_kept_no_longer_than_results_are(store: Store) -> None:
    assert kept(store, LateWords(store), Complete(b"5"), None, keep=0.0) == ""


def test_it_is_said_once(store: Store) -> None:
    words = LateWords(store)
    assert kept(store, words, Complete(b"5"), None)
    store.write([Write(late_key("1"), None)])
    words.tell()
    assert store.get([late_key("1")]) == [None]


def test_no_more_are_remembered_than_memory_is_for(store: Store) -> None:
    words = LateWords(store)
    for number in range(LIMIT + 5):
        words.add(task(str(number)), Complete(b"5"), ZOMBIE, now=100.0)
    words.tell()
    assert len(store.scan("late:", 2 * LIMIT)) == LIMIT
