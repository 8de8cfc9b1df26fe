"""Side effects from the command line: what people see of a doubt, how they answer it, and what scripts rely on."""

from __future__ import annotations

from pathlib import Path

import pytest

from kq.conformance.contract.waiting import eventually
from tests.cli.conftest import Place, worker

JOBS = """
import os
import kq

app = kq.App("shop", queue="shop")


@app.effect(key=lambda order: f"order {order}")
def pay(order: int) -> str:
    with open("paid", "a") as book:
        print(order, file=book)
    if not os.path.exists("healthy"):
        os._exit(1)
    return "paid"
"""


def in_doubt(shop: Place, order: int = 7) -> str:
    """A job that died in the act, and lies buried with the question."""
    id = str(shop.kq("--json", "submit", "jobs.pay", str(order)).json["id"])
    with worker(shop):
        eventually(lambda: shop.look("jobs", "show", id)["state"] == "buried", "it is buried")
    (shop.folder / "healthy").touch()
    return id


def paid(shop: Place) -> str:
    return Path(shop.folder / "paid").read_text()


def test_a_doubt_is_shown_with_what_is_known_and_how_it_is_answered(shop: Place) -> None:
    id = in_doubt(shop)
    said = shop.kq("jobs", "show", id).out
    assert "did the effect jobs.pay:order 7 happen? Nobody knows." in said
    assert f"by jobs.pay {id}, attempt 1; " in said
    assert f"It happened:  kq jobs kick {id} --done\n" in said
    assert f"It did not:   kq jobs kick {id} --repeat\n" in said
    (doubt,) = shop.kq("--json", "jobs", "show", id).json["doubts"]
    assert (doubt["key"], doubt["stage"], doubt["job"]) == ("jobs.pay:order 7", "doubt", id)
    assert [each["key"] for each in shop.kq("--json", "effects", "ls", "--stage", "doubt").json] == [doubt["key"]]


@pytest.mark.parametrize(("answer", "result", "book"), [("--done", "by hand", "7\n"), ("--repeat", "paid", "7\n7\n")])
def test_an_answer_puts_the_job_back(shop: Place, answer: str, result: str, book: str) -> None:
    id = in_doubt(shop)
    more = ["--outcome", '"by hand"'] if answer == "--done" else []
    said = shop.kq("jobs", "kick", id, answer, *more, "--reason", "asked the bank")
    assert (said.code, said.out) == (0, f"kicked 1: {id}\n")
    with worker(shop):
        eventually(lambda: shop.look("jobs", "show", id)["state"] == "completed", "it completes")
    assert shop.kq("--json", "jobs", "show", id).json["result"] == result
    assert paid(shop) == book
    assert "asked the bank" in shop.kq("jobs", "audit").out
    shown = shop.kq("effects", "show", "jobs.pay:order 7").out
    assert "done" in shown
    assert ("asked the bank" in shown) is (answer == "--done")


def test_a_job_that_is_in_doubt_about_nothing_gets_no_answer(shop: Place) -> None:
    id = in_doubt(shop)
    assert shop.kq("effects", "lift", "jobs.pay:order 7", "--reason", "it is not there").code == 0
    said = shop.kq("jobs", "kick", id, "--done")
    assert said.code == 1
    assert "in doubt about no effect" in said.err
    assert shop.kq("jobs", "kick", id).code == 0


def test_what_is_not_in_the_ledger_is_said(shop: Place) -> None:
    assert shop.kq("effects", "ls").out == "There are no effects.\n"
    assert shop.kq("effects", "ls", "--stage", "doubt").out == "There are no such effects.\n"
    for verb in ("show", "lift"):
        said = shop.kq("effects", verb, "jobs.pay:nothing")
        assert said.code == 1
        assert "KQ503 the ledger has no effect 'jobs.pay:nothing'" in said.err


def test_an_outcome_that_is_no_json_is_refused_before_anything_is_done(shop: Place) -> None:
    said = shop.kq("jobs", "kick", "x", "--done", "--outcome", "{")
    assert said.code == 2
    assert "is no JSON" in said.err
