"""Jobs that a worker took ahead of its executors: they never wait for a long one while another worker is idle."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from kq.app import App
from kq.broker import Inspector
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, Gate
from kq.control import Control
from kq.handles.handle import Handle
from kq.values.job import State
from kq.worker.pool import PoolKind
from tests.brokers import OnRabbit, OnRedis, OnSqlite
from tests.worker.jobs import WHERE, Odd
from tests.worker.world import POOLS

WITHIN = 2.5  # seconds after which a worker that is idle has what another took ahead


class TakenAhead(ContractWorld):
    application = WHERE

    @pytest.fixture
    def jobs(self, app: App) -> Odd:
        return Odd(app)

    @pytest.fixture
    def open_gate(self, tmp_path: Path) -> str:
        gate = tmp_path / "open"
        gate.touch()
        return str(gate)

    @pytest.fixture
    def behind(
        self, app: App, jobs: Odd, queue: str, inspector: Inspector, diary: Diary, gate: Gate, open_gate: str
    ) -> list[Handle[int]]:
        """Thirty short jobs behind a long one of the same kind, for a worker that knows that kind as short."""
        app.submit_many(jobs.hold.job(open_gate) for _ in range(300))
        long = jobs.hold.submit(gate.path)
        return [long, *app.submit_many(jobs.hold.job(open_gate) for _ in range(30))]

    def held(self, inspector: Inspector, queue: str) -> int:
        return inspector.count(queue).held

    def test_go_to_an_idle_worker(
        self, behind: list[Handle[int]], crew: Crew, diary: Diary, gate: Gate, inspector: Inspector, queue: str
    ) -> None:
        crew.program()
        long, *short = behind
        diary.begun(long)
        crew.program()
        began = time.monotonic()
        for handle in short:
            handle.result(WITHIN)
        assert time.monotonic() - began < WITHIN
        eventually(lambda: inspector.count(queue).held == 1, "the first holds what it runs")
        gate.open()
        assert long.result(10)
        assert all(len(diary.starts(handle.id)) == 1 for handle in behind)

    def test_run_where_they_are_when_no_worker_is_idle(
        self, app: App, behind: list[Handle[int]], crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        crew.program()
        long, *short = behind
        diary.begun(long)
        time.sleep(WITHIN)  # nothing is to happen: there is no event to wait for
        gate.open()
        assert all(handle.result(10) for handle in behind)
        assert all(len(diary.starts(handle.id)) == 1 for handle in behind)
        order = [entry.id for entry in diary.starts(*(handle.id for handle in short))]
        assert order == [handle.id for handle in short]

    def test_do_not_start_once_the_worker_knows_of_a_pause(
        self,
        behind: list[Handle[int]],
        crew: Crew,
        diary: Diary,
        gate: Gate,
        control: Control,
        inspector: Inspector,
        queue: str,
    ) -> None:
        crew.program()
        long, *short = behind
        diary.begun(long)
        control.pause(queue)
        assert control.ping()
        gate.open()
        assert long.result(10)
        eventually(lambda: inspector.count(queue).ready == len(short), "they are given back")
        assert not diary.starts(*(handle.id for handle in short))

    def test_do_not_start_once_the_worker_knows_that_they_are_revoked(
        self, behind: list[Handle[int]], crew: Crew, diary: Diary, gate: Gate, control: Control
    ) -> None:
        crew.program()
        long, *short = behind
        diary.begun(long)
        assert short[0].revoke()
        assert control.ping()
        gate.open()
        assert all(handle.result(10) for handle in [long, *short[1:]])
        assert short[0].state() is State.REVOKED
        assert not diary.starts(short[0].id)


class TestOnSqlite(OnSqlite, TakenAhead):
    @pytest.mark.parametrize("pool", POOLS)
    def test_are_given_back_at_once_by_a_worker_that_is_told_to_end(
        self,
        behind: list[Handle[int]],
        crew: Crew,
        diary: Diary,
        gate: Gate,
        inspector: Inspector,
        queue: str,
        pool: PoolKind,
    ) -> None:
        worker = crew.program(pool=pool, grace=60)
        long, *short = behind
        diary.begun(long)
        worker.send(signal.SIGTERM)
        # There is nobody else yet who could have asked for them, and the long job goes on.
        eventually(lambda: inspector.count(queue).ready == len(short), "they are given back")
        heir = crew.program()
        for handle in short:
            handle.result(20)
        gate.open()
        assert worker.wait() == 0
        assert long.result(1)
        assert heir.process.poll() is None
        assert all(len(diary.starts(handle.id)) == 1 for handle in behind)

    @pytest.mark.parametrize("pool", ["thread", "async"])
    def test_go_elsewhere_where_their_queue_has_a_limit(
        self, behind: list[Handle[int]], crew: Crew, diary: Diary, gate: Gate, queue: str, pool: PoolKind
    ) -> None:
        crew.program(pool=pool, concurrency=4, queues=f"{queue}:1")
        long, *short = behind
        diary.begun(long)
        crew.program()
        for handle in short:
            handle.result(WITHIN)
        gate.open()
        assert long.result(10)
        assert all(len(diary.starts(handle.id)) == 1 for handle in behind)


class TestOnRedis(OnRedis, TakenAhead):
    pass


class TestOnRabbit(OnRabbit, TakenAhead):
    pass
