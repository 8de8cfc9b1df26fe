"""Whoever acts on a job by hand may die between any two of his calls: what he meant is finished, or was not begun.

Then there is one copy of the job or one end of it, who waits for the job is told, and others may act on it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from kq.app import App
from kq.broker import BURIED, Inspector
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, outcome
from kq.control import Control
from kq.control.rounds import Rounds
from kq.errors import NotRepaired, ResultTimeout
from kq.handles.handle import Handle
from kq.values.job import ENDED, State
from kq.values.record import meant_key
from tests.brokers import OnMemory, OnRabbit, OnRedis, OnSqlite
from tests.control.hand import before_call, do
from tests.control.test_one_copy import answer, hand, tell

#: What is done to jobs that lie buried, and to those that wait.
TO_BURIED = ("kick", "complete", "rm", "edit")
TO_WAITING = ("bury", "rm", "revoke", "purge")
ACTS = [(act, "buried") for act in TO_BURIED] + [(act, "waits") for act in TO_WAITING]
#: The second act comes at once, and may come to a job that is not there any more, or lies elsewhere by now.
PAIRS = [
    ("complete", "kick", "buried"),
    ("kick", "complete", "buried"),
    ("rm", "kick", "buried"),
    ("bury", "revoke", "waits"),
    ("revoke", "bury", "waits"),
    ("rm", "revoke", "waits"),
]


class Death(BaseException):
    """Where all that a process had goes with it, so does this one thread."""


class HalfDone(ContractWorld):
    """Someone dies, and then control makes its rounds."""

    lease = 1.0

    @pytest.fixture
    def settings(self) -> dict[str, str]:
        return {"KQ_SUBMIT_TIMEOUT": "10"}  # nothing here is about that, and a busy machine is slow

    def deaths(self, app: App, queue: str, jobs: Jobs, control: Control, act: str, place: str) -> Iterator[Handle[str]]:
        """Let somebody die at each step of act, each time with a job of his own; gives those."""
        raise NotImplementedError

    @pytest.mark.parametrize(("act", "place"), ACTS)
    def test_an_act_whose_program_dies_at_any_step_is_finished_or_was_not_begun(
        self, app: App, control: Control, inspector: Inspector, jobs: Jobs, queue: str, act: str, place: str
    ) -> None:
        left = list(self.deaths(app, queue, jobs, control, act, place))
        assert len(left) > 3, "a program that makes so few calls was not killed in the middle"
        self.rounds(app)
        self.are_one_or_ended(left, inspector, queue)
        for job in left:
            there = job.state() not in ENDED
            assert there is self.is_deleted(control, job)
        assert all(job.state() in ENDED and is_told(job) for job in left)

    @pytest.mark.parametrize(("first", "second", "place"), PAIRS)
    def test_who_acts_right_after_such_a_death_meets_one_job_or_its_end(
        self,
        app: App,
        control: Control,
        inspector: Inspector,
        jobs: Jobs,
        queue: str,
        first: str,
        second: str,
        place: str,
    ) -> None:
        left = list[Handle[str]]()
        for job in self.deaths(app, queue, jobs, control, first, place):
            left.append(job)
            do(control, queue, second, job.id)
        self.rounds(app)
        self.are_one_or_ended(left, inspector, queue)

    def job(self, jobs: Jobs, control: Control, place: str) -> Handle[str]:
        job = jobs.note.submit(place)
        if place == "buried":
            control.bury(job.id)
        return job

    def rounds(self, app: App) -> None:
        """Let control make its rounds until nothing is under way."""
        rounds = Rounds(app)

        def nothing_is_meant() -> bool:
            rounds.tick()
            return not app.store.scan(meant_key(""))

        eventually(nothing_is_meant, "what was meant is done", 20)
        rounds.close()

    def are_one_or_ended(self, left: list[Handle[str]], inspector: Inspector, queue: str) -> None:
        """What was taken by a program that died comes back to its queue at once, or as soon as the broker notices."""

        def agreed() -> bool:
            ids = [job.id for job in left]
            seen = [each for place in (queue, queue + BURIED) for each in inspector.find(place, ids)]
            places = {each.id: State.BURIED if each.queue.endswith(BURIED) else State.READY for each in seen}
            assert len(places) == len(seen), "one is there twice"
            return all(job.state() in ({places[job.id]} if job.id in places else ENDED) for job in left)

        eventually(agreed, "each is there once", 10)
        assert all(is_told(job) for job in left if job.state() is not State.READY)

    def is_deleted(self, control: Control, job: Handle[str]) -> bool:
        try:
            control.delete(job.id)
        except NotRepaired:
            return False
        return True


def is_told(job: Handle[str]) -> bool:
    """Whether who waits for job hears of its end."""
    return not isinstance(outcome(job, 0), ResultTimeout)


class Killed(HalfDone):
    """A process, by the kernel."""

    def deaths(self, app: App, queue: str, jobs: Jobs, control: Control, act: str, place: str) -> Iterator[Handle[str]]:
        with hand() as victim:
            for step in itertools.count():
                job = self.job(jobs, control, place)
                tell(victim, f"@{step}", act, queue, [job.id])
                survived = answer(victim) is not None
                yield job
                if survived:
                    return


@pytest.mark.timeout(120)
class TestHalfDoneOnSqlite(OnSqlite, Killed):
    pass


@pytest.mark.timeout(120)
class TestHalfDoneOnRedis(OnRedis, Killed):
    pass


@pytest.mark.timeout(120)
class TestHalfDoneOnRabbit(OnRabbit, Killed):
    pass


class TestHalfDoneInMemory(OnMemory, HalfDone):
    def deaths(self, app: App, queue: str, jobs: Jobs, control: Control, act: str, place: str) -> Iterator[Handle[str]]:
        for step in itertools.count():
            job = self.job(jobs, control, place)
            survived = self.lives(app, queue, act, job.id, step)
            yield job
            if survived:
                return

    def lives(self, app: App, queue: str, act: str, id: str, step: int) -> bool:
        """Whether somebody lives through act who would die at that step."""

        def die() -> None:
            raise Death

        with pytest.MonkeyPatch.context() as patch, Control(app) as mine:
            before_call(app, step, die, patch.setattr)
            try:
                do(mine, queue, act, id)
            except Death:
                return False
            return True
