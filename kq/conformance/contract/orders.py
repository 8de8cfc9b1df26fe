"""C10 revoke, C15 broadcast: what somebody orders reaches every worker, and stands."""

from __future__ import annotations

import time

import pytest

from kq.app import App
from kq.broker import PARKED, Delivery, Session
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.figures import Figures, keeps, ms
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.processes import lives
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, Gate, elapsed, in_pools, outcome, requires
from kq.control import Control
from kq.errors import JobRevoked
from kq.values.job import State

PROMPT = 1.0  # seconds within which an order is obeyed


class Revoke(ContractWorld):
    """C10: a job that is revoked never starts; one that runs is interrupted, then killed, when asked."""

    @keeps("C10")
    def test_a_waiting_job_that_is_revoked_never_starts(
        self, control: Control, jobs: Jobs, crew: Crew, diary: Diary
    ) -> None:
        revoked, other = jobs.note.submit("revoked"), jobs.note.submit("other")
        assert control.revoke(revoked.id, reason="not wanted")
        crew.worker()
        assert other.result(10) == "other"
        assert not diary.starts(revoked.id)
        with pytest.raises(JobRevoked, match="not wanted"):
            revoked.result(1)
        assert not control.revoke(revoked.id)

    @keeps("C10")
    def test_a_running_job_that_is_revoked_is_interrupted(
        self, control: Control, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate, measured: Figures
    ) -> None:
        crew.worker()
        job = diary.begun(jobs.hold.submit(gate.path))
        assert control.revoke(job.id, interrupt=True, reason="not wanted")
        asked = time.monotonic()
        error = outcome(job, 10)
        taken = elapsed(asked)
        assert isinstance(error, JobRevoked)
        assert "not wanted" in str(error)
        assert taken <= PROMPT
        eventually(lambda: not control.jobs(job.queue), "it has left the broker")
        assert len(diary.starts(job.id)) == 1
        assert not diary.ends(job.id)
        measured(f"after {ms(taken)}")

    @keeps("C10")
    def test_a_revoked_job_that_refuses_to_end_is_killed(
        self, control: Control, jobs: Jobs, crew: Crew, diary: Diary, measured: Figures
    ) -> None:
        crew.worker()
        job = jobs.stubborn.submit()
        (start,) = eventually(lambda: diary.starts(job.id), "the job runs")
        assert job.revoke(interrupt=True)
        asked = time.monotonic()
        assert isinstance(outcome(job, 10), JobRevoked)
        taken = elapsed(asked)
        assert taken <= PROMPT
        assert jobs.nap.submit(0).result(10) != start.pid
        measured(f"after {ms(taken)}")

    @keeps("C10")
    @in_pools("thread", "async")
    def test_who_runs_beside_a_revoked_job_is_not_disturbed(
        self, control: Control, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate, pool: str
    ) -> None:
        crew.worker(pool=pool, concurrency=2)  # type: ignore[arg-type]
        hold = jobs.hold_async if pool == "async" else jobs.hold
        revoked, other = hold.submit("never"), hold.submit(gate.path)
        eventually(lambda: len(diary.starts()) == 2, "both run")
        assert control.revoke(revoked.id, interrupt=True)
        assert isinstance(outcome(revoked, 10), JobRevoked)
        gate.open()
        assert other.result(10)
        assert len(diary.starts(other.id)) == 1

    @keeps("C10")
    def test_a_running_job_that_is_revoked_softly_does_not_run_again(
        self, control: Control, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        crew.worker(concurrency=2)
        fails, returns = jobs.perform.submit([f"wait {gate.path}", "return"]), jobs.hold.submit(gate.path)
        eventually(lambda: len(diary.starts()) == 2, "both run")
        assert control.revoke(fails.id)
        assert control.revoke(returns.id)
        control.ping()
        gate.open()
        assert isinstance(outcome(fails, 10), JobRevoked)
        assert returns.result(10)
        assert len(diary.starts(fails.id)) == 1

    @keeps("C15")
    def test_a_worker_without_remote_control_obeys_no_orders(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate, queue: str
    ) -> None:
        requires(app, "shared")
        crew.program(settings={"KQ_WORKER_REMOTE_CONTROL": "false"})
        (name,) = [each.name for each in control.workers() if queue in each.queues]
        job = diary.begun(jobs.hold.submit(gate.path))
        assert control.ping(0.5) == []
        control.revoke(job.id, interrupt=True)
        control.pause(queue)
        control.retire(name)
        control.set_worker(name, concurrency=2)
        gate.open()
        assert job.result(10)
        assert jobs.add.submit(1, 2).result(10) == 3
        (worker,) = [each for each in control.workers() if each.name == name]
        assert worker.slots == 1

    @keeps("C10")
    def test_a_job_that_was_revoked_while_its_worker_died_is_known_to_who_joins_later(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        requires(app, "shared")
        victim = crew.program()
        job = diary.begun(jobs.hold.submit(gate.path))
        victim.pause()
        assert control.revoke(job.id)
        victim.kill()
        crew.worker()
        assert isinstance(outcome(job, 20), JobRevoked)
        assert len(diary.starts(job.id)) == 1


class Broadcast(ContractWorld):
    """C15: an order reaches each live worker within a second; it stands until it is lifted."""

    @keeps("C15")
    def test_every_worker_answers_a_ping(self, control: Control, crew: Crew, measured: Figures) -> None:
        for _ in range(3):
            crew.worker()
        eventually(lambda: len(control.workers()) == 3, "all have joined")
        began = time.monotonic()
        answered = control.ping()
        taken = elapsed(began)
        assert len(answered) == 3
        measured(f"3 of 3 workers in {ms(taken)}")

    @keeps("C15")
    def test_a_ping_reaches_a_worker_that_has_no_room_for_jobs(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        crew.worker()
        handles = app.submit_many(jobs.hold.job(gate.path) for _ in range(3))
        eventually(diary.starts, "a job runs")
        control.ping()
        assert len(control.ping()) == 1
        (worker,) = control.workers()
        assert [job.id for job in worker.running] == [handles[0].id]
        gate.open()
        for handle in handles:
            handle.result(10)

    @keeps("C15")
    def test_jobs_of_a_paused_queue_do_not_start_until_it_is_resumed(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate, measured: Figures
    ) -> None:
        crew.worker(concurrency=2)
        runs = diary.begun(jobs.hold.submit(gate.path))
        control.pause(runs.queue)
        control.ping()
        waiting = app.submit_many(jobs.note.job(str(number)) for number in range(5))
        gate.open()
        assert runs.result(10)
        control.ping()
        assert [job.state for job in control.jobs(runs.queue)] == [State.READY] * 5
        began = time.monotonic()
        assert control.resume(runs.queue)
        assert [job.result(10) for job in waiting] == ["0", "1", "2", "3", "4"]
        taken = elapsed(began)
        assert taken <= PROMPT / 2  # not only when something else wakes the worker
        measured(f"5 jobs done {ms(taken)} after it was resumed")

    @keeps("C15")
    def test_what_was_delivered_and_did_not_start_goes_back_when_its_queue_is_paused(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        crew.worker(concurrency=1)
        for _ in range(20):  # brief ones, so that the worker takes more than it can run
            jobs.note.submit().result(10)
        handles = app.submit_many(jobs.hold.job(gate.path) for _ in range(3))
        eventually(lambda: diary.starts(handles[0].id), "the first runs")
        control.pause(handles[0].queue)
        control.ping()
        eventually(lambda: len(control.jobs(handles[0].queue, State.READY)) == 2, "the others are back", 5)
        control.resume(handles[0].queue)
        gate.open()
        for handle in handles:
            handle.result(10)
        assert len(diary.starts(*(handle.id for handle in handles))) == 3

    @keeps("C15")
    def test_a_pause_is_known_to_workers_that_join_later(
        self, control: Control, jobs: Jobs, crew: Crew, diary: Diary
    ) -> None:
        job = jobs.note.submit("x")
        control.pause(job.queue)
        crew.worker()
        eventually(control.ping, "it has joined")
        assert job.state() is State.READY
        assert not diary.starts()
        control.resume(job.queue)
        assert job.result(10) == "x"

    @keeps("C15")
    def test_jobs_of_a_paused_type_let_others_pass_and_come_back_in_order(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, diary: Diary, measured: Figures
    ) -> None:
        control.pause_type("note")
        paused = [jobs.note.options(priority=each % 3 + 4).submit(str(each)) for each in range(30)]
        others = app.submit_many(jobs.add.job(each, 1) for each in range(30))
        crew.worker()
        assert [job.result(10) for job in others] == list(range(1, 31))
        assert paused[0].state() is State.PAUSED
        assert not diary.starts(*(job.id for job in paused))
        crew.worker()
        control.pause(paused[0].queue)
        control.resume_type("note")  # a worker that has not heard of it yet may park one again, which is put back too
        control.resume(paused[0].queue)
        for job in paused:
            job.result(10)
        assert len(diary.starts(*(job.id for job in paused))) == len(paused)
        measured(f"{len(paused)} jobs parked and back")

    @keeps("C15")
    def test_what_a_dead_process_began_to_resume_is_finished_by_the_next(
        self, control: Control, jobs: Jobs, crew: Crew
    ) -> None:
        control.pause_type("note")
        job = jobs.note.submit("x")
        crew.worker()
        eventually(lambda: job.state() is State.PAUSED, "it is parked")
        assert control.put_back({"other"}) == 0
        assert job.state() is State.PAUSED
        control.resume_type("note")  # the control in the worker may have been sooner
        assert job.result(10) == "x"

    @keeps("C15")
    def test_what_somebody_has_in_his_hands_while_its_type_is_resumed_comes_back_as_well(
        self, app: App, control: Control, jobs: Jobs, crew: Crew
    ) -> None:
        control.pause_type("note")
        job = jobs.note.submit("x")
        crew.worker()
        eventually(lambda: job.state() is State.PAUSED, "it is parked")
        taken: list[Delivery] = []
        other = Session(app.broker, "resumes-another-type", app.lease, {job.queue + PARKED: 10}, taken.append)
        try:
            assert other.next(5)
            assert control.resume_type("note") == 0
        finally:
            other.close()
        assert job.result(10) == "x"  # the control in the worker sees that it was not done

    @keeps("C15")
    def test_a_worker_that_is_retired_finishes_what_runs_and_ends(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        requires(app, "shared")
        worker = crew.program()
        job = diary.begun(jobs.hold.submit(gate.path))
        (name,) = control.ping()
        assert control.retire(name, reason="its disk is old")
        eventually(lambda: "its disk is old" in worker.said(), "it has heard", PROMPT + 1)
        gate.open()
        assert job.result(10)
        assert worker.wait() == 0
        assert len(diary.starts(job.id)) == 1

    @keeps("C4")
    def test_the_jobs_of_a_worker_that_is_retired_at_once_start_elsewhere_within_a_second(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate, measured: Figures
    ) -> None:
        requires(app, "shared")
        worker = crew.program()
        (name,) = control.ping()
        job = diary.begun(jobs.hold.submit(gate.path))
        (executor,) = worker.executors()
        crew.program()
        asked = time.time()
        assert control.retire(name, now=True)
        first, second = eventually(lambda: diary.starts(job.id)[1:] and diary.starts(job.id), "it runs elsewhere")
        assert second.at - asked <= PROMPT
        assert first.pid != second.pid
        eventually(lambda: not lives(executor), "the first one is stopped", PROMPT)
        gate.open()
        assert job.result(10) == second.pid
        assert worker.wait() == 0
        measured(f"after {ms(second.at - asked)}")
