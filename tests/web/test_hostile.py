"""Text of strangers, wherever it comes to the page: it is text there, whole or hidden, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from kq.app import App
from kq.broker import declare_missing
from kq.conformance.contract.waiting import eventually
from kq.control import Control
from kq.web.looks import LOOKS
from kq.web.pages import PAGES
from kq.web.site import Site
from tests.cli.conftest import Place, worker
from tests.web.conftest import Browser, anybody

#: Markup, ends of attributes, a template's own signs, a new line, an escape, a bidi override, a space without width.
EVIL = "</pre><script>alert(1)</script>\"' onload=alert(1) {{ 7 * 191 }}{% endblock %}\n\x1b[2J\u202e\u200b"
SECRET = "hunter2-hunter2"
RAW = re.compile("<script>alert|</pre><script|\x1b|\u202e|\u200b|1337")
JOBS = f"""
import logging, os, time
import kq

EVIL = {EVIL!r}
app = kq.App("shop")


@app.job(name="fail " + EVIL[:60])
def fail(text: str, password: str) -> None:
    logging.getLogger(text).warning("%s password=%s", text, password)
    raise ValueError(f"{{text}} password={{password}}")  # {EVIL[:40]}


@app.job
def run(text: str) -> None:
    kq.current_job().progress(1, 2, text)
    while not os.path.exists("gate"):  # it runs until the test has seen it run
        time.sleep(0.01)


@app.job
def give(text: str) -> object:
    return {{text: [text], "password": "{SECRET}"}}


@app.effect(key=lambda text: text, on_doubt="bury")
def deed(text: str) -> str:
    raise OSError(text)


@app.effect(key=lambda text: "done " + text)
def done(text: str) -> str:
    return text
"""


@pytest.fixture
def shop(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.write("jobs.py", JOBS)
    made.write("kq.yaml", "url: sqlite:///kq.db\napp: jobs:app\n")
    made.write("host/sitecustomize.py", f"import socket\nsocket.gethostname = lambda: {EVIL!r}\n")
    return made


@pytest.fixture
def control(shop: Place) -> Iterator[Control]:
    app = App("shop", f"sqlite:///{shop.folder}/kq.db")
    with Control(app) as control:
        yield control
    app.close()


def put(app: App, id: str, type: str, body: bytes) -> None:
    """Publish a message as a stranger would."""
    with app.broker.connection() as connection, connection.channel() as channel:
        declare_missing(channel, ["default"], set())
        headers = {"kq": 1, "id": id, "type": type, "submitted": 1.0}
        message = channel.prepare_message(body, 5, "application/json", "utf-8", headers, {"message_id": id})
        channel.basic_publish(message, exchange="", routing_key="default")


def test_it_is_text_and_nothing_else(shop: Place, control: Control, browse: Callable[..., Browser]) -> None:
    def submitted(type: str, *args: Any, **kwargs: Any) -> str:
        return str(control.app.submit(type, *args, **kwargs).id)

    put(control.app, f"id {EVIL}", f"type {EVIL}", b"{" + EVIL.encode())
    ids = {"alien": f"id {EVIL}"}
    evil_type = "fail " + EVIL[:60]
    ids |= {
        "failed": submitted(evil_type, EVIL, password=SECRET),
        "doubtful": submitted("jobs.deed", EVIL),
        "given": submitted("jobs.give", EVIL),
        "done": submitted("jobs.done", EVIL),
        "running": submitted("jobs.run", EVIL),
    }
    browser = browse(Site(control, authorize=anybody, hosts=()))
    path = f"{shop.folder}/host:{Place.environment()['PYTHONPATH']}"
    with worker(shop, "--pool", "thread", "-c", "2", environment={"PYTHONPATH": path}):
        eventually(lambda: len(control.buried()) == 3, "three jobs lie buried")
        eventually(lambda: "1/2" in browser.get("/workers").text, "it says how far it is")
        control.pause("default", reason=EVIL, by=EVIL)
        control.pause_type(evil_type, reason=EVIL, by=EVIL)
        eventually(lambda: "Paused job types" in browser.get("/queues").text, "both pauses are seen")
        seen = "".join(shown(browser, ids))
        shop.write("gate", "")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in seen
    assert "{{ 7 * 191 }}" in seen
    for what in ("traceback", "What it logged last", "Paused job types", "In doubt"):
        assert what.casefold() in seen.casefold(), what


def shown(browser: Browser, ids: dict[str, str]) -> Iterator[str]:
    """All pages and answers, each of which is as it should be."""
    paths = [path.replace("{name}", "default") for path in PAGES]
    paths += [f"/jobs/{quote(id, safe='')}" for id in ids.values()]
    paths.append(f"/jobs/{quote(ids['running'], safe='')}/stack")
    paths += [f"/api/v1{look.path}" for look in LOOKS if "{name}" not in look.path]
    paths += [f"/api/v1/jobs/{quote(id, safe='')}{more}" for id in ids.values() for more in ("", "/why")]
    paths += [
        f"/api/v1/effects/{quote('jobs.done:done ' + EVIL, safe='')}",
        f"/jobs?search={quote(EVIL)}&queue={quote(EVIL)}",
    ]
    paths += [f"/buried?type={quote(EVIL)}", f"/effects?search={quote(EVIL)}", f"/queues?search={quote(EVIL)}"]
    for path in paths:
        answer = browser.get(path)
        expected = 404 if path in ("/jobs/default", "/jobs/default/stack") else 200
        assert answer.status_code == expected, (path, answer.text)
        if not path.startswith("/api/"):
            assert not RAW.search(answer.text), (path, RAW.search(answer.text))
            yield answer.text
        assert SECRET not in answer.text, path
        assert not {"\x1b", "\u202e", "\u200b"} & set(answer.text), path
