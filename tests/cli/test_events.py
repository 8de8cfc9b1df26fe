"""`kq events`: what people and scripts see happen."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from msgspec.structs import replace

import kq
from kq.cli.events import Since
from kq.clock import new_id
from kq.values.job import Job, Settings
from tests.cli.conftest import Place, submitted, worker
from tests.cli.test_schema import fits

JOBS = """
import logging
import os
import time
import kq

app = kq.App("shop")


@app.job(queue="mail")
def shout(text: str) -> str:
    logging.getLogger("shop").warning("shouting %s", text)
    return text.upper()


@app.job
def speak() -> None:
    for chunk in ("one ", "two\\n", "three\\x1b[2J", {"n": 4}):
        kq.current_job().emit(chunk)


@app.job
def stutter() -> None:
    kq.current_job().emit("one ")
    while not os.path.exists("go"):
        time.sleep(0.01)
    kq.current_job().emit("two")
    if kq.current_job().attempt == 1:
        raise kq.Retry("once more", delay=0)


@app.job
def boom() -> None:
    raise kq.BadJob("no\\x1b[31m good")
"""
SHOUT: Job[Any] = Job(new_id(), "jobs.shout", ("hi",), settings=Settings(queue="mail"))
BOOM: Job[Any] = Job(new_id(), "jobs.boom")


@pytest.fixture
def shop(shop: Place) -> Iterator[Place]:
    """The same, whose worker runs."""
    with worker(shop):
        yield shop


def until(process: subprocess.Popen[str], shop: Place, word: str, job: Job[Any]) -> str:
    """The first line that process prints with word, while job is submitted again and again."""
    heard = threading.Event()
    app = kq.App("shop", url=f"sqlite:///{shop.folder}/kq.db")

    def submit() -> None:
        while not heard.wait(0.1):
            app.submit(replace(job, id=new_id()))

    submitter = threading.Thread(target=submit)
    submitter.start()
    assert process.stdout is not None
    try:
        return next(line for line in process.stdout if word in line)
    finally:
        heard.set()
        submitter.join()
        app.close()


def test_each_event_is_a_line_of_json_of_a_fixed_form(shop: Place) -> None:
    with shop.watching("events", "-f", "--json", "--queue", "mail", "--record", "heard.jsonl") as process:
        line = until(process, shop, '"completed"', SHOUT)
    event = json.loads(line)
    fits("events", event)
    assert (event["event"], event["type"], event["queue"]) == ("completed", "jobs.shout", "mail")
    recorded = (shop.folder / "heard.jsonl").read_text().splitlines()
    assert line.strip() in recorded
    assert {json.loads(each)["queue"] for each in recorded} == {"mail"}


def test_people_read_what_failed_and_why_and_nothing_that_moves_their_cursor(shop: Place) -> None:
    with shop.watching("events") as process:
        line = until(process, shop, "buried", BOOM)
    assert "jobs.boom" in line
    assert "BadJob: no\\x1b[31m good" in line


def test_what_happened_before_is_told_where_it_is_remembered(place: Place) -> None:
    place.write("jobs.py", JOBS)
    place.write("kq.yaml", "url: sqlite:///kq.db\napp: jobs:app\nevents: {keep: 5m}\n")
    with worker(place):
        place.kq("submit", "shout", "hi", "--wait")
    said = place.kq("events", "--since", "10m", "--json")
    events = [json.loads(line) for line in said.out.splitlines()]
    for event in events:
        fits("events", event)
    names = [event["event"] for event in events]
    assert names[:3] == ["ready", "started", "completed"]
    assert place.kq("events", "--since", str(events[-1]["at"]), "--json").out == said.out.splitlines()[-1] + "\n"
    assert place.kq("events", "--since", "yesterday").code == 2
    misspelt = place.kq("events", "--since", "10m", "--queue", "mial", "--type", "shuot")
    assert (misspelt.code, misspelt.out) == (0, "")
    assert "there is no queue 'mial' yet. Did you mean 'mail'?\n" in misspelt.err
    assert f"Of that nothing is remembered since then, but {len(events)} other events.\n" in misspelt.err
    fitting = place.kq("events", "--since", "10m", "--queue", "mail", "--type", "shout")
    assert ("completed" in fitting.out, fitting.err) == (True, "")
    assert "Workers remember events with events:" in place.kq("events", "--since", "0s").err


@pytest.mark.parametrize("on", [("-f",), ("--for", "60s")])
def test_what_happened_before_is_followed_by_what_happens(place: Place, on: tuple[str, ...]) -> None:
    place.write("jobs.py", JOBS)
    place.write("kq.yaml", "url: sqlite:///kq.db\napp: jobs:app\nevents: {keep: 5m}\n")
    with worker(place):
        place.kq("submit", "shout", "hi", "--wait")
        with place.watching("events", "--since", "10m", *on) as process:
            assert process.stdout is not None
            assert "completed" in next(line for line in process.stdout if "completed" in line)
            assert "jobs.boom" in until(process, place, "buried", BOOM)


@pytest.mark.parametrize("minutes", [-90, -1, 1, 90])
@pytest.mark.parametrize("form", ["%H:%M", "%H:%M:%S"])
def test_a_time_of_day_is_the_last_one_that_was(minutes: int, form: str) -> None:
    now = time.time()
    meant = datetime.fromtimestamp(now + 60 * minutes).strftime(form)
    since = Since().convert(meant, None, None)
    assert now - 86400 - 60 < since <= now
    assert datetime.fromtimestamp(since).strftime(form) == meant


def test_it_ends_after_the_time_it_was_told(shop: Place) -> None:
    assert shop.kq("events", "--for", "300ms").code == 0


def test_what_a_job_emits_can_be_followed_and_read_again(shop: Place) -> None:
    id = shop.kq("submit", "speak", "--json").json["id"]
    followed = shop.kq("jobs", "stream", id, "-f")
    assert (followed.code, followed.out) == (0, 'one two\nthree\\x1b[2J\n{"n": 4}\n')
    rest = shop.kq("jobs", "stream", id, "--offset", "2", "--json").out.splitlines()
    for line in rest:
        fits("jobs stream", json.loads(line))
    assert [json.loads(line)["value"] for line in rest] == ["three\x1b[2J", {"n": 4}]
    assert shop.kq("jobs", "stream", "nobody").code == 1


def test_where_all_of_a_job_is_shown_there_is_what_it_emitted_last(shop: Place) -> None:
    id = shop.kq("submit", "speak", "--wait", "--json").json["id"]
    told = shop.kq("jobs", "show", id).out
    assert f"emitted  4 chunks; kq jobs stream {id} prints them; the last:" in told
    last = told.partition("the last:\n")[2].splitlines()[:4]
    assert [line.strip() for line in last] == ['"one "', r'"two\n"', r'"three\u001b[2J"', '{"n": 4}']
    shown = shop.kq("jobs", "show", id, "--json").json
    fits("jobs show", shown)
    assert (shown["emitted"]["count"], shown["emitted"]["last"][-1]["value"]) == (4, {"n": 4})
    assert shop.kq("jobs", "show", submitted(shop, "boom"), "--json").json["emitted"] is None


def test_who_follows_a_stream_is_told_when_it_begins_anew(place: Place) -> None:
    place.write("jobs.py", JOBS)
    place.write("kq.yaml", "url: sqlite:///kq.db\napp: jobs:app\n")
    id = place.kq("submit", "stutter", "--json").json["id"]
    with place.watching("jobs", "stream", id, "-f") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        with worker(place) as first:
            begun = process.stdout.read(4)
            first.send_signal(signal.SIGTERM)  # and once more, so that the job is given back
        place.write("go", "")
        with worker(place):
            rest = process.stdout.read()
        assert (begun, rest) == ("one ", "\none two\none two\n")
        assert process.stderr.read() == "attempt 1 begins anew:\nattempt 2 begins anew:\n"


def test_what_jobs_log_can_be_followed(shop: Place) -> None:
    with shop.watching("logs", "-f", "--json", "--type", "shout") as process:
        event = json.loads(until(process, shop, "shouting", SHOUT))
    fits("logs", event)
    assert (event["event"], event["level"], event["logger"], event["message"]) == (
        "log",
        "WARNING",
        "shop",
        "shouting hi",
    )
    assert event["type"] == "jobs.shout"
    shown = shop.kq("jobs", "show", event["job"])
    assert "WARNING shop: shouting hi" in shown.out
