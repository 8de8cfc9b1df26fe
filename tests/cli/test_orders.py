"""Orders from the command line: what people see, and the forms that scripts rely on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kq.conformance.contract.waiting import eventually
from kq.control import Control
from kq.values.stack import Stack
from tests.cli.conftest import Place, submitted, worker

JOBS = """
import kq

app = kq.App("shop", queue="shop")


@app.job
def shout(text: str) -> str:
    return text.upper()


@app.job
def wait_for(path: str) -> None:
    with open(path):
        pass
"""


@pytest.fixture
def fifo(shop: Place) -> Path:
    """What a job waits for until somebody opens it for writing."""
    path = shop.folder / "gate"
    os.mkfifo(path)
    return path


def state(shop: Place, id: str) -> str:
    return str(shop.look("jobs", "show", id)["state"])


def test_a_queue_is_paused_and_resumed(shop: Place) -> None:
    with worker(shop):
        said = shop.kq("queues", "pause", "shop", "--reason", "the disk is full")
        assert (said.code, said.out) == (0, "Paused queue shop. Workers that have heard: 1 of 1.\n")
        id = submitted(shop, "shout", "x")
        assert "is paused by " in shop.kq("jobs", "why", id).out
        assert "(the disk is full)" in shop.kq("queues", "why", "shop").out
        (queue,) = shop.kq("--json", "queues", "ls").json
        assert queue["paused"]["reason"] == "the disk is full"
        assert "the disk is full" in shop.kq("queues").out
        said = shop.kq("--json", "queues", "resume", "shop")
        assert said.json["resumed"] == "queue shop"
        assert len(said.json["heard"]) == 1
        eventually(lambda: state(shop, id) == "completed", "the job has run")
    assert "which was not paused" in shop.kq("queues", "resume", "shop").out
    acts = shop.kq("--json", "jobs", "audit").json
    assert [(act["act"], act["queue"], act.get("reason")) for act in acts] == [
        ("resumed", "shop", None),
        ("paused", "shop", "the disk is full"),
    ]
    assert "queue shop" in shop.kq("jobs", "audit").out


def test_a_job_type_is_paused_and_resumed(shop: Place) -> None:
    with worker(shop):
        assert shop.kq("queues", "pause", "--type", "jobs.shout").code == 0
        id = submitted(shop, "shout", "x")
        eventually(lambda: state(shop, id) == "paused", "it is parked")
        assert [job["id"] for job in shop.kq("--json", "jobs", "ls", "--state", "paused").json] == [id]
        assert "its type jobs.shout is paused by " in shop.kq("jobs", "why", id).out
        said = shop.kq("--json", "queues", "resume", "--type", "jobs.shout")
        assert said.json["back"] == 1
        eventually(lambda: state(shop, id) == "completed", "the job has run")


def test_a_running_job_is_revoked(shop: Place, fifo: Path) -> None:
    with worker(shop, "-c", "1"):
        id = submitted(shop, "wait_for", str(fifo))
        eventually(lambda: state(shop, id) == "running", "it runs")
        assert "runs on" in shop.kq("jobs", "why", id).out
        said = shop.kq("jobs", "revoke", id, "--interrupt", "--reason", "not wanted")
        assert said.code == 0
        assert said.out.startswith(f"revoked {id}")
        eventually(lambda: state(shop, id) == "revoked", "it has ended")
        assert "not wanted" in shop.kq("jobs", "show", id).out
    again = shop.kq("jobs", "revoke", id)
    assert again.code == 1
    assert f"job {id} is revoked and can't be revoked" in again.err
    assert "not wanted" in shop.kq("jobs", "why", id).out


def test_a_worker_is_retired_and_says_so(shop: Place) -> None:
    with worker(shop) as process:
        (name,) = shop.kq("--json", "workers", "ping").json["answered"]
        assert shop.kq("workers", "retire", name, "--reason", "its disk is old").out.startswith(f"Retired {name}")
        assert process.stderr is not None
        while "its disk is old" not in process.stderr.readline():
            pass
        assert process.wait(20) == 0
    assert shop.kq("workers", "retire", "nobody").code == 1


def test_workers_side_by_side_go_on_when_one_of_them_is_retired(shop: Place) -> None:
    with worker(shop, "--processes", "2", count=2):
        names = eventually(
            lambda: set(names) if len(names := shop.kq("--json", "workers", "ping").json["answered"]) == 2 else None,
            "both answer",
        )
        assert names is not None
        gone = min(names)
        assert shop.kq("workers", "retire", gone).code == 0
        eventually(
            lambda: set(shop.kq("--json", "workers", "ping").json["answered"]) == names - {gone}, "the other is left"
        )
        assert shop.kq("submit", "shout", "x", "--wait").out == "X\n"


@pytest.mark.parametrize(
    "arguments",
    [("queues", "pause"), ("queues", "pause", "shop", "--type", "x"), ("queues", "resume"), ("jobs", "revoke")],
)
def test_an_order_about_nothing_in_particular_is_refused(shop: Place, arguments: tuple[str, ...]) -> None:
    assert shop.kq(*arguments).code == 2


def test_a_job_that_nobody_knows_has_no_reason(shop: Place) -> None:
    submitted(shop, "shout", "x")
    for verb in ("why", "revoke"):
        said = shop.kq("jobs", verb, "nothing")
        assert said.code == 1
        assert "no job 'nothing' is known" in said.err


def test_nobody_answers_where_nobody_works(shop: Place) -> None:
    submitted(shop, "shout", "x")
    said = shop.kq("workers", "ping")
    assert (said.code, said.out) == (0, "No worker lives. Start one: kq worker\n")


def test_control_runs_by_itself_until_it_is_told_to_end(shop: Place) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "kq", "control"],
        cwd=shop.folder,
        env=shop.environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while "has the seat" not in process.stderr.readline():
            pass
        with worker(shop, "--no-control"):
            assert shop.kq("submit", "shout", "x", "--wait").out == "X\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_a_stack_that_nobody_tells_ends_with_1(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = Stack("j1", "login", "w1", note="w1 did not answer within 5.0s")
    monkeypatch.setattr(Control, "stack", lambda control, id: silent)
    said = place.here("jobs", "stack", "j1")
    assert (said.code, said.out) == (1, "w1 did not answer within 5.0s\n")
    told = place.here("jobs", "stack", "j1", "--json")
    assert (told.code, told.json["frames"], told.json["note"]) == (1, [], silent.note)
