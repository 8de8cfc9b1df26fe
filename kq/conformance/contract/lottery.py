"""The kill lottery: kill -9 by chance of workers, supervisors and executors, while jobs run, and then an account.

The count is kept outside of the broker, in the diary: what was acknowledged must have ended, and what ended twice is
told (the method of Jepsen's queue tests). KQ_KILLS, KQ_JOBS and KQ_SEED make it larger, or repeat one.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter, deque
from dataclasses import dataclass
from statistics import median

from kq.app import App
from kq.conformance.contract.crew import Crew, Program
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.figures import Figures, keeps, survives
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.processes import ended, pids
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld
from kq.control import Control

WORKERS = 3
SLOTS = 2  # executors of each
PART = 1_000  # jobs that are submitted together: all in one might not be confirmed within submit_timeout
PATIENCE = 120.0  # seconds until a job that has not ended is lost


@dataclass(frozen=True)
class Kill:
    """One kill. at: seconds since the epoch; pids: the executors that it ended."""

    what: str
    at: float
    pids: frozenset[int]


class LotterySuite(ContractWorld):
    """C2, the hard way."""

    lease = 5.0
    kills = int(os.environ.get("KQ_KILLS", 12))
    jobs_in_all = int(os.environ.get("KQ_JOBS", 400))
    seed = int(os.environ.get("KQ_SEED") or random.randrange(10_000))

    @keeps("C2")
    @survives("F1")
    def test_the_kill_lottery(
        self, app: App, control: Control, queue: str, jobs: Jobs, crew: Crew, diary: Diary, measured: Figures
    ) -> None:
        chance = random.Random(self.seed)
        tickets = [jobs.ticket.job(chance.uniform(0, 0.06)) for _ in range(self.jobs_in_all)]
        parts = (tickets[at : at + PART] for at in range(0, len(tickets), PART))
        ids = {handle.id for part in parts for handle in app.submit_many(part)}
        kills = self._draw(chance, crew, diary)
        eventually(
            lambda: {end.id for end in diary.ends()} >= ids or None, f"no job is lost, seed {self.seed}", PATIENCE
        )
        eventually(lambda: not control.jobs(queue), f"no job is stuck, seed {self.seed}", PATIENCE)
        twice = diary.twice()
        struck = ", ".join(f"{count} {what}" for what, count in Counter(kill.what for kill in kills).items())
        gaps = recoveries(kills, diary)
        wait = median(after - before for before, after in gaps) if gaps else 0.0
        last = max(kill.at for kill in kills)
        whole = max((after - last for _, after in gaps), default=0.0)
        measured(
            f"seed {self.seed}: {len(kills)} kills ({struck}) over {len(ids)} jobs: 0 lost, {twice} run twice; what "
            f"was cut off ran again after {wait:.1f} s (median), the last {max(0.0, whole):.1f} s after the last kill; "
            f"lease {self.lease:g} s"
        )
        measured.account(twice=twice, back=wait)
        assert twice <= len(kills) * SLOTS
        assert whole <= self.lease + 2

    def _draw(self, chance: random.Random, crew: Crew, diary: Diary) -> list[Kill]:
        """Kill by chance until all kills are done, evenly over the jobs; who was killed is replaced at once."""
        workers = deque(crew.program(concurrency=SLOTS, ready=False) for _ in range(WORKERS))
        kills: list[Kill] = []
        for number in range(self.kills):
            goal = self.jobs_in_all * (number + 1) // (self.kills + 2)
            eventually(lambda goal=goal: len(diary.ends()) >= goal, f"jobs run, seed {self.seed}", PATIENCE)  # type: ignore[misc]
            time.sleep(chance.uniform(0, 0.1))  # else each would come just after the end of a job
            chance.shuffle(workers)
            kill = strike(chance, workers[0])
            kills.append(kill)
            if kill.what != "executor":
                workers.popleft()
                workers.append(crew.program(concurrency=SLOTS, ready=False))
        return kills


def strike(chance: random.Random, worker: Program) -> Kill:
    """Kill a worker's tree, its supervisor alone, or one of its executors."""
    executors = worker.executors()
    what = chance.choice(["tree", "supervisor", "executor"])
    if what == "executor" and executors:
        executors = [chance.choice(executors)]
        ended(executors[0].kill)
        return Kill(what, time.time(), frozenset(pids(executors)))
    if what == "tree":
        worker.kill()
    else:
        worker.process.kill()
        worker.process.wait()
    return Kill("tree" if what == "tree" else "supervisor", time.time(), frozenset(pids(executors)))


def recoveries(kills: list[Kill], diary: Diary) -> list[tuple[float, float]]:
    """For each job that a kill cut off: when that was, and when it started again."""
    struck = {pid: kill.at for kill in kills for pid in kill.pids}
    starts, done = diary.starts(), {(entry.id, entry.pid) for entry in diary.entries() if entry.what != "start"}
    cut_off = [
        (start.id, struck[start.pid]) for start in starts if start.pid in struck and (start.id, start.pid) not in done
    ]
    found = []
    for id, at in cut_off:
        again = [start.at for start in starts if start.id == id and start.at > at]
        if again:
            found.append((at, min(again)))
    return found
