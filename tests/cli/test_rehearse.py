"""`kq jobs rehearse`: what people see, and what scripts rely on."""

from __future__ import annotations

import signal

import psutil

from kq.conformance.contract.waiting import eventually
from tests.cli.conftest import Place, at_a_terminal, submitted

JOBS = """
import os
import time
import kq

app = kq.App("shop")
mail = kq.mail.mailer(app, sender="shop@example.org")


@app.job(timeout=30)
def ship(order: int) -> str:
    print("it runs")
    kq.current_job().progress(1, 2, "packed")
    mail.submit(to="ann@example.org", subject="token=abc", body="shipped")
    if order == 7:
        raise kq.BadJob("no date")
    return "shipped"


@app.job
def linger() -> None:
    open("pid", "w").write(str(os.getpid()))
    time.sleep(600)


@app.job(rehearse=False)
def fire() -> None:
    open("fired", "w").close()
"""


def test_what_it_would_do_is_listed_and_how_it_would_end_is_told(shop: Place) -> None:
    id = submitted(shop, "ship", "8")
    assert shop.kq("jobs", "bury", id).code == 0
    said = shop.kq("jobs", "rehearse", id, "--yes", "--reason", "is it mended?")
    assert said.code == 0
    assert said.out.startswith("completed after ")
    assert said.out.endswith(f': "shipped"\n  kq jobs kick {id} --yes\n')
    told = 'would submit kq.mail(to="ann@example.org", subject="token=***", body="shipped") to mail'
    first, limit, *rest = said.err.splitlines()
    assert first.startswith("What jobs.ship does through kq will be listed")
    assert limit == "It runs, for 30s at most; ctrl-C ends it."
    assert sorted(rest) == ["it runs", "progress 1 of 2 packed", told]
    (line, *_) = shop.kq("--json", "jobs", "audit").json
    assert (line["act"], line["job"], line["reason"]) == ("rehearsed", id, "is it mended?")
    assert [queue["name"] for queue in shop.kq("--json", "queues", "ls").json if queue["ready"]] == []


def test_one_that_would_fail_says_why_and_the_exit_code_does(shop: Place) -> None:
    said = shop.kq("jobs", "rehearse", submitted(shop, "ship", "7"), "--yes", "--json")
    assert (said.code, said.json["ended"], said.json["then"]) == (1, "raised", "buried")
    assert said.json["error"] == "BadJob: no date"
    assert "in ship" in said.json["traceback"]
    assert [deed["kind"] for deed in said.json["deeds"]] == ["submit"]
    other = JOBS.replace("order: int", "order: list[int]").replace("timeout=30", 'name="jobs.ship"')
    shop.write("other.py", other)
    said = shop.kq("-A", "other:app", "jobs", "rehearse", submitted(shop, "ship", "7"), "--yes")
    assert said.code == 65
    assert "'order'" in said.out


def test_one_that_runs_for_long_is_said_to_and_where_it_is_until_ctrl_c_ends_it(shop: Place) -> None:
    id = submitted(shop, "linger")
    with shop.watching("jobs", "rehearse", id, "--yes") as process:
        assert process.stderr is not None
        line = JOBS[: JOBS.index("time.sleep")].count("\n") + 1
        here = f'  File "{shop.folder}/jobs.py", line {line}, in linger\n'
        said = list(iter(process.stderr.readline, here))
        assert said[-1].startswith("It has run for "), said
        assert said[-1].endswith(", and is here:\n")
        process.send_signal(signal.SIGINT)
        assert process.stderr.read().strip() == "The rehearsal is ended. The job stays as it was."
        assert process.wait(30) == 130
    stage = int((shop.folder / "pid").read_text())
    eventually(lambda: not psutil.pid_exists(stage), "the process that ran it has ended", 10)
    assert shop.kq("--json", "jobs", "show", id).json["state"] == "ready"


def test_it_asks_first_and_refuses_where_nobody_can_be_asked(shop: Place) -> None:
    id = submitted(shop, "ship", "8")
    refused = shop.kq("jobs", "rehearse", id)
    assert (refused.code, refused.out) == (77, "")
    no = at_a_terminal(shop, "n\n", "jobs", "rehearse", id)
    assert (no.code, no.out) == (130, "")
    assert "it runs" not in no.err
    assert shop.kq("--json", "jobs", "audit").json == []
    yes = at_a_terminal(shop, "y\n", "jobs", "rehearse", id)
    assert (yes.code, "it runs" in yes.err) == (0, True)


def test_a_type_that_says_so_is_not_rehearsed(shop: Place) -> None:
    said = shop.kq("jobs", "rehearse", submitted(shop, "fire"), "--yes")
    assert said.code == 77
    assert "rehearse=False" in said.err
    assert not (shop.folder / "fired").exists()


def test_what_is_not_there_or_not_known_is_not_rehearsed(shop: Place) -> None:
    strange = submitted(shop, "other.type", "--queue", "default")
    assert shop.kq("jobs", "rehearse", "nobody", "--yes").code == 1
    said = shop.kq("jobs", "rehearse", strange, "--yes")
    assert said.code == 1
    assert "'other.type'" in said.err
