"""Seeing: what a snapshot shows of queues, workers and failures is so, on every broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest

from kq.app import App
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, Gate, buried, outcome
from kq.control import Control, arrivals, chronicle
from kq.control.chronicle import Chronicle
from kq.values.snapshot import QueueRow, Snapshot

T = TypeVar("T")
#: Seconds that a look may take to be right: workers tell with their beats.
SOON = 20.0


class Seeing(ContractWorld):
    """One look shows what waits, what runs, what failed and who is there."""

    def look(self, app: App) -> Snapshot:
        """What somebody sees who looks for the first time."""
        with Control(app) as control:
            return control.snapshot()

    def row(self, app: App, queue: str) -> QueueRow:
        (row,) = [row for row in self.look(app).queues if row.name == queue]
        return row

    def seen(self, app: App, queue: str, claim: Callable[[QueueRow], object], what: str) -> QueueRow:
        """The row of queue as soon as it is as claimed."""

        def look() -> QueueRow | None:
            row = self.row(app, queue)
            return row if claim(row) else None

        row = eventually(look, what, SOON)
        assert row is not None
        return row

    def test_jobs_that_nobody_serves_are_seen_with_the_age_of_the_oldest(
        self, app: App, jobs: Jobs, queue: str
    ) -> None:
        app.submit_many(jobs.note.job() for _ in range(3))
        jobs.note.options(delay=600).submit()
        row = self.seen(
            app, queue, lambda row: row.oldest is not None and row.oldest > 0.3, "a part of a second passes"
        )
        assert (row.ready, row.delayed, row.running, row.workers, row.state) == (3, 1, 0, 0, "unserved")

    def test_without_control_a_look_says_what_is_missing(self, app: App, jobs: Jobs, queue: str) -> None:
        jobs.note.submit()
        shot = self.look(app)
        assert (shot.broker, shot.store, shot.control) == ("", "", "")
        assert any("control" in told for told in shot.missing)

    def test_what_runs_is_seen_with_its_worker(self, app: App, jobs: Jobs, crew: Crew, queue: str, gate: Gate) -> None:
        crew.worker(concurrency=2)
        job = jobs.hold.submit(gate.path)
        row = self.seen(app, queue, lambda row: row.running == 1, "it runs")
        assert (row.held, row.workers, row.slots) == (1, 1, 2)
        (worker,) = [each for each in self.look(app).workers if queue in each.queues]
        assert (worker.state, [each.id for each in worker.running]) == ("alive", [job.id])
        assert worker.running[0].executor in worker.executors
        assert worker.rss is None or worker.rss > 1_000_000
        assert 0 < worker.lease_left <= worker.lease
        gate.open()
        job.result(20)

    def test_what_was_done_is_seen_as_rates_and_waits(self, app: App, jobs: Jobs, crew: Crew, queue: str) -> None:
        crew.worker(concurrency=2)
        for handle in app.submit_many(jobs.note.job() for _ in range(40)):
            handle.result(20)
        row = self.seen(app, queue, lambda row: row.ended, "the worker tells it with a beat")
        assert row.wait_p50 is not None
        assert row.wait_p95 is not None
        assert 0 <= row.wait_p50 <= row.wait_p95 < SOON
        assert row.run_p95 is not None
        (worker,) = [each for each in self.look(app).workers if queue in each.queues]
        eventually(lambda: [w.ok for w in self.look(app).workers if w.name == worker.name] == [40], "all are counted")

    def test_a_wait_begins_when_a_delay_ends(self, app: App, jobs: Jobs, crew: Crew, queue: str) -> None:
        crew.worker()
        jobs.note.options(delay=2.0).submit().result(20)
        row = self.seen(app, queue, lambda row: row.wait_p95 is not None, "the worker tells it with a beat")
        assert row.wait_p95 is not None
        assert row.wait_p95 <= 1.0

    def test_what_failed_is_seen_by_group_and_one_by_one(self, app: App, jobs: Jobs, crew: Crew, queue: str) -> None:
        crew.worker()
        ended = [jobs.perform.submit(["bad"]) for _ in range(3)]
        waits = jobs.perform_patient.submit(["raise OSError"])
        for handle in ended:
            outcome(handle)
        row = self.seen(app, queue, lambda row: row.buried == 3 and row.retrying == 1, "all failed and were told")
        assert row.failed
        shot = self.look(app)
        recent = {each.id: each for each in shot.recent}
        assert recent[ended[0].id].next is None
        again = recent[waits.id]
        assert again.next is not None
        assert again.next > again.at
        (group,) = [each for each in shot.failures if each.queue == queue and each.type == "perform"]
        assert (group.exception, group.failed) == ("BadJob", 3)
        assert "row 7 has no date" in group.message

    def test_a_paused_queue_is_seen_with_who_did_it(self, app: App, jobs: Jobs, control: Control, queue: str) -> None:
        jobs.note.submit()
        control.pause(queue, reason="mail server is down", by="ops@host")
        row = self.row(app, queue)
        assert row.paused is not None
        assert (row.state, row.paused.by, row.paused.reason) == ("paused", "ops@host", "mail server is down")
        control.resume(queue)
        assert self.row(app, queue).paused is None

    def test_a_dead_worker_is_seen_as_dead(self, app: App, jobs: Jobs, crew: Crew, queue: str, gate: Gate) -> None:
        crew.worker()
        self.seen(app, queue, lambda row: row.workers == 1, "it is there")
        with Control(app) as control:
            (name,) = [each.name for each in control.snapshot().workers if queue in each.queues]
            control.expel(name)
            states = {each.name: each.state for each in control.snapshot().workers}
        assert states[name] == "dead"

    def test_control_counts_what_lies_buried_and_remembers_what_happened(
        self, app: App, jobs: Jobs, crew: Crew, control: Control, queue: str
    ) -> None:
        crew.worker()
        handles = [jobs.perform.submit(["bad"]), jobs.perform.submit(["raise ValueError"])]
        for handle in handles:
            buried(control, queue, handle)
        control.note_down(Chronicle())
        shot = control.snapshot()
        counted = {(row.exception, row.buried) for row in shot.failures if row.queue == queue}
        assert counted == {("BadJob", 1), ("ValueError", 1)}
        assert queue in shot.history.queues
        assert shot.history.total[-1].at <= shot.at

    def test_control_counts_what_comes_to_a_queue_whatever_becomes_of_it(
        self, app: App, jobs: Jobs, crew: Crew, queue: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(chronicle, "STEP", 0.0)
        monkeypatch.setattr(arrivals, "STEPS", 10**6)  # what is missing for some steps is not taken out, they are short
        counting = Chronicle()

        def sent() -> int:
            with Control(app) as control:  # that looks for the first time: what it saw before may be remembered
                control.note_down(counting)
                return control.snapshot().history.sent[queue]

        jobs.note.submit()
        assert sent() == 0  # it came before anybody counted
        jobs.note.submit()
        jobs.note.options(delay=600).submit()
        # A message that another look has in its hands is seen the next time.
        eventually(lambda: sent() == 2, "both are counted", SOON)
        jobs.note.submit()
        crew.worker()
        eventually(lambda: sum(row.ok for row in self.look(app).workers) == 3, "the worker tells that they ended", SOON)
        self.seen(app, queue, lambda row: row.held + row.ready == 0, "the broker knows it too")
        eventually(lambda: sent() == 3, "the last one is counted, though it has left", SOON)
        assert sent() == 3
