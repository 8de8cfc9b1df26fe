"""Whatever two people do to a job at once, and wherever one of their programs is killed: there is one of it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from kq.app import App
from kq.broker import BURIED, Inspector
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld
from kq.control import Control
from tests.brokers import OnMemory, OnRabbit, OnRedis, OnSqlite
from tests.control.hand import do

ROOT = Path(__file__).parents[2]
ACTS = ["kick", "edit", "bury"]


class OneCopy(ContractWorld):
    """Each example has jobs of its own: one that is buried and one that waits."""

    def jobs_of(self, control: Control, app: App, jobs: Jobs) -> list[str]:
        ids = [handle.id for handle in app.submit_many([jobs.note.job("buried"), jobs.note.job("waits")])]
        control.bury(ids[0])
        return ids

    def copies(self, inspector: Inspector, queue: str) -> Counter[str]:
        """How often each job is there. What a program held when it was killed comes back soon."""
        return Counter(seen.id for place in (queue, queue + BURIED) for seen in inspector.browse(place, "ready", 1000))

    def is_once(self, inspector: Inspector, queue: str, ids: Sequence[str], whence: str = "") -> None:
        eventually(lambda: len(self.copies(inspector, queue)) >= len(ids), f"all are there, {whence}", 10)
        assert self.copies(inspector, queue) == Counter(ids), whence


class Killed(OneCopy):
    """Two programs, one of which is killed at any moment."""

    examples = int(os.environ.get("KQ_EXAMPLES", "15"))

    @pytest.mark.timeout(600)
    def test_two_acts_at_once_and_a_kill_leave_one_copy(
        self, app: App, control: Control, inspector: Inspector, jobs: Jobs, queue: str
    ) -> None:
        seed = random.randrange(10_000)
        chance, killed, all = random.Random(seed), Counter[bool](), list[str]()
        with hand() as victim, hand() as survivor:
            lasts = self.measured_act(victim, queue, self.jobs_of(control, app, jobs), inspector)
            for _ in range(self.examples):
                ids = self.jobs_of(control, app, jobs)
                all += ids
                tell(victim, chance.uniform(0.01, 1) * lasts, chance.choice(ACTS), queue, ids)
                if other := chance.choice(["", *ACTS]):
                    tell(survivor, 0, other, queue, ids)
                    assert answer(survivor) is not None
                killed[answer(victim) is None] += 1
        self.is_once(inspector, queue, all, f"seed {seed}")
        assert killed[True], f"all kills came too late, seed {seed}"

    def measured_act(
        self, victim: subprocess.Popen[str], queue: str, ids: Sequence[str], inspector: Inspector
    ) -> float:
        """About how many seconds a program needs for its acts."""
        tell(victim, 0, "edit", queue, ids)
        took = answer(victim)
        assert took is not None
        for place in (queue, queue + BURIED):
            inspector.remove(place, ids)
        return took


class TestOneCopyOnSqlite(OnSqlite, Killed):
    pass


class TestOneCopyOnRedis(OnRedis, Killed):
    pass


class TestOneCopyOnRabbit(OnRabbit, Killed):
    pass


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

        threads = [threading.Thread(target=act, args=(what,)) for what in ACTS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.is_once(inspector, queue, ids)


@contextmanager
def hand() -> Iterator[subprocess.Popen[str]]:
    """Somebody, ready to start programs."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "transports")])}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.control.hand"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0


def tell(process: subprocess.Popen[str], when: float | str, act: str, queue: str, ids: Sequence[str]) -> None:
    """Start a program that is killed then; see tests/control/hand.py."""
    assert process.stdin is not None
    process.stdin.write(f"{when} {act} {queue} {' '.join(ids)}\n")
    process.stdin.flush()


def answer(process: subprocess.Popen[str]) -> float | None:
    """How many seconds the program took; None when it was killed."""
    assert process.stdout is not None
    line = process.stdout.readline()
    return None if line == "killed\n" else float(line)
