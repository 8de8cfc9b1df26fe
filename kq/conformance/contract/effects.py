"""C13 once: a side effect that was done is not done again, and one that nobody knows of is told as that."""

from __future__ import annotations

import uuid

import pytest

from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.figures import keeps
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, Gate, buried, in_pools, outcome
from kq.control import Answer, Control
from kq.errors import JobRevoked, NotRepaired
from kq.worker.pool import PoolKind


class Once(ContractWorld):
    """C13: the ledger of side effects."""

    @pytest.fixture
    def word(self) -> str:
        """Something that was never done before."""
        return uuid.uuid4().hex

    @keeps("C13")
    @in_pools("process", "thread", "async")
    def test_what_was_done_is_not_done_again_and_its_outcome_is_remembered(
        self, jobs: Jobs, crew: Crew, diary: Diary, word: str, pool: PoolKind
    ) -> None:
        crew.worker(pool=pool)
        first, second = (jobs.deed.submit(word).result(10) for _ in range(2))
        assert first == second == word
        assert len(diary.entries("acted")) == 1

    @keeps("C13")
    def test_two_jobs_at_the_same_effect_do_it_once(self, jobs: Jobs, crew: Crew, diary: Diary, word: str) -> None:
        crew.worker(concurrency=2)
        handles = [jobs.deed.submit(word, "nap 0.5") for _ in range(2)]
        assert [handle.result(20) for handle in handles] == [word, word]
        assert len(diary.entries("acted")) == 1

    @keeps("C13")
    def test_who_dies_in_the_act_leaves_a_question_for_a_human(
        self, control: Control, jobs: Jobs, crew: Crew, diary: Diary, word: str
    ) -> None:
        crew.worker()
        job = jobs.deed.submit(word, "signal 9")
        found = buried(control, job.queue, job)
        assert "nobody knows whether the effect" in found.error
        assert len(diary.entries("acted")) == 1
        (entry,) = control.effects(f"deed:{word}")
        assert (entry.stage, entry.job) == ("doubt", job.id)

    @keeps("C13")
    @pytest.mark.parametrize(("answer", "result", "times"), [("done", "by hand", 1), ("repeat", None, 2)])
    def test_a_human_who_finds_out_ends_the_doubt(
        self,
        control: Control,
        jobs: Jobs,
        crew: Crew,
        diary: Diary,
        word: str,
        answer: Answer,
        result: str | None,
        times: int,
    ) -> None:
        crew.worker()
        job = jobs.deed.submit(word, "signal 9")
        buried(control, job.queue, job)
        control.edit(job.id, args=[word])  # it would die again
        (entry,) = control.answer(job.id, answer, "by hand", reason="looked into the outbox")
        assert (entry.key, entry.stage) == (f"deed:{word}", "doubt")
        assert job.result(10) == (result or word)
        assert len(diary.entries("acted")) == times
        assert [act.reason for act in control.audit(2)] == ["looked into the outbox"] * 2
        assert not control.doubts(job.id)

    @keeps("C13")
    def test_a_kick_without_an_answer_asks_again(
        self, control: Control, jobs: Jobs, crew: Crew, diary: Diary, word: str
    ) -> None:
        crew.worker()
        job = jobs.deed.submit(word, "signal 9")
        first = buried(control, job.queue, job)
        assert control.kick(ids=[job.id])
        eventually(lambda: buried(control, job.queue, job).buried != first.buried, "it is buried again")
        assert [entry.key for entry in control.doubts(job.id)] == [f"deed:{word}"]
        assert len(diary.entries("acted")) == 1

    @keeps("C13")
    def test_a_job_that_is_in_doubt_about_nothing_takes_no_answer(
        self, control: Control, jobs: Jobs, crew: Crew, word: str
    ) -> None:
        crew.worker()
        job = jobs.perform.submit(["bury"])
        buried(control, job.queue, job)
        with pytest.raises(NotRepaired, match="in doubt about no effect"):
            control.answer(job.id, "done")

    @keeps("C13")
    def test_what_was_done_happens_again_when_a_human_lifts_it(
        self, control: Control, jobs: Jobs, crew: Crew, diary: Diary, word: str
    ) -> None:
        crew.worker()
        jobs.deed.submit(word).result(10)
        assert control.lift_effect(f"deed:{word}", reason="the label was lost").stage == "done"
        assert control.audit(1)[0].effect == f"deed:{word}"
        jobs.deed.submit(word).result(10)
        assert len(diary.entries("acted")) == 2

    @keeps("C13")
    def test_an_effect_that_a_worker_is_at_is_not_lifted(
        self, control: Control, jobs: Jobs, crew: Crew, diary: Diary, word: str, gate: Gate
    ) -> None:
        crew.worker()
        job = jobs.deed.submit(word, f"hold {gate.path}")
        eventually(lambda: diary.entries("acted"), "it is at it")
        with pytest.raises(NotRepaired, match="right now"):
            control.lift_effect(f"deed:{word}")
        gate.open()
        assert job.result(10) == word

    @keeps("C13")
    def test_who_is_killed_in_the_act_for_good_leaves_a_question_and_keeps_nobody_waiting(
        self, control: Control, jobs: Jobs, crew: Crew, diary: Diary, word: str
    ) -> None:
        crew.worker()
        job = jobs.deed_final.submit(word, "spin")
        assert "nobody knows whether the effect" in buried(control, job.queue, job).error
        assert [entry.job for entry in control.doubts(job.id)] == [job.id]
        assert "nobody knows whether the effect" in buried(control, job.queue, jobs.deed_final.submit(word)).error
        control.lift_effect(f"deed_final:{word}")
        assert jobs.deed_final.submit(word).result(10) == word
        assert len(diary.entries("acted")) == 2

    @keeps("C13")
    @pytest.mark.parametrize("lifted", [False, True])
    def test_who_is_revoked_in_the_act_keeps_nobody_waiting(
        self, control: Control, jobs: Jobs, crew: Crew, diary: Diary, word: str, lifted: bool
    ) -> None:
        crew.worker()
        job = jobs.deed.submit(word, "spin")
        eventually(lambda: diary.entries("acted"), "it is at it")
        control.revoke(job.id, interrupt=True)
        assert isinstance(outcome(job), JobRevoked)
        if lifted:
            control.lift_effect(f"deed:{word}", reason="the label was not printed")
            assert jobs.deed.submit(word).result(10) == word
        else:
            another = jobs.deed.submit(word)
            assert "nobody knows whether the effect" in buried(control, job.queue, another).error

    @keeps("C13")
    def test_a_check_of_the_world_answers_before_a_human_is_asked(
        self, jobs: Jobs, crew: Crew, diary: Diary, word: str
    ) -> None:
        crew.worker()
        for world, times in (("happened", 1), ("did not happen", 2)):
            job = jobs.deed_checked.submit(f"{word} {world}", "signal 9", world)
            job.result(10)
            assert len(diary.entries("acted", [job.id])) == times

    @keeps("C13")
    def test_effects_are_found_by_stage_type_and_text(
        self, control: Control, jobs: Jobs, crew: Crew, word: str
    ) -> None:
        crew.worker()
        jobs.deed.submit(word).result(10)
        doubtful = jobs.deed.submit(f"{word} too", "signal 9")
        buried(control, doubtful.queue, doubtful)
        assert [entry.stage for entry in control.effects(f"deed:{word}")] == ["done", "doubt"]
        assert [entry.job for entry in control.effects(stage="doubt", text=word)] == [doubtful.id]
        assert [entry.key for entry in control.effects(type="de*", text=f"{word} too")] == [f"deed:{word} too"]
        assert not control.effects(f"deed:{word}", type="mail")

    @keeps("C13")
    def test_a_doubt_is_repeated_or_skipped_where_the_type_says_so(
        self, jobs: Jobs, crew: Crew, diary: Diary, word: str
    ) -> None:
        crew.worker()
        for deed, times in ((jobs.deed_repeat, 2), (jobs.deed_skip, 1)):
            job = deed.submit(word, "signal 9")
            job.result(10)
            assert len(diary.entries("acted", [job.id])) == times

    @keeps("C13")
    def test_an_error_that_proves_that_nothing_happened_is_retried(
        self, jobs: Jobs, crew: Crew, diary: Diary, word: str
    ) -> None:
        crew.worker()
        assert jobs.deed.submit(word, "nothing").result(20) == word
        assert len(diary.entries("acted")) == 2
