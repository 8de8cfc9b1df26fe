"""What people are told when something round kq is wrong: one or two lines, the remedy, the right exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator

import psutil
import pytest
import redis

from kq.conformance.contract.processes import command_line, tree
from kq.conformance.contract.waiting import eventually
from tests.cli.conftest import Place, Said, worker
from tests.conftest import available
from tests.servers import RedisServer, free_port

JOBS = """
import kq

app = kq.App("shop")


@app.job
def shout(text: str) -> str:
    return text.upper()


@app.job
def read(path: str) -> None:
    with open(path) as file:
        file.read()
"""


@pytest.fixture
def shop(place: Place) -> Place:
    place.write("jobs.py", JOBS)
    place.write("kq.yaml", "app: jobs:app\nsubmit_timeout: 1s\n")
    return place


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A Redis that these tests may set up badly."""
    with available(RedisServer) as server:
        yield server


@pytest.fixture
def setting(server: RedisServer) -> Iterator[redis.Redis]:
    """A client to set it up with; afterwards it is as before."""
    usual = {"maxmemory": "0", "maxmemory-policy": "noeviction", "requirepass": ""}
    with redis.Redis.from_url(server.url) as client:
        yield client
        for name, value in usual.items():
            client.config_set(name, value)
        client.flushall()


def submit(shop: Place, url: str, text: str = "hello") -> Said:
    said = shop.kq("submit", "shout", text, "--url", url)
    assert "Traceback" not in said.err
    assert len(said.err.splitlines()) <= 2, said.err
    return said


@pytest.mark.parametrize("url", ["redis://:hush@127.0.0.1:{port}/0", "amqp://user:hush@127.0.0.1:{port}//"])
def test_a_broker_that_is_not_there(shop: Place, url: str) -> None:
    port = free_port()
    said = submit(shop, url.format(port=port))
    assert said.code == 69
    assert said.err.startswith("KQ302 could not submit to ")
    assert "stored: no" in said.err
    assert "hush" not in said.err
    assert "kq doctor" in said.err


def test_a_broker_that_is_not_there_as_json(shop: Place) -> None:
    said = shop.kq("submit", "shout", "x", "--url", f"redis://127.0.0.1:{free_port()}/0", "--json")
    assert json.loads(said.err)["error"]["code"] == "KQ302"


@pytest.mark.parametrize("user", ["", ":wrong@"])
def test_a_wrong_password(shop: Place, server: RedisServer, setting: redis.Redis, user: str) -> None:
    setting.config_set("requirepass", "hush")
    said = submit(shop, server.url.replace("redis://", f"redis://{user}"))
    assert said.code == 69
    assert "refuses this user" in said.err
    assert "check user and password" in said.err
    assert "wrong" not in said.err


def test_a_password_is_no_argument_of_any_process(shop: Place, server: RedisServer, setting: redis.Redis) -> None:
    setting.config_set("requirepass", "hush")
    url = server.url.replace("redis://", "redis://:hush@")
    with worker(shop, "--pool", "process", "-c", "1", environment={"KQ_URL": url}) as process:
        supervisor = psutil.Process(process.pid)
        family = eventually(
            lambda: each if len(each := tree(supervisor)) >= 3 else [], "nursery and executor are there"
        )
        assert not [each for each in family if "hush" in " ".join(command_line(each))]


def test_a_database_that_the_server_does_not_have(shop: Place, server: RedisServer) -> None:
    said = submit(shop, f"redis://127.0.0.1:{server.port}/99")
    assert said.code == 69
    assert "DB index is out of range" in said.err


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "sqlite:///kq.db"])
def test_an_option_that_nobody_knows(shop: Place, url: str) -> None:
    for said in (submit(shop, f"{url}?quick=1"), shop.kq("queues", "--url", f"{url}?quick=1")):
        assert said.code in (69, 78)
        assert "no option quick" in said.err


def test_a_redis_without_memory_stores_nothing_and_says_so(
    shop: Place, server: RedisServer, setting: redis.Redis
) -> None:
    setting.config_set("maxmemory", "1mb")
    said = submit(shop, server.url)
    assert said.code == 69
    assert said.err.startswith("KQ304 ")
    assert "nothing was stored" in said.err


def test_a_redis_that_evicts_is_broken_for_the_doctor(shop: Place, server: RedisServer, setting: redis.Redis) -> None:
    setting.config_set("maxmemory-policy", "allkeys-lru")
    said = shop.kq("doctor", "--url", server.url)
    assert said.code == 1
    assert "fail  broker: maxmemory-policy is allkeys-lru" in said.out
    assert "config set maxmemory-policy noeviction" in said.out


def test_a_folder_that_is_not_there(shop: Place) -> None:
    said = submit(shop, "sqlite:///nowhere/kq.db")
    assert said.code == 69
    assert "nowhere does not exist; create it" in said.err


def test_a_file_that_is_no_database(shop: Place) -> None:
    shop.write("kq.db", "text that is longer than the header of a database\n" * 10)
    said = submit(shop, "sqlite:///kq.db")
    assert said.code == 69
    assert "is not an SQLite database; name another file" in said.err


def test_a_file_that_is_read_only(shop: Place) -> None:
    assert submit(shop, "sqlite:///kq.db").code == 0
    for path in shop.folder.glob("kq.db*"):
        path.chmod(0o444 if path.is_file() else 0o555)
    # Root may write what is read-only, unless it gives that right away.
    humble = ["setpriv", "--bounding-set", "-dac_override"] if os.geteuid() == 0 else []
    command = [*humble, *shop.command("submit", "shout", "x", "--url", "sqlite:///kq.db")]
    done = subprocess.run(
        command, cwd=shop.folder, env=shop.environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (69, "")
    assert "kq.db is read-only for this user; change its owner or mode" in done.stderr


@pytest.mark.parametrize("verb", ["workers", "queues", "jobs"])
def test_a_full_disk_can_be_looked_at(shop: Place, verb: str) -> None:
    assert submit(shop, "sqlite:///kq.db").code == 0
    command = ["prlimit", "--fsize=0", *shop.command(verb, "--url", "sqlite:///kq.db")]
    done = subprocess.run(
        command, cwd=shop.folder, env=shop.environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert {"workers": "No worker", "queues": "default", "jobs": "shout"}[verb] in done.stdout


def test_arguments_that_are_too_large(shop: Place) -> None:
    said = shop.kq(
        "submit", "shout", "--kwargs", "-", "--url", "sqlite:///kq.db", stdin=json.dumps({"text": "x" * 2**20})
    )
    assert said.code == 65
    assert said.err.startswith("KQ201 the arguments of jobs.shout take 1,048,")
    assert said.err.endswith("Store the data elsewhere and pass its name.\n")


def test_a_state_store_that_is_not_there(shop: Place) -> None:
    said = shop.kq("workers", "--url", "sqlite:///kq.db", KQ_STATE=f"redis://:hush@127.0.0.1:{free_port()}/0")
    assert said.code == 69
    assert said.err.startswith("KQ501 ")
    assert "hush" not in said.err


def test_a_worker_tells_an_outage_once_and_its_end_even_when_a_job_ends_meanwhile(shop: Place) -> None:
    gate = shop.folder / "gate"
    os.mkfifo(gate)
    # The outage is within the lease, however long it takes: else the job would run again, and read what nobody writes.
    leased = {"KQ_LEASE_LENGTH": "1h"}
    with (
        available(RedisServer) as server,
        worker(shop, "-c", "1", environment={"KQ_URL": server.url, **leased}) as process,
    ):
        assert shop.kq("submit", "read", str(gate), "--url", server.url).code == 0
        with gate.open("w"):  # as soon as the job runs
            server.kill()
            gate.unlink()
            gate.touch()  # a server that was killed may have forgotten that it runs: again, it does not wait
        for _ in range(3):
            assert submit(shop, server.url).code == 69  # tries for a second
        server.start()
        assert shop.kq("submit", "shout", "x", "--wait", "--url", server.url).out == "X\n"
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        log = process.stderr.read()
    assert log.count("trying again") == 1, log
    assert log.count("answers again") == 1, log


def test_a_user_without_a_home_is_told_where_state_may_go(shop: Place) -> None:
    shop.write("file", "")
    for verb in ("workers", "doctor"):
        said = shop.kq(verb, "--url", f"amqp://127.0.0.1:{free_port()}//", XDG_STATE_HOME=str(shop.folder / "file"))
        assert "a bug in kq" not in said.out + said.err
    said = shop.kq("workers", "--url", "amqp://127.0.0.1//", XDG_STATE_HOME=str(shop.folder / "file"))
    assert said.code == 78
    assert "Not a directory" in said.err
    assert "XDG_STATE_HOME" in said.err
