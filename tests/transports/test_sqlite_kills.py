"""The kill lottery: publishers and consumers of one file are killed at any instant, and no job is lost."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeAlias

from kq_transports.engine import Action, Counts, Message, Options, Verdict, Want
from kq_transports.sqlite import SqliteEngine

LEASE = 0.5  # seconds; how long the jobs of a killed consumer are away
BATCH = 20
PAUSE = 0.06  # seconds from one kill to the next, on average
ENOUGH = 600.0  # seconds after which something must be wrong


Worker: TypeAlias = tuple[str, multiprocessing.process.BaseProcess]

KILLS = int(os.environ.get("KQ_KILLS", "12"))
JOBS = int(os.environ.get("KQ_JOBS", "2000"))


def test_no_job_is_lost_when_processes_are_killed_at_random(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.run(KILLS, JOBS)
    accepted, done = world.logged("publish"), world.logged("consume")
    assert len(accepted) >= JOBS
    assert set(accepted) - set(done) == set()
    with world.connect() as engine:
        assert engine.count("jobs") == Counts()
    assert integrity(world.file) == "ok"


def test_no_job_is_lost_although_somebody_removes_the_log_again_and_again(tmp_path: Path) -> None:
    world = World(tmp_path, removes=True)
    with world.one_who_lives():
        world.run(KILLS, JOBS)
    assert set(world.logged("publish")) - set(world.logged("consume")) == set()
    assert integrity(world.file) == "ok"


class World:
    """A file, and the processes that work on it. Each writes a log of what it is sure of."""

    def __init__(self, folder: Path, *, removes: bool = False) -> None:
        """removes: whether somebody removes the log or its index, or both, now and then."""
        self.file = folder / "kq.db"
        self._removes = removes
        self._folder = folder
        self._started = 0
        self._random = random.Random(20)
        self._until = time.monotonic() + ENOUGH
        with self.connect() as engine:
            engine.declare("jobs", {})

    def connect(self) -> closing[SqliteEngine]:
        return closing(SqliteEngine(str(self.file), Options(lease=LEASE)))

    def run(self, kills: int, jobs: int) -> None:
        """Kill and replace processes at random, at least so often and for so many jobs; then let all be done."""
        processes = [self._start(role) for role in ("publish", "publish", "consume", "consume")]
        while kills > 0 or len(self.logged("publish")) < jobs:
            assert time.monotonic() < self._until
            time.sleep(self._random.uniform(0, 2 * PAUSE))  # at any instant
            victim = self._random.randrange(len(processes))
            role, process = processes[victim]
            kill(process)
            processes[victim] = self._start(role)
            kills -= 1
            if self._removes:
                self._remove()
        self._finish(processes)

    @contextmanager
    def one_who_lives(self) -> Iterator[None]:
        """Somebody who has the file open all the time, and does nothing."""
        near, far = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(target=hold, args=(str(self.file), far))
        process.start()
        assert near.recv() == "open"
        yield
        kill(process)

    def _remove(self) -> None:
        for suffix in self._random.choice((["-wal"], ["-shm"], ["-wal", "-shm"])):
            Path(f"{self.file}{suffix}").unlink(missing_ok=True)

    def _finish(self, processes: list[Worker]) -> None:
        for role, process in processes:
            if role == "publish":
                kill(process)
        with self.connect() as engine:
            while engine.count("jobs") != Counts():
                assert time.monotonic() < self._until, engine.count("jobs")
                time.sleep(0.02)
        for _, process in processes:
            kill(process)

    def logged(self, role: str) -> list[str]:
        """The ids that all processes of role wrote down; a line that was cut off is none."""
        logs = [log.read_text() for log in self._folder.glob(f"{role}-*")]
        return [line for log in logs for line in log.split("\n")[:-1]]

    def _start(self, role: str) -> Worker:
        self._started += 1
        log = self._folder / f"{role}-{self._started}"
        work = {"publish": publish, "consume": consume}[role]
        process = multiprocessing.get_context("fork").Process(target=work, args=(str(self.file), log))
        process.start()
        return role, process


def kill(process: multiprocessing.process.BaseProcess) -> None:
    process.kill()
    process.join()


def publish(file: str, log: Path) -> None:
    """Publish for ever; log what was accepted."""
    engine = SqliteEngine(file)
    with log.open("a") as accepted:
        for i in range(10**9):
            ids = [f"{log.name}-{i}-{n}" for n in range(random.randrange(1, BATCH))]
            delays = [random.choice((0, 0, 0, 0.01)) for _ in ids]
            engine.publish(
                [Message(id, "jobs", b"x" * 300, i % 10, delay) for id, delay in zip(ids, delays, strict=True)]
            )
            accepted.writelines(f"{id}\n" for id in ids)
            accepted.flush()


def hold(file: str, told: multiprocessing.connection.Connection) -> None:
    engine = SqliteEngine(file)
    told.send("open")
    engine.wait([], None)


def consume(file: str, log: Path) -> None:
    """Do jobs for ever; log what was done before it is settled."""
    engine = SqliteEngine(file, Options(lease=LEASE, keep_alive=True))
    verdicts: list[Verdict] = []
    with log.open("a") as done:
        while True:
            deliveries = engine.reserve([Want(("jobs",), BATCH)], verdicts)
            done.writelines(f"{delivery.id}\n" for delivery in deliveries)
            done.flush()
            verdicts = [Verdict(delivery.receipt, Action.DONE) for delivery in deliveries]
            if not deliveries:
                engine.wait(["jobs"], None)


def integrity(file: Path) -> str:
    connection = sqlite3.connect(file)
    try:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        connection.close()
