"""C1 in bad weather: what a submit says, and how long it takes, when the broker does not answer."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from kq.app import App
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.figures import Figures, keeps, survives
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.outages import RESETS, SLACK, OnAWire, Server, Wire, producing
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import SUBMIT_TIMEOUT, elapsed
from kq.control import Control
from kq.errors import BrokerUnreachable


class Weather(OnAWire):
    """C1: what a submit says, and how long it takes, when the broker does not answer."""

    @keeps("C1")
    @survives("F3")
    def test_what_was_submitted_is_stored_although_the_broker_is_killed_at_once(
        self, app: App, control: Control, queue: str, jobs: Jobs, server: Server, measured: Figures
    ) -> None:
        stored = [jobs.note.submit().id]
        server.remember()
        over = threading.Event()

        def submit() -> None:
            while not over.is_set():
                try:
                    stored.append(jobs.note.submit().id)
                except BrokerUnreachable:
                    return

        with ThreadPoolExecutor(1) as pool:
            producer = pool.submit(submit)
            eventually(lambda: len(stored) > 200, "jobs are submitted")
            server.kill()
            over.set()
            producer.result()
        server.start()
        # A server may take a moment to recover its queues.
        eventually(lambda: set(stored) <= {job.id for job in control.jobs(queue, limit=100_000)}, "all are there")
        measured(f"server killed after {len(stored)} submits: 0 lost")

    @keeps("C1")
    def test_a_broker_that_refuses_is_told_as_not_stored(self, jobs: Jobs, wire: Wire, measured: Figures) -> None:
        wire.refuse()
        error, took = self.fails(lambda: jobs.note.submit())
        assert error.stored == "no"
        measured(f"{took:.1f} s of {SUBMIT_TIMEOUT:g} s")

    @keeps("C1")
    @pytest.mark.parametrize("connected", [True, False], ids=["connected", "not yet connected"])
    @survives("F4")
    def test_a_black_hole_does_not_hold_a_submit_for_longer_than_its_timeout(
        self,
        app: App,
        control: Control,
        queue: str,
        jobs: Jobs,
        crew: Crew,
        diary: Diary,
        wire: Wire,
        measured: Figures,
        connected: bool,
    ) -> None:
        job = jobs.note.job("x")
        if connected:
            jobs.note.submit("before")
        else:
            app.close()
        wire.freeze()
        error, took = self.fails(lambda: app.submit(job))
        assert error.stored == ("unknown" if connected else "no")
        wire.restore()
        # The one who is told "unknown" submits it again, and it runs once.
        handle = app.submit(job)
        crew.program()
        assert handle.result(10) == "x"
        eventually(lambda: not control.jobs(queue), "nothing is left")
        assert len(diary.starts(job.id)) == 1
        measured(f"{took:.1f} s of {SUBMIT_TIMEOUT:g} s, stored: {error.stored}")

    @keeps("C1")
    @survives("F5")
    def test_submits_whose_connection_is_reset_run_once_or_are_told_as_not_stored(
        self, app: App, control: Control, queue: str, crew: Crew, diary: Diary, wire: Wire, measured: Figures
    ) -> None:
        with producing(app.address.url, app.address.state, queue) as produced:
            for number in range(RESETS):
                goal = 20 * (number + 1)
                eventually(lambda goal=goal: len(produced.stored) >= goal, "jobs are submitted")  # type: ignore[misc]
                wire.cut()
        crew.program(concurrency=2)
        eventually(lambda: not control.jobs(queue), "all have run", 60)
        starts = Counter(start.id for start in diary.starts())
        unsaid = len(set(starts) - set(produced.stored))
        assert set(produced.stored) <= set(starts)
        assert set(starts.values()) == {1}
        assert unsaid <= produced.refused
        measured(f"{RESETS} resets over {len(produced.stored)} submits: 0 lost, 0 run twice, {unsaid} stored unsaid")
        measured.account()

    def fails(self, submit: Callable[[], object]) -> tuple[BrokerUnreachable, float]:
        """The error of a submit, and how long it took."""
        began = time.monotonic()
        with pytest.raises(BrokerUnreachable) as caught:
            submit()
        took = elapsed(began)
        assert took <= SUBMIT_TIMEOUT + SLACK
        return caught.value, took
