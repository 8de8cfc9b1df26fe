"""Looking into the ledger is one thing of many that a worker's loop has to do: its lease and its other jobs go on."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence

import pytest

import kq
from kq.app import App
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.jobs import WHERE, Jobs
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import Gate
from kq.control import Control
from kq.state.memory import MemoryStore
from kq.state.store import StoreUnreachable, Write
from kq.values.job import State
from tests.brokers import OnMemory

#: So many jobs give up at once, and so long does the state store take to say what one of them has begun.
JOBS, SECONDS = 25, 0.2


class TestDoubts(OnMemory):
    lease = 3.0

    def test_many_jobs_that_give_up_beside_a_slow_state_store_cost_no_lease(
        self, app: App, queue: str, jobs: Jobs, diary: Diary, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert 1.5 * self.lease < JOBS * SECONDS
        scan, rounds, looked = MemoryStore.scan, Counter[float | None](), set[str]()

        def slow(store: MemoryStore, prefix: str, limit: int = 1000) -> list[tuple[str, bytes]]:
            if prefix.startswith("begun-"):
                rounds[worker.supervisor.ticked] += 1
                looked.add(prefix)
                time.sleep(SECONDS)  # waits for nothing: it is the slow store that the test is about
            return scan(store, prefix, limit)

        monkeypatch.setattr(MemoryStore, "scan", slow)
        acts = ["raise ValueError", "raise ValueError", "return"]
        with kq.Worker(app, queues=[queue], where=WHERE, pool="thread", concurrency=JOBS) as worker:
            given_up = [jobs.best.options(timeout=60.0).submit(acts) for _ in range(JOBS)]
            assert [job.degraded_by(60) for job in given_up] == [2] * JOBS
        assert [len(diary.starts(job.id)) for job in given_up] == [3] * JOBS
        assert len(looked) == JOBS  # each of them
        # It tells what has ended twice in a round: what it holds waits for no more than two looks, however many follow.
        assert max(rounds.values()) <= 2

    def test_a_state_store_that_takes_no_doubt_costs_no_lease(
        self,
        app: App,
        queue: str,
        control: Control,
        jobs: Jobs,
        diary: Diary,
        gate: Gate,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        write, over = MemoryStore.write, threading.Event()
        refused: list[tuple[float, float | None]] = []  # when, and in which round

        def refuse(store: MemoryStore, writes: Sequence[Write]) -> list[bool]:
            if not over.is_set() and any(b'"stage":"doubt"' in (each.value or b"") for each in writes):
                refused.append((time.monotonic(), worker.supervisor.ticked))
                raise StoreUnreachable("not now")
            return write(store, writes)

        monkeypatch.setattr(MemoryStore, "write", refuse)
        with kq.Worker(app, queues=[queue], where=WHERE, concurrency=2) as worker:
            beside = jobs.hold.submit(gate.path)
            killed = jobs.deed_final.submit("a", "spin")
            eventually(
                lambda: refused and refused[-1][0] - refused[0][0] > 1.5 * self.lease, "it was asked for long enough"
            )
            over.set()
            eventually(lambda: killed.state() is State.BURIED, "the question stands")
            assert [entry.job for entry in control.doubts(killed.id)] == [killed.id]
            gate.open()
            assert beside.result(20)
        assert len(diary.starts(beside.id)) == 1
        # It does not insist: the loop has more to do.
        assert max(Counter(ticked for _, ticked in refused).values()) <= 2
