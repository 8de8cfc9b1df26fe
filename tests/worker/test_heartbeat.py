"""heartbeat_check: which workers live, which are late, which are dead, and what they do."""

from __future__ import annotations

import os
import socket

from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import Gate
from kq.control import Control, Health
from tests.worker.jobs import Odd
from tests.worker.world import WorkerWorld


class TestHeartbeatCheck(WorkerWorld):
    def test_a_worker_that_lives_tells_what_it_is(self, control: Control, queue: str, crew: Crew) -> None:
        worker = crew.program(concurrency=3, pool="thread")
        (beat,) = eventually(control.heartbeat_check, "it is listed")
        assert beat.health is Health.ALIVE
        assert 0 <= beat.age < self.lease / 2
        told = beat.worker
        assert (told.pid, told.host) == (worker.process.pid, socket.gethostname())
        assert (told.pool, told.slots, told.lease) == ("thread", 3, self.lease)
        assert list(told.queues) == [queue]

    def test_it_tells_what_runs(self, control: Control, jobs: Odd, crew: Crew, diary: Diary, gate: Gate) -> None:
        crew.program()
        job = diary.begun(jobs.hold.submit(gate.path))
        (running,) = eventually(lambda: control.workers()[0].running, "it tells with its next beat", self.lease)
        assert (running.id, running.type, running.queue) == (job.id, "hold", job.queue)
        assert abs(running.since - diary.starts(job.id)[0].at) < 0.5
        gate.open()
        job.result(10)

    def test_a_worker_that_is_silent_is_late_and_then_dead_and_then_alive_again(
        self, control: Control, crew: Crew
    ) -> None:
        worker = crew.program()
        eventually(control.workers, "it is listed")
        worker.pause()
        seen: list[Health] = []

        def look() -> bool:
            health = control.heartbeat_check()[0].health
            if not seen or seen[-1] is not health:
                seen.append(health)
            return health is Health.DEAD

        eventually(look, "it is dead", self.lease + 1)
        assert seen in ([Health.ALIVE, Health.LATE, Health.DEAD], [Health.LATE, Health.DEAD])
        worker.resume()
        eventually(lambda: [each.pid for each in control.workers()] == [worker.process.pid], "it is alive again")

    def test_a_worker_that_was_killed_is_dead_and_listed_for_a_while(self, control: Control, crew: Crew) -> None:
        worker = crew.program()
        eventually(control.workers, "it is listed")
        worker.kill()
        eventually(lambda: not control.workers(), "it does not live", self.lease + 1)
        (beat,) = control.heartbeat_check()
        assert beat.health is Health.DEAD
        assert beat.worker.pid == worker.process.pid != os.getpid()
