"""What people do by the page's forms, and what it says then."""

from __future__ import annotations

import json
import random
import re
from urllib.parse import quote, urlencode

import pytest

import kq
from kq.control import Control
from kq.values.job import State
from kq.web import notices
from kq.web.acts import ACTS
from tests.web.conftest import JUNK, Browser, words


@pytest.fixture
def buried(app: kq.App, control: Control) -> list[str]:
    """Three jobs that lie buried, the first for another reason."""
    ids = [app.jobs["login"].submit(name, "s3cret-pw", api_key="K").id for name in ("ann", "bo", "cy")]
    for number, id in enumerate(ids):
        control.bury(id, "one" if number == 0 else "other", by="ops")
    return ids


def states(control: Control) -> dict[str, str]:
    return {job.id: job.state.value for job in control.jobs()}


def test_a_queue_is_paused_and_resumed(open_page: Browser, control: Control) -> None:
    assert "paused queue doors; 0 of 0 workers have heard" in open_page.told(
        "/queues/doors/pause", reason="the door is stuck"
    )
    (doors,) = [queue for queue in control.queues() if queue.name == "doors"]
    assert doors.paused is not None
    assert doors.paused.reason == "the door is stuck"
    assert "resumed queue doors" in open_page.told("/queues/doors/resume")
    assert [(act.act, act.queue, act.reason) for act in control.audit()] == [
        ("resumed", "doors", ""),
        ("paused", "doors", "the door is stuck"),
    ]
    assert "the door is stuck" in open_page.get("/audit").text


def test_a_type_is_paused_and_resumed(open_page: Browser, control: Control) -> None:
    open_page.told("/types/login/pause", reason="later")
    assert "jobs of type login are paused" in open_page.get("/").text
    assert "resumed type login" in open_page.told("/types/login/resume")


def test_a_type_is_paused_from_one_of_its_jobs(open_page: Browser, buried: list[str]) -> None:
    page = f"/jobs/{buried[0]}"
    assert "Pause type" in words(open_page.get(page))
    open_page.told("/types/login/pause", back=page)
    assert "Resume type" in words(open_page.get(page))


def test_a_delayed_job_is_run_now(open_page: Browser, app: kq.App) -> None:
    handle = app.jobs["resize"].options(delay=600).submit("late.png")
    assert "edited delay" in open_page.told(f"/jobs/{handle.id}/edit", delay="0", unchecked="true")
    assert handle.state() is State.READY


def test_one_buried_job_is_edited_and_kicked_and_secrets_stay_as_they_are(
    open_page: Browser, control: Control, buried: list[str]
) -> None:
    page = open_page.get(f"/jobs/{buried[0]}").text
    version = re.search(r'name="version" value="(\w+)"', page)
    assert version is not None
    edit = f"/jobs/{buried[0]}/edit"
    said = open_page.told(
        edit,
        args='["anna", "***"]',
        kwargs='{"api_key": "***", "note": "hello"}',
        priority="9",
        version=version[1],
        reason="misspelt",
    )
    assert "edited args.0, kwargs.note, priority" in said
    job = control.job(buried[0])
    assert job is not None
    assert (job.args, job.kwargs) == (["anna", "s3cret-pw"], {"api_key": "K", "note": "hello"})
    again = open_page.post(edit, args='["x", "***"]', version=version[1])
    assert (again.status_code, "has changed since you looked" in again.text) == (409, True)
    open_page.told(f"/jobs/{buried[0]}/kick", reason="mended")
    job = control.job(buried[0])
    assert job is not None
    assert (job.state, job.priority, job.args) == (State.READY, 9, ["anna", "s3cret-pw"])


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"args": '["***", "***"]'}, "*** stands where it did not"),
        ({"args": '["x ***", "***"]'}, "*** stands where it did not"),
        ({"args": "[1"}, "args is no JSON"),
        ({"args": '["\\ud800", "x"]'}, "args is no JSON"),
        ({"kwargs": '{"note": NaN}'}, "kwargs is no JSON"),
        ({"args": "{}"}, "args is a list"),
        ({"kwargs": '{"colour": 1}'}, "colour"),
        ({"args": "[]"}, "name"),
        ({"priority": "12"}, "priority can"),
        ({"delay": "5m"}, "has no delay"),
        ({"polish": "1"}, "there is no field"),
    ],
)
def test_what_does_not_fit_changes_nothing(
    open_page: Browser, control: Control, buried: list[str], fields: dict[str, str], why: str
) -> None:
    before = control.job(buried[0])
    answer = open_page.post(f"/jobs/{buried[0]}/edit", **fields)
    assert answer.status_code in (409, 422), answer.text
    assert why in answer.text
    after = control.job(buried[0])
    assert before is not None
    assert after is not None
    assert before.version == after.version


def test_those_that_are_ticked_are_kicked(open_page: Browser, control: Control, buried: list[str]) -> None:
    said = open_page.told("/jobs/kick", ids=[*buried[:2], "nobody"], back="/jobs?state=buried")
    assert "kicked 2 jobs" in said
    assert "not nobody: it is not buried" in said
    assert [states(control)[id] for id in buried] == ["ready", "ready", "buried"]


def test_a_group_is_kicked_by_what_it_failed_of(open_page: Browser, control: Control, buried: list[str]) -> None:
    page = open_page.get("/buried").text
    assert page.index('<span class="n">2</span> login') < page.index('<span class="n">1</span> login')
    group = {"type": "login", "error": "buried by ops: other", "place": ""}
    assert f"kicked {buried[1]}" in open_page.told("/jobs/kick", **group, limit="1", back="/buried")
    assert f"kicked {buried[2]}" in open_page.told("/jobs/kick", **group, back="/buried")
    assert f"kicked {buried[0]}" in open_page.told("/jobs/kick", search="ONE", back="/buried")


def test_of_a_group_only_what_the_page_shows_is_kicked(
    open_page: Browser, app: kq.App, control: Control, buried: list[str]
) -> None:
    elsewhere = app.jobs["login"].options(queue="gates").submit("di", "x" * 8).id
    control.bury(elsewhere, "other", by="ops")
    page = open_page.get("/buried?queue=gates").text
    assert page.count('<article class="group">') == 1
    kick_all, kick_one = re.findall(r'action="/jobs/kick">(.*?)</form>', page, re.DOTALL)
    for form in (kick_all, kick_one):
        said = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form))
        assert (said["queue"], said["back"]) == ("gates", "/buried?queue=gates")
    group = {"type": "login", "error": "buried by ops: other", "place": "", "queue": "gates"}
    assert f"kicked {elsewhere}" in open_page.told("/jobs/kick", **group, back="/buried?queue=gates")


def test_it_must_be_said_which(open_page: Browser, control: Control, buried: list[str]) -> None:
    assert "not said which" in open_page.post("/jobs/kick").text
    assert "ids is missing" in open_page.post("/jobs/rm").text
    assert set(states(control).values()) == {"buried"}
    assert "kicked 3 jobs" in open_page.told("/jobs/kick", all="true")


def test_jobs_are_buried_revoked_completed_and_deleted(
    open_page: Browser, app: kq.App, control: Control, buried: list[str]
) -> None:
    handles = [app.jobs["resize"].submit(f"{number}.png") for number in range(4)]
    ids = [handle.id for handle in handles]
    assert f"buried {ids[0]}" in open_page.told(f"/jobs/{ids[0]}/bury", reason="wait")
    assert "buried 2 jobs" in open_page.told("/jobs/bury", ids=ids[1:3])
    assert f"revoked {ids[3]}" in open_page.told(f"/jobs/{ids[3]}/revoke")
    for wrong in ('"\\ud800"', "[NaN]", "1e999", "[" * 100 + "]" * 100):
        assert open_page.post(f"/jobs/{ids[0]}/complete", result=wrong).status_code == 422
    assert f"completed {ids[0]}" in open_page.told(f"/jobs/{ids[0]}/complete", result='"by hand"')
    assert handles[0].result(1) == "by hand"
    assert "deleted 2 jobs" in open_page.told("/jobs/rm", ids=[ids[1], buried[0]])
    assert f"deleted {ids[2]}" in open_page.told(f"/jobs/{ids[2]}/rm")
    assert open_page.post(f"/jobs/{ids[2]}/rm").status_code == 409
    assert [handle.state().value for handle in handles] == ["completed", "deleted", "deleted", "revoked"]


def test_a_queue_is_purged_and_removed(open_page: Browser, app: kq.App, control: Control, buried: list[str]) -> None:
    app.jobs["login"].submit("di", "x" * 8)
    assert "purged doors: 1 job ended" in open_page.told("/queues/doors/purge", reason="all wrong")
    assert "purged doors: 3 jobs ended" in open_page.told("/queues/doors/purge", buried="true")
    assert states(control) == {}
    assert "removed doors" in open_page.told("/queues/doors/rm", back="/queues")


def test_a_job_is_submitted_and_the_audit_says_by_whom(open_page: Browser, control: Control) -> None:
    said = open_page.told(
        "/jobs", type="login", args='["ann", "pw"]', kwargs='{"note": "hi"}', priority="7", delay="5m"
    )
    assert "submitted login" in said
    (job,) = control.jobs()
    assert (job.args, job.kwargs, job.priority, job.state, job.queue) == (
        ["ann", "pw"],
        {"note": "hi"},
        7,
        State.DELAYED,
        "doors",
    )
    (act,) = control.audit()
    assert (act.act, act.job, act.type) == ("submitted", job.id, "login")
    for fields in ({"args": "[1]"}, {"args": '["a", "b"]', "kwargs": '{"colour": 1}'}, {"type": "nobody"}):
        answer = open_page.post("/jobs", **{"type": "login", **fields})
        assert answer.status_code in (404, 422), answer.text
    assert len(control.jobs()) == 1


def test_a_worker_that_is_not_there_is_not_retired(open_page: Browser) -> None:
    assert open_page.post("/workers/nobody/retire").status_code == 404
    assert "0 workers answered" in open_page.told("/workers/ping")


def test_a_notice_is_said_once(open_page: Browser) -> None:
    assert "paused queue doors" in open_page.told("/queues/doors/pause")
    assert "paused queue doors;" not in open_page.get("/queues/doors").text
    open_page.client.cookies.set("kq_notice", notices.written({"text": "<b>hello</b>"}))
    assert "&lt;b&gt;hello" in open_page.get("/").text
    open_page.client.cookies.set("kq_notice", "[1")
    assert open_page.get("/").status_code == 200


@pytest.mark.parametrize("seed", range(2))
def test_whatever_a_form_says_is_done_or_told(open_page: Browser, buried: list[str], seed: int) -> None:
    chance = random.Random(seed)
    texts = [*(junk if isinstance(junk, str) else json.dumps(junk) for junk in JUNK), '"\\ud800"', '["\\ud800", NaN]']
    names = [*buried, "doors", "login", "nobody", "a/b", "\x00", "\n"]
    seal = open_page.seal()
    for act in ACTS:
        for _ in range(12):
            path = act.path.replace("{name}", quote(chance.choice(names), safe=""))
            fields = {each.name: chance.choice(texts) for each in act.fields if chance.random() < 0.5}
            body = urlencode({"seal": seal, "back": chance.choice(texts), **fields}, errors="replace")
            kind = {"content-type": "application/x-www-form-urlencoded"}
            answer = open_page.client.post(path, content=body, headers=kind, follow_redirects=False)
            assert answer.status_code in (303, 404, 409, 413, 422), (path, fields, answer.text)
            assert answer.status_code != 303 or answer.headers["location"].startswith("/")
