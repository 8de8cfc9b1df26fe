"""Workers of whom the state store has heard nothing: only who does not answer either is dead."""

from __future__ import annotations

from msgspec.structs import replace

from kq.app import App
from kq.conformance.contract.waiting import eventually
from kq.control import Control
from kq.control.rounds import Rounds
from kq.record import encode, lease_key, worker_key
from kq.state import Write
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
