"""C18 and C1, of a broker that has no room left: it refuses what is new, and all that it has can be finished."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Protocol

import pytest

from kq.app import App
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.figures import Figures, keeps, survives
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.outages import BACK, SLACK
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import SUBMIT_TIMEOUT, ContractWorld, elapsed
from kq.control import Control
from kq.errors import BrokerError, BrokerFull, BrokerUnreachable
from kq.handles.handle import Handle
from kq.values.job import Job, State

#: Leases for which the broker stays full.
LONG = 2


class Space(Protocol):
    """The room that a broker has."""

    def fill(self) -> None:
        """Leave the broker none."""

    def free(self) -> None:
        """Give it some again."""


class ScarcityAtWork(ContractWorld):
    """What is promised of workers when the broker, or the state store, has no room left.

    A subclass has a fixture `space`, the Space of that broker or store.
    """

    @keeps("C18")
    @survives("F11")
    def test_a_broker_that_has_no_room_loses_nothing_and_goes_on_by_itself(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, diary: Diary, space: Space, measured: Figures
    ) -> None:
        worker = crew.program(concurrency=2)
        handles: list[Handle[int]] = app.submit_many(jobs.nap.job(0.05) for _ in range(60))
        handles += app.submit_many(jobs.perform.job(["raise RuntimeError", "retry 0", "return"]) for _ in range(20))
        eventually(lambda: len(diary.starts()) >= 10, "jobs run")
        space.fill()
        time.sleep(LONG * self.lease)
        space.free()
        back = time.time()
        fresh = eventually(lambda: [start for start in diary.starts() if start.at > back], "jobs run again")[0]
        for handle in handles:
            handle.result(30)
        assert worker.process.poll() is None
        eventually(lambda: not control.jobs(handles[0].queue), "nothing is left")
        again = len(diary.starts()) - 60 - 3 * 20
        measured(f"on after {fresh.at - back:.1f} s; 0 of {len(handles)} lost, {again} started again")
        measured.account(twice=0, back=fresh.at - back)
        assert fresh.at - back <= BACK


class ScarcitySuite(ScarcityAtWork):
    """And of producers. space: that of the broker."""

    @keeps("C1")
    @survives("F11")
    def test_a_submit_to_a_broker_that_has_no_room_says_so_in_time(
        self, app: App, control: Control, queue: str, jobs: Jobs, space: Space, measured: Figures
    ) -> None:
        before = jobs.note.submit("before")
        space.fill()
        began = time.monotonic()
        refused = jobs.note.job("refused")
        with pytest.raises((BrokerFull, BrokerUnreachable)) as caught:
            fill_up(app, jobs)
        took = elapsed(began)
        assert took <= SUBMIT_TIMEOUT + SLACK
        space.free()
        stored = "no" if isinstance(caught.value, BrokerFull) else getattr(caught.value, "stored", "")
        measured(f"{took:.1f} s of {SUBMIT_TIMEOUT:g} s, stored: {stored}")
        eventually(lambda: submitted(app, refused), "the broker takes jobs again")
        ids = [job.id for job in control.jobs(queue, limit=1000)]
        assert ids.count(before.id) == ids.count(refused.id) == 1

    @keeps("C9")
    def test_a_repair_without_room_is_made_or_not_and_leaves_one_copy(
        self, control: Control, jobs: Jobs, space: Space
    ) -> None:
        handles = [jobs.note.submit(word) for word in "ab"]
        for handle in handles:
            control.bury(handle.id)
        space.fill()
        with suppress(BrokerError, ConnectionError):
            control.kick(ids=[handles[0].id])
        with suppress(BrokerError, ConnectionError):
            control.edit(handles[1].id, args=["edited"])
        space.free()

        def agreed() -> bool:
            found = {job.id: job.state for job in control.jobs(handles[0].queue)}
            return found == {handle.id: handle.state() for handle in handles}

        eventually(agreed, "each is there once, and known as what it is")
        control.kick(handles[0].queue)
        eventually(lambda: {job.state for job in control.jobs(handles[0].queue)} == {State.READY}, "all are ready")


def fill_up(app: App, jobs: Jobs) -> None:
    """Submit until the broker refuses."""
    for _ in range(100):
        app.submit_many(jobs.note.job("x" * 10_000) for _ in range(20))


def submitted(app: App, job: Job[str]) -> bool:
    """Whether the broker took a job."""
    try:
        app.submit(job)
    except (BrokerFull, BrokerUnreachable):
        return False
    return True
