"""`kq doctor`: one test for each set-up that is broken, or worth a look. More are in test_verbs, test_bad_weather."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from kombu import Connection

from kq.app import App
from kq.cli.doctor import alerts, crew, host, server
from kq.cli.doctor.finding import Finding
from kq.conformance.contract.mailserver import MailServer
from kq.control import Health, Heartbeat, WorkerInfo
from kq.url import parse
from tests.cli.conftest import Place, Said, worker
from tests.conftest import available
from tests.servers import RabbitNode, RedisServer

JOBS = """
import kq

app = kq.App("shop", queue="shop")


@app.job
def shout(text: str) -> str:
    return text.upper()
"""


@pytest.fixture(scope="module")
def server_of_mine() -> Iterator[RedisServer]:
    """A Redis that these tests may set up badly."""
    with available(RedisServer) as running:
        yield running


def doctor(shop: Place, *arguments: str, **environment: str) -> list[Finding]:
    """What it finds; its exit code says whether anything is broken."""
    said = shop.kq("doctor", "--json", *arguments, **environment)
    found = [Finding(f["level"], f["about"], f["message"], f["fix"] or "") for f in said.json["findings"]]
    broken = any(finding.level == "fail" for finding in found)
    assert (said.code, said.json["ok"]) == ((1, False) if broken else (0, True)), said
    return found


def found(findings: list[Finding], text: str) -> Finding:
    """The one that says text."""
    fitting = [finding for finding in findings if text in finding.message]
    assert len(fitting) == 1, findings
    return fitting[0]


# Settings.


def test_a_setting_that_is_none(shop: Place) -> None:
    shop.write("kq.yaml", "url: sqlite:///kq.db\nwroker: {}\n")
    (finding,) = doctor(shop)
    assert (finding.level, finding.about) == ("fail", "settings")
    assert finding.message == "wroker in kq.yaml:2 is no setting (KQ101)"
    assert finding.fix == "Did you mean worker?"


def test_no_config_file(place: Place) -> None:
    findings = doctor(place)
    assert found(findings, "no config file").level == "ok"
    assert found(findings, "none is named").about == "application"


def test_a_url_that_is_none(shop: Place) -> None:
    finding = found(doctor(shop, KQ_URL="redos://h"), "no broker has the scheme redos://")
    assert (finding.level, finding.about) == ("fail", "URL")
    assert "Did you mean redis://?" in finding.fix


def test_a_driver_that_is_not_installed(shop: Place) -> None:
    (shop.folder / "without").mkdir()
    shop.write("without/sitecustomize.py", "import sys\nsys.modules['redis'] = None\n")
    path = os.pathsep.join([str(shop.folder / "without"), Place.environment()["PYTHONPATH"]])
    finding = found(doctor(shop, "--url", "redis://h/0", PYTHONPATH=path), "needs the Python package redis")
    assert (finding.level, finding.fix) == ("fail", "pip install 'kq-jobs[redis]'")


def test_a_password_on_the_command_line(shop: Place) -> None:
    finding = found(
        doctor(shop, "--url", "redis://:hush@127.0.0.1:1/0"), "the URL on the command line holds a password"
    )
    assert finding.level == "warn"
    assert "url_file" in finding.fix


def test_a_password_in_a_variable(shop: Place) -> None:
    said = doctor(shop, KQ_URL="redis://:hush@127.0.0.1:1/0", KQ_ALERTS_WEBHOOK="https://hooks.example.org/hush")
    for name in ("KQ_URL", "KQ_ALERTS_WEBHOOK"):
        finding = found(said, f"{name} holds a password")
        assert (finding.level, f"{name}_FILE" in finding.fix) == ("warn", True)
    assert not [each for each in doctor(shop, KQ_URL="redis://127.0.0.1:1/0") if "holds a password" in each.message]


# This host.


@pytest.mark.parametrize(("uid", "level"), [(0, "warn"), (1000, "ok")])
def test_who_runs_kq(uid: int, level: str) -> None:
    assert host.user(uid).level == level


@pytest.mark.parametrize(
    ("soft", "hard", "level", "fix"),
    [
        (1024, 4096, "ok", ""),
        (256, 4096, "warn", "ulimit -n 840; in a systemd unit LimitNOFILE=."),
        (256, 256, "warn", "Raise the hard limit, 256, first; in a systemd unit LimitNOFILE=."),
        (-1, -1, "ok", ""),
    ],
)
def test_how_many_files_may_be_open(soft: int, hard: int, level: str, fix: str) -> None:
    finding = host.files(soft, hard, slots=100)
    assert (finding.level, finding.fix) == (level, fix)


def test_too_few_files_may_be_open(shop: Place) -> None:
    shop.write("kq.yaml", "url: sqlite:///kq.db\nworker: {concurrency: 40}\n")
    command = ["prlimit", "--nofile=300", *shop.command("doctor")]
    done = subprocess.run(
        command, cwd=shop.folder, env=shop.environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert "warn  host: a process may open 300 files; a worker for 40 jobs at once needs about 360" in done.stdout


def test_a_file_that_others_may_read_or_replace(shop: Place) -> None:
    shop.kq("submit", "shout", "x")
    shop.folder.chmod(0o700)
    assert [finding for finding in doctor(shop) if "may be" in finding.message] == []
    (shop.folder / "kq.db").chmod(0o644)
    shop.folder.chmod(0o777)
    findings = doctor(shop)
    assert found(findings, "may be read or written by others").level == "warn"
    assert found(findings, f"the folder {shop.folder} may be written by others").level == "warn"


# The application.


def test_a_job_type_that_is_defined_twice(shop: Place) -> None:
    shop.write("jobs.py", JOBS + '\n@app.job(name="jobs.shout")\ndef other() -> None: ...\n')
    finding = found(doctor(shop), "job type 'jobs.shout' is defined twice")
    assert (finding.level, finding.about) == ("fail", "application")


def test_an_application_without_job_types(shop: Place) -> None:
    shop.write("jobs.py", "import kq\napp = kq.App('shop')\n")
    assert found(doctor(shop), "jobs:app has no job types").level == "warn"


def test_an_annotation_that_means_nothing_to_json(shop: Place) -> None:
    shop.write("jobs.py", JOBS + "\nclass Image: ...\n\n@app.job\ndef crop(image: Image, width: int, rest=1): ...\n")
    finding = found(doctor(shop), "has an annotation")
    assert (finding.level, finding.message.partition(" has ")[0]) == ("warn", "parameter 'image' of jobs.crop")


# Broker and state store.


def test_a_wrong_password(shop: Place, server_of_mine: RedisServer) -> None:
    with redis.Redis.from_url(server_of_mine.url) as client:
        client.config_set("requirepass", "hush")
        try:
            findings = doctor(shop, KQ_URL=server_of_mine.url.replace("redis://", "redis://:letmein@"))
            assert found(findings, "refuses this user").level == "fail"
        finally:
            client.config_set("requirepass", "")
    assert not [finding for finding in findings if "letmein" in f"{finding}"]


def test_entries_that_cant_be_read(shop: Place, server_of_mine: RedisServer) -> None:
    url = server_of_mine.url
    log = "entries that can't be read were set aside (1)"
    with redis.Redis.from_url(url) as client:
        with worker(shop, "-c", "1", environment={"KQ_URL": url, "KQ_LEASE_LENGTH": "1s"}) as running:
            client.zadd("kq:{shop}:beside", {"foreign": 1})
            assert shop.kq("submit", "shout", "x", "--wait", KQ_URL=url).out == "X\n"
            assert running.stderr is not None
            lines = [next(line for line in running.stderr if log in line)]
            running.send_signal(signal.SIGTERM)
            lines += [line for line in running.stderr if log in line]
        assert len(lines) == 1
        finding = found(doctor(shop, KQ_URL=url), "1 in kq:{shop}:aside")
        assert finding.level == "warn"
        assert "redis-cli lrange 'kq:{shop}:aside' 0 -1" in finding.message
        client.delete("kq:{shop}:aside")
        assert not [each for each in doctor(shop, KQ_URL=url) if "set aside" in each.message]


def test_a_user_who_may_do_what_kq_needs_and_no_more(shop: Place, server_of_mine: RedisServer) -> None:
    page = (Path(__file__).parents[2] / "docs" / "transports.md").read_text()
    (words,) = re.findall(r"ACL SETUSER (shop [^`]*)", page)
    url = server_of_mine.url.replace("redis://", "redis://shop:secret@")
    with redis.Redis.from_url(server_of_mine.url) as client:
        try:
            for more in ("", "-info -config|get -acl|getuser"):
                client.execute_command("ACL", "SETUSER", *f"{words} {more}".split())
                findings = doctor(shop, KQ_URL=url)
                assert found(findings, "submit, take and settle one job").level == "ok"
                assert not [finding for finding in findings if finding.level == "fail"]
            client.execute_command("ACL", "SETUSER", "shop", "-time")
            finding = found(doctor(shop, KQ_URL=url), "has no permissions to run the 'time' command; give it ~kq:*")
            assert (finding.level, "user_script" in finding.message) == ("fail", False)
        finally:
            client.execute_command("ACL", "DELUSER", "shop")


def test_a_database_that_is_not_there(shop: Place, server_of_mine: RedisServer) -> None:
    finding = found(doctor(shop, KQ_URL=f"redis://127.0.0.1:{server_of_mine.port}/99"), "DB index is out of range")
    assert (finding.level, finding.about) == ("fail", "broker")


def test_a_virtual_host_that_is_not_there_and_a_user_that_is_not_let_in(shop: Place, rabbit_node: RabbitNode) -> None:
    place = {"XDG_STATE_HOME": str(shop.folder / "state")}
    base = rabbit_node.url.removesuffix("//")
    assert found(doctor(shop, KQ_URL=f"{base}/nowhere", **place), "vhost nowhere not found").level == "fail"
    finding = found(doctor(shop, KQ_URL=f"{base.replace('guest:guest', 'guest:wrong')}//", **place), "refuse")
    assert finding.level == "fail"


def test_a_redis_that_keeps_nothing_and_is_full(shop: Place, server_of_mine: RedisServer) -> None:
    usual = {"appendonly": "yes", "maxmemory": "0"}
    with redis.Redis.from_url(server_of_mine.url) as client:
        client.config_set("appendonly", "no")
        client.config_set("maxmemory", "1mb")
        try:
            findings = doctor(shop, KQ_URL=server_of_mine.url)
        finally:
            for name, value in usual.items():
                client.config_set(name, value)
    assert found(findings, "appendonly is no: jobs are lost when the server restarts").level == "warn"
    assert found(findings, "refuses to store more").level == "fail"


@pytest.mark.parametrize(
    ("product", "text", "said"),
    [
        ("redis", "6.0.16", [("fail", "too old"), ("warn", "CVE-2025-49844")]),
        ("redis", "7.0.15", [("warn", "CVE-2025-49844")]),
        ("redis", "7.2.10", [("warn", "CVE-2025-49844")]),
        ("redis", "7.2.11", []),
        ("redis", "8.4.0", []),
        ("valkey", "8.1.3", [("warn", "CVE-2025-49844")]),
        ("valkey", "9.0.0", []),
        ("RabbitMQ", "3.12.1", [("fail", "too old")]),
        ("RabbitMQ", "4.1.0", []),
        ("redis", "unknown", []),
        ("", "3.46.1", []),
    ],
)
def test_a_server_that_is_too_old(product: str, text: str, said: list[tuple[str, str]]) -> None:
    findings = list(server.version(product, text))
    assert [finding.level for finding in findings] == [level for level, _ in said]
    assert all(words in finding.message for finding, (_, words) in zip(findings, said, strict=True))


@pytest.mark.parametrize(
    ("url", "auth", "open_"),
    [
        ("redis://cache-1:6379/0", "no", True),
        ("redis://localhost:6379/0;redis://10.0.0.7:6379/0", "no", True),
        ("redis://10.0.0.7:6379/0", "yes", False),
        ("redis://127.0.0.1:6379/0", "no", False),
        ("redis://[::1]:6379/0", "no", False),
        ("unix:///run/redis.sock", "no", False),
        ("sqlite:///kq.db", "", False),
    ],
)
def test_a_broker_that_lets_strangers_in(url: str, auth: str, open_: bool) -> None:
    findings = list(server.door(parse(url).local, auth))
    assert [finding.level for finding in findings] == ["warn"] * open_


@pytest.mark.parametrize(("size", "level"), [(4152, "ok"), (300_000_000, "warn")])
def test_a_log_that_grows_because_somebody_reads_for_long(size: int, level: str) -> None:
    assert [finding.level for finding in server.fact("log bytes", str(size))] == [level]


def test_a_queue_that_somebody_declared_otherwise(shop: Place, rabbit_url: str, prefix: str) -> None:
    queue = f"{prefix}mail"
    shop.write("jobs.py", JOBS.replace('queue="shop"', f"queue={queue!r}"))
    place = {"KQ_URL": rabbit_url, "XDG_STATE_HOME": str(shop.folder / "state")}
    with Connection(rabbit_url) as connection:
        connection.default_channel.queue_declare(
            queue, durable=True, auto_delete=False, arguments={"x-max-priority": 5}
        )
        try:
            finding = found(doctor(shop, **place), queue)
        finally:
            connection.default_channel.queue_delete(queue)
    assert (finding.level, finding.about) == ("fail", "queues")


@pytest.mark.parametrize(("ahead", "said"), [(1.5, []), (-7200, ["2h00m"]), (90, ["1m30s"])])
def test_clocks_that_differ(ahead: float, said: list[str]) -> None:
    findings = [*server.clock("its clock and this host's", ahead, "state"), *crew.clocks([info(clock=1000 + ahead)])]
    assert [finding.message.rpartition(" ")[2] for finding in findings] == said * 2


# Workers.


def info(name: str = "web-1", queue: str = "shop", **more: object) -> WorkerInfo:
    """A worker as it describes itself."""
    usual = {"host": "web", "pid": 1, "started": 1.0, "beat": 1000.0, "lease": 15.0, "pool": "process", "slots": 1}
    return WorkerInfo(name=name, queues={queue: 1}, **{**usual, **more})  # type: ignore[arg-type]


def test_workers_that_do_not_beat() -> None:
    beats = [Heartbeat(info(), Health.ALIVE, 4.0), Heartbeat(info("web-2"), Health.LATE, 9.0)]
    late, alive = crew.health([*beats])
    assert (late.level, late.message) == ("warn", "web-2 is late, last beat 9.0s ago")
    assert (alive.level, alive.message) == ("ok", "1 alive, the oldest beat 4.0s ago")
    dead = [Heartbeat(info("web-3"), Health.DEAD, 40.0), Heartbeat(info("web-4", retired=1.0), Health.DEAD, 900.0)]
    first, *_ = crew.health(dead)  # of the other control has told, and others have what it had
    assert [each.message for each in crew.health(dead)] == [first.message, "none is alive"]
    assert (first.message, first.fix) == (
        "web-3 is dead, last beat 40s ago",
        "Its jobs go to others, if any live: kq status",
    )
    (none,) = crew.health([])
    assert (none.level, none.fix) == ("warn", "Start one: kq worker")


def test_workers_with_different_code() -> None:
    same = list(crew.versions([info(code="a"), info("web-2", code="a"), info("web-3", "mail", code="b")]))
    assert same == []
    findings = list(crew.versions([info(code="a"), info("web-2", code="b", kq="9.9")]))
    assert "queue shop run different code: a (1), b (1)" in findings[0].message
    assert findings[1].message.startswith("web-2 runs kq 9.9, here is ")


def test_a_worker_on_a_queue_that_nobody_uses(shop: Place) -> None:
    with worker(shop, "--pool", "thread", "-c", "1", "-Q", "shop,shpo"):
        findings = doctor(shop)
    finding = found(findings, "queue shpo has workers, but no job type uses it and it is empty")
    assert (finding.level, "The application's queues are shop" in finding.fix) == ("warn", True)
    assert found(findings, "1 alive").level == "ok"
    with worker(shop, "--pool", "thread", "-c", "1", environment={"KQ_ALERTS_COMMAND": "true"}):
        workers = [each.message for each in doctor(shop) if each.about == "workers"]
    assert not [each for each in workers if "kq-alerts" in each], "the queue of alerts is kq's own"
    assert not [each for each in findings if "clock" in each.message or "different code" in each.message]


def test_workers_that_have_older_code(shop: Place) -> None:
    with worker(shop, "--pool", "thread", "-c", "1"):
        shop.write("jobs.py", JOBS + "\n\n@app.job\ndef whisper(text: str) -> str:\n    return text.lower()\n")
        findings = doctor(shop)
    finding = found(findings, "no worker of queue shop knows the job type jobs.whisper: it would be buried")
    assert (finding.level, "HUP" in finding.fix) == ("warn", True)
    assert found(findings, "the application here has version").level == "warn"


def test_groups_stand_apart_and_what_is_broken_comes_last(shop: Place) -> None:
    shop.write("jobs.py", "1 / 0\n")
    said: Said = shop.kq("doctor")
    levels = [line[:4].strip() for line in said.out.splitlines() if line[:4].strip() in ("ok", "warn", "fail")]
    assert levels == sorted(levels, key=["ok", "warn", "fail"].index)
    assert said.code == 1
    assert len(said.out.split("\n\n")) == 1 + len(set(levels))


def test_the_broker_of_a_test_lives_as_long_as_the_test(tmp_path: Path) -> None:
    app = App("shop", "memory://doctor")
    assert "as long as this process lives" in [*server.broker(app)][-1].message
    app.close()


def test_alerts_that_could_not_be_sent_are_found_before_they_are_needed(shop: Place) -> None:
    with MailServer() as post:
        told = doctor(shop, KQ_ALERTS_MAIL="ops@example.org", KQ_MAIL=post.url, KQ_ALERTS_COMMAND="true")
        assert found(told, "go to ops@example.org").level == "ok"
        assert found(told, "go to the command true").level == "ok"
        assert not post.accepted
    gone = {"KQ_ALERTS_MAIL": "ops@example.org", "KQ_MAIL": post.url, "KQ_ALERTS_COMMAND": "/nowhere/page"}
    told = doctor(shop, **gone, KQ_ALERTS_WEBHOOK="http://127.0.0.1:1/s3cret")
    assert found(told, "takes no mail").level == "fail"
    assert found(told, "the webhook's host 127.0.0.1 is not reached").level == "fail"
    assert found(told, "there is no command '/nowhere/page'").level == "fail"


def test_a_rule_about_a_queue_that_is_not_there(shop: Place) -> None:
    rules = {"KQ_ALERTS_COMMAND": "true", "KQ_ALERTS_RULES": "shpo:oldest>1m,shop:oldest>1m,unserved>0"}
    shop.kq("submit", "shout", "x")
    told = [finding for finding in doctor(shop, **rules) if "the rule" in finding.message]
    assert [(finding.level, finding.message, finding.fix) for finding in told] == [
        ("warn", "the rule shpo:oldest>1m is about queue 'shpo', which is not there", "Did you mean 'shop'?")
    ]


@pytest.mark.parametrize(
    ("command", "meaningless"),
    [
        ("cat | logger", "|"),
        ("true && page", "&"),
        ("cat >/tmp/alert", ">/tmp/alert"),
        ("cat 2>&1", "2>&1"),
        ("cat; page", ";"),
        ("cat $HOME/alert", "$HOME/alert"),
        ("cat `which page`", "`"),
        ("cat ~/alert", "~/"),
    ],
)
def test_a_command_for_alerts_in_which_only_a_shell_sees_more_than_words(
    monkeypatch: pytest.MonkeyPatch, command: str, meaningless: str
) -> None:
    monkeypatch.setenv("KQ_ALERTS_COMMAND", command)
    (finding,) = alerts.channels(App("shop", "memory://doctor"))
    assert finding.level == "fail"
    assert f"is not run by a shell, so {meaningless!r} in it means nothing" in finding.message


@pytest.mark.parametrize(
    "command", ["sh -c 'cat | logger'", "curl -d @- https://h/?a=1&b=2", 'cat "a|b" c\\;', 'sh -c "echo $1"']
)
def test_a_command_for_alerts_that_needs_no_shell_of_ours(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("KQ_ALERTS_COMMAND", command)
    (finding,) = alerts.channels(App("shop", "memory://doctor"))
    assert "is not run by a shell" not in finding.message


def test_a_mail_server_of_the_application_that_takes_no_mail(shop: Place) -> None:
    with MailServer() as post:
        mailers = f"""
import kq.mail
kq.mail.mailer(app, {post.url!r}, sender="shop@example.org")
kq.mail.mailer(app, sender="shop@example.org", name="news")
"""
        shop.write("jobs.py", JOBS + mailers)
        assert found(doctor(shop, KQ_MAIL="log:"), "kq.mail sends by").level == "ok"
        assert not post.accepted
    told = doctor(shop, KQ_MAIL="log:")
    assert found(told, "news sends by log:").level == "ok"
    gone = found(told, "takes no mail")
    assert (gone.level, gone.about) == ("fail", "mail")


def test_the_address_of_a_webhook_is_a_secret(shop: Place) -> None:
    said = shop.kq("doctor", KQ_ALERTS_WEBHOOK="http://127.0.0.1:1/services/s3cret")
    assert "http://127.0.0.1/***" in said.out
    assert "s3cret" not in said.out + said.err
