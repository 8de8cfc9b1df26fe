"""C11 unique: of the jobs of one key at most one waits or runs, also when its submit failed half way."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kq.app import App
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.figures import keeps
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.storing import mismatched
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import SUBMIT_TIMEOUT, ContractWorld, Gate, outcome, requires
from kq.control import Control
from kq.errors import BrokerError, BrokerUnreachable, MessageError
from kq.handles.claim import KeyClaims
from kq.handles.handle import Handle
from kq.jobtype import JobType
from kq.values.job import Job, State
from kq.values.message import BODY_LIMIT, Envelope
from kq.values.record import unique_key
from kq.values.unique import unique_of


class Unique(ContractWorld):
    """C11: the key is held from the submit until its job has ended, and no longer."""

    @keeps("C11")
    def test_a_second_submit_returns_the_job_that_waits_or_runs(
        self, control: Control, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        only = jobs.hold.options(unique="cat")
        first = only.submit(gate.path)
        assert only.submit(gate.path) == first
        crew.worker()
        diary.begun(first)
        assert only.submit(gate.path) == first
        assert jobs.hold.options(unique="dog").submit(gate.path) != first
        gate.open()
        first.result(10)

    @keeps("C11")
    def test_the_key_is_free_when_the_job_has_ended_however_it_did(self, app: App, jobs: Jobs, crew: Crew) -> None:
        crew.worker()
        only = jobs.perform.options(unique="cat")
        for acts in (["return"], ["bad"], ["signal 9"], ["raise RuntimeError", "return"]):
            first = only.submit(acts)
            outcome(first)
            eventually(lambda: app.store.get([unique_key("cat")]) == [None], f"the key is free after {acts}")
            second = only.submit(["return"])
            assert second != first
            assert second.result(10) == 1
            eventually(lambda: app.store.get([unique_key("cat")]) == [None], "the key is free again")

    @keeps("C11")
    def test_a_job_that_is_revoked_frees_its_key(self, jobs: Jobs) -> None:
        only = jobs.note.options(unique="cat", delay=60)
        first = only.submit()
        assert first.revoke()
        assert only.submit() != first

    @keeps("C11")
    def test_a_key_outlives_the_worker_that_ran_its_job(
        self, app: App, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        requires(app, "shared")
        worker = crew.program()
        only = jobs.hold.options(unique="cat")
        first = diary.begun(only.submit(gate.path))
        worker.kill()
        assert only.submit(gate.path) == first
        crew.program()
        gate.open()
        first.result(20)
        eventually(lambda: only.submit(gate.path) != first, "the key is free")

    @keeps("C11")
    def test_a_unique_job_whose_submit_failed_half_way_is_stored_by_the_second(
        self, app: App, control: Control, jobs: Jobs
    ) -> None:
        job = jobs.note.options(unique="x").job("x")
        claimed(app, "x", app.envelope(job))  # as far as the first submit came
        handle = app.submit(job)
        assert [each.id for each in control.jobs(handle.queue)] == [handle.id] == [job.id]
        assert jobs.note.options(unique="x").submit("y") == handle

    @keeps("C11")
    def test_a_unique_job_that_was_not_stored_frees_its_key_at_once(
        self, app: App, control: Control, queue: str, jobs: Jobs
    ) -> None:
        only = jobs.note.options(unique="x")
        wrong: Job[str] = Job("1", "note", ("x" * BODY_LIMIT,), settings=only.settings)
        with pytest.raises(MessageError):
            app.submit(wrong)
        mismatched(app, f"{queue}.odd")
        with pytest.raises(BrokerError, match="odd"):
            only.options(queue=f"{queue}.odd").submit("not stored")
        handle = only.submit("stored")
        assert [each.id for each in control.jobs(queue)] == [handle.id]

    @keeps("C11")
    def test_a_producer_that_died_with_a_unique_key_gives_nobody_a_handle_to_nothing(
        self, app: App, control: Control, queue: str, jobs: Jobs
    ) -> None:
        only = jobs.note.options(unique="x")
        claimed(app, "x", app.envelope(only.job()), 1.0)  # it outlives the next submit, also on a busy machine
        with pytest.raises(BrokerUnreachable, match="unique key 'x'") as caught:
            only.submit()
        assert caught.value.stored == "no"
        handle = eventually(lambda: submitted(only), "the key is free again")
        assert handle is not None
        assert [each.id for each in control.jobs(queue)] == [handle.id]

    @keeps("C11")
    def test_two_who_submit_with_one_unique_key_at_once_get_the_same_job(
        self, app: App, control: Control, queue: str, jobs: Jobs
    ) -> None:
        only = jobs.note.options(unique="x")
        with ThreadPoolExecutor(8) as pool:
            handles = set(pool.map(lambda _: only.submit(), range(16)))
        assert {handle.id for handle in handles} == {job.id for job in control.jobs(queue)}
        assert len(handles) == 1
        assert {handle.id for handle in app.submit_many([only.job(), only.job()])} == {handles.pop().id}

    @keeps("C11")
    def test_a_job_that_was_stored_by_a_producer_that_died_at_once_keeps_its_key(
        self, app: App, control: Control, queue: str, jobs: Jobs
    ) -> None:
        only = jobs.note.options(unique="x")
        envelope = app.envelope(only.job("of a dead producer"))
        claimed(app, "x", envelope)
        app.publisher.publish([envelope], time.monotonic() + SUBMIT_TIMEOUT)
        handle = eventually(lambda: submitted(only), "it is known what became of it")
        assert handle is not None
        assert [envelope.id] == [handle.id] == [job.id for job in control.jobs(queue)]
        assert only.submit() == handle

    @keeps("C11")
    def test_a_job_whose_producer_died_keeps_its_key_while_its_type_is_paused(
        self, app: App, control: Control, queue: str, jobs: Jobs, crew: Crew
    ) -> None:
        only = jobs.note.options(unique="x")
        control.pause_type("note")
        envelope = app.envelope(only.job("of a dead producer"))
        claimed(app, "x", envelope)
        app.publisher.publish([envelope], time.monotonic() + SUBMIT_TIMEOUT)
        crew.worker()
        eventually(lambda: control.jobs(queue, State.PAUSED), "it is set aside")
        handle = eventually(lambda: submitted(only), "it is known what became of it")
        assert handle is not None
        assert [envelope.id] == [handle.id] == [job.id for job in control.jobs(queue)]
        control.resume_type("note")
        assert handle.result(10) == "of a dead producer"


def claimed(app: App, key: str, envelope: Envelope, left: float = 0.0) -> None:
    """Take a unique key as a submit does that never gets to its end. left: seconds that it would still have had."""
    assert not KeyClaims(app, [(unique_of(key), envelope)], time.monotonic() + left).held


def submitted(what: JobType[..., Any]) -> Handle[Any] | None:
    """A handle, unless its unique key is still claimed."""
    try:
        return what.submit()
    except BrokerUnreachable:
        return None
