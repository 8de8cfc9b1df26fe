"""What a job cost is in its history, in every pool and on every broker; of short ones nothing is written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kq.app import App
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, buried, in_pools
from kq.control import Control, JobInfo
from kq.values.record import job_key
from kq.worker.gauge import SHORT, SLACK, Gauge
from kq.worker.pool import PoolKind
from tests.brokers import OnMemory, OnRabbit, OnRedis, OnSqlite
from tests.worker.jobs import WHERE, Odd

PATIENCE = 60.0
BURNT = 0.2
MIB = 1 << 20


class Costs(ContractWorld):
    lease = 10.0
    application = WHERE

    @pytest.fixture
    def jobs(self, app: App) -> Odd:
        return Odd(app)

    def taken(self, control: Control, id: str) -> JobInfo:
        """A job that took as long as it burnt processor time, and as long again."""
        seen = control.job(id)
        assert seen is not None
        assert seen.took >= 2 * BURNT - 0.01
        return seen

    @in_pools("process", "thread", "async")
    def test_a_job_that_completed_and_an_attempt_that_failed_tell_what_they_cost(
        self, control: Control, jobs: Odd, crew: Crew, queue: str, pool: PoolKind
    ) -> None:
        crew.worker(pool=pool, concurrency=2)
        done = jobs.burn.submit(BURNT)
        done.result(PATIENCE)
        seen = self.taken(control, done.id)
        assert seen.cpu is not None
        assert BURNT - 0.02 <= seen.cpu <= 2 * BURNT
        assert (seen.rss > MIB) is (pool == "process")
        failed = buried(control, queue, jobs.burn.submit(BURNT, fails=True), within=PATIENCE)
        (attempt,) = failed.history
        assert attempt.cpu is not None
        assert BURNT - 0.02 <= attempt.cpu <= 2 * BURNT
        assert (attempt.rss > MIB) is (pool == "process")

    @in_pools("process", "thread", "async")
    def test_nobody_knows_what_coroutines_cost_that_share_a_thread(
        self, control: Control, jobs: Odd, crew: Crew, pool: PoolKind
    ) -> None:
        crew.worker(pool=pool, concurrency=2)
        job = jobs.burn_async.submit(BURNT)
        job.result(PATIENCE)
        seen = self.taken(control, job.id)
        assert (seen.cpu is None) is (pool == "async")

    @in_pools("process", "thread", "async")
    def test_what_a_job_that_failed_had_is_let_go(
        self, jobs: Odd, crew: Crew, control: Control, queue: str, pool: PoolKind, tmp_path: Path
    ) -> None:
        crew.worker(pool=pool)
        for job_type in (jobs.litter, jobs.litter_async):
            left = tmp_path / job_type.name
            buried(control, queue, job_type.submit(str(left)), within=PATIENCE)
            eventually(left.exists, "its memory is free", PATIENCE)

    @in_pools("process", "thread", "async")
    def test_of_a_short_job_nothing_more_is_written(self, app: App, jobs: Odd, crew: Crew, pool: PoolKind) -> None:
        crew.worker(pool=pool)
        found = list[str]()
        for _ in range(200):  # one of them is short also where much else runs
            job = jobs.about_itself.submit()
            job.result(PATIENCE)
            (stored,) = app.store.get([job_key(job.id)])
            assert stored is not None
            found.append(" ".join(json.loads(stored)))
            if "took" not in found[-1]:
                break
        assert not {"took", "cpu", "rss"} & set(found[-1].split())


class TestCostsOnMemory(OnMemory, Costs):
    pass


class TestCostsOnSqlite(OnSqlite, Costs):
    def test_it_is_told_on_the_command_line(
        self, control: Control, jobs: Odd, crew: Crew, queue: str, tmp_path: Path
    ) -> None:
        crew.program()
        job = jobs.burn.submit(BURNT)
        job.result(PATIENCE)
        told = kq(tmp_path, "jobs", "show", job.id)
        assert "of processor time, " in told
        assert "MiB of memory at most)" in told
        said = json.loads(kq(tmp_path, "jobs", "show", job.id, "--json"))
        assert said["cost"]["cpu"] >= BURNT - 0.02
        assert said["cost"]["seconds"] >= said["cost"]["cpu"]
        failed = buried(control, queue, jobs.burn.submit(BURNT, fails=True), within=PATIENCE)
        assert "of processor time" in kq(tmp_path, "jobs", "show", failed.id)
        assert json.loads(kq(tmp_path, "jobs", "show", failed.id, "--json"))["history"][0]["cpu"] >= BURNT - 0.02


class TestCostsOnRedis(OnRedis, Costs):
    pass


class TestCostsOnRabbit(OnRabbit, Costs):
    pass


def kq(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "kq", *arguments], capture_output=True, text=True, cwd=folder, timeout=60, check=True
    ).stdout


def test_the_clock_is_asked_for_long_jobs_and_once_for_many_short_ones() -> None:
    asked, now = 0, 0.0

    def clock() -> float:
        nonlocal asked
        asked += 1
        return now

    gauge = Gauge(clock, lambda: 7)
    asked = 0
    for _ in range(1000):
        now += SHORT / 2
        assert gauge.measure(SHORT / 2) == (None, 0)
    assert asked <= 1000 * SHORT / 2 / SLACK + 1
    before, now = now, now + 1.5
    cpu, memory = gauge.measure(2.0)
    assert cpu is not None
    assert abs(cpu - (now - before)) <= SLACK
    assert memory == 7
    assert Gauge(None, lambda: 0).measure(2.0) == (None, 0)
