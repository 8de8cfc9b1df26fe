"""The kill lottery: publishers, consumers and the server itself are killed at any instant; no job is lost."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeVar

from kq_transports.conformance.engine.world import done
from kq_transports.engine import Counts, LeaseLost, Message, Options, Unreachable, Want
from kq_transports.redis import RedisEngine
from kq_transports.redislink import Place
from tests.conftest import available
from tests.servers import RedisServer

R = TypeVar("R")

KILLS = int(os.environ.get("KQ_KILLS", "12"))
JOBS = int(os.environ.get("KQ_JOBS", "2000"))
LEASE = 1.0  # seconds; how long the jobs of a killed consumer are away
BATCH = 20
PAUSE = 0.06  # seconds from one kill to the next, on average
ENOUGH = 900.0  # seconds after which something must be wrong
QUEUE = "jobs"


def test_no_job_is_lost_when_processes_and_the_server_are_killed_at_random(tmp_path: Path) -> None:
    with available(RedisServer) as server:
        lottery = Lottery(server, tmp_path)
        lottery.run()
        accepted, finished = lottery.logged("publish"), lottery.logged("consume")
    assert len(set(accepted)) >= JOBS
    assert set(accepted) - set(finished) == set()
    print(f"{len(accepted)} jobs, {len(finished) - len(set(finished))} of them done twice")  # noqa: T201


class Lottery:
    """A server, two publishers and two consumers. Each process writes a log of what it is sure of."""

    def __init__(self, server: RedisServer, folder: Path) -> None:
        self._server, self._folder = server, folder
        self._random = random.Random(20)
        self._until = time.monotonic() + ENOUGH
        self._started = 0
        engine = RedisEngine(Place.of(server.url))
        engine.declare(QUEUE, {})
        engine.close()

    def run(self) -> None:
        """Kill and replace at random, so often and until there were so many jobs; then let all be done."""
        processes = [self._start(role) for role in ("publish", "publish", "consume", "consume")]
        kills = 0
        while kills < KILLS or len(self.logged("publish")) < JOBS:
            assert time.monotonic() < self._until
            time.sleep(self._random.uniform(0, 2 * PAUSE))  # at any instant
            kills += 1
            if kills % 10 == 0:
                self._server.restart()
                continue
            victim = self._random.randrange(len(processes))
            role, process = processes[victim]
            kill(process)
            processes[victim] = self._start(role)
        self._finish(processes)

    def _finish(self, processes: list[tuple[str, BaseProcess]]) -> None:
        for role, process in processes:
            if role == "publish":
                kill(process)
        engine = RedisEngine(Place.of(self._server.url))
        while (left := engine.count(QUEUE)) != Counts():
            assert time.monotonic() < self._until, left
            time.sleep(0.02)
        engine.close()
        for role, process in processes:
            if role == "consume":
                kill(process)

    def logged(self, role: str) -> list[str]:
        """The ids that all processes of role wrote down; a line that was cut off is none."""
        logs = [log.read_text() for log in self._folder.glob(f"{role}-*")]
        return [line for log in logs for line in log.split("\n")[:-1]]

    def _start(self, role: str) -> tuple[str, BaseProcess]:
        self._started += 1
        log = self._folder / f"{role}-{self._started}"
        work = {"publish": publish, "consume": consume}[role]
        process = multiprocessing.get_context("fork").Process(target=work, args=(self._server.url, log), daemon=True)
        process.start()
        return role, process


def kill(process: BaseProcess) -> None:
    process.kill()
    process.join()
    process.close()


def publish(url: str, log: Path) -> None:
    """Publish for ever; log what was accepted."""
    engine = RedisEngine(Place.of(url))
    with log.open("a") as accepted:
        for i in range(10**9):
            ids = [f"{log.name}-{i}-{n}" for n in range(random.randrange(1, BATCH))]
            batch = [Message(id, QUEUE, b"x" * 300, i % 10, random.choice((0, 0, 0, 0.01))) for id in ids]
            insist(lambda batch=batch: engine.publish(batch))  # type: ignore[misc]
            accepted.writelines(f"{id}\n" for id in ids)
            accepted.flush()


def consume(url: str, log: Path) -> None:
    """Do jobs for ever; log what was done before it is settled."""
    with log.open("a") as finished:
        while True:
            engine = RedisEngine(Place.of(url), Options(lease=LEASE, keep_alive=True))
            try:
                consume_on(engine, lambda id: print(id, file=finished, flush=True))
            except LeaseLost:  # the server was away for longer
                engine.close()


def consume_on(engine: RedisEngine, finish: Callable[[str], None]) -> None:
    while True:
        deliveries = insist(lambda: engine.reserve([Want((QUEUE,), BATCH)]))
        for delivery in deliveries:
            finish(delivery.id)
        insist(lambda deliveries=deliveries: engine.settle(done(deliveries)))  # type: ignore[misc]
        if not deliveries:
            insist(lambda: engine.wait([QUEUE], None))


def insist(call: Callable[[], R]) -> R:
    """What call returns, said again as long as the server is away."""
    while True:
        try:
            return call()
        except Unreachable:
            time.sleep(0.01)
