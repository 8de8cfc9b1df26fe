"""What a worker whose lease is over may still write down: nothing."""

from __future__ import annotations

from kq.broker import Delivery
from kq.state import Write, open_store
from kq.values.job import Counters
from kq.values.message import Head
from kq.values.outcome import Complete, Rules
from kq.values.record import job_key, lease_key, unique_key
from kq.worker.scribe import Scribe
from kq.worker.task import Kind, Task


def test_a_zombie_neither_records_an_end_nor_frees_the_unique_key_of_a_job_that_runs_elsewhere() -> None:
    store = open_store("memory://late-words")
    store.write([Write(unique_key("cat"), b"1")])
    delivery = Delivery(1, "q", "1", {}, b"{}", 0, False, "application/json")
    task = Task(delivery, Head(id="1", type="t", unique="cat"), Kind("t", Rules(), 1.0, 60.0), Counters())
    words = list(Scribe("zombie", "host", True, "").records(task, Complete(b"7"), 0.0))
    store.write(words)
    assert store.get([job_key("1"), unique_key("cat")]) == [None, b"1"]
    store.write([Write(lease_key("zombie"), b"1")])
    store.write(words)
    assert store.get([unique_key("cat")]) == [None]
