"""`kq jobs edit`, `kick` and their like: what people see, and the forms that scripts rely on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kq.conformance.contract.waiting import eventually
from tests.cli.conftest import Place, at_a_terminal, submitted, worker

JOBS = """
import kq

app = kq.App("shop")


@app.job
def resize(path: str, *, width: int = 800) -> str:
    if path == "bad":
        raise kq.BadJob("no picture")
    return f"{path} {width}"


@app.job
def charge(card: kq.Secret[str], times: int = 1) -> str:
    return card.value.upper()


@app.job(queue="mail")
def send(to: str) -> None:
    raise ValueError(to)
"""


def buried(shop: Place, *arguments: str) -> str:
    """The id of a new job that is buried."""
    id = submitted(shop, *arguments)
    assert shop.kq("jobs", "bury", id).code == 0
    return id


def shown(shop: Place, id: str) -> dict[str, object]:
    said = shop.kq("--json", "jobs", "show", id)
    assert said.code == 0, said.err
    found: dict[str, object] = said.json
    return found


def ended(shop: Place, id: str, state: str) -> dict[str, object]:
    """A job that a worker brings to an end."""
    eventually(lambda: shop.look("jobs", "show", id)["state"] == state, f"it is {state}")
    return shown(shop, id)


def test_a_job_that_failed_is_edited_and_kicked_and_runs(shop: Place) -> None:
    with worker(shop):
        id = submitted(shop, "resize", "bad")
        assert ended(shop, id, "buried")["error"] == "BadJob: no picture"
        edited = shop.kq("jobs", "edit", id, "--set", "args.0=cat.png", "--set", "kwargs.width=8", "--reason", "typo")
        assert (edited.code, edited.out) == (0, f"edited {id}: args.0, kwargs.width\n")
        kicked = shop.kq("jobs", "kick", id)
        assert (kicked.code, kicked.out) == (0, f"kicked 1: {id}\n")
        assert ended(shop, id, "completed")["result"] == "cat.png 8"
    said = shop.kq("jobs", "show", id).out
    assert "edited by" in said
    assert "typo" in said


def test_what_does_not_fit_is_refused_and_named(shop: Place) -> None:
    id = buried(shop, "resize", "cat.png")
    wrong = shop.kq("jobs", "edit", id, "--set", "kwargs.width=wide")
    assert wrong.code == 65
    assert "'width'" in wrong.err
    for setting in ("type=other", "args.7=x", "args.0.x=1", "width"):
        said = shop.kq("jobs", "edit", id, "--set", setting)
        assert said.code == 2, said
        assert setting.partition("=")[0] in said.err
    assert shown(shop, id)["kwargs"] == {}


def test_json_that_a_job_cannot_carry_is_refused_wherever_it_is_written(shop: Place) -> None:
    id, text = buried(shop, "resize", "cat.png"), r'"\ud800"'
    for verb in (
        ("jobs", "complete", id, "--result", text),
        ("jobs", "complete", id, "--result", "[NaN]"),
        ("jobs", "kick", id, "--done", "--outcome", text),
        ("jobs", "edit", id, "--set", f"args.0={text}"),
        ("submit", "resize", "cat.png", "--kwargs", f'{{"width": {text}}}'),
        ("submit", "other.type", "[" * 20_000, "--queue", "mail"),
    ):
        said = shop.kq(*verb)
        assert said.code in (2, 65), (verb, said)
        assert "KQ001" not in said.err
    (job,) = shop.kq("--json", "jobs", "ls").json
    assert (job["id"], job["state"], shown(shop, id)["args"]) == (id, "buried", ["cat.png"])


def test_an_application_that_does_not_know_the_type_changes_nothing_unless_told(shop: Place) -> None:
    id = buried(shop, "resize", "cat.png")
    shop.write("other.py", JOBS.replace("def resize", "def shrink"))
    refused = shop.kq("-A", "other:app", "jobs", "edit", id, "--set", "args.0=dog.png")
    assert refused.code == 1
    assert "--unchecked" in refused.err
    assert shop.kq("-A", "other:app", "jobs", "edit", id, "--set", "args.0=dog.png", "--unchecked").code == 0
    assert shown(shop, id)["args"] == ["dog.png"]


def test_without_an_application_an_edit_says_that_nothing_was_checked(shop: Place) -> None:
    id = buried(shop, "resize", "cat.png")
    shop.write("kq.yaml", "url: sqlite:///kq.db\n")
    said = shop.kq("jobs", "edit", id, "--set", "args.0=dog.png")
    assert said.code == 0
    assert "not checked" in said.err
    assert shown(shop, id)["args"] == ["dog.png"]


def editor(shop: Place, code: str) -> str:
    """An editor that runs Python code on the text of the file, which only its owner may read."""
    program = f"""
import pathlib, sys
path = pathlib.Path(sys.argv[1])
assert path.stat().st_mode & 0o777 == 0o600
with open({str(shop.folder / "seen")!r}, "a") as seen:
    seen.write(path.read_text() + "---")
text = path.read_text()
{code}
path.write_text(text)
"""
    return f"{sys.executable} {shop.write('editor.py', program)}"


def test_a_job_is_edited_in_an_editor(shop: Place) -> None:
    id = buried(shop, "resize", "cat.png")
    said = shop.kq("jobs", "edit", id, EDITOR=editor(shop, 'text = text.replace("cat.png", "dog.png")'))
    assert said.out == f"edited {id}: args.0\n"
    assert shown(shop, id)["args"] == ["dog.png"]
    (seen, _) = (shop.folder / "seen").read_text().split("---")
    assert f"resize {id}, buried in default" in seen
    assert [path for path in Path("/tmp").glob("kq-*/job-*") if id in path.name] == []


def test_a_secret_argument_is_shown_nowhere_and_stays_when_it_is_left(shop: Place) -> None:
    id = buried(shop, "charge", '{"kq.secret": "hunter2"}')
    for verb in (["--json", "jobs", "show", id], ["jobs", "show", id], ["jobs", "ls"], ["--json", "jobs", "ls"]):
        assert "hunter2" not in shop.kq(*verb).out
    assert shown(shop, id)["args"] == [{"kq.secret": "***"}]
    assert "write kq.Secret(…)" in shop.kq("submit", "charge", "hunter2").err
    said = shop.kq(
        "jobs", "edit", id, EDITOR=editor(shop, 'text = text.replace(\'"kwargs": {\', \'"kwargs": {"times": 2\')')
    )
    assert said.out == f"edited {id}: kwargs.times\n", said.err
    assert "hunter2" not in (shop.folder / "seen").read_text()
    with worker(shop):
        assert shop.kq("jobs", "kick", id).code == 0
        assert ended(shop, id, "completed")["result"] == "HUNTER2"


def test_what_is_wrong_is_offered_again_with_its_line(shop: Place) -> None:
    id = buried(shop, "resize", "cat.png")
    code = """
if "# line" in text:
    text = text.replace("dog.png]", 'dog.png"]')
else:
    text = text.replace('\\n    "cat.png"\\n  ]', '["dog.png]').replace("[[", "[")
"""
    said = shop.kq("jobs", "edit", id, EDITOR=editor(shop, code))
    assert (said.code, said.out) == (0, f"edited {id}: args.0\n"), said.err
    second = (shop.folder / "seen").read_text().split("---")[1]
    assert second.startswith("# line ")
    assert shown(shop, id)["args"] == ["dog.png"]


def test_an_editor_that_gives_the_same_wrong_text_back_ends_it(shop: Place) -> None:
    id = buried(shop, "resize", "cat.png")
    said = shop.kq("jobs", "edit", id, EDITOR=editor(shop, 'text = text.replace(\'"cat.png"\', "17")'))
    assert said.code == 65
    assert "'path'" in said.err
    assert shown(shop, id)["args"] == ["cat.png"]


def test_a_text_that_is_left_alone_leaves_the_job_alone(shop: Place) -> None:
    id = buried(shop, "resize", "cat.png")
    assert shop.kq("jobs", "edit", id, EDITOR="true").out == f"{id} is as it was\n"
    assert shop.kq("jobs", "edit", id, EDITOR="false").code == 65
    assert shop.kq("jobs", "edit", id).code == 2


def test_jobs_are_listed_and_kicked_by_what_they_are(shop: Place) -> None:
    first, second = buried(shop, "resize", "cat.png"), buried(shop, "resize", "dog.png")
    third = buried(shop, "send", "user@example.org")
    listed = shop.kq("--json", "jobs", "ls", "--state", "buried", "--search", "DOG").json
    assert [job["id"] for job in listed] == [second]
    assert [job["id"] for job in shop.kq("--json", "jobs", "ls", "--type", "send").json] == [third]
    assert shop.kq("--json", "jobs", "ls", "--older", "1h").json == []
    which = shop.kq("--json", "jobs", "kick", "--queue", "default", "--dry-run").json
    assert sorted(which["would_kick"]) == sorted([first, second])
    kicked = shop.kq("--json", "jobs", "kick", "--type", "resize", "--rate", "20/s").json
    assert (sorted(kicked["kicked"]), kicked["refused"], kicked["stopped"]) == (sorted([first, second]), [], None)
    assert shown(shop, third)["state"] == "buried"
    assert shop.kq("jobs", "kick").code == 2
    assert shop.kq("jobs", "kick", "--all", "--rate", "often").code == 2


def test_buried_jobs_are_told_by_what_they_failed_of(shop: Place) -> None:
    with worker(shop):
        ids = [submitted(shop, "resize", "bad"), submitted(shop, "resize", "bad"), submitted(shop, "send", "nobody")]
        for id in ids:
            ended(shop, id, "buried")
    first, second = shop.kq("--json", "jobs", "ls", "--state", "buried", "--group").json
    assert (first["type"], first["exception"], first["place"], first["count"]) == (
        "jobs.resize",
        "BadJob",
        "jobs.py:resize",
        2,
    )
    assert (second["exception"], second["count"], second["newest_id"]) == ("ValueError", 1, ids[2])
    assert "jobs.py:resize" in shop.kq("jobs", "ls", "--group").out


def test_a_canary_that_fails_as_before_keeps_the_others_buried(shop: Place) -> None:
    with worker(shop):
        ids = [submitted(shop, "resize", "bad") for _ in range(3)]
        for id in ids:
            ended(shop, id, "buried")
        said = shop.kq("jobs", "kick", "--all", "--first", "1", "--stop-on-same-failure")
        assert said.code == 1, said
        assert "failed as before: BadJob: no picture; 2 stay buried" in said.err
        for id in ids:
            ended(shop, id, "buried")
            shop.kq("jobs", "edit", id, "--set", "args.0=cat.png")
        said = shop.kq("--json", "jobs", "kick", "--all", "--first", "1", "--stop-on-same-failure")
        assert (said.code, sorted(said.json["kicked"]), said.json["stopped"]) == (0, sorted(ids), None)
        for id in ids:
            ended(shop, id, "completed")


def test_a_canary_that_does_not_end_in_time_keeps_the_others_buried(shop: Place) -> None:
    ids = [buried(shop, "resize", "cat.png") for _ in range(2)]
    said = shop.kq("--json", "jobs", "kick", "--all", "--first", "1", "--wait", "0.2s")
    assert said.code == 75
    assert (len(said.json["kicked"]), said.json["left"]) == (1, 1)
    assert sorted(str(shown(shop, id)["state"]) for id in ids) == ["buried", "ready"]


def test_a_job_is_completed_by_hand(shop: Place) -> None:
    id = buried(shop, "resize", "cat.png")
    assert shop.kq("jobs", "complete", id, "--result", "{").code == 2
    assert shop.kq("jobs", "complete", id, "--result", '"by hand"').out == f"completed {id}\n"
    assert shown(shop, id)["result"] == "by hand"
    again = shop.kq("jobs", "complete", id)
    assert again.code == 1
    assert "completed" in again.err


def test_jobs_are_deleted_and_those_that_are_not_there_are_told(shop: Place) -> None:
    id = submitted(shop, "resize", "cat.png", "--delay", "1h")
    said = shop.kq("--json", "jobs", "rm", id, "nothing", "--yes")
    assert said.code == 1
    assert (said.json["deleted"], [each["id"] for each in said.json["refused"]]) == ([id], ["nothing"])
    assert shown(shop, id)["state"] == "deleted"
    assert shop.kq("jobs", "rm", "nothing", "--yes").code == 1


@pytest.mark.parametrize(
    ("verb", "done", "lies"),
    [
        ("revoke", "revoked", False),
        ("bury", "buried", False),
        ("rm --yes", "deleted", False),
        ("complete", "completed", True),
        ("kick", "kicked", True),
    ],
)
def test_several_jobs_are_named_and_what_became_of_each_is_said(shop: Place, verb: str, done: str, lies: bool) -> None:
    ids = [buried(shop, "resize", "a") if lies else submitted(shop, "resize", "a", "--delay", "1h") for _ in range(3)]
    words = ("jobs", *verb.split())
    said = shop.kq(*words, ids[0], "nobody", ids[1], ids[0])
    assert said.code == 1
    told = [f"kicked 2: {ids[0]} {ids[1]}"] if done == "kicked" else [f"{done} {id}" for id in ids[:2]]
    assert said.out.splitlines() == told
    assert len(said.err.splitlines()) == 1
    assert "nobody" in said.err
    assert shown(shop, ids[2])["state"] == ("buried" if lies else "delayed")
    more = shop.kq("--json", *words, ids[2], "nobody")
    assert more.code == 1
    assert (more.json[done], [each["id"] for each in more.json["refused"]]) == ([ids[2]], ["nobody"])
    if done == "revoked":
        assert all(shown(shop, id)["state"] == "revoked" for id in ids)


def test_what_people_did_is_told(shop: Place) -> None:
    id = submitted(shop, "resize", "cat.png")
    shop.kq("jobs", "bury", id, "--reason", "not today")
    shop.kq("jobs", "kick", id, "--reason", "now")
    acts = shop.kq("--json", "jobs", "audit").json
    assert [(act["act"], act["job"], act["reason"]) for act in acts] == [
        ("kicked", id, "now"),
        ("buried", id, "not today"),
    ]
    assert "not today" in shop.kq("jobs", "audit").out


def test_whoever_sits_at_a_terminal_is_asked_before_many_jobs_are_kicked(shop: Place) -> None:
    ids = [buried(shop, "resize", "cat.png") for _ in range(2)]
    refused = at_a_terminal(shop, "n\n", "jobs", "kick", "--all")
    assert refused.code == 130
    assert "Kick 2 jobs?" in refused.err
    assert {shown(shop, id)["state"] for id in ids} == {"buried"}
    assert at_a_terminal(shop, "y\n", "jobs", "kick", "--all").code == 0
    assert {shown(shop, id)["state"] for id in ids} == {"ready"}
