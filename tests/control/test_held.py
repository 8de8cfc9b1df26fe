"""Who has jobs that have not begun, and for how long: it is said wherever it is said that there are such."""

from __future__ import annotations

import json
import re

import pytest

from kq.app import App
from kq.cli.frame import run
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import Gate
from kq.control import Control
from kq.worker import intake
from tests.brokers import OnMemory


class TestHeld(OnMemory):
    def test_the_worker_that_holds_them_is_told_and_since_when(
        self,
        app: App,
        control: Control,
        jobs: Jobs,
        crew: Crew,
        diary: Diary,
        gate: Gate,
        queue: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(intake, "PATIENCE", 600.0)  # it gives nothing back
        other = f"{queue}-other"
        crew.worker(queues=f"{queue},{other}")
        diary.begun(jobs.hold.options(queue=other).submit(gate.path))
        waiting = jobs.note.submit()
        eventually(lambda: "held" in control.why(waiting.id), "it is held")
        control.ping()
        (name,) = [worker.name for worker in control.workers()]
        who = rf"by {name} for [\d.]+m?s"
        assert re.search(rf"none of them has begun, held {who}: its worker runs 1", control.why_queue(queue))
        run(["status"])
        said = capsys.readouterr().out
        assert re.search(rf"busy, 1 held {who}", said)
        assert re.search(rf"1 of {queue} waits [\d.]+m?s", said)
        run(["status", "--json"])
        shot = json.loads(capsys.readouterr().out)
        (worker,) = shot["workers"]
        (row,) = [row for row in shot["queues"] if row["name"] == queue]
        assert row["held_by"] == worker["held"]
        (held,) = row["held_by"]
        assert (held["worker"], held["queue"], held["jobs"], held["seconds"] > 0) == (name, queue, 1, True)
        gate.open()
        waiting.result(10)
        eventually(lambda: control.ping() and not control.snapshot().workers[0].held, "nothing is held any more")
