"""The API says what the command line prints, and its description says what it does."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from threading import Thread, Timer
from time import monotonic, time
from typing import Any
from urllib.parse import quote, urlencode

import click
import jsonschema
import pytest

import kq
from kq.cli.frame import VERBS, Root
from kq.conformance.contract.waiting import eventually
from kq.control import Control
from kq.effects.context import CurrentJob, Footing
from kq.events import Mouth
from kq.handles.standing import read
from kq.state import Write
from kq.values.event import Event, batches, followed_key
from kq.values.job import State
from kq.values.record import Record, encode, job_key, lease_key
from kq.web import desk
from kq.web.acts import ACTS
from kq.web.looks import LOOKS
from kq.web.openapi import component, document
from kq.web.site import Site
from scripts import reference
from tests.web.conftest import JUNK, TOKENS, Browser, anybody

#: Verbs about this host, this terminal or one worker, which are nothing to ask a server for.
LOCAL = {
    "bench",
    "completion",
    "control",
    "demo",
    "dev",
    "doctor",
    "explain",
    "health",
    "init",
    "jobs rehearse",
    "monitor",
    "web",
    "worker",
}
DOCUMENT = document()


def operations(paths: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, method and description of each."""
    return ((path, method, told) for path, methods in paths.items() for method, told in methods.items())


def fits(form: str, value: Any) -> None:
    """Raise unless value is as the description says of a form."""
    schema = {"$ref": f"#/components/schemas/{component(form)}", "components": DOCUMENT["components"]}
    jsonschema.Draft202012Validator(schema).validate(value)


@pytest.fixture
def browser(guarded: Site, browse: Callable[..., Browser]) -> Browser:
    return browse(guarded)


def test_all_that_the_command_line_can_the_api_can(control: Control) -> None:
    root = click.Context(Root(), info_name="kq")
    groups = [click.Context(root.command.get_command(root, verb), root, verb) for verb in VERBS]  # type: ignore[attr-defined]
    verbs = {leaf.command_path.removeprefix("kq ") for group in groups for leaf in reference.leaves(group)}
    told = {look.form for look in LOOKS} | {act.form for act in ACTS} | {"events", "logs", "metrics", "jobs stream"}
    assert sorted(verbs - LOCAL - told) == []
    assert sorted(LOCAL - verbs) == []


def test_the_description_names_every_way_and_nothing_else(guarded: Site) -> None:
    paths = {
        (route.path.removeprefix("/api/v1").replace(":kq_name", ""), next(iter(route.methods - {"HEAD"})).lower())  # type: ignore[attr-defined]
        for route in guarded.routes
        if getattr(route, "path", "").startswith("/api/v1/")
    }
    described = {(path, method) for path, method, _ in operations(DOCUMENT["paths"])}
    assert described == paths - {("/openapi.json", "get")}


def test_the_description_is_whole(browser: Browser) -> None:
    told = browser.api("/openapi.json").json()
    assert told["openapi"] == "3.1.0"
    text = json.dumps(told)
    names = re.findall(r'"#/components/schemas/([^"]+)"', text)
    assert set(names) <= set(told["components"]["schemas"])
    assert all(re.fullmatch(r"[\w.-]+", name) for name in told["components"]["schemas"])
    ids = [way["operationId"] for _, _, way in operations(told["paths"])]
    assert len(ids) == len(set(ids))
    for schema in told["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for path, method, way in operations(told["paths"]):
        assert ("{name}" in path) == any(each["in"] == "path" for each in way.get("parameters", [])), (path, method)
        assert way["responses"]["200"]


def test_what_is_seen_is_as_the_description_says(browser: Browser, app: kq.App, control: Control) -> None:
    id = app.jobs["login"].submit("ann", "pw").id
    buried = app.jobs["login"].submit("bo", "pw").id
    control.bury(buried)
    control.pause("images")
    for look in LOOKS:
        name = {"jobs": id, "queues": "doors", "effects": "nobody"}.get(look.path.split("/")[1], "")
        answer = browser.api(look.path.replace("{name}", name))
        if look.form in ("effects show", "jobs stack"):  # there is none, and it does not run
            assert answer.status_code == 404
            fits("error", answer.json())
            continue
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        fits(look.form, answer.json())
    assert [group["count"] for group in browser.api("/failures").json()] == [1]
    assert [job["id"] for job in browser.api("/jobs?state=ready&queue=doors").json()] == [id]
    assert "why" in browser.api(f"/jobs/{id}/why").json()


def test_what_is_done_is_as_the_description_says(browser: Browser, app: kq.App, control: Control) -> None:
    def done(path: str, form: str, **body: Any) -> Any:
        answer = browser.api(path, body)
        assert answer.status_code == 200, answer.text
        fits(form, answer.json())
        return answer.json()

    id = done("/jobs", "submit", type="login", args=["ann", "pw"], kwargs={"note": "x"})["id"]
    other = done("/jobs", "submit", type="login", args=["bo", "pw"], queue="gates", delay="5m")["id"]
    assert done(f"/jobs/{id}/edit", "jobs edit", args=["anna", "***"])["changed"] == ["args.0"]
    done(f"/jobs/{id}/bury", "jobs bury", reason="x")
    assert done("/jobs/kick", "jobs kick", all=True, dry_run=True)["would_kick"] == [id]
    assert done(f"/jobs/{id}/kick", "jobs kick")["kicked"] == [id]
    done("/jobs/bury", "jobs bury", ids=[id, "nobody"])
    done(f"/jobs/{id}/complete", "jobs complete", result={"a": 1})
    done("/queues/gates/pause", "queues pause", reason="x")
    done("/queues/gates/resume", "queues resume")
    done("/types/login/pause", "queues pause")
    done("/types/login/resume", "queues resume")
    done(f"/jobs/{other}/revoke", "jobs revoke", interrupt=True)
    done("/jobs/revoke", "jobs revoke", ids=["nobody"])
    done("/jobs/rm", "jobs rm", ids=["nobody"])
    done("/queues/gates/purge", "queues purge")
    done("/queues/gates/rm", "queues rm")
    done("/workers/ping", "workers ping")
    assert {act.by for act in control.audit()} == {"editor"}


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/queues/doors/pause", [], 422, "KQ202"),
        ("/queues/doors/pause", {"reason": 5}, 422, "KQ202"),
        ("/queues/doors/pause", {"polish": True}, 422, "KQ202"),
        ("/queues/nobody/pause", {}, 404, "KQ502"),
        ("/jobs/nobody/kick", {"answer": "maybe"}, 422, "KQ202"),
        ("/jobs/nobody/rm", {}, 409, "KQ503"),
        ("/jobs/nobody/edit", {}, 404, "KQ502"),
        ("/jobs/kick", {"limit": 0, "all": True}, 422, "KQ202"),
        ("/jobs/kick", {"older": "soon"}, 422, "KQ202"),
        ("/jobs", {"type": "login", "args": ["a", "b"], "priority": True}, 422, "KQ202"),
        ("/jobs", {"args": []}, 422, "KQ202"),
        ("/effects/nobody/lift", {}, 409, "KQ503"),
        ("/workers/nobody/retire", {}, 404, "KQ502"),
    ],
)
def test_what_can_not_be_done_is_told_as_the_command_line_tells_it(
    browser: Browser, path: str, body: Any, status: int, code: str
) -> None:
    answer = browser.api(path, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    fits("error", answer.json())


def test_a_change_is_json(browser: Browser) -> None:
    token = {"authorization": "Bearer edit-token"}
    for content, kind in ((b"{", "application/json"), (b"{}", "text/plain"), (b"\xff", "application/json"), (b"", "")):
        headers = {**token, **({"content-type": kind} if kind else {})}
        answer = browser.client.post("/api/v1/queues/doors/pause", content=content, headers=headers)
        assert answer.status_code == 422, answer.text
    deep = b'{"reason": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    answer = browser.client.post(
        "/api/v1/queues/doors/pause", content=deep, headers={**token, "content-type": "application/json"}
    )
    assert answer.status_code == 422


def test_what_is_not_there_is_404_and_other_methods_405(browser: Browser) -> None:
    for answer, status in ((browser.api("/nothing"), 404), (browser.client.delete("/api/v1/status"), 405)):
        assert answer.status_code == status
        fits("error", answer.json())
    assert set(browser.client.delete("/api/v1/status").headers["allow"].split(", ")) == {"GET", "HEAD"}
    fits("error", browser.client.get("/api/v1/status", headers={"host": "evil.example"}).json())
    assert browser.client.get("/nothing").text == "there is no GET /nothing\n"


def test_numbers_are_told_to_prometheus(browser: Browser, app: kq.App) -> None:
    app.jobs["login"].submit("ann", "pw")
    answer = browser.api("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 'kq_queue_jobs{queue="doors",state="ready"} 1' in answer.text


def test_events_are_told_as_they_happen_for_some_time(browser: Browser, app: kq.App) -> None:
    answer = browser.api("/events?seconds=0")
    assert (answer.status_code, answer.text) == (200, "")
    assert browser.api("/events?seconds=1h").status_code == 422


def test_a_job_is_followed_by_server_sent_events(browser: Browser, app: kq.App, control: Control) -> None:
    id = app.jobs["login"].submit("ann", "pw").id

    def bury() -> None:
        """As soon as somebody follows it."""
        eventually(lambda: read(app.store).followed, "it is followed")
        control.apart().bury(id, "password=pw is wrong")

    buried = Thread(target=bury)
    buried.start()
    try:
        answer = browser.api(f"/jobs/{id}/events?seconds=30")
    finally:
        buried.join()
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = [dict(line.split(": ", 1) for line in each.splitlines()) for each in answer.text.strip().split("\n\n")]
    told = [each for each in told if "event" in each]
    # Whoever is quick buries it before it was looked at.
    assert [(each["event"], each.get("id")) for each in told][-2:] in (
        [("submitted", None), ("buried", "end")],
        [("buried", "end")],
    )
    events = [json.loads(each["data"]) for each in told]
    for event in events:
        fits("events", event)
        assert event["job"] == id
    assert "password=***" in events[-1]["message"]
    again = browser.api(f"/jobs/{id}/events", last_event_id="end")
    assert (again.status_code, again.text) == (204, "")
    assert browser.api("/jobs/nobody/events").status_code == 404
    assert browser.api(f"/jobs/{id}/events?seconds=1h").status_code == 422


def test_a_name_that_a_stranger_gave_an_event_is_not_told(browser: Browser, app: kq.App, control: Control) -> None:
    id = app.jobs["login"].submit("ann", "pw").id

    def forge() -> None:
        """As soon as somebody follows it: what whoever reaches the broker may publish."""
        eventually(lambda: read(app.store).followed, "it is followed")
        mouth = Mouth(app.broker)
        for name in ("x\ndata: forged\n\nevent: completed", "", "overdue"):
            mouth.tell(batches([(followed_key(id), Event(event=name, at=time() + 9, job=id, attempt=1))]))
        mouth.close()
        control.apart().bury(id, "it is over")

    forger = Thread(target=forge)
    forger.start()
    try:
        answer = browser.api(f"/jobs/{id}/events?seconds=30")
    finally:
        forger.join()
    names = [line for line in answer.text.splitlines() if line.startswith("event: ")]
    assert set(names) <= {"event: submitted", "event: overdue", "event: buried"}
    assert names[-1] == "event: buried"
    assert "data: forged" not in answer.text


def test_a_jobs_stream_is_read_by_server_sent_events(browser: Browser, app: kq.App) -> None:
    id = app.jobs["login"].submit("ann", "pw").id
    app.store.write([Write(lease_key("w"), b"1")])
    job = CurrentJob(id, "login", "mail", 1, monotonic() + 60, Footing(app, "w"))
    for chunk in ("one", "password=pw", {"token": "abc"}):
        job.emit(chunk)
    job.finish()
    app.store.write([Write(job_key(id), encode(Record(State.COMPLETED)))])
    answer = browser.api(f"/jobs/{id}/stream")
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = [dict(line.split(": ", 1) for line in each.splitlines()) for each in answer.text.strip().split("\n\n")]
    assert [each["id"] for each in told] == ["0", "1", "2", "end"]
    chunks = [json.loads(each["data"]) for each in told[:-1]]
    for each in chunks:
        fits("jobs stream", each)
    assert [each["value"] for each in chunks] == ["one", "password=***", {"token": "***"}]
    rest = browser.api(f"/jobs/{id}/stream", last_event_id="1").text
    assert rest.count("data: ") == 2
    assert browser.api(f"/jobs/{id}/stream", last_event_id="end").status_code == 204
    assert browser.api(f"/jobs/{id}/stream?offset=2").text == rest
    assert browser.api("/jobs/nobody/stream").status_code == 404
    shown = browser.api(f"/jobs/{id}").json()["emitted"]
    assert (shown["count"], shown["left_out"]) == (3, 0)
    assert [each["value"] for each in shown["last"]] == ["one", "password=***", {"token": "***"}]


def test_a_jobs_end_is_waited_for(browser: Browser, app: kq.App, control: Control) -> None:
    id = app.jobs["login"].submit("ann", "pw").id
    assert browser.api(f"/jobs/{id}/ended?seconds=0").json()["state"] == "ready"
    buried = Timer(0.3, lambda: control.apart().bury(id, "x"))
    buried.start()
    try:
        told = browser.api(f"/jobs/{id}/ended").json()
    finally:
        buried.join()
    fits("jobs show", told)
    assert (told["state"], told["args"]) == ("buried", ["ann", "***"])
    assert browser.api("/jobs/nobody/ended").status_code == 404
    assert browser.api(f"/jobs/{id}/ended?seconds=1h").status_code == 422


def test_only_so_many_wait_at_a_time(
    control: Control, app: kq.App, browse: Callable[..., Browser], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "WAITS", 1)
    browser = browse(Site(control, authorize=anybody, hosts=()))
    id = app.jobs["login"].submit("ann", "pw").id

    def refused() -> Any:
        answer = browser.api(f"/jobs/{id}/ended?seconds=0", token="")
        return answer.status_code == 429 and answer.json()

    def wait() -> None:
        while browser.api(f"/jobs/{id}/ended", token="").status_code == 429:  # the other one was just there
            pass

    first = Thread(target=wait)
    first.start()
    try:
        told = eventually(refused, "another one waits")
    finally:
        control.apart().bury(id)
        first.join(30)
    fits("error", told)
    assert told["error"]["code"] == "KQ603"


def test_jobs_are_kicked_at_a_rate_and_a_few_first(browser: Browser, app: kq.App, control: Control) -> None:
    ids = [app.jobs["login"].submit("ann", "pw").id for _ in range(4)]
    for id in ids:
        control.bury(id)
    began = monotonic()
    done = browser.api("/jobs/kick", {"type": "login", "limit": 3, "rate": "20/s"}).json()
    fits("jobs kick", done)
    assert (done["kicked"], done["left"], done["stopped"]) == (ids[:3], 0, None)
    assert monotonic() - began >= 1 / 20
    for id in ids[:3]:
        control.bury(id)
    # The canary was kicked, and nobody runs it.
    told = browser.api("/jobs/kick", {"all": True, "first": 1, "stop_on_same_failure": True, "wait": 0.1}).json()
    assert (len(told["kicked"]), told["left"]) == (1, 3)
    assert f"{told['kicked'][0]} has not ended" in told["stopped"]
    for wrong in ({"rate": "often"}, {"rate": "1/h"}, {"first": 1, "wait": "1h"}):
        refused = browser.api("/jobs/kick", {"all": True, **wrong})
        assert refused.status_code == 422, refused.text
    assert control.queues()[0].buried == 3
    assert browser.api("/jobs/kick", {"all": True, "rate": "1/s"}, token=TOKENS["viewer"]).status_code == 403


@pytest.mark.parametrize("seed", range(2))
def test_whatever_is_sent_the_answer_is_as_the_description_says(
    browser: Browser, app: kq.App, control: Control, seed: int
) -> None:
    chance = random.Random(seed)
    id = app.jobs["login"].submit("ann", "pw").id
    names = ["doors", id, "login", "nobody", "a/b", "\x00", "é\n", "..", "%2e%2e/%00"]
    for path, method, way in operations(DOCUMENT["paths"]):
        for _ in range(12):
            at = path.replace("{name}", quote(chance.choice(names), safe=""))
            if method == "get":
                parameters = [each["name"] for each in way.get("parameters", []) if each["in"] == "query"]
                said = {name: str(chance.choice(JUNK)) for name in parameters if chance.random() < 0.4}
                said |= {"seconds": "0"} if "seconds" in parameters else {}
                at += "?" + urlencode(said, errors="replace")
                answer = browser.api(at)
            else:
                body = way.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
                fields = [name for name in body.get("properties", {}) if chance.random() < 0.5]
                sent = json.dumps({name: chance.choice(JUNK) for name in fields})
                headers = {"authorization": "Bearer edit-token", "content-type": "application/json"}
                answer = browser.client.post(f"/api/v1{at}", content=sent, headers=headers)
            assert answer.status_code in (200, 403, 404, 409, 413, 422), (method, at, answer.text)
            if answer.status_code != 200:
                fits("error", answer.json())
            elif answer.headers["content-type"] == "application/json":
                told = way["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
                fits(told, answer.json())
