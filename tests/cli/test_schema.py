"""What --json prints is what docs/schema/cli-1.json says, which scripts may rely on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kq.cli.monitor.verbs import tree
from kq.stated import SCHEMA
from tests.cli.conftest import ROOT, Place, worker

WRITTEN: dict[str, Any] = json.loads((ROOT / "docs" / "schema" / "cli-1.json").read_text())
JOBS = """
import kq

app = kq.App("shop")


@app.job
def shout(text: str) -> str:
    return text.upper()


@app.effect(key=lambda to: f"mail:{to}")
def send(to: str) -> str:
    raise RuntimeError("the line is dead")
"""


def fits(name: str, value: Any) -> None:
    """Raise unless value is what the schema says of a verb."""
    form = {"$ref": f"#/$defs/{name}", "$defs": WRITTEN["$defs"]}
    jsonschema.Draft202012Validator(form).validate(value)


def asked(shop: Place, *arguments: str, verb: str = "") -> Any:
    """What a command says as JSON, which must be as the schema says of its verb."""
    said = shop.here(*arguments, "--json", "--url", f"sqlite:///{shop.folder}/kq.db")
    assert said.code in (0, 1), said
    fits(verb or " ".join(arguments[:2]), said.json)
    return said.json


def submitted(shop: Place, *arguments: str) -> str:
    """The id of a new job."""
    said = shop.kq("submit", *arguments, "--json").json
    fits("submit", said)
    return str(said["id"])


def test_the_schema_is_of_the_version_that_is_stated(place: Place) -> None:
    assert (WRITTEN["$id"], WRITTEN["$defs"]["stated"]["properties"]["schema"]["const"]) == (f"urn:kq:cli:{SCHEMA}", 1)
    for told in (place.kq("--version", "--json"), place.kq("--json", "--version")):
        fits("--version", told.json)
        assert told.json["schema"] == SCHEMA


def test_a_form_that_changed_is_noticed() -> None:
    job = {"schema": 1, "id": "1", "type": "t", "queue": "q", "state": "ready", "attempt": 0, "error": None}
    fits("jobs ls", [job])
    for wrong in (
        {**job, "state": "lost"},
        {name: job[name] for name in job if name != "queue"},
        {**job, "attempt": "0"},
        {**job, "schema": 2},
    ):
        with pytest.raises(jsonschema.ValidationError):
            fits("jobs ls", [wrong])


def test_jobs_and_queues_are_told_as_the_schema_says(shop: Place) -> None:
    id = submitted(shop, "shout", "a")
    asked(shop, "jobs", "ls")
    asked(shop, "jobs", "show", id)
    asked(shop, "jobs", "why", id)
    asked(shop, "jobs", "edit", id, "--set", "args.0=b")
    asked(shop, "jobs", "bury", id)
    asked(shop, "jobs", "rehearse", id, "--yes", "-A", f"{shop.folder}/jobs.py:app")
    asked(shop, "jobs", "ls", "--group")
    asked(shop, "jobs", "kick", "--all", "--dry-run")
    asked(shop, "jobs", "kick", id, "nobody")
    asked(shop, "jobs", "bury", id)
    asked(shop, "jobs", "complete", id)
    asked(shop, "jobs", "audit")
    asked(shop, "jobs", "rm", "nobody", "--yes")
    asked(shop, "jobs", "revoke", submitted(shop, "shout", "a"))
    asked(shop, "jobs", "revoke", submitted(shop, "shout", "a"), "nobody")
    asked(shop, "queues", "pause", "default")
    asked(shop, "queues", "ls")
    asked(shop, "queues", "why", "default")
    asked(shop, "queues", "resume", "--type", "jobs.shout")
    asked(shop, "queues", "purge", "default", "--yes")
    asked(shop, "queues", "rm", "default")


def test_workers_and_effects_are_told_as_the_schema_says(shop: Place) -> None:
    with worker(shop, "--pool", "thread", "-c", "1"):
        submitted(shop, "shout", "a", "--wait")
        assert shop.kq("submit", "send", "bo", "--wait").code == 1
        (seen,) = asked(shop, "workers", "ls")
        asked(shop, "workers", "ping")
        told = asked(shop, "metrics")["metrics"]
        assert {"kq_build_info", "kq_workers"} <= {metric["name"] for metric in told}
        (effect,) = asked(shop, "effects", "ls")
        asked(shop, "effects", "show", effect["key"])
        asked(shop, "jobs", "show", effect["job"])
        asked(shop, "jobs", "kick", effect["job"], "--done", "--outcome", '"sent"')
        asked(shop, "effects", "lift", effect["key"])
        fits("doctor", shop.kq("doctor", "--json").json)
        asked(shop, "workers", "retire", seen["name"])


def test_what_needs_no_broker_is_told_as_the_schema_says(place: Place) -> None:
    asked(place, "init", verb="init")
    asked(place, "explain", verb="explain")
    asked(place, "explain", "KQ302", verb="explain")
    asked(place, "completion", "bash", verb="completion")


@pytest.mark.parametrize("arguments", [("jobs", "ls", "--polish"), ("jobs", "show", "1"), ("explain", "KQ999")])
def test_errors_are_told_as_the_schema_says(place: Place, arguments: tuple[str, ...]) -> None:
    said = place.kq(*arguments, "--json")
    assert said.out == ""
    fits("error", json.loads(said.err))


def test_a_list_that_is_watched_is_a_line_of_the_same_form_each_time(shop: Place, tmp_path: Path) -> None:
    submitted(shop, "shout", "a")
    with shop.watching("jobs", "ls", "-w", "--every", "0.2s", "--json") as process:
        assert process.stdout is not None
        for _ in range(3):
            fits("jobs ls", json.loads(process.stdout.readline()))


def test_each_verb_that_answers_has_its_form() -> None:
    nouns = {words[0] for words in tree() if len(words) == 2}
    verbs = {" ".join(words) for words in tree() if words and words not in {(noun,) for noun in nouns}}
    assert verbs - {"demo"} <= set(WRITTEN["$defs"])


def stating(form: dict[str, Any]) -> bool:
    """Whether what fits the form says its version, be it one object, or each of a list."""
    definitions = WRITTEN["$defs"]
    if branches := form.get("oneOf") or form.get("anyOf"):
        return all(map(stating, branches)) or form.get("$ref") == "#/$defs/stated"
    if form.get("type") == "array":
        return stating(form["items"])
    name = form.get("$ref", "").removeprefix("#/$defs/")
    return name == "stated" or (name in definitions and stating(definitions[name]))


def test_whatever_is_told_as_json_states_its_version() -> None:
    verbs = {" ".join(words) for words in tree()} | {"--version", "error", "warning", "log"}
    silent = [name for name in verbs & set(WRITTEN["$defs"]) if not stating(WRITTEN["$defs"][name])]
    assert silent == []


@pytest.mark.parametrize("verb", ["worker", "control"])
def test_a_line_of_a_log_is_as_the_schema_says(shop: Place, verb: str) -> None:
    with shop.watching(verb, "-v", "--json") as process:
        assert process.stderr is not None
        fits(verb, json.loads(process.stderr.readline()))
