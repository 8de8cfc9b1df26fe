"""Core files and debuggers: what a worker's processes hold is not for other processes of its user."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from kq.conformance.contract.waiting import eventually
from tests.cli.conftest import Place

JOBS = """
import ctypes, os, resource, time
import kq

app = kq.App("shop", retry_policy=None)


@app.job
def look() -> list[int]:
    '''Whether the executor may be traced, and bytes of a core file.'''
    return [ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE)[0]]


@app.job
def let() -> None:
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    time.sleep(0.05)  # the limits are looked at after a job that takes long


@app.job(on_lost="bury")
def crash() -> None:
    os.abort()
"""
PATTERN = Path("/proc/sys/kernel/core_pattern")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing can be said about it")


@pytest.fixture
def shop(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.write("jobs.py", JOBS)
    made.write("kq.yaml", "url: sqlite:///kq.db\napp: jobs:app\n")
    return made


@contextmanager
def working(shop: Place, pool: str, **environment: str) -> Iterator[psutil.Process]:
    """A worker whose shell would let it leave core files; killed afterwards."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    command = shop.command("worker", "--pool", pool, "-c", "1", "--no-control")
    try:
        worker = subprocess.Popen(command, cwd=shop.folder, env=shop.environment(**environment))
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
    with worker:
        try:
            yield psutil.Process(worker.pid)
        finally:
            worker.kill()


def leaves_files() -> bool:
    """Whether core files lie where a program has crashed."""
    return not PATTERN.read_text().startswith(("|", "/")) and resource.getrlimit(resource.RLIMIT_CORE)[1] != 0


def cores(shop: Place) -> list[Path]:
    return [path for path in shop.folder.iterdir() if path.name.startswith("core")]


@pytest.mark.parametrize("pool", ["process", "thread"])
def test_an_executor_leaves_no_core_file_and_cant_be_traced(shop: Place, pool: str) -> None:
    with working(shop, pool):
        assert shop.kq("submit", "look", "--wait", "--json").json["result"] == [0, 0]
        assert shop.kq("submit", "crash", "--wait").code != 0
    assert not cores(shop)


def test_a_job_that_raises_the_limit_raises_it_for_itself(shop: Place) -> None:
    with working(shop, "process"):
        assert shop.kq("submit", "let", "--wait").code == 0
        assert shop.kq("submit", "look", "--wait", "--json").json["result"] == [0, 0]


@pytest.mark.skipif(not leaves_files(), reason="core files do not lie where a program has crashed here")
def test_a_setting_lets_it(shop: Place) -> None:
    with working(shop, "process", KQ_WORKER_DEBUGGABLE="true"):
        dumpable, limit = shop.kq("submit", "look", "--wait", "--json").json["result"]
        assert (dumpable, limit) == (1, resource.getrlimit(resource.RLIMIT_CORE)[1])
        assert shop.kq("submit", "crash", "--wait").code != 0
        eventually(lambda: cores(shop), "a core file is there")


@pytest.mark.parametrize("which", ["kq-nursery", "supervisor"])
def test_neither_does_what_stands_behind_it(shop: Place, which: str) -> None:
    with working(shop, "thread") as supervisor:
        assert shop.kq("submit", "look", "--wait").code == 0
        named = [each for each in supervisor.children(recursive=True) if each.name() == which]
        (process,) = named or [supervisor]
        process.send_signal(signal.SIGABRT)
        eventually(lambda: not psutil.pid_exists(process.pid) or process.status() == "zombie", "it has ended")
    assert not cores(shop)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_process_of_another_user_can_still_do_what_kq_does_with_proc() -> None:
    """Files below /proc/self belong to root afterwards; root sees no difference."""
    done = subprocess.run([sys.executable, "-c", OTHER], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, "ends\n"), done.stderr


OTHER = """
import os, time
import kq.worker.kin as kin, kq.worker.usage as usage

os.setgroups([]), os.setgid(65534), os.setuid(65534)
kin._prctl(4, 1)
kin.be_private()
tie = kin.Tie()
child = os.fork()
if child == 0:
    kin.die_with(os.getppid())
    kin.die_with_tie(tie.descriptor)
    kin.close_inherited()
    os.close(tie._mine)
    while True:
        time.sleep(1)
assert kin.living_children() == {child}
assert usage.rss(child) > 0
assert usage.condition(child) == "it sleeps"
try:
    open(f"/proc/{child}/environ")
except PermissionError:
    os.close(tie._mine)
    os.waitpid(child, 0)
    print("ends")
"""
