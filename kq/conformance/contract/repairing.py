"""C9 bury and repair: what a human does to a job that failed, on every broker the same.

What becomes of it when the human's program is killed is tested in tests/control.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import pytest

from kq.app import App
from kq.broker import BURIED, Inspector, Swap
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.figures import keeps
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, Gate, buried, outcome
from kq.control import Control, JobInfo, Where
from kq.control.sight import info_of
from kq.errors import JobBuried, JobFailed, MessageError, NotRepaired
from kq.values.job import State
from kq.values.message import Envelope


class Repairing(ContractWorld):
    """Kick, edit, bury, complete, delete."""

    @keeps("C9")
    def test_a_buried_job_is_edited_and_kicked_and_runs_as_itself(
        self, control: Control, jobs: Jobs, crew: Crew, diary: Diary
    ) -> None:
        crew.worker()
        job = jobs.perform.submit(["bad"])
        found = buried(control, job.queue, job)
        changed = control.edit(job.id, args=[["return"]], version=found.version, reason="row 7 has a date now")
        assert changed == ("args.0",)
        assert isinstance(outcome(job), JobBuried)
        (kicked,) = control.kick(job.queue, reason="try again", by="anna@web1")
        assert (kicked.job.id, kicked.refused) == (job.id, "")
        assert job.result(20) == 1
        assert [start.word for start in diary.starts(job.id)] == ["bad", "return"]
        known = control.job(job.id)
        assert known is not None
        assert known.state is State.COMPLETED

    @keeps("C9")
    def test_what_was_done_to_a_job_is_in_its_history(self, control: Control, jobs: Jobs, crew: Crew) -> None:
        worker = crew.worker()
        job = jobs.perform.submit(["bad"])
        buried(control, job.queue, job)
        worker.stop()
        control.edit(job.id, args=[["return"]], reason="mended", by="anna@web1")
        control.kick(job.queue, by="bert@web2")
        (known,) = control.jobs(job.queue)
        assert (known.state, known.attempt, known.error, known.args) == (State.READY, 0, "", [["return"]])
        lines = [(line.number, line.outcome, line.worker, line.error) for line in known.history[1:]]
        assert lines == [(0, "edited", "anna@web1", "mended"), (0, "kicked", "bert@web2", "")]
        assert job.state() is State.READY

    @keeps("C9")
    def test_a_kicked_job_has_all_its_attempts_again(
        self, control: Control, jobs: Jobs, crew: Crew, diary: Diary
    ) -> None:
        crew.worker()
        job = jobs.perform_fixed.submit(["raise OSError"])
        for life in (1, 2):
            found = buried(control, job.queue, job)
            assert (found.attempt, len(diary.starts(job.id))) == (3, 3 * life)
            control.kick(job.queue)
            eventually(lambda starts=3 * life: len(diary.starts(job.id)) > starts, "it starts again")  # type: ignore[misc]
        assert len(buried(control, job.queue, job).history) == 11

    @keeps("C9")
    def test_jobs_are_kicked_by_what_they_are(self, control: Control, app: App, jobs: Jobs) -> None:
        first, second, third = app.submit_many([jobs.note.job("x"), jobs.note.job("y"), jobs.nap.job(0.0, "x")])
        for handle, reason in ((first, "red"), (second, "red"), (third, "blue")):
            control.bury(handle.id, reason)
        assert {job.id for job in self.meant(control, first.queue, Where(type="note"))} == {first.id, second.id}
        assert {job.id for job in self.meant(control, first.queue, Where(text='"X"'))} == {first.id, third.id}
        assert self.meant(control, first.queue, Where(older=3600)) == []
        assert self.meant(control, first.queue, Where(place="bill.py:total")) == []
        assert [each.job.id for each in control.kick(where=Where(text="blue"))] == [third.id]
        assert [each.job.id for each in control.kick(first.queue, limit=1)] == [first.id]
        assert [each.job.id for each in control.kick(ids=[first.id, second.id])] == [second.id]
        assert {job.state for job in control.jobs(first.queue)} == {State.READY}

    def meant(self, control: Control, queue: str, where: Where) -> list[JobInfo]:
        """The buried jobs that fit."""
        return control.jobs(queue, State.BURIED, where=where)

    @keeps("C9")
    def test_an_edit_that_comes_too_late_changes_nothing(
        self, control: Control, jobs: Jobs, crew: Crew, gate: Gate
    ) -> None:
        waiting = jobs.note.options(delay=3600).submit("a")
        (seen,) = control.jobs(waiting.queue)
        control.edit(waiting.id, args=["b"])
        with pytest.raises(NotRepaired, match="changed since"):
            control.edit(waiting.id, args=["c"], version=seen.version)
        assert control.jobs(waiting.queue)[0].args == ["b"]
        crew.worker()
        running = jobs.hold.submit(gate.path)
        eventually(lambda: running.state() is State.RESERVED, "it runs")
        with pytest.raises(NotRepaired, match=r"running|reserved"):
            control.edit(running.id, args=["elsewhere"])
        gate.open()
        running.result(20)
        with pytest.raises(NotRepaired, match="completed"):
            control.delete(running.id)

    @keeps("C9")
    def test_arguments_that_do_not_fit_are_refused(self, control: Control, jobs: Jobs) -> None:
        job = jobs.add.options(delay=3600).submit(1, 2)
        with pytest.raises(TypeError, match="left"):
            control.edit(job.id, args=["one", 2])
        with pytest.raises(TypeError, match="missing"):
            control.edit(job.id, args=[1])
        assert control.jobs(job.queue)[0].args == [1, 2]

    @keeps("C6")
    def test_a_delayed_job_is_changed_and_keeps_its_time_or_gets_another(
        self, control: Control, jobs: Jobs, crew: Crew
    ) -> None:
        job = jobs.add.options(delay=600).submit(1, 2)
        before = control.jobs(job.queue)[0].due
        control.edit(job.id, kwargs={"right": 5}, args=[1], priority=9)
        (known,) = control.jobs(job.queue)
        assert (known.state, known.priority, known.kwargs) == (State.DELAYED, 9, {"right": 5})
        assert known.due == pytest.approx(before, abs=1.0)
        control.edit(job.id, delay=0.2)
        crew.worker()
        assert job.result(20) == 6

    @keeps("C9")
    def test_a_waiting_job_is_buried_by_hand_and_kicked(self, control: Control, jobs: Jobs, crew: Crew) -> None:
        job = jobs.note.submit("a")
        control.bury(job.id, "not today", by="anna@web1")
        assert job.state() is State.BURIED
        with pytest.raises(JobBuried, match="buried by anna@web1: not today"):
            job.result(5)
        crew.worker()
        control.kick(ids=[job.id])
        assert job.result(20) == "a"

    @keeps("C9")
    def test_a_job_is_completed_by_hand(self, control: Control, inspector: Inspector, jobs: Jobs) -> None:
        job = jobs.note.submit("a")
        with pytest.raises(NotRepaired, match="not buried"):
            control.complete(job.id, "b")
        control.bury(job.id)
        control.complete(job.id, {"by": "hand"}, reason="done by telephone")
        assert outcome(job) == {"by": "hand"}
        assert control.jobs(job.queue) == []

    @keeps("C9")
    def test_a_copy_of_a_job_that_has_ended_is_not_kicked_but_may_be_taken_away(
        self, app: App, control: Control, inspector: Inspector, jobs: Jobs, crew: Crew, diary: Diary
    ) -> None:
        job = jobs.note.submit("a")
        control.bury(job.id)
        (seen,) = inspector.browse(job.queue + BURIED, "ready")
        copy = Envelope(seen.id, job.queue + BURIED, seen.body, seen.headers, seen.priority)
        control.kick(job.queue)
        crew.worker()
        assert job.result(20) == "a"
        app.publisher.publish([copy], time.monotonic() + 5.0)  # as a broker that forgot an ack shows it
        (refused,) = control.kick(job.queue)
        assert "completed by now" in refused.refused
        control.delete(job.id)
        eventually(lambda: not control.jobs(job.queue), "nothing is left")
        assert (job.result(5), len(diary.starts(job.id))) == ("a", 1)

    @keeps("C9")
    @pytest.mark.parametrize(
        ("how", "left"),
        [("edit", (State.READY, ["b"])), ("bury", (State.BURIED, ["a"])), ("delete", None), ("purge", None)],
        ids=["edit", "bury", "delete", "purge"],
    )
    def test_a_job_whose_submit_was_repeated_is_changed_as_one(
        self,
        app: App,
        control: Control,
        inspector: Inspector,
        jobs: Jobs,
        how: str,
        left: tuple[State, list[str]] | None,
    ) -> None:
        job = jobs.note.submit("a")
        (seen,) = inspector.find(job.queue, [job.id])
        copy = Envelope(seen.id, job.queue, seen.body, seen.headers, seen.priority)
        app.publisher.publish([copy.again()], time.monotonic() + 5.0)  # as when the first was not answered in time
        known = control.job(job.id)
        assert known is not None
        acts: dict[str, Callable[[], object]] = {
            "edit": lambda: control.edit(job.id, args=["b"], version=known.version),
            "bury": lambda: control.bury(job.id),
            "delete": lambda: control.delete(job.id),
            "purge": lambda: control.purge(job.queue),
        }
        acts[how]()
        found = [info_of(each) for place in ("", BURIED) for each in inspector.find(job.queue + place, [job.id])]
        assert [(each.state, each.args) for each in found] == ([] if left is None else [left])

    @keeps("C9")
    @pytest.mark.parametrize("how", ["delete", "purge"])
    def test_a_job_that_a_worker_takes_while_somebody_deletes_it_runs(
        self,
        control: Control,
        jobs: Jobs,
        crew: Crew,
        diary: Diary,
        queue: str,
        monkeypatch: pytest.MonkeyPatch,
        how: str,
    ) -> None:
        crew.worker()
        control.pause(queue)
        control.ping()
        job = jobs.perform.submit(["return"])

        def take() -> None:
            control.resume(queue)
            diary.begun(job)

        before_the_next_swap(monkeypatch, take)
        if how == "purge":
            assert control.purge(queue) == 0
        else:
            with pytest.raises(NotRepaired, match="a worker has it"):
                control.delete(job.id)
        eventually(lambda: job.state() is State.COMPLETED, "its end is known")
        assert job.result(5) == 1

    @keeps("C9")
    def test_a_deleted_job_ends_and_its_unique_key_is_free(self, control: Control, jobs: Jobs) -> None:
        job = jobs.note.options(unique="a").submit("a")
        assert jobs.note.options(unique="a").submit("b") == job
        control.delete(job.id, reason="a mistake", by="anna@web1")
        with pytest.raises(JobFailed, match="deleted by anna@web1: a mistake"):
            job.result(5)
        assert job.state() is State.DELETED
        assert jobs.note.options(unique="a").submit("b") != job

    @keeps("C9")
    def test_a_purged_queue_is_empty_and_its_jobs_have_ended(
        self, control: Control, app: App, jobs: Jobs, crew: Crew, gate: Gate, diary: Diary
    ) -> None:
        runs, kept = jobs.hold.submit(gate.path), jobs.note.submit("kept")
        control.bury(kept.id)
        crew.worker(concurrency=1)
        diary.begun(runs)
        waiting = app.submit_many(jobs.note.options(priority=n % 10).job(str(n)) for n in range(25))
        waiting += [jobs.note.options(delay=3600).submit("later"), jobs.note.options(unique="a").submit("one")]
        purged = control.purge(runs.queue, reason="a flood", by="anna@web1")
        held = [job for job in waiting if job.state() is not State.DELETED]
        assert purged == len(waiting) - len(held)
        with pytest.raises(JobFailed, match="purged by anna@web1: a flood"):
            waiting[-2].result(5)
        assert kept.state() is State.BURIED
        assert [(act.act, act.queue) for act in control.audit(1)] == [("purged", runs.queue)]
        assert (control.purge(runs.queue, buried=True), kept.state()) == (1, State.DELETED)
        gate.open()
        assert runs.result(20)

    @keeps("C11")
    def test_a_kicked_job_takes_its_unique_key_back_unless_another_has_it(self, control: Control, jobs: Jobs) -> None:
        first = jobs.note.options(unique="a").submit("a")
        control.bury(first.id)
        second = jobs.note.options(unique="a").submit("b")
        (refused,) = control.kick(first.queue)
        assert "unique key 'a'" in refused.refused
        assert first.state() is State.BURIED
        with pytest.raises(JobBuried):
            first.result(5)
        control.delete(second.id)
        assert control.kick(first.queue)[0].refused == ""
        assert jobs.note.options(unique="a").submit("c") == first

    @keeps("C9")
    def test_every_act_leaves_a_line_in_the_audit(self, control: Control, jobs: Jobs) -> None:
        began = time.time()
        job = jobs.note.options(priority=3).submit("a")
        control.edit(job.id, args=["b"], priority=4, reason="typo", by="anna@web1")
        control.bury(job.id, "later", by="anna@web1")
        control.kick(job.queue, reason="now", by="bert@web2")
        control.delete(job.id, by="bert@web2")
        acts = [act for act in control.audit() if act.job == job.id]
        assert [(act.act, act.by, act.reason) for act in acts] == [
            ("deleted", "bert@web2", ""),
            ("kicked", "bert@web2", "now"),
            ("buried", "anna@web1", "later"),
            ("edited", "anna@web1", "typo"),
        ]
        assert acts[-1].changed == ("args.0", "priority")
        assert all(began <= act.at <= time.time() and act.type == "note" for act in acts)
        with pytest.raises(NotRepaired):
            control.delete(job.id)
        assert len([act for act in control.audit() if act.job == job.id]) == 4

    @keeps("C19")
    def test_what_cannot_be_read_is_shown_and_put_back_as_it_came(
        self, app: App, control: Control, inspector: Inspector, queue: str, crew: Crew
    ) -> None:
        headers = {"kq": 99, "type": "note", "traceparent": "00-1"}
        app.publisher.publish([Envelope("1", queue, b"{no json", headers)], time.monotonic() + 5.0)
        worker = crew.worker()
        (job,) = eventually(lambda: control.jobs(queue, State.BURIED), "it is buried")
        worker.stop()
        assert (job.type, job.body, job.args) == ("note", "{no json", [])
        with pytest.raises(MessageError):
            control.edit("1", args=["a"], kwargs={})
        assert control.kick(queue)[0].refused == ""
        (back,) = inspector.browse(queue, "ready")
        assert (dict(back.headers), back.body) == (headers, b"{no json")
        control.delete("1")
        assert control.jobs(queue) == []


def before_the_next_swap(monkeypatch: pytest.MonkeyPatch, do: Callable[[], None]) -> None:
    """Let do() happen when somebody has said what he means to do to a message, and has not done it yet."""
    swap = Inspector.swap

    def swap_late(self: Inspector, queue: str, swaps: Sequence[Swap]) -> list[bool]:
        monkeypatch.setattr(Inspector, "swap", swap)
        do()
        return swap(self, queue, swaps)

    monkeypatch.setattr(Inspector, "swap", swap_late)
