"""Why a job is where it is, in one sentence from facts; and the rounds of control, which find out what is wrong."""

from __future__ import annotations

import logging
import time

import pytest
from msgspec.structs import replace

from kq.app import App
from kq.broker import Inspector
from kq.conformance.contract.crew import Crew, Program
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.figures import Figures, keeps
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, Gate, buried, elapsed, outcome, requires
from kq.control import Control, Health
from kq.control.rounds import Rounds
from kq.handles.standing import Kind, Order, give, withdraw
from kq.state.store import Write
from kq.values.job import State
from kq.values.record import encode, lease_key, worker_key


class Why(ContractWorld):
    """C15: what control is asked it answers from facts."""

    @keeps("C15")
    def test_why_tells_of_a_job_that_waits(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        queue = jobs.nap.submit(0.2).queue  # not a brief one, so that the worker takes no more than it can run
        first = control.jobs(queue)[0].id
        assert f"no live worker takes queue {queue}" in control.why(first)
        assert "no live worker takes it; 1 job is ready" in control.why_queue(queue)
        control.pause(queue, reason="the disk is full")
        assert f"its queue {queue} is paused by " in control.why(first)
        assert "(the disk is full)" in control.why_queue(queue)
        control.resume(queue)
        crew.worker()
        eventually(lambda: diary.ends(first), "the first is done")
        running = diary.begun(jobs.hold.submit(gate.path))
        next = jobs.hold.options(priority=6).submit(gate.path)
        last = jobs.hold.options(priority=6, unique="cat").submit(gate.path)
        stranger = app.submit("stranger")
        eventually(lambda: control.ping(), "the worker tells what it runs")
        assert "runs on " in control.why(running.id)
        assert "of at most 30m00s" in control.why(running.id)
        assert f"job {next.id} waits: it is the next; its worker runs 1 of at most 1 job" in control.why(next.id)
        assert "waits: 1 job is before it" in control.why(last.id)
        assert control.why(last.id).endswith("it has the unique lock 'cat'")
        assert "its type stranger is unknown to all live workers" in control.why(stranger.id)
        assert "3 jobs are ready; its worker runs 1 of at most 1 job" in control.why_queue(queue)
        control.revoke(running.id, reason="not wanted")
        assert "it is revoked by " in control.why(running.id)
        gate.open()
        last.result(10)

    @keeps("C15")
    def test_why_tells_of_a_job_that_is_held_and_has_not_started(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        crew.worker()
        for _ in range(20):  # brief ones, so that the worker takes more than it can run
            jobs.note.submit().result(10)
        brief = [jobs.note.job() for _ in range(100)]
        handles = app.submit_many([*brief, *(jobs.hold.job(gate.path) for _ in range(3))])[-3:]
        eventually(lambda: diary.starts(handles[0].id), "the first runs")
        held = "is held by worker "  # for a second: then it goes back, to a worker that is idle
        why = eventually(lambda: held in (said := control.why(handles[1].id)) and said, "the second is held")
        assert "and has not started; its worker runs " in str(why)
        gate.open()
        for handle in handles:
            handle.result(10)

    @keeps("C15")
    def test_why_tells_of_a_job_whose_time_has_not_come(
        self, control: Control, jobs: Jobs, crew: Crew, diary: Diary
    ) -> None:
        delayed = jobs.note.options(delay=3600).submit()
        told = control.why(delayed.id)
        assert "is delayed until " in told
        assert "UTC (in 59m" in told or "UTC (in 1h" in told
        crew.worker()
        retried = jobs.perform_patient.submit(["raise OSError", "return"])
        eventually(lambda: retried.state() is State.RETRYING, "it is to be tried again")
        assert "waits for retry 1 of 25 until " in control.why(retried.id)
        assert "after OSError: as asked" in control.why(retried.id)
        queue = delayed.queue
        eventually(lambda: "2 jobs are delayed, the next until " in control.why_queue(queue), "the queue tells it too")

    @keeps("C15")
    def test_why_tells_of_a_job_whose_type_is_paused(
        self, control: Control, jobs: Jobs, crew: Crew, diary: Diary
    ) -> None:
        control.pause_type("note", reason="wrong letters")
        crew.worker()
        job = jobs.note.submit()
        eventually(lambda: job.state() is State.PAUSED, "it is parked")
        assert "is parked: its type note is paused by " in control.why(job.id)
        assert "(wrong letters)" in control.why(job.id)
        eventually(lambda: "1 job is parked" in control.why_queue(job.queue), "the queue tells it too")
        assert job.revoke()
        assert job.state() is State.REVOKED

    @keeps("C15")
    def test_why_tells_of_a_job_that_ended(self, control: Control, jobs: Jobs, crew: Crew) -> None:
        revoked = jobs.note.submit()
        assert "is not known" in control.why("no-such-job")
        assert control.why_queue("no-such-queue") == "there is no queue no-such-queue"
        control.revoke(revoked.id, reason="not wanted")
        assert "has ended: revoked" in control.why(revoked.id)
        assert "not wanted" in control.why(revoked.id)
        crew.worker()
        done, bad = jobs.note.submit(), jobs.perform.submit(["bad"])
        done.result(10)
        assert "has ended: completed on " in control.why(done.id)
        buried(control, bad.queue, bad)
        assert "is buried, for a human to look at: BadJob: row 7 has no date" in control.why(bad.id)
        eventually(lambda: "nothing is ready" in control.why_queue(bad.queue), "the queue tells that it is empty")


class Supervision(ContractWorld):
    """C3, C15: control finds out what is wrong; who has the seat acts."""

    @keeps("C3")
    def test_what_a_dead_worker_held_goes_back_although_no_worker_lives(
        self,
        app: App,
        control: Control,
        inspector: Inspector,
        jobs: Jobs,
        crew: Crew,
        diary: Diary,
        gate: Gate,
        caplog: pytest.LogCaptureFixture,
        measured: Figures,
    ) -> None:
        requires(app, "shared")
        caplog.set_level(logging.INFO, "kq.control")
        victim = crew.program("--no-control")
        job = diary.begun(jobs.hold.submit(gate.path))
        control.ping()
        victim.kill()
        died = time.monotonic()
        rounds = Rounds(app)
        eventually(lambda: rounds.tick() and "retired " in caplog.text, "it is retired")
        assert job.id in caplog.text
        eventually(lambda: inspector.count(job.queue).ready == 1, "the job is ready", 5)
        measured(f"ready {elapsed(died):.1f} s after its worker died, lease {self.lease:g} s")
        assert [beat.health for beat in control.heartbeat_check()] == [Health.DEAD]
        assert not control.health()
        rounds.tick()
        assert caplog.text.count("retired ") == 1
        rounds.close()

    @keeps("C15")
    def test_one_control_acts_and_another_when_it_has_ended(self, app: App) -> None:
        first, second = Rounds(app), Rounds(app)
        first.tick()
        second.tick()
        assert (first.seated, second.seated) == (True, False)
        first.tick()
        assert first.seated
        first.close()
        second.tick()
        assert second.seated
        second.close()

    @keeps("C15")
    def test_a_control_that_is_killed_is_followed_by_another(
        self, app: App, crew: Crew, jobs: Jobs, measured: Figures
    ) -> None:
        requires(app, "shared")
        workers = [crew.program(), crew.program()]
        acting = eventually(lambda: [each for each in workers if "has the seat" in each.said()], "one acts")[0]
        (other,) = [each for each in workers if each is not acting]
        assert isinstance(acting, Program)
        acting.kill()
        killed = time.monotonic()
        assert jobs.add.submit(1, 2).result(10) == 3
        eventually(lambda: "has the seat" in other.said(), "the other acts")
        assert elapsed(killed) <= 2 * self.lease
        measured(f"after {elapsed(killed):.1f} s, lease {self.lease:g} s; jobs ran meanwhile")

    @keeps("C15")
    def test_a_job_that_runs_long_is_told_of_once_before_its_limit(
        self, app: App, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "kq.control")
        crew.worker("--no-control")
        job = diary.begun(jobs.stubborn.options(timeout=3 * self.lease).submit())
        began = time.monotonic()
        rounds = Rounds(app)
        eventually(lambda: rounds.tick() and "overdue: stubborn" in caplog.text, "it is told")
        assert elapsed(began) < 3 * self.lease
        assert job.id in caplog.text
        rounds.tick()
        assert caplog.text.count("overdue: ") == 1
        assert job.revoke(interrupt=True)
        outcome(job, 10)
        rounds.close()

    @keeps("C15")
    def test_control_finishes_what_a_dead_process_began_to_resume(
        self, app: App, control: Control, jobs: Jobs, crew: Crew
    ) -> None:
        crew.worker()
        control.pause_type("note")
        eventually(control.ping, "the worker has heard")
        job = jobs.note.submit("x")
        eventually(lambda: job.state() is State.PAUSED, "it is parked")
        # As resume_type() leaves it when it dies halfway.
        give(app.store, Kind.RESUME_TYPE, "note", Order())
        withdraw(app.store, Kind.PAUSE_TYPE, "note")
        began = time.monotonic()
        rounds = Rounds(app)
        eventually(lambda: rounds.tick() and job.state() is State.COMPLETED, "it ran")
        assert job.result(1) == "x"
        assert elapsed(began) < 10
        rounds.close()

    @keeps("C3")
    def test_the_gauges_tell_of_jobs_that_nobody_stops_or_gives_back(
        self, app: App, control: Control, inspector: Inspector, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        requires(app, "shared")
        victim = crew.program("--no-control")
        job = diary.begun(jobs.hold.submit(gate.path))
        assert not control.health()
        (worker,) = control.workers()
        (running,) = worker.running
        victim.kill()
        late = replace(worker, running=[replace(running, seconds=running.limit + 2)])
        app.store.write([Write(worker_key(worker.name), encode(late)), Write(lease_key(worker.name), b"1")])
        assert control.health().past_limit == (job.id,)
        app.store.write([Write(lease_key(worker.name), None)])
        eventually(
            lambda: control.health().held_without_lease == (job.id,) or inspector.count(job.queue).ready,
            "it is seen, or the broker has given it back",
        )
        rounds = Rounds(app)
        eventually(lambda: rounds.tick() and not control.health(), "all is well again")
        rounds.close()
