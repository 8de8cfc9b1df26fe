"""The verbs against a real broker and a real worker: what people see, and the forms that scripts rely on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection

import kq
from kq.cli.worker import misspelt
from kq.conformance.contract.waiting import eventually
from tests.cli.conftest import Place, Said, worker

JOBS = '''
import os
import kq

app = kq.App("shop")


@app.job
def add(a: int, b: int) -> int:
    return a + b


@app.job(queue="mail", priority=7)
def shout(text: str, times: int = 1) -> str:
    return text.upper() * times


@app.job
def shout_later(text: str) -> None:
    app.later(shout.job(text), hold="1h")


@app.job
def boom(what: str) -> None:
    raise kq.BadJob(what)


@app.job
def wait_for(path: str) -> None:
    """Until the other end of the FIFO at path is opened."""
    with open(path):
        pass
'''


@pytest.fixture
def empty(shop: Place) -> Place:
    """The same with its file, and nothing in that."""
    app = kq.App("shop", f"sqlite:///{shop.folder / 'kq.db'}")
    app.broker.reach()
    return shop


def found(shop: Place, count: int, fits: Callable[[Any], bool], *verb: str) -> list[Any]:
    """What `kq verb` lists that fits, once there are count."""
    eventually(lambda: sum(map(fits, shop.look(*verb))) >= count, f"{count} are listed by kq {' '.join(verb)}")
    listed = [each for each in shop.kq(*verb, "--json").json if fits(each)]
    assert len(listed) == count, listed
    return listed


def jobs(shop: Place, state: str, count: int = 1) -> list[Any]:
    """The jobs in state, once there are count."""
    return found(shop, count, lambda job: True, "jobs", "ls", "--state", state)


def workers(shop: Place, health: str, count: int = 1) -> list[Any]:
    """The workers of that health, once there are count."""
    return found(shop, count, lambda worker: bool(worker["health"] == health), "workers", "ls")


def ended(said: Said) -> tuple[int, list[str]]:
    return said.code, said.out.splitlines()


# submit


def test_a_submitted_job_waits_and_is_seen(shop: Place) -> None:
    said = shop.kq("submit", "add", "1", "2")
    (id,) = said.out.split()
    assert said.code == 0
    assert shop.kq("jobs", "ls", "--json").json == [
        {
            "schema": 1,
            "id": id,
            "type": "jobs.add",
            "queue": "default",
            "state": "ready",
            "attempt": 0,
            "error": None,
            "parent": None,
        }
    ]
    (default, mail) = shop.kq("--json", "queues", "ls").json
    assert default == {
        "schema": 1,
        "name": "default",
        "ready": 1,
        "delayed": 0,
        "running": 0,
        "buried": 0,
        "workers": 0,
        "parked": 0,
        "singleton": None,
        "paused": None,
    }
    assert (mail["name"], mail["ready"]) == ("mail", 0)


def test_arguments_are_json_but_text_where_the_parameter_is_text(shop: Place) -> None:
    id = shop.kq("submit", "shout", "42", "3").out.strip()
    shown = shop.kq("jobs", "show", id, "--json").json
    assert (shown["args"], shown["kwargs"], shown["queue"], shown["priority"]) == (["42", 3], {}, "mail", 7)


def test_named_arguments_are_a_json_object(shop: Place) -> None:
    id = shop.kq("submit", "add", "--kwargs", '{"a": 1, "b": 2}').out.strip()
    assert shop.kq("jobs", "show", id, "--json").json["kwargs"] == {"a": 1, "b": 2}
    id = shop.kq("submit", "add", "--kwargs", "-", stdin='{"a": 3, "b": 4}').out.strip()
    assert shop.kq("jobs", "show", id, "--json").json["kwargs"] == {"a": 3, "b": 4}


def test_queue_priority_and_delay_are_those_that_were_said(shop: Place) -> None:
    said = shop.kq("submit", "add", "1", "2", "--queue", "slow", "--priority", "9", "--delay", "1h", "--json").json
    assert said["queue"] == "slow"
    shown = shop.kq("jobs", "show", said["id"], "--json").json
    assert (shown["queue"], shown["priority"], shown["state"]) == ("slow", 9, "delayed")
    assert shown["due"] == pytest.approx(time.time() + 3600, abs=60)
    assert re.search(r"delayed +0  due in 59m|delayed +0  due in 1h00m", shop.kq("jobs").out)


def test_a_unique_job_is_submitted_once(shop: Place) -> None:
    first = shop.kq("submit", "add", "1", "2", "--unique", "sum").out
    assert shop.kq("submit", "add", "1", "2", "--unique", "sum").out == first
    assert len(shop.kq("jobs", "--json").json) == 1


def test_what_is_held_is_listed_with_who_staged_it_until_somebody_says_no(shop: Place) -> None:
    with worker(shop):
        assert shop.kq("effects", "held").out.startswith("Nothing is held.")
        parent = shop.kq("submit", "shout_later", "hello", "--wait", "--json").json["id"]
    (held,) = shop.kq("effects", "held", "--queue", "mail", "--json").json
    assert (held["type"], held["state"], held["parent"]) == ("jobs.shout", "delayed", parent)
    assert held["due"] == pytest.approx(time.time() + 3600, abs=60)
    assert re.search(rf'jobs.shout\("hello"\) +mail +in (59m\d\ds|1h00m) +{parent}', shop.kq("effects", "held").out)
    assert f"held, staged by {parent}, due in" in shop.kq("jobs", "ls", "--state", "delayed").out
    assert shop.kq("jobs", "revoke", held["id"], "--reason", "she has paid").code == 0
    assert shop.kq("effects", "held", "--json").json == []
    assert re.search(rf"revoked +{held['id']}.*she has paid", shop.kq("jobs", "audit").out)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("ad", "1"), 2, "app 'shop' has no job type 'ad'. Did you mean 'add'?"),
        (("add", "1", "2", "--queue", "mail.buried"), 2, "queue 'mail.buried' is not free"),
        (("add", "1"), 65, "KQ202 jobs.add"),
        (("add", "1", "x"), 65, "KQ202 jobs.add: argument 'b'"),
        (("add", "1", "2", "3"), 65, "KQ202 jobs.add"),
        (("add", "--kwargs", '{"a": 1, "bb": 2}'), 65, "did you mean 'b'?"),
    ],
)
def test_what_does_not_fit_is_refused_here_and_stored_nowhere(
    empty: Place, arguments: tuple[str, ...], code: int, said: str
) -> None:
    refused = empty.kq("submit", *arguments)
    assert (refused.code, refused.out) == (code, "")
    assert said in refused.err
    assert len(refused.err.splitlines()) <= 2
    assert empty.kq("jobs", "--json").json == []


def test_a_job_type_of_another_program_goes_to_the_queue_that_is_named(shop: Place) -> None:
    assert shop.kq("submit", "other.render", "1", "--queue", "render").code == 0
    (job,) = shop.kq("jobs", "ls", "--queue", "render", "--json").json
    assert (job["type"], job["queue"]) == ("other.render", "render")


# worker


def test_a_worker_runs_jobs_and_submit_waits_for_the_result(shop: Place) -> None:
    with worker(shop, "--pool", "thread", "-c", "2"):
        assert ended(shop.kq("submit", "add", "1", "2", "--wait")) == (0, ["3"])
        assert ended(shop.kq("submit", "shout", "hey", "--wait")) == (0, ["HEY"])
        done = shop.kq("submit", "add", "1", "2", "--wait", "--json").json
        assert (done["state"], done["result"]) == ("completed", 3)
        shown = shop.kq("jobs", "show", done["id"])
        assert "completed" in shown.out
        assert "result  3" in shown.out
        # Nothing is said of what nobody knows any more.
        assert "arguments" not in shown.out
        assert "priority" not in shown.out
    assert "There are no jobs: none waits, runs or lies buried. 3 completed: kq jobs show ID" in shop.kq("jobs").out
    assert shop.kq("jobs", "--state", "buried").out == "There are no such jobs.\n"


@pytest.fixture(params=["sqlite", "redis", "rabbit"])
def broker(request: pytest.FixtureRequest, queue: str) -> Iterator[str]:
    """The URL of each broker that may be shared; queue is gone from it afterwards."""
    if request.param == "sqlite":
        yield "sqlite:///other.db"
        return
    url = str(request.getfixturevalue(f"{request.param}_url"))
    yield url
    if request.param == "rabbit":
        with Connection(url) as connection:
            connection.default_channel.queue_delete(queue)


@pytest.fixture
def queue(prefix: str) -> str:
    return f"{prefix}cli"


def test_another_broker_is_another_url_and_nothing_else(shop: Place, broker: str, queue: str) -> None:
    place = {"KQ_URL": broker, "XDG_STATE_HOME": str(shop.folder / "state")}
    with worker(shop, "--pool", "thread", "-c", "1", "-Q", queue, environment=place):
        said = shop.kq("submit", "add", "20", "22", "--queue", queue, "--wait", "--timeout", "20s", **place)
        assert (said.code, said.out) == (0, "42\n"), said.err


def test_a_job_that_was_buried_is_told_with_1_and_kept_with_its_error(shop: Place) -> None:
    with worker(shop, "--pool", "thread", "-c", "1"):
        failed = shop.kq("submit", "boom", "row 7 has no date", "--wait")
        assert (failed.code, failed.out) == (1, "")
        assert failed.err.startswith("KQ212 job ")
        assert "row 7 has no date" in failed.err
    (job,) = shop.kq("jobs", "ls", "--state", "buried", "--json").json
    assert (job["type"], job["attempt"], job["state"]) == ("jobs.boom", 1, "buried")
    assert "row 7 has no date" in job["error"]
    shown = shop.kq("jobs", "show", job["id"], "--json").json
    assert [attempt["outcome"] for attempt in shown["history"]] == ["raised"]
    assert "boom" in shown["traceback"]
    assert shop.kq("queues", "--json").json[0]["buried"] == 1


def test_who_waits_too_short_is_told_that_the_job_goes_on(shop: Place) -> None:
    said = shop.kq("submit", "add", "1", "2", "--wait", "--timeout", "50ms")
    assert said.code == 75
    assert "has not ended yet\n  It goes on" in said.err


def test_workers_are_listed_with_health_lease_and_what_they_run(shop: Place) -> None:
    fifo = shop.folder / "fifo"
    os.mkfifo(fifo)
    with worker(shop, "--pool", "process", "-c", "1", "-Q", "default:1,mail") as process:
        shop.kq("submit", "wait_for", str(fifo))
        jobs(shop, "running")
        (seen,) = workers(shop, "alive")
        assert (seen["health"], seen["pid"], seen["pool"]) == ("alive", process.pid, "process")
        assert set(seen["queues"]) == {"default", "mail"}
        assert 0 < seen["lease_left"] <= seen["lease"] == 15.0
        assert seen["name"] in shop.kq("workers").out
        with fifo.open("w"):
            pass


def test_a_worker_that_was_told_to_end_says_so_at_once(shop: Place) -> None:
    fifo = shop.folder / "fifo"
    os.mkfifo(fifo)
    with worker(shop, "-c", "1") as process:
        shop.kq("submit", "wait_for", str(fifo))
        jobs(shop, "running")
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert "told to end: 1 running, up to 5.0s for them" in process.stderr.readline()
        (seen,) = found(shop, 1, lambda worker: bool(worker["stopping"]), "workers")
        assert [job["type"] for job in seen["running"]] == ["jobs.wait_for"]
        with fifo.open("w"):
            pass


def test_a_worker_that_says_nothing_any_more_is_told_as_dead(shop: Place) -> None:
    shop.write("kq.yaml", "url: sqlite:///kq.db\napp: jobs:app\nlease: {length: 3s}\n")
    with worker(shop, "--pool", "thread", "-c", "1") as process:
        workers(shop, "alive")
        process.send_signal(signal.SIGSTOP)
        try:
            (seen,) = workers(shop, "dead")
            assert seen["lease_left"] == 0
        finally:
            process.send_signal(signal.SIGCONT)


def log_of(process: subprocess.Popen[str]) -> list[str]:
    """What a worker has written when it is told to end now."""
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    return process.stderr.readlines()


def test_the_log_tells_each_start_and_end_of_a_job_when_it_is_to_say_more(shop: Place) -> None:
    with worker(shop, "-c", "1", "-v") as process:
        done = shop.kq("submit", "add", "1", "2", "--wait", "--json").json["id"]
        failed = shop.kq("submit", "boom", "row 7", "--wait")
        lines = [line.partition(" INFO ")[2].strip() for line in log_of(process)]
    assert failed.code == 1
    assert f"jobs.add {done} (default, attempt 1) started" in lines
    (end,) = [line for line in lines if "completed" in line]
    assert re.fullmatch(rf"jobs.add {done} \(default, attempt 1\) completed after [\d.]+(µs|ms|s)", end)


def test_failures_are_logged_anyway_and_the_rest_is_not(shop: Place) -> None:
    with worker(shop, "-c", "1", "--json") as process:
        shop.kq("submit", "add", "1", "2", "--wait")
        shop.kq("submit", "boom", "row 7", "--wait")
        events = [json.loads(line) for line in log_of(process)]
    told = [event for event in events if "job" in event]
    assert [(event["event"], event["type"], event["attempt"], event["level"]) for event in told] == [
        ("buried", "jobs.boom", 1, "warning")
    ]
    assert "row 7" in told[0]["message"]
    assert told[0]["seconds"] < 5


def test_several_workers_may_run_side_by_side(shop: Place) -> None:
    with worker(shop, "--pool", "thread", "-c", "1", "--processes", "2", count=2):
        assert len(workers(shop, "alive", 2)) == 2
    assert shop.kq("workers", "--json").json == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--pool", "fibre"), "'fibre' is not one of"),
        (("-c", "0"), "0 is not in the range"),
        (("--grace", "soon"), "'soon' is no duration"),
    ],
)
def test_a_worker_with_wrong_options_does_not_start(shop: Place, arguments: tuple[str, ...], said: str) -> None:
    refused = shop.kq("worker", *arguments)
    assert refused.code == 2
    assert said in refused.err


def test_a_worker_takes_nothing_from_queues_that_are_not_the_applications(shop: Place) -> None:
    refused = shop.kq("worker", "-Q", "default,mail.buried")
    assert refused.code == 78
    assert refused.err.startswith("KQ101 queue 'mail.buried' is not free")


def test_a_queue_that_may_be_misspelt_is_noticed() -> None:
    app = kq.App("shop")
    app.job(name="send", queue="mail")(lambda: None)
    assert misspelt(["mial", "mail", "other"], app) == {"mial": "Did you mean 'mail'?"}


def test_a_worker_whose_application_does_not_import_ends_with_the_reason(shop: Place) -> None:
    shop.write("jobs.py", "1 / 0\n")
    refused = shop.kq("worker")
    assert refused.code == 78
    assert "can't be imported: ZeroDivisionError" in refused.err
    assert "jobs.py" in refused.err


# looking


def test_a_job_that_nobody_knows_is_told_with_1(empty: Place) -> None:
    said = empty.kq("jobs", "show", "0000")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("KQ502 no job '0000' is known")


def test_a_long_name_does_not_push_the_other_columns_off_the_screen(shop: Place) -> None:
    name = "long" * 1000
    shop.write("more.py", f"import kq\napp = kq.App('more')\n@app.job(name='{name}')\ndef long() -> None: ...\n")
    assert shop.kq("-A", "more:app", "submit", "long" * 1000).code == 0
    assert shop.kq("submit", "add", "1", "2").code == 0
    all_of_it = shop.kq("jobs").out
    assert name in all_of_it
    assert min(map(len, all_of_it.splitlines())) < 150
    shown = on_a_terminal(shop, 150, "jobs")
    assert max(map(len, shown)) <= 150
    assert [re.split(" {2,}", line)[2] for line in shown] == ["QUEUE", "default", "default"]


def test_a_narrow_terminal_has_the_states_and_ids_rather_than_all_columns(shop: Place) -> None:
    job = shop.kq("submit", "boom", '"it broke"', "--json").json["id"]
    shop.kq("jobs", "bury", job)
    shop.kq("submit", "shout", "x")
    seen = on_a_terminal(shop, 80, "status")
    (head,) = [line for line in seen if line.startswith("QUEUE")]
    assert (head.split()[-1], "OLDEST" in head, "RETRYING" in head) == ("STATE", True, False)
    assert any(line.split()[0] == "mail" and line.endswith("unserved") for line in seen if line)
    assert any(line.endswith(job) for line in on_a_terminal(shop, 80, "jobs", "ls", "--group"))
    assert "RETRYING" in shop.kq("status").out


def test_long_names_are_told_from_each_other_on_a_terminal(shop: Place) -> None:
    queues = [f"orders-of-the-big-customers-in-europe-that-pay-by-invoice-and-late-{number}" for number in range(3)]
    for queue in queues:
        assert shop.kq("submit", "shout", "x", "--queue", queue).code == 0
    for columns in (80, 120, 200):
        for verb in (("status",), ("queues", "ls")):
            seen = on_a_terminal(shop, columns, *verb)
            rows = [line for line in seen if re.match(r"orders\S*…\S*late-\d ", line)]
            assert sorted(line.split()[0][-1] for line in rows) == ["0", "1", "2"], seen
            assert all(len(line.split()[0]) <= 40 and "1" in line.split() for line in rows), rows
    assert all(queue in shop.kq("status").out for queue in queues)


def on_a_terminal(shop: Place, columns: int, *arguments: str) -> list[str]:
    """What `kq arguments` prints on a terminal that is so wide."""
    ours, theirs = os.openpty()
    environment = shop.environment(COLUMNS=str(columns), TERM="dumb")
    subprocess.run(shop.command(*arguments), cwd=shop.folder, env=environment, stdout=theirs, timeout=60, check=True)
    os.close(theirs)
    with open(ours, "rb", buffering=0) as screen:
        return screen.read(4096).decode().splitlines()


def test_an_empty_place_says_so_and_is_empty_as_json(empty: Place) -> None:
    assert "There are no jobs" in empty.kq("jobs").out
    assert "Start one: kq worker" in empty.kq("workers").out
    assert empty.kq("jobs", "--json").json == []
    assert empty.kq("workers", "--json").json == []


@pytest.mark.parametrize("verb", [("jobs",), ("jobs", "show", "0000"), ("queues",), ("workers",)], ids=" ".join)
def test_who_looks_in_a_wrong_folder_is_told_so_and_makes_no_broker_there(shop: Place, verb: tuple[str, ...]) -> None:
    said = shop.kq(*verb)
    assert (said.code, said.out) == (69, "")
    assert said.err.startswith(f"KQ302 there is no broker yet: there is no file {shop.folder}/kq.db\n")
    assert said.err.endswith("Is this the right folder?\n")
    assert sorted(path.name for path in shop.folder.iterdir()) == ["jobs.py", "kq.yaml"]


def test_a_broker_is_looked_at_without_importing_a_broken_application(shop: Place) -> None:
    shop.kq("submit", "add", "1", "2")
    shop.write("jobs.py", "1 / 0\n")
    assert shop.kq("queues").code == 78
    assert [queue["ready"] for queue in shop.kq("queues", "--url", "sqlite:///kq.db", "--json").json] == [1]


def test_names_that_would_move_the_cursor_are_spelt_out(shop: Place) -> None:
    id = shop.kq("submit", "evil\n\x1b]0;owned\x07\u202eli", "--queue", "default").out.strip()
    shop.kq("submit", "boom", "\x1b[2Jgone")
    with worker(shop, "--pool", "thread") as running:
        waited = shop.kq("submit", "boom", "\x1b[2Jgone", "--wait")
        jobs(shop, "buried", 3)
        running.send_signal(signal.SIGTERM)
        assert running.stderr is not None
        log = running.stderr.read()
    listed, shown = shop.kq("jobs", "ls").out, shop.kq("jobs", "show", id).out
    for text in (listed, shown, log, waited.err):
        assert not set("\x1b\x07\u202e") & set(text)
        assert r"\x1b" in text
    assert len(listed.splitlines()) == 4
    assert r"arguments  evil\n\x1b]0;owned\x07\u202eli()" in shown


def test_output_may_be_cut_by_who_reads_it(empty: Place) -> None:
    pipe, cut = os.pipe()
    os.close(pipe)
    done = subprocess.run(
        empty.command("queues"),
        cwd=empty.folder,
        env=empty.environment(),
        stdout=cut,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    os.close(cut)
    assert (done.returncode, done.stderr) == (1, b"")


# doctor


def test_the_doctor_prints_settings_with_origins_and_finds_what_is_well(shop: Place) -> None:
    said = shop.kq("doctor", KQ_WORKER_GRACE="1m")
    assert said.code == 0, said.out
    assert re.search(r"^url +sqlite:///.*kq\.db +kq\.yaml:1$", said.out, re.MULTILINE)
    assert re.search(r"^worker\.grace +1m00s +KQ_WORKER_GRACE$", said.out, re.MULTILINE)
    assert "submit, take and settle one job" in said.out
    assert "jobs:app has 5 job types" in said.out
    assert "none is alive" in said.out


def test_the_doctor_speaks_json_too(shop: Place) -> None:
    said = shop.kq("doctor", "--json").json
    assert said["ok"] is True
    assert {"key": "app", "value": "jobs:app", "origin": "kq.yaml:2"} in said["settings"]
    assert {"ok", "warn"} == {finding["level"] for finding in said["findings"]}


def test_the_doctor_puts_what_is_broken_last_and_ends_with_1(shop: Place) -> None:
    shop.write("jobs.py", "1 / 0\n")
    said = shop.kq("doctor")
    assert said.code == 1
    last = [line for line in said.out.splitlines() if not line.startswith(" ")][-1]
    assert last.startswith("fail  application: jobs:app can't be imported: ZeroDivisionError")


def test_the_doctor_tells_a_broker_that_is_not_there_without_its_password(shop: Place) -> None:
    said = shop.kq("doctor", "--url", "redis://:hush@127.0.0.1:1/0")
    assert said.code == 1
    assert "fail  broker: redis://:***@127.0.0.1:1/0 does not answer" in said.out
    assert "hush" not in said.out + said.err


def test_the_doctor_notices_a_misspelt_variable_and_a_queue_without_a_worker(shop: Place) -> None:
    shop.kq("submit", "shout", "x")
    with worker(shop, "--pool", "thread", "-c", "1", "-Q", "default"):
        workers(shop, "alive")
        said = shop.kq("doctor", KQ_ULR="x")
        assert "KQ_ULR is set but means nothing to kq\n      Did you mean KQ_URL?" in said.out
        assert "queue mail has 1 job ready and no worker" in said.out
        assert "workers: 1 alive" in said.out


def test_the_doctor_warns_of_a_password_that_others_may_read(shop: Place) -> None:
    for setting in (
        "url: redis://:hush@127.0.0.1:1/0",
        "url: amqp://127.0.0.1:1//\nstate: redis://:hush@127.0.0.1:1/0",
    ):
        path: Path = shop.write("kq.yaml", f"{setting}\n")
        path.chmod(0o644)
        assert "kq.yaml holds a password and others may read it" in shop.kq("doctor").out
        path.chmod(0o600)
        assert "holds a password" not in shop.kq("doctor").out


def test_the_doctor_says_that_state_beside_a_broker_stays_on_this_host(shop: Place) -> None:
    said = shop.kq("doctor", "--url", "amqp://guest:hush@127.0.0.1:1//", XDG_STATE_HOME=str(shop.folder / "state"))
    assert "results and worker records are kept in a file of this host" in said.out
    assert "hush" not in said.out + said.err
