"""What a worker does about bad storage: also of several processes, in code, and as it is set."""

from __future__ import annotations

import uuid

import pytest

from kq.app import App
from kq.broker import Delivery
from kq.conformance.contract.crew import Crew
from kq.control import Control
from kq.errors import WorkerUnfit
from kq.state import Write, open_store
from kq.values.elsewhere import Place
from kq.values.job import Counters
from kq.values.message import Attempt, Head
from kq.values.outcome import Rules
from kq.values.record import encode, lease_key, worker_key
from kq.worker.neighbours import Neighbours
from kq.worker.strain import Strain
from kq.worker.task import Kind, Task
from tests.worker.jobs import Odd
from tests.worker.world import WorkerWorld


class TestUnfit(WorkerWorld):
    def test_the_parent_of_several_supervisors_ends_with_the_code_of_those_that_are_unfit(
        self, app: App, control: Control, queue: str, jobs: Odd, crew: Crew
    ) -> None:
        worker = crew.program("--processes", "2", concurrency=1, ready=False).ready(times=2)
        app.submit_many(jobs.perform.job(["storage"]) for _ in range(12))
        assert worker.wait() == WorkerUnfit.exit_code
        assert worker.said().count("ended 3 jobs") == 4  # each told it when it decided, and when it ended
        assert not crew.left_behind()
        assert len(control.jobs(queue)) == 12


class TestUnfitAsSet(WorkerWorld):
    @pytest.fixture(autouse=True)
    def never(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KQ_WORKER_UNFIT_AFTER", "0")

    def test_a_worker_that_is_told_to_bear_everything_goes_on(self, app: App, jobs: Odd, crew: Crew) -> None:
        worker = crew.program(concurrency=4)
        handles = app.submit_many(jobs.perform.job(["storage", "return"]) for _ in range(8))
        assert [handle.result(30) for handle in handles] == [2] * 8
        assert worker.process.poll() is None


def test_a_single_job_that_fills_every_disk_takes_no_worker_with_it() -> None:
    strain = Strain(2, within=10)
    assert not any(strain.add("greedy", now) for now in range(100))


def test_what_is_long_ago_is_forgotten() -> None:
    strain = Strain(3, within=10)
    assert not any(strain.add(str(now), now) for now in range(0, 100, 6))
    assert [strain.add(job, 200) for job in "abc"] == [False, False, True]


def test_zero_is_never() -> None:
    strain = Strain(0, within=10)
    assert not any(strain.add(str(number), 0) for number in range(100))


@pytest.mark.parametrize(
    ("said", "alive", "better"),
    [({}, True, True), ({"stopping": True}, True, False), ({"queues": {"other": 1}}, True, False), ({}, False, False)],
    ids=["it lives", "it ends", "it takes other queues", "it is dead"],
)
def test_a_better_place_is_a_worker_that_will_take_the_job(said: dict[str, object], alive: bool, better: bool) -> None:
    store = open_store(f"memory://{uuid.uuid4().hex}")
    store.write(
        [Write(worker_key("web2-2-b"), encode({"name": "web2-2-b", "host": "web2", "queues": {"q": 1}, **said}))]
    )
    store.write([Write(lease_key("web2-2-b"), b"1" if alive else None)])
    failed = Attempt(number=1, worker="web1-1-a", started=99.0, ended=100.0, outcome="bad storage", host="web1")
    head = Head(id="1", type="t", history=(failed,))
    task = Task(Delivery(1, "q", "1", {}, b"{}", 5, False, ""), head, Kind("t", Rules(), 60.0, 0.0), Counters())
    found = Neighbours(store, Place("web1-1-a", "web1")).better_for([task], now=101.0)
    assert [each for each, _ in found] == ([task] if better else [])
