"""Text that strangers wrote, on its way to a terminal, a log or a script; and what the processes of jobs inherit."""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import signal
import subprocess
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from kq.app import App
from kq.broker import declare_missing
from kq.cli import events, logs
from kq.cli.lines import JSONLines, Lines, Logfmt
from kq.conformance.contract.waiting import eventually
from kq.plain import LONGEST, printable, printable_json
from kq.values.event import Event
from tests.cli.conftest import Place, worker

#: A new line that looks like one of the log's, colours, a title, a bell, a C1 escape, bidi overrides, another line end,
#: and what has no width: a space, a soft hyphen, a variation selector, a tag.
EVIL = (
    "a\n2026-01-01 00:00:00,000 ERROR   forged\r\x1b[2J\x1b]0;owned\x07\x9b31m"
    "\u202eli\u2066\u2028\u061cz\u200b\u00ad\ufe0f\U000e0041"
)
RAW = set("\r\x1b\x07\x9b\u202e\u2066\u2028\u061c\u200b\u00ad\ufe0f\U000e0041")
JOBS = """
import os, subprocess, sys
from pathlib import Path
import kq

app = kq.App("shop")
LOOK = "import os; print(*sorted(os.environ), *os.environ.values()); print(len(os.listdir('/proc/self/fd')))"


@app.job
def inherited() -> list[str]:
    '''What a program sees that a job starts, and what the job itself does.'''
    mine = Path(f"/proc/{os.getppid()}/environ").read_text() + Path("/proc/self/environ").read_text()
    return [*subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True).stdout.splitlines(), mine]


@app.job
def give(text: str) -> str:
    return text


@app.job
def fail(text: str) -> None:
    raise kq.BadJob(text)
"""


def put(shop: Place, id: str, type: str, **more: object) -> None:
    """Publish a message as a stranger would."""
    app = App("shop", f"sqlite:///{shop.folder}/kq.db")
    with app.broker.connection() as connection, connection.channel() as channel:
        declare_missing(channel, ["default"], set())
        headers = {"kq": 1, "id": id, "type": type, "submitted": 1.0, **more}
        message = channel.prepare_message(b"{}", 5, "application/json", "utf-8", headers, {"message_id": id})
        channel.basic_publish(message, exchange="", routing_key="default")


def test_names_that_strangers_chose_forge_no_line_anywhere(shop: Place) -> None:
    put(shop, f"id{EVIL}", f"type{EVIL}")
    with worker(shop, "--pool", "thread", "-c", "1") as running:
        failed = shop.kq("submit", "fail", EVIL, "--wait")
        eventually(lambda: len(shop.look("jobs", "--state", "buried")) == 2, "both lie buried")
        running.send_signal(signal.SIGTERM)
        assert running.stderr is not None
        log = running.stderr.read()
    looks = [
        shop.kq(*verb)
        for verb in (
            *(("jobs",), ("jobs", "show", f"id{EVIL}"), ("jobs", "ls", "--group"), ("status",), ("metrics",)),
            *(("jobs", "kick", f"id{EVIL}"), ("jobs", "revoke", f"id{EVIL}")),
        )
    ]
    for said in [log, failed.err, *(look.out for look in looks)]:
        assert not RAW & set(said)
        assert not [line for line in said.splitlines() if line.startswith("2026-01-01 00:00:00")]
    assert r"id" in log


def test_a_result_is_spelt_out_at_a_terminal_and_whole_for_a_program(shop: Place) -> None:
    command = shop.command("submit", "give", EVIL, "--wait")
    with worker(shop, "--pool", "thread", "-c", "1"):
        piped = shop.kq("submit", "give", EVIL, "--wait").out
        ours, theirs = pty.openpty()
        with open(ours, "rb") as screen, open(theirs, "wb") as terminal:
            subprocess.run(command, cwd=shop.folder, env=shop.environment(), stdout=terminal, check=True, timeout=60)
            shown = os.read(screen.fileno(), 65536).decode()
    assert {"\u202e", "\u200b", "\U000e0041"} <= set(piped)
    assert not (RAW - {"\r"}) & set(shown)
    assert r"\x1b[2J" in shown


def test_json_is_safe_to_look_at_and_means_the_same(shop: Place) -> None:
    id = shop.kq("submit", "fail", EVIL).out.strip()
    for form in (("--json",), ("--json", "-v")):
        said = shop.kq("jobs", "show", id, *form)
        assert not RAW & set(said.out)
        assert said.json["args"] == [EVIL]
    error = shop.kq("jobs", "show", EVIL, "--json")
    assert not RAW & set(error.err)
    assert EVIL[:1] in json.loads(error.err)["error"]["message"]


def test_a_name_without_end_does_not_fill_the_log(shop: Place) -> None:
    put(shop, "x" * 10_000, "y" * 10_000)
    with worker(shop, "--pool", "thread", "-c", "1") as running:
        eventually(lambda: shop.look("jobs", "--state", "buried"), "it lies buried")
        running.send_signal(signal.SIGTERM)
        assert running.stderr is not None
        lines = running.stderr.read().splitlines()
    assert max(map(len, lines)) < LONGEST + 100


def test_a_job_that_is_due_when_no_calendar_has_years_is_told_of_as_any_other(shop: Place) -> None:
    put(shop, "far", "fail", **{"x-delay": 2**62})
    said = shop.here("jobs", "why", "far", "--url", f"sqlite:///{shop.folder}/kq.db")
    assert said.code == 0, said.err
    assert "job far is delayed until 4.61169e+15 s since 1970" in said.out


@pytest.mark.parametrize("name", ["progress", "lost", "failed", "log"])
@pytest.mark.parametrize("tell", [events.as_text, logs.as_text])
def test_an_event_that_leaves_out_what_it_should_tell_is_told(name: str, tell: Callable[[Event], str]) -> None:
    assert "1e+18 s since 1970" in tell(Event(event=name, at=1e18, job="far", next=2e18))


def record(message: str, error: Exception | None = None) -> logging.LogRecord:
    trace = None if error is None else (type(error), error, error.__traceback__)
    made = logging.LogRecord("kq.x", logging.WARNING, __file__, 1, message, (), trace)
    made.kq = {"job": EVIL}
    return made


def raised() -> Exception:
    try:
        raise ValueError(EVIL)
    except ValueError as error:
        return error


def test_a_log_line_is_one_line_with_a_traceback_below_it() -> None:
    text = Lines("%(asctime)s %(levelname)-7s %(message)s").format(record(EVIL * 1000, raised()))
    first, *below = text.split("\n")
    assert len(first) < LONGEST + 40
    assert below
    assert all(line.startswith("  ") for line in below)
    assert not RAW & set(text)


def test_a_log_line_of_json_is_one_line_too() -> None:
    line = JSONLines().format(record(EVIL * 1000, raised()))
    assert not RAW & set(line)
    assert len(line.splitlines()) == 1
    event = json.loads(line)
    assert (event["job"], len(event["message"])) == (EVIL, LONGEST)


def test_a_log_line_of_logfmt_is_one_line_whose_values_can_be_told_apart() -> None:
    line = Logfmt().format(record(EVIL * 1000, raised()))
    assert not RAW & set(line)
    assert len(line.splitlines()) == 1
    told = dict(re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|[^\s"=]+)(?: |$)', line))
    assert (json.loads(told["job"]), len(json.loads(told["message"]))) == (EVIL, LONGEST)
    assert told["level"] == "warning"
    assert datetime.fromisoformat(told["time"]).utcoffset() == timedelta()


def test_what_is_seen_is_left_alone() -> None:
    text = "Ünïcödé – 日本語 ‘quotes’ 🙂 \\n"
    assert printable(text) == text
    assert printable_json(json.dumps(text, ensure_ascii=False)) == json.dumps(text, ensure_ascii=False)
    assert json.loads(printable_json(json.dumps(EVIL, ensure_ascii=False))) == EVIL


@pytest.mark.parametrize("pool", ["process", "thread"])
def test_what_jobs_start_inherits_neither_passwords_nor_open_files(shop: Place, pool: str) -> None:
    shop.write("secret", f"sqlite:///{shop.folder}/kq.db").chmod(0o600)
    shop.write("kq.yaml", "url_file: secret\napp: jobs:app\n")
    readable = {"KQ_WORKER_DEBUGGABLE": "true"}  # else a user who is not root can't read the environment in /proc
    with worker(shop, "--pool", pool, "-c", "1", environment=readable):
        environment, open_files, own = shop.kq("submit", "inherited", "--wait", "--json").json["result"]
    assert "kq.db" not in environment + own
    assert "KQ_URL" not in environment.split()
    assert int(open_files) == 4  # the three usual ones, and the folder that it looks into


def test_the_file_of_the_broker_and_what_lies_beside_it_are_their_owners(shop: Place) -> None:
    before = os.umask(0)
    try:
        assert shop.kq("submit", "fail", "x").code == 0
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o077 for path in shop.folder.glob("kq.db*")}
    assert modes
    assert not any(modes.values()), modes


def test_a_link_that_lies_where_the_file_would_be_made_is_not_followed(shop: Place) -> None:
    prey = shop.folder / "prey"
    (shop.folder / "kq.db").symlink_to(prey)
    said = shop.kq("submit", "fail", "x")
    assert said.code in (69, 78), said
    assert not prey.exists()
