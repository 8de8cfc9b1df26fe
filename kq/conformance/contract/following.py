"""Following one job: how it stands, what happens to it, and its end, on every broker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kq.app import App
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.hearing import listening
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, Gate, outcome
from kq.control import Control
from kq.errors import ResultTimeout
from kq.handles.handle import Handle
from kq.values.event import Event


@contextmanager
def following(job: Handle[Any], seconds: float = 40.0) -> Iterator[list[Event]]:
    """What is told of a job in a thread, from now to its end; the block ends with it."""
    told: list[Event] = []
    thread = threading.Thread(target=lambda: told.extend(job.events(timeout=seconds)), daemon=True)
    thread.start()
    yield told
    thread.join(seconds)
    assert not thread.is_alive()


def names(events: list[Event]) -> list[str]:
    return [event.event for event in events if event.event != "progress"]


class Following(ContractWorld):
    """What happens to one job, as its submitter sees it."""

    def test_a_job_is_followed_from_its_submit_to_its_end(
        self, app: App, jobs: Jobs, crew: Crew, queue: str, gate: Gate
    ) -> None:
        job = jobs.work.submit(gate.path)
        with following(job) as told:
            eventually(lambda: told, "it is told how it stands")
            crew.worker()
            eventually(lambda: any(event.event == "progress" for event in told), "it says how far it is")
            gate.open()
        assert names(told) == ["submitted", "started", "completed"]
        assert {(event.job, event.type, event.queue) for event in told} == {(job.id, "work", queue)}
        assert [event.attempt for event in told if event.event == "started"] == [1]

    def test_what_fails_is_followed_through_its_retries(self, jobs: Jobs, crew: Crew) -> None:
        job = jobs.perform_fixed.options(delay=2).submit(["raise OSError", "bad"])
        with following(job) as told:
            eventually(lambda: told, "it is told how it stands")
            crew.worker()
        assert names(told) == ["submitted", "started", "failed", "started", "buried"]
        assert told[0].next is not None
        assert [event.error for event in told if event.error] == ["OSError", "BadJob"]

    def test_who_follows_late_is_told_how_it_ended(self, jobs: Jobs, crew: Crew) -> None:
        crew.worker()
        done, bad = jobs.note.submit("word"), jobs.perform.submit(["bad"])
        assert done.result(20) == "word"
        outcome(bad)
        (completed,), (buried,) = list(done.events(timeout=5)), list(bad.events(timeout=5))
        assert (completed.event, completed.job, completed.attempt) == ("completed", done.id, 1)
        assert (buried.event, buried.error) == ("buried", "BadJob")

    def test_who_follows_a_job_that_runs_is_told_so(self, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate) -> None:
        crew.worker()
        job = diary.begun(jobs.hold.submit(gate.path))
        with following(job) as told:
            eventually(lambda: told, "it is told how it stands")
            gate.open()
        assert told[0].event in ("submitted", "started")  # its worker tells with its next beat what runs
        assert names(told)[-1] == "completed"

    def test_coroutines_follow_likewise(self, jobs: Jobs, crew: Crew) -> None:
        crew.worker()

        async def follow() -> list[str]:
            job = await jobs.note.submit_async("word")
            return [event.event async for event in job.events(timeout=20) if event.event != "progress"]

        assert asyncio.run(follow())[-1] == "completed"

    def test_a_short_job_of_which_nobody_tells_has_an_end_all_the_same(self, jobs: Jobs, crew: Crew) -> None:
        crew.worker()
        for _ in range(5):
            assert names(list(jobs.note.submit("word").events(timeout=20)))[-1] == "completed"

    def test_a_job_that_is_revoked_or_set_aside_meanwhile_is_told_so(self, jobs: Jobs, control: Control) -> None:
        revoked, buried = jobs.note.submit("a"), jobs.note.submit("b")
        with following(revoked) as first, following(buried) as second:
            eventually(lambda: first and second, "it is told how they stand")
            assert revoked.revoke()
            control.bury(buried.id, "not today")
        assert (names(first), names(second)) == (["submitted", "revoked"], ["submitted", "buried"])

    def test_of_jobs_that_nobody_follows_nothing_is_told(self, app: App, jobs: Jobs, crew: Crew, gate: Gate) -> None:
        job = jobs.hold.submit(gate.path)
        with following(job) as told:
            eventually(lambda: told, "it is told how it stands")
            crew.worker(concurrency=2)
            eventually(lambda: "started" in names(told), "it runs")
            others = [jobs.note.submit("word") for _ in range(10)]
            assert [other.result(20) for other in others] == ["word"] * 10
            with listening(app) as all_of_them:

                def heard() -> bool:
                    others.append(jobs.note.submit("word"))
                    others[-1].result(20)
                    return any("completed" in all_of_them.of(other.id) for other in others)

                eventually(heard, "who listens to all hears of others", 30)
            gate.open()
        assert {event.job for event in told} == {job.id}
        assert names(told) == ["submitted", "started", "completed"]

    def test_following_ends_at_the_timeout(self, jobs: Jobs) -> None:
        events = jobs.note.submit("word").events(timeout=0.5)
        assert next(events).event == "submitted"
        with pytest.raises(ResultTimeout):
            next(events)
