"""A password in a URL is told to nobody: by no worker, command, error, log record of any level, nor in the broker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from kq.conformance.contract.waiting import eventually
from tests.cli.conftest import READY, Place, worker
from tests.conftest import available
from tests.servers import RedisServer, free_port

PASSWORD, WRITTEN = "canary@7", "canary%407"  # as it is, and as a URL has it
CANARY = "canary"
JOBS = """
import os
import subprocess

import kq

app = kq.App("shop")


@app.job
def fail() -> None:
    raise ValueError("as asked")


@app.job
def environment() -> list[str]:
    started = subprocess.run(["env"], capture_output=True, text=True, check=True).stdout
    other = kq.App("other")
    shout.options(queue="elsewhere").submit("x")
    known = "canary" in other.address.url and "canary" in other.mail and "canary" in other.alerts.webhook
    return [started, str(dict(os.environ)), "all known" if known else "not known"]


@app.job
def shout(text: str) -> str:
    return text.upper()
"""
#: `kq` with every log record of every library on its error output.
TALKATIVE = "import logging, sys; logging.basicConfig(level=1); from kq.cli import main; sys.exit(main())"


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Redis with that password."""
    with available(RedisServer) as server:
        with redis.Redis.from_url(server.url) as client:
            client.config_set("requirepass", PASSWORD)
        yield server


@pytest.fixture
def shop(place: Place, server: RedisServer) -> Place:
    place.write("jobs.py", JOBS)
    place.write("kq.yaml", f"app: jobs:app\nsubmit_timeout: 1s\nurl: redis://:{WRITTEN}@127.0.0.1:{server.port}/0\n")
    return place


class Talk:
    """All that was said."""

    def __init__(self, shop: Place) -> None:
        self._shop = shop
        self.log = shop.folder / "worker.log"
        self.said: list[str] = []

    def kq(self, *arguments: str) -> None:
        """Take down what a command says, with all that its libraries log."""
        done = subprocess.run(
            [sys.executable, "-c", TALKATIVE, *arguments],
            cwd=self._shop.folder,
            env=self._shop.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.said.append(f"kq {' '.join(arguments)}\n{done.stdout}{done.stderr}")

    def worker(self) -> subprocess.Popen[bytes]:
        with self.log.open("wb") as log:
            command = [sys.executable, "-c", TALKATIVE, "worker", "-v", "-c", "1"]
            return subprocess.Popen(
                command, cwd=self._shop.folder, env=self._shop.environment(), stdout=log, stderr=log
            )

    def leaks(self) -> list[str]:
        """What tells the password."""
        return [text[-2000:] for text in [*self.said, self.log.read_text()] if CANARY in text]


def test_a_password_is_told_nowhere(shop: Place, server: RedisServer) -> None:
    talk = Talk(shop)
    worker = talk.worker()
    try:
        eventually(lambda: READY in talk.log.read_text(), "the worker is ready", 40)
        talk.kq("submit", "fail")
        talk.kq("submit", "shout", "x", "--json")
        eventually(lambda: "as asked" in talk.log.read_text(), "a job has failed")
        for verb in (["doctor"], ["--json", "jobs", "ls"], ["-v", "workers", "ls", "--json"]):
            talk.kq(*verb)
        with redis.Redis(port=server.port, password=PASSWORD) as client:
            assert CANARY not in contents(client)
            client.config_set("requirepass", "another")
            client.client_kill_filter(_type="normal", skipme=True)
            eventually(lambda: "refuses this user" in talk.log.read_text(), "the worker is not let in any more")
            talk.kq("-v", "queues", "ls")
            client.config_set("requirepass", PASSWORD)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(30)
    assert not talk.leaks()


@pytest.mark.parametrize("again", [False, True])
def test_the_environment_of_jobs_has_no_password(shop: Place, server: RedisServer, again: bool) -> None:
    shop.write("kq.yaml", "app: jobs:app\n")
    address = f"redis://:{WRITTEN}@127.0.0.1:{server.port}/0"
    variables = {
        "KQ_URL": address,
        "KQ_STATE": address,
        "KQ_MAIL": f"smtps://ann:{WRITTEN}@mail.example.org",
        "KQ_ALERTS_WEBHOOK": f"https://hooks.example.org/{CANARY}",
        "KQ_WEB_TOKENS": f"page=view sha256${b64encode(bytes(32)).decode().rstrip('=')}",
    }
    with worker(shop, "-c", "1", environment=variables) as process:
        if again:  # a nursery that is started anew has read the environment itself
            (nursery,) = children(process.pid)
            os.kill(nursery, signal.SIGKILL)
            eventually(lambda: children(process.pid) not in ([nursery], []), "there is another")
        started, here, known = shop.kq("submit", "environment", "--wait", "--json", **variables).json["result"]
    assert known == "all known"
    assert CANARY not in started
    assert CANARY not in here
    assert "KQ_URL=redis://:***@127.0.0.1" in started
    assert "KQ_WEB_TOKENS" not in here


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:{password}@127.0.0.1:{port}/0",
        "redis://u:{password}@127.0.0.1:{port}/0?quick=1",
        "redis://u:{password}@127.0.0.1:{port}x/0",
        "rediz://u:{password}@127.0.0.1:{port}/0",
        "amqp://u:{password}@127.0.0.1:{port}//",
        "amqp://u:{password}@127.0.0.1:{port}//?password={password}",
    ],
)
def test_nor_is_one_of_a_broker_that_cannot_be_used(place: Place, url: str) -> None:
    talk = Talk(place)
    talk.log.touch()
    place.write("jobs.py", JOBS)
    place.write("kq.yaml", "app: jobs:app\nsubmit_timeout: 1s\n")
    talk.kq("-v", "submit", "fail", "--url", url.format(password=WRITTEN, port=free_port()))
    assert "Error" in talk.said[0] or "KQ" in talk.said[0]
    leaks = [line for line in talk.said[0].splitlines()[1:] if CANARY in line]
    assert not leaks


def contents(client: redis.Redis) -> str:
    """All that a Redis holds, as text."""
    return "".join(f"{key!r} {client.dump(key)!r}\n" for key in client.scan_iter("*"))
