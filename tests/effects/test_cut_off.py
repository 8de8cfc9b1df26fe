"""A worker that dies while it tells that a job was cut off in the act, at any word: the question stands, once."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from kq.broker import BURIED, Inspector
from kq.conformance.contract.crew import Crew, Program
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, buried
from kq.control import Control
from kq.handles.handle import Handle
from kq.values.job import State
from tests.brokers import OnRabbit, OnRedis, OnSqlite
from tests.effects.dying import STEP


@pytest.mark.timeout(240)
class CutOff(ContractWorld):
    lease = 1.0
    application = "tests.effects.dying:app"

    @pytest.fixture
    def step(self, tmp_path: Path) -> Path:
        return tmp_path / "step"

    @pytest.fixture
    def settings(self, step: Path) -> dict[str, str]:
        return {STEP: str(step)}

    @pytest.mark.parametrize("type", ["deed", "post"])
    def test_a_worker_that_dies_while_it_tells_of_a_job_cut_off_leaves_one_question(
        self, control: Control, inspector: Inspector, jobs: Jobs, crew: Crew, diary: Diary, step: Path, type: str
    ) -> None:
        asked = list[Handle[str]]()
        for number in itertools.count():
            step.write_text(str(number))
            asked.append(getattr(jobs, type).options(timeout=60.0).submit(f"act {number}", "signal 9"))
            if not self.dies(crew.program("--no-control", ready=False), asked[-1]):
                break
        assert len(asked) > 2, "it was not killed in the middle"
        step.unlink()
        crew.program("--no-control")
        for job in asked:
            assert "nobody knows whether the effect" in buried(control, job.queue, job).error
            assert [entry.job for entry in control.doubts(job.id)] == [job.id]
            assert len(inspector.find(job.queue + BURIED, [job.id])) == 1
            control.answer(job.id, "done", "by hand")
            assert job.result(20) == "by hand"
            # Nobody is kept waiting by who was at it.
            assert getattr(jobs, type).submit(f"act {asked.index(job)}").result(20) == "by hand"
        assert len(diary.entries("acted")) == len(asked)

    def dies(self, worker: Program, job: Handle[str]) -> bool:
        """Whether a worker dies of that job, which is set aside where it lives."""

        def end() -> str:
            if worker.process.poll() is not None:
                return "dead"
            return "alive" if job.state() is State.BURIED else ""

        found = eventually(end, "it dies, or tells all", 60)
        if found == "alive":
            worker.stop()
        return found == "dead"


class TestCutOffOnSqlite(OnSqlite, CutOff):
    pass


class TestCutOffOnRedis(OnRedis, CutOff):
    pass


class TestCutOffOnRabbit(OnRabbit, CutOff):
    pass
