"""Whatever two people do to a job at once, and wherever one of their programs is killed: there is one of it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from kq.app import App
from kq.broker import BURIED, Inspector
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld
from kq.control import Control
from tests.brokers import OnMemory, OnRabbit, OnRedis, OnSqlite
from tests.control.hand import do

ROOT = Path(__file__).parents[2]
ACTS = some.sampled_from(["kick", "edit", "bury"])
JOBS = 8


class OneCopy(ContractWorld):
    """Each example has jobs of its own, half of them buried."""

    def jobs_of(self, control: Control, app: App, jobs: Jobs) -> list[str]:
        ids = [handle.id for handle in app.submit_many(jobs.note.job(str(number)) for number in range(JOBS))]
        for id in ids[: JOBS // 2]:
            control.bury(id)
        return ids

    def copies(self, inspector: Inspector, queue: str) -> Counter[str]:
        """How often each job is there. What a program held when it was killed comes back soon."""
        return Counter(seen.id for place in (queue, queue + BURIED) for seen in inspector.browse(place, "ready", 1000))

    def is_once(self, inspector: Inspector, queue: str, ids: Sequence[str]) -> None:
        eventually(lambda: len(self.copies(inspector, queue)) >= len(ids), "all are there", 10)
        assert self.copies(inspector, queue) == Counter(ids)


class Killed(OneCopy):
    """Two programs, one of which is killed at any moment."""

    examples = 12
    #: Seconds within which one is killed.
    span = 0.1

    def test_two_acts_at_once_and_a_kill_leave_one_copy(
        self, app: App, control: Control, inspector: Inspector, jobs: Jobs, queue: str
    ) -> None:
        @settings(
            max_examples=self.examples,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(killed=ACTS, other=ACTS, moment=some.floats(0, self.span))
        def example(killed: str, other: str, moment: float) -> None:
            ids = self.jobs_of(control, app, jobs)
            with hand(queue, killed, ids) as first, hand(queue, other, ids) as second:
                for each in (first, second):
                    tell(each)
                time.sleep(moment)
                first.kill()
                assert second.wait(30) == 0
            self.is_once(inspector, queue, ids)
            for id in ids:
                control.delete(id)

        example()


class TestOneCopyOnSqlite(OnSqlite, Killed):
    pass


class TestOneCopyOnRedis(OnRedis, Killed):
    pass


class TestOneCopyOnRabbit(OnRabbit, Killed):
    span = 0.8


class TestOneCopyInMemory(OnMemory, OneCopy):
    @pytest.mark.parametrize("_", range(5))
    def test_threads_that_act_at_once_leave_one_copy(
        self, app: App, control: Control, inspector: Inspector, jobs: Jobs, queue: str, _: int
    ) -> None:
        ids = self.jobs_of(control, app, jobs)

        def act(what: str) -> None:
            with Control(app) as mine:
                for id in ids:
                    do(mine, queue, what, id)

        threads = [threading.Thread(target=act, args=(what,)) for what in ("kick", "edit", "bury")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.is_once(inspector, queue, ids)


@contextmanager
def hand(queue: str, act: str, ids: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Somebody's program, ready to act."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "transports")])}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.control.hand", queue, act, *ids],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def tell(process: subprocess.Popen[str]) -> None:
    """Let it begin."""
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
