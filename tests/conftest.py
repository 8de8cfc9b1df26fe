"""Fixtures that every test may use: private brokers, names of one's own, and a check that nothing stays behind."""

from __future__ import annotations

import fcntl
import gc
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import hypothesis
import msgspec
import psutil
import pytest

from kq_transports.conformance.proxy import Proxy
from tests.servers import LOG_THREAD, Missing, RabbitNode, RabbitServer, RedisServer, Server

# A busy machine is no reason to fail; how long a test may take is pytest's to say.
hypothesis.settings.register_profile(
    "kq", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.load_profile("kq")

S = TypeVar("S", bound=Server)

GRACE = 2.0  # seconds that a thread or process has to end after its test
#: Tests that one process runs, one after the other, as a RabbitMQ takes seconds of all processors to start.
MORTAL = pytest.mark.xdist_group("mortal RabbitMQ")


def available(make: Callable[[], S]) -> S:
    """A server, or a skipped test that says how to get it. In CI a missing server fails."""
    try:
        return make()
    except Missing as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def two_hours_ahead() -> Iterator[None]:
    """The clock on the wall is two hours ahead of UTC."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Etc/GMT-2")
        time.tzset()
        yield
    time.tzset()


def pytest_configure(config: pytest.Config) -> None:
    """Let any run, also one of all tests, make pages of the docs of what it measures."""
    from kq.conformance.contract import faults, page  # not before its assertions are rewritten

    page.pytest_configure(config)
    faults.pytest_configure(config)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let `make faults` find what brings about a fault, and one process run all that ends a RabbitMQ.

    A group, which one process runs, comes first: begun late, all others would wait for its end.
    """
    for item in items:
        if hasattr(getattr(item, "function", None), "kq_fault"):
            item.add_marker("fault")
        if "mortal_rabbit" in getattr(item, "fixturenames", ()):
            item.add_marker(MORTAL)
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)


def pytest_collection_finish() -> None:
    """Look for no garbage among the tests themselves: it takes 0.15 s each time, for which all that a test does stands
    still."""
    gc.freeze()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a test by the length of a text that is long: all processes tell each other the names of all tests."""
    if isinstance(val, str | bytes) and len(val) > 100:
        return f"{argname} of {len(val)}"
    return None


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis that all tests of this process share; one that is to be killed is made with RedisServer()."""
    with available(RedisServer) as server, lasting(server):
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of an empty Redis database."""
    import redis  # the extra "redis"

    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture(scope="session")
def rabbit_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitNode]:
    """A RabbitMQ that the whole run shares, all xdist workers included.

    Use a virtual host of your own; never stop it: put a Proxy before it, or use mortal_rabbit.
    """
    here = tmp_path_factory.getbasetemp()
    shared = here.parent if "PYTEST_XDIST_WORKER" in os.environ else here
    node, users = shared / "rabbit.json", shared / "rabbit.users"
    with locked(shared / "rabbit.start", fcntl.LOCK_EX):
        server = None if node.exists() else available(RabbitServer)
        if server is not None:
            server.start()
            node.write_bytes(msgspec.json.encode(server.node))
        using = locked(users, fcntl.LOCK_SH)
        using.__enter__()
    try:
        if server is None:
            yield msgspec.json.decode(node.read_bytes(), type=RabbitNode)
        else:
            with lasting(server):
                yield server.node
    finally:
        using.__exit__(None, None, None)
        if server is not None:
            node.unlink()
            with locked(users, fcntl.LOCK_EX):  # the other workers have let go
                server.close()


@pytest.fixture
def rabbit_url(rabbit_node: RabbitNode) -> Iterator[str]:
    """The URL of a RabbitMQ in which nothing else is than what the test makes."""
    with rabbit_node.virtual_host(f"t{uuid.uuid4().hex[:8]}") as url:
        yield url


@pytest.fixture(scope="session")
def mortal_rabbit() -> Iterator[RabbitServer]:
    """A RabbitMQ that tests end, start and starve as they like, and leave as it was. Each has it for itself."""
    with available(RabbitServer) as server, lasting(server):
        yield server


@pytest.fixture
def lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of somebody else that brings lightning://, which is SQLite by another name."""
    installed = tmp_path / "installed"
    said = installed / "kq_lightning-1.0.dist-info"
    said.mkdir(parents=True)
    (said / "METADATA").write_text("Metadata-Version: 2.1\nName: kq-lightning\nVersion: 1.0\n")
    (said / "entry_points.txt").write_text("[kq.transports]\nlightning = lightning_transport:Lightning\n")
    (installed / "lightning_transport.py").write_text("from kq_transports.sqlite import Transport as Lightning\n")
    monkeypatch.syspath_prepend(installed)


@pytest.fixture
def prefix() -> str:
    """The beginning of queue names that no other test uses."""
    return f"t{uuid.uuid4().hex[:8]}."


@pytest.fixture
def proxy_to() -> Iterator[Callable[[int], Proxy]]:
    """Puts a Proxy before a loopback port, for as long as the test runs."""
    made: list[Proxy] = []

    def make(port: int) -> Proxy:
        made.append(Proxy(port))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


@contextmanager
def locked(path: Path, how: int) -> Iterator[None]:
    """Hold a lock on path among processes; the system frees it when its holder dies."""
    with path.open("a") as file:
        fcntl.flock(file, how)
        yield


_lasting: list[Server] = []


@contextmanager
def lasting(server: Server) -> Iterator[None]:
    """Let server outlive the test that happened to start it."""
    _lasting.append(server)
    try:
        yield
    finally:
        _lasting.remove(server)


@pytest.fixture(autouse=True)
def nothing_stays_behind() -> Iterator[None]:
    """Fail a test that leaves processes or threads."""
    processes, threads = set(_children()), set(threading.enumerate())
    yield
    left = [child for child in _children() if child not in processes]
    _, alive = psutil.wait_procs(left, timeout=GRACE)
    for child in alive:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    stuck = [thread for thread in threading.enumerate() if thread not in threads and not _ends(thread)]
    assert not alive, f"processes left behind: {alive}"
    assert not stuck, f"threads left behind: {stuck}"


def _children() -> list[psutil.Process]:
    lasting_pids = {pid for server in _lasting for pid in server.pids}
    return [
        child
        for child in psutil.Process().children()
        if child.pid not in lasting_pids and not _belongs_to_python(child)
    ]


def _belongs_to_python(child: psutil.Process) -> bool:
    """Whether it is one of the two that multiprocessing keeps for as long as its process lives."""
    try:
        line = " ".join(child.cmdline())
    except psutil.Error:
        return True
    return "multiprocessing.resource_tracker" in line or "multiprocessing.forkserver" in line


def _ends(thread: threading.Thread) -> bool:
    if thread.name == LOG_THREAD:
        return True
    thread.join(GRACE)
    return not thread.is_alive()
