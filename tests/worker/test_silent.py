"""Workers and a state store that do not hear of each other: only who does not answer either is dead."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from kq.app import App
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.waiting import eventually
from kq.control import Control
from kq.control.rounds import Rounds
from kq.state import Write
from kq.values.record import encode, lease_key, worker_key
from kq.worker import Worker
from tests.worker.jobs import WHERE, Odd
from tests.worker.world import WorkerWorld


class TestSilent(WorkerWorld):
    def test_a_worker_that_answers_is_not_retired_although_the_state_store_missed_its_beats(
        self, app: App, control: Control, jobs: Odd, queue: str
    ) -> None:
        with Worker(app, queues=[queue], concurrency=1, where=WHERE, control=False):
            (worker,) = eventually(control.workers, "it has joined")
            old = encode(replace(worker, beat=worker.beat - 10 * self.lease))
            app.store.write([Write(lease_key(worker.name), None), Write(worker_key(worker.name), old)])
            rounds = Rounds(app)
            rounds.tick()
            rounds.close()
            assert not any(beat.worker.retired for beat in control.heartbeat_check())
            assert jobs.perform.submit(["return"]).result(20) == 1


class TestALockedStateStore(WorkerWorld):
    """The broker is well all the time."""

    @pytest.fixture
    def state_url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'state.db'}"

    def test_a_worker_whose_state_store_does_not_answer_goes_on_when_it_does(
        self, jobs: Odd, crew: Crew, state_url: str
    ) -> None:
        worker = crew.program()
        assert jobs.perform.submit(["return"]).result(20) == 1
        with closing(sqlite3.connect(state_url.removeprefix("sqlite:///"), isolation_level=None)) as stranger:
            stranger.execute("BEGIN IMMEDIATE")
            job = jobs.perform.submit(["return"])
            eventually(lambda: "trying again" in worker.said(), "it has noticed", 30)
            stranger.execute("ROLLBACK")
        assert job.result(30) == 1
        eventually(lambda: "answers again" in worker.said(), "it says so")
        assert worker.process.poll() is None
