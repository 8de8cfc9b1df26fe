"""Orders that cross: each is obeyed or outdone, none is lost, and no job with them."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from kq.app import App
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import Gate
from kq.control import Control
from tests.worker.jobs import Odd
from tests.worker.world import WorkerWorld

TERM, INT, HUP = signal.SIGTERM, signal.SIGINT, signal.SIGHUP

#: An application whose executors take their time to leave, and leave word of that.
SLOW_TO_LEAVE = """
import pathlib, time
from kq.effects.observer import Observer
from tests.worker.jobs import app
class Slow(Observer):
    def close(self):
        pathlib.Path("leaves").touch()
        time.sleep(1.5)
app.observe(Slow())
"""


def names(numbers: Sequence[signal.Signals]) -> str:
    return ", ".join(number.name.removeprefix("SIG") for number in numbers)


class TestOrdersThatCross(WorkerWorld):
    @pytest.mark.parametrize("numbers", [(HUP, TERM), (TERM, HUP), (HUP, HUP, INT)], ids=names)
    @pytest.mark.parametrize("processes", [1, 2])
    def test_a_worker_that_is_told_to_end_ends_whatever_else_it_is_told(
        self, jobs: Odd, crew: Crew, numbers: Sequence[signal.Signals], processes: int
    ) -> None:
        worker = crew.program("--processes", str(processes), ready=False).ready(times=processes)
        for number in numbers:
            worker.send(number)
        assert worker.wait() == 0
        assert worker.said().count(" ready: ") == processes
        assert not crew.left_behind()

    @pytest.mark.parametrize("numbers", [(TERM, TERM), (INT, TERM)], ids=names)
    def test_two_orders_to_end_at_once_lose_no_job(
        self, app: App, jobs: Odd, crew: Crew, diary: Diary, gate: Gate, numbers: Sequence[signal.Signals]
    ) -> None:
        worker = crew.program(concurrency=2, grace=0.5)  # of two signals that are one the system may make one
        held = app.submit_many(jobs.hold.job(gate.path) for _ in range(2))
        eventually(lambda: len(diary.starts()) == 2, "they run")
        for number in numbers:
            worker.send(number)
        assert worker.wait() == 0
        assert not crew.left_behind()
        gate.open()
        crew.program(concurrency=2)
        assert all(each.result(10) for each in held)
        assert {start.attempt for start in diary.starts()} == {1}

    def test_an_order_to_end_that_comes_when_the_loop_has_ended_for_new_code_is_obeyed(
        self, app: App, crew: Crew, tmp_path: Path
    ) -> None:
        (tmp_path / "leaving.py").write_text(SLOW_TO_LEAVE)
        worker = crew.program("-A", "leaving:app")
        worker.send(HUP)
        eventually((tmp_path / "leaves").exists, "its executors leave")
        worker.send(TERM)
        assert worker.wait() == 0
        assert worker.said().count(" ready: ") == 1
        assert "starting anew" not in worker.said()

    def test_a_second_hup_while_jobs_end_for_the_first_changes_nothing(
        self, jobs: Odd, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        worker = crew.program()
        job = diary.begun(jobs.hold.submit(gate.path))
        worker.send(HUP)
        eventually(lambda: "told to end" in worker.said(), "it ends")
        worker.send(HUP)
        gate.open()
        worker.ready(times=2)
        assert job.result(10) == diary.starts(job.id)[0].pid
        assert jobs.add.submit(1, 2).result(10) == 3
        assert worker.said().count("starting anew") == worker.said().count("told to end") == 1
        assert len(diary.starts(job.id)) == 1

    def test_a_queue_that_is_paused_stays_so_for_new_code(
        self, app: App, control: Control, jobs: Odd, crew: Crew, diary: Diary, queue: str
    ) -> None:
        worker = crew.program()
        control.pause(queue)
        assert control.ping()  # who answers has obeyed
        job = jobs.note.submit("patience")
        worker.send(HUP)
        worker.ready(times=2)
        told = time.time()
        assert not diary.starts(job.id)
        control.resume(queue)
        assert job.result(10) == "patience"
        assert diary.starts(job.id)[0].at > told

    def test_an_order_to_end_while_a_queue_is_paused_for_new_code_gives_back_what_waits(
        self, control: Control, jobs: Odd, crew: Crew, diary: Diary, gate: Gate, queue: str
    ) -> None:
        worker = crew.program(grace=60)
        job, waiting = jobs.hold.submit(gate.path), jobs.note.submit("waits")
        diary.begun(job)
        control.pause(queue)
        worker.send(HUP)
        eventually(lambda: "told to end" in worker.said(), "it ends")
        worker.send(TERM)
        gate.open()
        assert worker.wait() == 0
        assert job.result(1)
        crew.program()
        assert not diary.starts(waiting.id)
        control.resume(queue)
        assert waiting.result(10) == "waits"
