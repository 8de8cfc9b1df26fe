"""C2 at least once, C3 lease, C4 fencing: whose job it is, and what becomes of it when its worker dies."""

from __future__ import annotations

import os
import random
import time
from typing import Any

import pytest
from msgspec.structs import replace

from kq.app import App
from kq.conformance.contract.crew import Crew, Program
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.figures import Figures, keeps, ms, survives
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.processes import ended, lives
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, Gate, deleted, elapsed, in_pools, requires
from kq.control import Control, Health
from kq.handles.handle import Handle
from kq.state import Write
from kq.values.job import State
from kq.values.message import Attempt
from kq.values.policy import Never
from kq.values.record import job_key
from kq.worker.pool import PoolKind

#: How long a long job is, in leases.
LEASES = float(os.environ.get("KQ_LEASES") or 1.75)


class AtLeastOnce(ContractWorld):
    """C2: a job leaves the broker only after its outcome is recorded."""

    @keeps("C2")
    def test_a_job_that_runs_is_still_in_the_broker(
        self, control: Control, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        crew.worker()
        job = diary.begun(jobs.hold.submit(gate.path))
        assert [each.id for each in control.jobs(job.queue)] == [job.id]
        gate.open()
        job.result(10)
        eventually(lambda: not control.jobs(job.queue), "the job has left the broker")

    @keeps("C2")
    def test_a_job_that_runs_is_listed_as_running_with_its_worker(
        self, control: Control, jobs: Jobs, crew: Crew, gate: Gate
    ) -> None:
        crew.worker()
        first, second = jobs.hold.submit(gate.path), jobs.hold.submit(gate.path)
        (found,) = eventually(lambda: control.jobs(first.queue, State.RUNNING), "its worker has told")
        assert (found.id, found.type, found.worker) == (first.id, "hold", control.workers()[0].name)
        states = [(each.id, each.state) for each in control.jobs(first.queue)]
        assert states == [(first.id, State.RUNNING), (second.id, State.READY)]
        gate.open()
        second.result(10)
        eventually(lambda: not control.jobs(first.queue, State.RUNNING), "neither runs any more")

    @keeps("C2")
    def test_what_a_frozen_worker_runs_is_listed_as_long_as_its_lease_lasts(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, gate: Gate
    ) -> None:
        requires(app, "shared")
        worker = crew.program()
        job = jobs.hold.submit(gate.path)
        eventually(lambda: control.jobs(job.queue, State.RUNNING), "its worker has told")
        worker.pause()
        assert [each.id for each in control.jobs(job.queue, State.RUNNING)] == [job.id]
        worker.resume()

    @keeps("C2")
    def test_a_queue_that_is_deleted_under_a_worker_is_made_anew_and_taken_from(
        self, app: App, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        crew.worker(concurrency=2)
        running = diary.begun(jobs.hold.submit(gate.path))
        deleted(app, running.queue)
        deadline = time.monotonic() + 20
        answers = [jobs.add.options(queue=running.queue).submit(number, 1) for number in range(3)]
        assert [each.result(deadline - time.monotonic()) for each in answers] == [1, 2, 3]
        gate.open()
        running.result(10)  # its message is gone; it has run

    @keeps("C2")
    @survives("F1")
    def test_killing_executors_at_random_loses_no_job(
        self, app: App, jobs: Jobs, crew: Crew, diary: Diary, measured: Figures
    ) -> None:
        chance = random.Random(2)
        worker = crew.worker(concurrency=2)
        handles = app.submit_many(jobs.nap.job(0.01) for _ in range(100))
        for kills in range(8):
            eventually(lambda goal=10 * kills: len(diary.starts()) >= goal, "jobs run")  # type: ignore[misc]
            ended(chance.choice(eventually(worker.executors, "there are executors")).kill)
        for handle in handles:
            handle.result(20)
        again = len(diary.starts()) - len(handles)
        assert again <= 8
        measured(f"8 executors killed over {len(handles)} jobs: 0 lost, {again} started again")
        measured.account(twice=diary.twice())


class Lease(ContractWorld):
    """C3: while a worker's heart beats its jobs are its own; when it stops they are redelivered."""

    @keeps("C3")
    @survives("F8")
    def test_a_job_of_many_leases_runs_once(self, jobs: Jobs, crew: Crew, diary: Diary, measured: Figures) -> None:
        crew.worker(concurrency=2)  # one executor is idle all the time
        others = crew.worker()
        job = jobs.nap.submit(LEASES * self.lease)
        assert job.result((LEASES + 2) * self.lease)
        assert len(diary.starts(job.id)) == 1
        assert others.supervisor.is_running()
        measured(f"{len(diary.starts(job.id))} start in {LEASES * self.lease:g} s under a lease of {self.lease:g} s")
        measured.account(twice=diary.twice())

    @keeps("C3")
    @survives("F12")
    def test_workers_whose_clocks_are_two_hours_wrong_keep_leases_and_delays(
        self, app: App, jobs: Jobs, crew: Crew, diary: Diary, measured: Figures
    ) -> None:
        requires(app, "shared")
        for ahead in (7200.0, -7200.0):
            crew.program(ahead=ahead)
        napping = [jobs.nap.submit(1.5 * self.lease) for _ in range(2)]
        for job in napping:
            assert job.result(4 * self.lease)
        assert len(diary.starts()) == len(napping)
        assert all(abs(start.at - time.time()) > 7000 for start in diary.starts())
        # One after the other, until both workers had some of them.
        began, pids, delays = time.monotonic(), set[int](), list[float]()
        while len(pids) < 2 and elapsed(began) < 20:
            asked = time.monotonic()
            job = jobs.perform.options(delay=0.3).submit(["retry 0.3", "return"])
            assert job.result(10) == 2
            delays.append(elapsed(asked))
            pids.update(start.pid for start in diary.starts(job.id))
        assert len(pids) == 2
        assert all(0.6 <= delay <= 1.6 for delay in delays)
        late = ms(max(delays) - 0.6)
        measured(f"{len(napping)} starts of {len(napping)} jobs of a lease and a half; delays late by {late}")
        measured.account(twice=diary.twice())

    @keeps("C3")
    def test_a_job_that_holds_the_interpreter_does_not_stop_the_heartbeats(
        self, jobs: Jobs, crew: Crew, diary: Diary
    ) -> None:
        crew.worker(pool="thread", concurrency=2)
        job = jobs.freeze.submit(1.5 * self.lease)
        assert job.result(4 * self.lease)
        assert len(diary.starts(job.id)) == 1

    @keeps("C3")
    @survives("F1")
    def test_a_job_whose_executor_dies_starts_again_within_a_second(
        self, jobs: Jobs, crew: Crew, diary: Diary, measured: Figures
    ) -> None:
        worker = crew.worker()
        job = jobs.perform.submit(["signal 9", "signal 11", "return"])
        assert job.result(10) == 3
        first, second, third = diary.starts(job.id)
        late = max(second.at - first.at, third.at - second.at)
        assert late <= 1.0
        assert worker.supervisor.is_running()
        measured(f"after {ms(late)}")
        measured.account(back=late)

    @keeps("C3")
    @survives("F1")
    def test_the_jobs_of_a_worker_that_was_killed_start_elsewhere_when_its_lease_is_over(
        self, app: App, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate, measured: Figures
    ) -> None:
        requires(app, "shared")
        victim = crew.program(concurrency=2)
        held = [jobs.hold.submit(gate.path) for _ in range(2)]
        eventually(lambda: len(diary.starts()) == 2, "both jobs run")
        crew.program(concurrency=2)
        killed = time.time()
        victim.kill()
        again = eventually(lambda: diary.starts()[2:4] if len(diary.starts()) == 4 else None, "both run again")
        assert again is not None
        gate.open()
        assert all(job.result(10) for job in held)
        late = max(start.at for start in again) - killed
        assert late <= self.lease + 2
        measured(f"after {late:.1f} s, lease {self.lease:g} s")
        measured.account(twice=diary.twice(), back=late)


class Fencing(ContractWorld):
    """C4: what a worker says about a delivery that is no longer its own is refused."""

    @keeps("C4")
    @survives("F2")
    def test_a_worker_that_slept_past_its_lease_is_not_believed_when_it_wakes(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate, measured: Figures
    ) -> None:
        requires(app, "shared")
        zombie = crew.program()
        job = diary.begun(jobs.hold.submit(gate.path))
        zombie.pause()
        slept = time.monotonic()
        heir = crew.program()
        eventually(lambda: len(diary.starts(job.id)) == 2, "the job runs elsewhere")
        taken = elapsed(slept)
        gate.open()
        result = job.result(10)
        assert result == executor_of(heir)
        zombie.resume()
        eventually(lambda: "the lease" in zombie.said(), "the zombie learns it")
        eventually(lambda: job.state() is State.COMPLETED and not control.jobs(job.queue), "the job has ended")
        assert job.result(1) == result
        assert len(diary.starts(job.id)) == 2
        measured(f"taken over after {taken:.1f} s, lease {self.lease:g} s; the late word was refused")

    @keeps("C4")
    @survives("F2")
    def test_a_result_that_waited_for_a_sleeping_supervisor_is_refused_and_the_refusal_is_remembered(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, diary: Diary
    ) -> None:
        requires(app, "shared")
        zombie = crew.program()
        job = diary.begun(jobs.nap.submit(self.lease / 4))
        zombie.pause_supervisor()
        heir = crew.program()
        assert job.result(4 * self.lease) == executor_of(heir)
        assert len(diary.ends(job.id)) == 2  # the sleeping supervisor's executor was done in time, and nobody heard it
        zombie.supervisor.resume()
        eventually(lambda: "the lease" in zombie.said(), "the zombie learns it")
        refused = eventually(lambda: refusals(control, job), "the refusal is in the job's history")
        assert [attempt.error for attempt in refused] == ["it completed too late, with another result"]
        assert job.result(1) == executor_of(heir)
        assert not control.jobs(job.queue)

    @keeps("C4")
    @in_pools("process", "thread", "async")
    @survives("F2")
    def test_executors_do_not_work_on_while_their_supervisor_sleeps(
        self, app: App, jobs: Jobs, crew: Crew, diary: Diary, measured: Figures, pool: PoolKind
    ) -> None:
        requires(app, "shared")
        workers = {executor_of(worker): worker for worker in (crew.program(pool=pool), crew.program(pool=pool))}
        job = jobs.pulse.submit(1.5 * self.lease)
        zombie = workers[eventually(lambda: diary.starts(job.id), "the job runs")[0].pid]
        zombie.pause_supervisor()
        eventually(lambda: diary.starts(job.id)[1:], "the job runs elsewhere")
        first, again = diary.starts(job.id)
        last = max(pulse.at for pulse in diary.entries("pulse", [job.id]) if pulse.pid == first.pid)
        assert last < again.at
        measured(f"its last act {again.at - last:.2f} s before the job started elsewhere")
        zombie.supervisor.resume()
        assert job.result(20) == again.pid
        assert len(diary.ends(job.id)) == 1

    @keeps("C4")
    def test_a_worker_whose_lease_is_gone_from_the_state_store_begins_anew_and_keeps_no_job_for_ever(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        crew.worker()
        job = diary.begun(jobs.hold.submit(gate.path))
        for lease, _ in app.store.scan("lease:"):
            app.store.write([Write(lease, None)])
        gate.open()
        assert job.result(10)
        eventually(lambda: not control.jobs(job.queue), "it has left the broker")

    @keeps("C4")
    def test_the_record_of_an_ended_job_is_not_replaced_by_another_message_of_its_id(
        self, app: App, control: Control, jobs: Jobs, crew: Crew
    ) -> None:
        crew.worker()
        job = jobs.add.submit(2, 3)
        assert job.result(10) == 5
        eventually(lambda: not control.jobs(job.queue), "it has left the broker")
        known = app.store.get([job_key(job.id)])
        once = jobs.perform_plain.options(retry_policy=Never()).job(["raise ValueError"])
        unknown = replace(once, type="no.such.type")
        for forged in (jobs.add.job(600, 66), once, unknown):
            app.publisher.publish([app.envelope(replace(forged, id=job.id))], time.monotonic() + 5.0)
            # What comes after it has ended, so it has too.
            assert jobs.add.submit(1, 1).result(10) == 2
            eventually(lambda: not control.jobs(job.queue), "it has left the broker")
            assert app.store.get([job_key(job.id)]) == known
        assert job.result(1) == 5

    @keeps("C4")
    @survives("F2")
    @pytest.mark.parametrize("who", ["all", "supervisor"])
    def test_what_a_sleeping_worker_had_fetched_ahead_starts_elsewhere_only(
        self, app: App, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate, measured: Figures, who: str
    ) -> None:
        requires(app, "shared")
        # While its jobs are short a worker takes them ahead, and holds some while a long one runs.
        app.submit_many(jobs.note.options(priority=9).job() for _ in range(60))
        blocking = jobs.hold.options(priority=8).submit(gate.path)
        waiting = [jobs.note.options(priority=1).submit() for _ in range(5)]
        zombie = crew.program()
        diary.begun(blocking)
        eventually(lambda: waiting[0].state() is State.RESERVED, "others are held")
        (zombie.pause if who == "all" else zombie.pause_supervisor)()
        crew.program(concurrency=2)
        for job in waiting:
            job.result(20)
        zombie.resume()
        eventually(lambda: "the lease" in zombie.said(), "the zombie learns it")
        gate.open()
        blocking.result(20)
        assert len(diary.starts(*(job.id for job in waiting))) == len(waiting)
        measured(f"{len(waiting)} jobs, one start each")
        measured.account(twice=diary.twice())

    @keeps("C4")
    @survives("F2")
    def test_a_worker_that_lost_its_lease_works_again(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, measured: Figures
    ) -> None:
        requires(app, "shared")
        worker = crew.program()
        worker.pause()
        eventually(lambda: [each.health for each in control.heartbeat_check()] == [Health.DEAD], "its lease is over")
        worker.resume()
        woke = time.monotonic()
        assert jobs.add.submit(1, 2).result(20) == 3
        assert elapsed(woke) <= 2 * self.lease
        measured(f"first job {elapsed(woke):.1f} s after it woke")
        measured.account(back=elapsed(woke))

    @keeps("C3")
    def test_a_worker_that_comes_back_after_its_lease_is_soon_listed_once(
        self, control: Control, jobs: Jobs, crew: Crew
    ) -> None:
        crew.worker()
        jobs.note.submit().result(20)
        (before,) = (each.name for each in control.workers())
        control.expel(before)
        jobs.note.submit().result(20)

        def listed() -> list[str]:
            return [beat.worker.name for beat in control.heartbeat_check()]

        (name,) = eventually(lambda: [] if before in listed() else listed(), "its former name is forgotten")
        assert name in {each.name for each in control.workers()}

    @keeps("C4")
    @survives("F2")
    def test_a_job_that_a_zombie_still_runs_is_stopped_within_a_second_of_its_waking(
        self, app: App, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate, measured: Figures
    ) -> None:
        requires(app, "shared")
        zombie = crew.program()
        job = diary.begun(jobs.hold.submit(gate.path))
        (executor,) = zombie.executors()
        zombie.pause()
        crew.program()
        eventually(lambda: len(diary.starts(job.id)) == 2, "the job runs elsewhere")
        zombie.resume()
        woke = time.monotonic()
        eventually(lambda: not lives(executor), "the zombie's executor is killed")
        measured(f"after {elapsed(woke):.2f} s")
        assert elapsed(woke) <= 1.0
        gate.open()
        assert job.result(10)
        assert len(diary.ends(job.id)) == 1


def refusals(control: Control, job: Handle[Any]) -> list[Attempt]:
    """What is remembered of words that came too late."""
    found = control.job(job.id)
    return [attempt for attempt in found.history if attempt.outcome == "refused"] if found else []


def executor_of(worker: Program) -> int:
    (executor,) = worker.executors()
    return int(executor.pid)
