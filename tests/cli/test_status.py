"""`kq status` and `kq monitor --once`: what people read, and what scripts rely on."""

from __future__ import annotations

import json

import click
import jsonschema
import pytest

from kq import App, Control
from kq.cli.frame import Flags
from kq.cli.status import show
from kq.clock import new_id
from kq.values import snapshot
from kq.values.job import Job, Settings
from kq.values.snapshot import QueueRow, Snapshot
from tests.cli.conftest import ROOT, Place
from tests.cli.test_schema import fits
from tests.servers import free_port

FORM = json.loads((ROOT / "docs" / "schema" / f"snapshot-{snapshot.SCHEMA}.json").read_text())


@pytest.fixture
def shop(place: Place) -> Place:
    """A folder with a broker in which three jobs wait, one of them for a minute, in a paused queue."""
    place.write("kq.yaml", "url: sqlite:///kq.db\n")
    app = App("shop", url=f"sqlite:///{place.folder}/kq.db")
    app.submit("pay", 1)
    app.submit("pay", 2)
    app.submit(Job(new_id(), "pay", settings=Settings(delay=60)))
    with Control(app) as control:
        control.pause("default", reason="the bank is closed", by="ops@host")
    app.close()
    return place


@pytest.mark.parametrize("verb", [("status",), ("monitor", "--once")])
def test_scripts_get_the_snapshot_in_its_fixed_form(shop: Place, verb: tuple[str, ...]) -> None:
    said = shop.here("--json", *verb, "--url", f"sqlite:///{shop.folder}/kq.db")
    assert said.code == 0
    fits("status", said.json)
    jsonschema.Draft202012Validator(FORM).validate(said.json)
    (queue,) = said.json["queues"]
    shown = {name: queue[name] for name in ("name", "ready", "delayed", "running", "buried")}
    assert shown == {"name": "default", "ready": 2, "delayed": 1, "running": 0, "buried": 0}
    assert queue["oldest_s"] >= 0
    assert (said.json["workers"], said.json["failures"]) == ([], [])


def test_people_read_what_is_wrong(shop: Place) -> None:
    said = shop.kq("status")
    assert said.code == 0
    assert "paused, by ops@host: the bank is closed" in said.out
    assert "ready 2" in said.out
    assert "nobody makes control's rounds" in said.out


def test_a_condition_that_is_met_ends_with_1_and_is_told(shop: Place) -> None:
    said = shop.kq("status", "--fail-if", "ready>5", "--fail-if", "paused>0")
    assert (said.code, said.err) == (1, "it is so: paused>0\n")
    assert shop.kq("monitor", "--once", "--fail-if", "oldest>1h").code == 0


def test_a_condition_that_is_none_is_wrong_usage(shop: Place) -> None:
    said = shop.kq("status", "--fail-if", "oldst>60s")
    assert said.code == 2
    assert "oldest" in said.err


def test_a_broker_that_is_not_there_ends_with_69(place: Place) -> None:
    said = place.kq("status", "--url", "redis://127.0.0.1:1/0")
    assert said.code == 69
    assert "KQ3" in said.err


def test_in_an_empty_folder_it_says_so_and_what_to_do_next(place: Place) -> None:
    said = place.here("status")
    assert (said.code, list(place.folder.iterdir())) == (69, [])
    head, told, command = filter(None, said.out.splitlines())
    assert head.startswith("sqlite:///kq.db")
    assert told.startswith(
        f"there is no broker yet: there is no file {place.folder}/kq.db; a worker or the first submit"
    )
    assert (command, "--url" in told) == ("  kq dev", True)


def test_a_condition_on_a_queue_that_is_not_there_is_doubted(shop: Place) -> None:
    said = shop.here("status", "--fail-if", "defalt:ready>5")
    assert (said.code, said.err) == (0, "defalt:ready>5: there is no queue 'defalt' yet. Did you mean 'default'?\n")


def test_what_is_in_queues_is_not_known_while_the_broker_is_away(shop: Place) -> None:
    shop.write("kq.yaml", f"url: amqp://127.0.0.1:{free_port()}//\nstate: sqlite:///{shop.folder}/kq.db\n")
    said = shop.here("status")
    assert said.code == 69
    assert "ready -  running 0/0  delayed -  buried -" in said.out


def test_a_queue_is_unknown_while_the_broker_is_away(capsys: pytest.CaptureFixture[str]) -> None:
    with click.Context(click.Command("status"), obj=Flags()):
        show(Snapshot(at=0.0, broker="it is away", queues=(QueueRow(name="mail"),)))
    (queue,) = (line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("mail "))
    assert queue[1:6] == ["-"] * 5
    assert queue[-1] == "unknown"


def test_watching_is_a_line_of_json_for_each_look(shop: Place) -> None:
    with shop.watching("monitor", "--json", "--every", "100ms") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
    assert [json.loads(line)["totals"]["ready"] for line in lines] == [2, 2]
