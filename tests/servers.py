"""Private broker servers for tests: on free loopback ports, in a temporary folder, gone afterwards.

A server never outlives the process that started it. Not for benchmarks of durability: Redis syncs
its file once a second unless told otherwise.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Self

#: Seconds after which a RabbitMQ here tries again to move a delayed message that could not be moved, as
#: docs/transports.md advises; by default 180.
AGAIN = 5.0
LOG_THREAD = "server log"  # the name of the thread that follows a server's output
STARTUP = 60.0  # seconds; RabbitMQ on a busy machine with two cores needs up to 20


class Missing(Exception):
    """The server's program is not installed; the message says how to get it."""


class Server:
    """A server process with a life of its own: start, kill, freeze, and come back with the same data.

    A context manager: started on entry, ended without mercy on exit.
    """

    program: str  # what must be installed
    ready: str  # the words of its output that say that it takes connections

    def __init__(self) -> None:
        self._path = require(self.program)
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="kq-server-"))
        self._process: subprocess.Popen[str] | None = None
        self._log: deque[str] = deque(maxlen=200)

    @property
    def url(self) -> str:
        """What a client connects to; the same after a restart."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """The server's process; raises when it does not run."""
        assert self._process is not None, f"{self.program} does not run"
        return self._process.pid

    @property
    def pids(self) -> list[int]:
        """Every process that was started for it and lives."""
        return [self._process.pid] if self._process else []

    def start(self) -> None:
        """Start it and wait until it takes connections; raises with its last words when it doesn't."""
        assert self._process is None, f"{self.program} runs already"
        self._process = _spawn(self.command(), self.folder, self.environment())
        is_ready, ended = threading.Event(), threading.Event()
        follow = (self._process, is_ready, ended)
        threading.Thread(target=self._follow, args=follow, name=LOG_THREAD, daemon=True).start()
        if not is_ready.wait(STARTUP) or ended.is_set():
            self.kill()
            raise RuntimeError(f"{self.program} did not start:\n" + "".join(self._log))

    def kill(self) -> None:
        """End it as a power failure would; its data stays."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in its own good way."""
        self._end(signal.SIGTERM)

    def remember(self) -> None:
        """See to it that what was declared survives a kill at once."""

    def restart(self) -> None:
        """Start it again on the same port with the same data; killed first when it still runs."""
        self.kill()
        self.start()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Every thread of it stands still in here: connections stay open and nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it and forget its data. May be repeated."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def command(self) -> list[str]:
        """The command line that runs it in the foreground."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Variables that it needs beyond ours."""
        return {}

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)  # a frozen process does not hear SIGTERM
                os.killpg(process.pid, how)
            process.wait(STARTUP)

    def _follow(self, process: subprocess.Popen[str], is_ready: threading.Event, ended: threading.Event) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self._log.append(line)
                if self.ready in line:
                    is_ready.set()
        ended.set()
        is_ready.set()


class RedisServer(Server):
    """A Redis with an append-only file. fsync: "everysec" or "always"."""

    program = "redis-server"
    ready = "Ready to accept connections"

    def __init__(self, *, fsync: str = "everysec") -> None:
        super().__init__()
        self._fsync = fsync

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": self._fsync,
            "maxmemory-policy": "noeviction",
        }
        return [self._path, *(word for key, value in options.items() for word in (f"--{key}", value))]

    def fill(self) -> None:
        """Let it have reached its maxmemory."""
        self._limit(1)

    def free(self) -> None:
        """Lift that limit."""
        self._limit(0)

    def _limit(self, size: int) -> None:
        with socket.create_connection(("127.0.0.1", self.port), STARTUP) as line:
            line.sendall(f"CONFIG SET maxmemory {size}\r\n".encode())
            assert line.recv(100) == b"+OK\r\n"


@dataclass(frozen=True)
class RabbitNode:
    """A RabbitMQ as other processes may speak to it. environment: of Erlang's own tools."""

    url: str
    name: str
    environment: dict[str, str]

    def evaluate(self, expression: str) -> None:
        """Let the server do something. By Erlang's own tool: rabbitmqctl starts a node of its own, for seconds."""
        # By a name of its own: two that ask at the same time under the usual one are told no.
        tool = [require("erl_call"), "-h", f"kq{uuid.uuid4().hex[:8]}", "-sname", self.name, "-e"]
        environment = {**os.environ, **self.environment}
        done = subprocess.run(
            tool, env=environment, input=f"{expression}.\n", check=True, capture_output=True, text=True
        )
        assert done.stdout.startswith("{ok, "), done.stdout + done.stderr

    @contextlib.contextmanager
    def virtual_host(self, name: str) -> Iterator[str]:
        """The URL of a virtual host, which is gone afterwards with all that is in it: as good as a RabbitMQ of one's
        own, and there in 20 ms.
        """
        everything = ", ".join(['<<".*">>'] * 3)
        may = f'rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"{name}">>, {everything}, <<"tests">>)'
        self.evaluate(f'rabbit_vhost:add(<<"{name}">>, <<"tests">>), {may}')
        try:
            yield f"{self.url.removesuffix('//')}/{name}"
        finally:
            self.evaluate(f'rabbit_vhost:delete(<<"{name}">>, <<"tests">>)')


class RabbitServer(Server):
    """A RabbitMQ node of its own, with its own epmd: several may run at once, as any user."""

    program = "rabbitmq-server"
    ready = "completed with"

    def __init__(self) -> None:
        super().__init__()
        self._distribution, self._epmd_port = free_port(), free_port()
        self._epmd: subprocess.Popen[str] | None = None
        (self.folder / "plugins").write_text("[].")
        settings = ["log.console = false", "disk_free_limit.absolute = 10MB"]
        (self.folder / "rabbitmq.conf").write_text("\n".join(settings) + "\n")

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @property
    def node(self) -> RabbitNode:
        """It, for tools and for other processes."""
        return RabbitNode(self.url, f"kq{self.port}@localhost", self.environment())

    @property
    def pids(self) -> list[int]:
        return super().pids + ([self._epmd.pid] if self._epmd else [])

    def start(self) -> None:
        if self._epmd is None:
            epmd = [require("epmd"), "-port", str(self._epmd_port), "-address", "127.0.0.1"]
            self._epmd = _spawn(epmd, self.folder, {}, output=subprocess.DEVNULL)
        super().start()

    def close(self) -> None:
        self.kill()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait(STARTUP)
            self._epmd = None
        super().close()

    def remember(self) -> None:
        # Now and then it answers a declaration before it has written it to its disk (4.0.5, Mnesia): of queues that
        # are declared at the same time, one in 200 was gone after a kill at once, with all that was confirmed in it.
        self.node.evaluate("mnesia:sync_log()")

    def fill(self) -> None:
        """Let it be short of disk."""
        # Set and cleared by a word without an answer; the question after it is answered when that was heard.
        self.node.evaluate("rabbit_alarm:set_alarm({{resource_limit, disk, node()}, []}), rabbit_alarm:get_alarms()")

    def free(self) -> None:
        """Let that be over."""
        self.node.evaluate("rabbit_alarm:clear_alarm({resource_limit, disk, node()}), rabbit_alarm:get_alarms()")

    @contextlib.contextmanager
    def impatient(self) -> Iterator[None]:
        """Who connects in here has two seconds for an ack, and is looked after every second."""
        self._expect_acks(2_000, 1_000)
        try:
            yield
        finally:
            self._expect_acks(1_800_000, 60_000)  # as it is by default

    def _expect_acks(self, within: int, looking: int) -> None:
        """Within so many milliseconds, of channels that are opened from now on; looking: milliseconds between looks."""
        said = f"application:set_env(rabbit, consumer_timeout, {within})"
        self.node.evaluate(f"{said}, application:set_env(rabbit, channel_tick_interval, {looking})")

    def command(self) -> list[str]:
        # Debian's program of this name in /usr/sbin insists on its own user.
        plain = sorted(glob("/usr/lib/rabbitmq/lib/*/sbin/rabbitmq-server"))
        return [plain[-1] if plain else self._path]

    def environment(self) -> dict[str, str]:
        where = self.folder
        return {
            "HOME": str(where),  # the cookie
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": f"kq{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_MNESIA_BASE": str(where / "data"),
            "RABBITMQ_LOG_BASE": str(where / "log"),
            "RABBITMQ_CONFIG_FILE": str(where / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(where / "plugins"),
            # The node replaces the start script instead of running under it, so that signals reach it.
            "RUNNING_UNDER_SYSTEMD": "true",
            # Idle schedulers sleep: by default they spin for a while, which two cores can't afford.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none "
            f"-rabbit dead_letter_worker_publisher_confirm_timeout {AGAIN * 1000:.0f}",
        }


def require(program: str) -> str:
    """The path of program; raises Missing with the line that installs it."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        package = {"epmd": "rabbitmq-server", "erl_call": "erlang-base", "chromedriver": "chromium-driver"}.get(
            program, program
        )
        raise Missing(f"{program} is not installed: apt install {package} (or brew install {package})")
    return path


def free_port() -> int:
    """A loopback port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _spawn(
    command: list[str], folder: Path, environment: dict[str, str], output: int = subprocess.PIPE
) -> subprocess.Popen[str]:
    """A process in its own group that ends, where the system can do that, when its parent does."""
    die_with_parent = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
    return subprocess.Popen(
        die_with_parent + command,
        cwd=folder,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
