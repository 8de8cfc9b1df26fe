"""C8 and DESIGN 8, fallbacks: where a job would be buried for its failures, the next job type runs instead."""

from __future__ import annotations

import random
import time
import uuid

import pytest
from msgspec.structs import replace

from kq.app import App
from kq.broker import Inspector
from kq.conformance.contract.counting import headers_of
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.figures import Figures, keeps
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, buried, in_pools, requires
from kq.control import Control
from kq.errors import JobBuried
from kq.handles.handle import Handle
from kq.values.job import State
from kq.values.record import place_key
from kq.worker.pool import PoolKind

#: Kills and jobs of the lottery.
KILLS, JOBS = 3, 60
#: A job that never ends: in C, where it must be killed, and where it can be interrupted.
HANGS = ("spin", "nap 20")


class Fallbacks(ContractWorld):
    """C8: a job that can't be done the good way is done the simple way, as the same job."""

    @keeps("C8")
    def test_what_gives_up_is_done_by_the_next_job_type_as_the_same_job(
        self, control: Control, jobs: Jobs, crew: Crew, diary: Diary
    ) -> None:
        crew.worker()
        good = jobs.best.submit(["return"])
        raised = jobs.best.submit(["raise ValueError", "return"])
        killed = jobs.best.submit(["signal 9", "signal 9", "return"])
        assert (good.result(10), good.degraded_by()) == ([0, 1], 0)
        assert (raised.result(10), raised.degraded_by()) == ([1, 1], 1)
        assert (killed.result(20), killed.degraded_by()) == ([2, 1], 2)
        assert [start.id for start in diary.starts(raised.id)] == [raised.id] * 2
        found = control.job(killed.id)
        assert found is not None
        assert (found.type, found.degraded_by) == ("stage", 2)
        assert [(each.type, each.number, each.outcome) for each in found.history] == [
            *(("best", number, "died") for number in (1, 2)),
            *(("second", number, "died") for number in (1, 2, 3)),
        ]

    @keeps("C8")
    @in_pools("process", "thread", "async")
    def test_a_hang_in_c_code_is_answered_within_the_timeout_and_a_second(
        self, jobs: Jobs, crew: Crew, diary: Diary, measured: Figures, pool: PoolKind
    ) -> None:
        crew.worker(pool=pool, concurrency=2)
        job = jobs.best.submit(["spin", "return"])
        assert (job.result(20), job.degraded_by()) == ([1, 1], 1)
        hung, (answer,) = diary.starts(job.id)[0], diary.ends(job.id)
        measured(f"{pool}: answered {answer.at - hung.at:.2f} s after the start of a job with a timeout of 1 s")
        assert answer.at - hung.at < 2.0

    @keeps("C8")
    def test_when_the_last_one_gives_up_the_job_lies_as_it_was_submitted_and_a_kick_begins_with_the_first(
        self, inspector: Inspector, control: Control, jobs: Jobs, crew: Crew
    ) -> None:
        crew.worker()
        job = jobs.best.submit(["raise ValueError"])
        found = buried(control, job.queue, job)
        assert (found.type, found.args, found.degraded_by) == ("best", [["raise ValueError"]], 0)
        assert found.error == "ValueError: as asked (stage, fallback 2 of 2)"
        assert [each.type for each in found.history] == ["best", "second", "stage"]
        assert not {"fallback", "first", "degraded_by"} & headers_of(inspector, job).keys()
        with pytest.raises(JobBuried):
            job.degraded_by(1)
        assert control.edit(job.id, args=[["return"]])
        assert not control.kick(ids=[job.id])[0].refused
        assert (job.result(10), job.degraded_by()) == ([0, 1], 0)

    @keeps("C8")
    def test_a_job_or_else_another_has_arguments_of_its_own(
        self, app: App, control: Control, jobs: Jobs, crew: Crew
    ) -> None:
        crew.worker()
        job = app.submit(
            jobs.stage.job(["raise ValueError"]) | jobs.narrow.job(["bad"], also="x") | jobs.note.job("at last")
        )
        assert (job.result(10), job.degraded_by()) == ("at last", 2)
        again = app.submit(jobs.stage.job(["raise ValueError"]) | jobs.narrow.job(["bad"], also="x"))
        found = buried(control, again.queue, again)
        assert (found.type, found.args, found.types) == ("stage", [["raise ValueError"]], ("stage", "narrow"))
        control.edit(again.id, args=[["bad"]])
        control.kick(ids=[again.id])
        eventually(lambda: len(buried(control, again.queue, again).history) == 6, "it went through both again")

    @keeps("C8")
    def test_a_job_type_of_another_queue_answers_there_and_the_job_is_found_on_its_way(
        self, control: Control, queue: str, jobs: Jobs, crew: Crew
    ) -> None:
        only = jobs.best_far.options(unique="cat", priority=9)
        crew.worker()
        job = only.submit(["raise ValueError", "return"])
        found = eventually(lambda: control.jobs(f"{queue}-far"), "it waits in the other queue")
        assert [(each.id, each.type, each.priority, each.state) for each in found] == [(job.id, "far", 9, State.READY)]
        assert job.state() is State.READY
        assert only.submit(["return"]) == job
        assert "it is fallback 1, because best_far raised: ValueError: as asked" in control.why(job.id)
        crew.worker(queues=f"{queue}-far")
        assert (job.result(10), job.degraded_by()) == ([1, 1], 1)
        eventually(lambda: only.submit(["return"]) != job, "the key is free when it has ended")

    @keeps("C8")
    def test_a_job_that_waits_to_be_answered_elsewhere_is_revoked_and_one_that_nobody_can_answer_is_buried(
        self, app: App, control: Control, queue: str, jobs: Jobs, crew: Crew
    ) -> None:
        crew.worker()
        revoked, lost = jobs.best_far.submit(["bad"]), jobs.best_far.submit(["bad"])
        eventually(lambda: len(control.jobs(f"{queue}-far")) == 2, "both wait in the other queue")
        assert revoked.revoke()
        assert app.store.get([place_key(revoked.id)]) == [None]
        wrong = app.envelope(jobs.stage.job(["bad"]))
        odd = {**wrong.headers, "fallback": [{"type": "narrow"}]}  # by a producer who knows no signatures
        app.publisher.publish([replace(wrong, headers=odd)], time.monotonic() + 5)
        misfit = buried(control, queue, Handle(wrong.id, queue, app))
        assert "narrow: missing argument 'also'" in misfit.error
        assert (misfit.type, misfit.degraded_by, len(misfit.history)) == ("narrow", 1, 1)
        crew.worker(queues=f"{queue}-far")
        assert revoked.state() is State.REVOKED
        found = buried(control, f"{queue}-far", lost)
        assert "does not know the job type 'nowhere', which is to run instead of 'best_far'" in found.error
        assert (found.type, found.degraded_by, len(found.history)) == ("nowhere", 2, 2)

    @keeps("C8")
    def test_a_message_is_followed_only_as_far_as_the_application_declares(
        self, app: App, control: Control, queue: str, jobs: Jobs, crew: Crew, diary: Diary
    ) -> None:
        far, other = f"{queue}-far", f"{queue}-other"
        wrong: list[tuple[dict[str, object], str, str]] = [
            ({"fallback": [{"type": "stage", "queue": far}]}, queue, "its fallback is 'stage'"),
            (
                {"fallback": [{"type": "far", "queue": far}]},
                queue,
                "its fallback is 'far'",
            ),  # stage does not declare it
            (
                {"fallback": [{"type": "second"}, {"type": "nowhere", "queue": other}]},
                queue,
                "its fallback is 'nowhere'",
            ),
            ({"first": {"type": "note", "queue": other}, "degraded_by": 1}, queue, "it began as 'note'"),
            ({"first": {"type": "best_far", "queue": other}, "type": "far", "degraded_by": 1}, far, "it began as"),
            ({"type": "note"}, far, "the job type 'note' is in queue"),
        ]
        sent = list[tuple[Handle[object], str]]()
        for headers, at, reason in wrong:
            made = app.envelope(jobs.stage.job(["bad"]))
            made = replace(made, headers={**made.headers, **headers}, queue=at)
            app.publisher.publish([made], time.monotonic() + 5)
            sent.append((Handle(made.id, at, app), reason))
        asked = jobs.note.options(queue=far).submit("asked for by the producer")
        crew.worker(queues=f"{queue},{far}")
        for handle, reason in sent:
            found = buried(control, handle.queue, handle)
            assert reason in found.error
            assert "which the application does not declare and the setting worker.accept does not allow" in found.error
        assert "the job type 'note' is in queue" in buried(control, far, asked).error
        assert not diary.starts()
        assert other not in {each.name for each in control.queues()}

    @keeps("C8")
    def test_a_message_is_followed_as_far_as_the_operator_allows(
        self, app: App, queue: str, jobs: Jobs, crew: Crew
    ) -> None:
        requires(app, "shared")
        far, bulk = f"{queue}-far", f"{queue}-bulk"
        elsewhere = jobs.stage.job(["bad"]) | jobs.note.options(queue=far).job("instead")
        moved = jobs.note.options(queue=far).submit("moved")
        crew.program(queues=f"{queue},{far},{bulk}", settings={"KQ_WORKER_ACCEPT": f"note@{far}"})
        assert moved.result(10) == "moved"
        assert app.submit(elsewhere).result(10) == "instead"
        # A queue that the operator named and that no type declares is for all types.
        assert jobs.note.options(queue=bulk).submit("bulk").result(10) == "bulk"

    @keeps("C16")
    def test_giving_up_and_going_on_as_another_type_is_one_step_when_workers_are_killed(
        self, app: App, jobs: Jobs, crew: Crew, diary: Diary, measured: Figures
    ) -> None:
        requires(app, "shared")
        seed = uuid.uuid4().hex[:8]
        chance = random.Random(seed)
        handles = app.submit_many(jobs.best.job(["raise ValueError", "bad", "return"]) for _ in range(JOBS))
        for _ in range(KILLS):
            worker = crew.program(concurrency=2)
            seen = len(diary.starts())
            eventually(lambda seen=seen: len(diary.starts()) > seen + chance.randrange(20), "jobs run", 20)  # type: ignore[misc]
            worker.kill()
        crew.program(concurrency=2)
        assert {handle.result(60)[0] for handle in handles} == {2}
        assert {handle.degraded_by() for handle in handles} == {2}
        starts = len(diary.starts())
        measured(
            f"{KILLS} kills, {JOBS} jobs of 3 types each: all answered by the third, {starts} starts (seed {seed})"
        )

    @keeps("C13")
    def test_a_side_effect_in_doubt_is_not_done_by_a_fallback_but_asked_about(
        self, control: Control, jobs: Jobs, crew: Crew, diary: Diary
    ) -> None:
        crew.worker(concurrency=2)
        words = [uuid.uuid4().hex for _ in HANGS]
        for word, job in zip(words, [jobs.post.submit(*each) for each in zip(words, HANGS, strict=True)], strict=True):
            found = buried(control, job.queue, job)
            assert "nobody knows whether the effect" in found.error
            assert (found.type, found.degraded_by) == ("post", 0)
            assert not diary.starts(job.id)
            (entry,) = control.effects(f"post:{word}")
            assert (entry.stage, entry.job) == ("doubt", job.id)
            control.answer(job.id, "done", "by hand")
            assert (job.result(10), job.degraded_by()) == ("by hand", 0)

    @keeps("C13")
    def test_where_its_type_says_so_a_fallback_answers_and_the_side_effect_stays_in_doubt(
        self, control: Control, jobs: Jobs, crew: Crew
    ) -> None:
        crew.worker(concurrency=2)
        words = [uuid.uuid4().hex for _ in HANGS]
        handles = [jobs.post_or_paper.submit(*each) for each in zip(words, HANGS, strict=True)]
        for word, job in zip(words, handles, strict=True):
            assert (job.result(10), job.degraded_by()) == (f"paper for {word}", 1)
            (entry,) = control.effects(f"post_or_paper:{word}")
            assert (entry.stage, entry.job) == ("doubt", job.id)

    @keeps("C13")
    def test_a_check_of_the_world_answers_before_a_fallback_does(self, jobs: Jobs, crew: Crew, diary: Diary) -> None:
        crew.worker(concurrency=2)
        times = {"happened": 1, "": 2}
        handles = {world: jobs.post_checked.submit(uuid.uuid4().hex, "spin", world) for world in times}
        for world, job in handles.items():
            job.result(10)
            assert job.degraded_by() == 0
            assert len(diary.entries("acted", [job.id])) == times[world]

    @keeps("C13")
    def test_a_side_effect_that_a_fallback_answered_for_is_in_doubt_and_not_done(
        self, control: Control, jobs: Jobs, crew: Crew, diary: Diary
    ) -> None:
        crew.worker()
        word = uuid.uuid4().hex
        job = jobs.post.submit(word, "nothing")
        assert (job.result(20), job.degraded_by()) == (f"paper for {word}", 1)
        (entry,) = control.effects(f"post:{word}")
        assert (entry.stage, entry.note) == (
            "doubt",
            f"not done: paper answered instead, fallback 1 of job {job.id}",
        )
        again = jobs.post.submit(word)
        assert "nobody knows" in buried(control, again.queue, again).error
        assert len(diary.entries("acted", [again.id])) == 0

    @keeps("C8")
    def test_what_part_of_the_jobs_was_done_the_simple_way_is_in_the_snapshot(
        self, control: Control, queue: str, jobs: Jobs, crew: Crew
    ) -> None:
        crew.worker()
        for acts in (["return"], ["return"], ["return"], ["bad", "return"]):
            jobs.best.submit(acts).result(10)
        control.freshen()
        (row,) = (row for row in control.snapshot().queues if row.name == queue)
        assert row.degraded == 0.25
