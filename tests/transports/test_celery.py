"""A Celery app on our transports: with `import kq_transports` and the broker's URL, nothing else changes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from kq.conformance.contract.processes import ended, tree

ROOT = Path(__file__).parents[2]
DEADLINE = 30.0


class World:
    """A broker, a diary that tasks write into, and workers in processes of their own."""

    def __init__(self, url: str, where: Path) -> None:
        self.diary = where / "diary"
        self.diary.touch()
        self.log = where / "log"
        self.environment = {
            **os.environ,
            "CELERY_TEST_BROKER": url,
            "CELERY_TEST_DIARY": str(self.diary),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "transports")]),
            "C_FORCE_ROOT": "1",
        }

    @contextmanager
    def worker(self, name: str, *options: str) -> Iterator[psutil.Process]:
        """A worker that is ready; it and its children are killed at the end."""
        words = [
            "-m",
            "celery",
            "-A",
            "tests.transports.celery_app",
            "worker",
            "-l",
            "INFO",
            "-n",
            f"{name}@host",
            *options,
        ]
        command = [sys.executable, *words, "-n", f"{name}@host", *options]
        with self.log.open("ab") as log:
            child = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=log, stderr=log)
        process = psutil.Process(child.pid)
        try:
            eventually(lambda: f"{name}@host ready" in self.log.read_text(), f"worker {name}", self.log.read_text)
            yield process
        finally:
            kill(process)
            child.wait()

    def python(self, code: str) -> str:
        """What a client program prints."""
        code = f"from tests.transports.celery_app import app, work\n{code}"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def lines(self, verb: str) -> list[str]:
        return [line.split()[1] for line in self.diary.read_text().splitlines() if line.startswith(verb)]


def kill(process: psutil.Process) -> None:
    """kill -9 of a process and its children."""
    for each in tree(process):
        ended(each.kill)


def eventually(claim: Callable[[], object], what: str, log: Callable[[], str]) -> None:
    until = time.monotonic() + DEADLINE
    while not claim():
        assert time.monotonic() < until, f"{what}: not within {DEADLINE} s\n{log()}"
        time.sleep(0.05)


@pytest.fixture(params=["kq-sqlite", "kq-redis"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    if request.param == "kq-sqlite":
        url = f"kq-sqlite:///{tmp_path}/jobs.db"
    else:
        url = f"kq-{request.getfixturevalue('redis_url')}"
    return World(url, tmp_path)


def test_what_a_killed_worker_had_is_done_by_another(world: World) -> None:
    with world.worker("first", "-c", "2") as first:
        world.python("for i in range(8): work.delay(str(i), 1 if i < 4 else 0)")
        eventually(lambda: len(world.lines("began")) >= 3, "some begin", world.log.read_text)
        kill(first)
    with world.worker("second", "-c", "2"):
        eventually(lambda: len(set(world.lines("ended"))) == 8, "all end", world.log.read_text)
    again = len(world.lines("began")) - 8
    assert 0 < again <= 4  # those that ran, and no more than the prefetch


def test_remote_control_reaches_a_worker_and_it_ends_warmly(world: World) -> None:
    with world.worker("only", "-c", "1") as worker:
        assert world.python("print(app.control.ping(timeout=1))") == "[{'only@host': {'ok': 'pong'}}]"
        assert "'celery'" in world.python("print(app.control.inspect(timeout=1).active_queues()['only@host'])")
        world.python("work.delay('last', 0.5)")
        eventually(lambda: world.lines("began"), "the last begins", world.log.read_text)
        worker.terminate()
        assert worker.wait(DEADLINE) is not None
    assert world.lines("ended") == ["last"]


def test_tasks_in_memory_come_by_priority_and_on_time(tmp_path: Path) -> None:
    world = World("kq-memory://celery", tmp_path)
    world.python(IN_ONE_PROCESS)
    assert world.lines("ended") == ["9", "7", "5", "3", "1", "later"]
    assert 0.5 <= float(world.lines("waited")[0]) < 3


#: A client, a worker and the broker in one process.
IN_ONE_PROCESS = """
import threading, time
from tests.transports.celery_app import note
for i in (1, 9, 3, 7, 5):
    work.apply_async((str(i),), priority=i)
worker = app.Worker(pool="solo", hostname="here@host", quiet=True)
thread = threading.Thread(target=worker.start)
begin = time.monotonic()
work.apply_async(("later",), countdown=0.5)
thread.start()
from pathlib import Path
import os
diary = Path(os.environ["CELERY_TEST_DIARY"])
while "ended later" not in diary.read_text():
    time.sleep(0.01)
note(f"waited {time.monotonic() - begin}")
app.control.broadcast("shutdown")
thread.join(10)
"""
