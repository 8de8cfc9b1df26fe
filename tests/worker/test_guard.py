"""The guard: what it does while the loop waits for the broker is not undone by an answer that comes late."""

from __future__ import annotations

import time

from kq.app import App
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import Gate
from kq.control import Control
from kq.worker import Worker
from tests.worker.jobs import WHERE, Odd
from tests.worker.world import WorkerWorld


class TestTheGuard(WorkerWorld):
    def test_jobs_that_it_killed_run_again_although_the_lease_could_be_saved(
        self, app: App, control: Control, jobs: Odd, queue: str, diary: Diary, gate: Gate
    ) -> None:
        with Worker(app, queues=[queue], concurrency=1, where=WHERE, grace=1) as worker:
            job = diary.begun(jobs.hold.submit(gate.path))
            eventually(lambda: control.heartbeat_check()[0].age < 0.05, "the lease is fresh")
            # The loop waits, as for an answer of the broker, past the guard's moment and not to the end of the lease.
            worker.supervisor.ask(lambda: time.sleep(self.lease - 0.15))
            eventually(lambda: len(diary.starts(job.id)) == 2, "the job runs again", within=3 * self.lease)
            gate.open()
            assert job.result(10)
