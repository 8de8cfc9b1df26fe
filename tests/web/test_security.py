"""Who gets in, what he may do there, and what no page of others can make his browser do (FAULTS: T4, S7 to S11)."""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Callable, Iterable
from typing import Any

import httpx2 as httpx
import pytest
from starlette.routing import Route

from kq.conformance.contract.waiting import eventually
from kq.control import Control
from kq.credential import ROLES, Role, new_token, password_hash, understood
from kq.web import asgi_app, refusals, sessions
from kq.web.guard import BODY
from kq.web.identity import User
from kq.web.sessions import IDLE, LONGEST, PERIOD, TRIES, Sessions, Throttle
from kq.web.site import Site
from tests.web.conftest import PASSWORD, TOKENS, Browser, anybody, by_header, sign_in, words

FOREIGN = "this page is not called|a page from elsewhere"


def ways(site: Site) -> Iterable[tuple[str, str, Role]]:
    """Method, address and role of all that may be asked for."""
    for route in site.routes:
        if isinstance(route, Route) and hasattr(route, "role") and route.methods:
            path = route.path.replace("{name:kq_name}", "nobody")
            yield next(iter(route.methods - {"HEAD"})), path, route.role


def changes(site: Site) -> list[str]:
    return [path for method, path, _ in ways(site) if method == "POST"]


def asked(browser: Browser, method: str, path: str, headers: dict[str, str], seal: str) -> httpx.Response:
    """The answer to a request; a change has the seal, and says nothing else."""
    path += "?seconds=0" if path.endswith(("/events", "/logs")) else ""
    if method == "GET":
        return browser.client.get(path, headers=headers, follow_redirects=False)
    if path.startswith("/api/"):
        return browser.client.post(path, headers={**headers, "x-kq-seal": seal}, json={}, follow_redirects=False)
    return browser.client.post(path, headers=headers, data={"seal": seal}, follow_redirects=False)


def test_each_way_is_open_to_its_roles_and_shut_for_all_others(
    control: Control, browse: Callable[..., Browser]
) -> None:
    site = asgi_app(control, authorize=by_header)
    browser = browse(site)
    seen = {}
    made = browser.client.get("/api/v1/me", headers={"x-role": "view"})
    seal, visit = made.json()["seal"], f"kq_session={made.cookies['kq_session']}"
    for method, path, role in ways(site):
        answers = []
        for each in ("", *ROLES):
            browser.client.cookies.clear()  # also after /logout it is the same browser
            headers = {"cookie": visit, **({"x-role": each} if each else {})}
            answers.append(asked(browser, method, path, headers, seal).status_code)
        seen[method, path] = answers
        allowed = ROLES.index(role) + 1
        shut, opened = seen[method, path][:allowed], seen[method, path][allowed:]
        assert set(shut) <= {401, 403}, (method, path, seen[method, path])
        assert not {401, 403, 405, 500} & set(opened), (method, path, seen[method, path])
    assert len(seen) > 60
    assert {role for _, _, role in ways(site)} == set(ROLES)


def test_what_changes_takes_more_than_looking(control: Control) -> None:
    assert {
        path
        for method, path, role in ways(asgi_app(control, authorize=by_header))
        if method == "POST" and role == "view"
    } == {"/logout"}


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({}, "this form is older"),
        ({"x-kq-seal": "0" * 64}, "this form is older"),
        ({"origin": "http://evil.example"}, "from elsewhere"),
        ({"origin": "null"}, "from elsewhere"),
        ({"origin": "http://localhost:8521"}, "from elsewhere"),
        ({"sec-fetch-site": "cross-site"}, "from elsewhere"),
        ({"sec-fetch-site": "same-site"}, "from elsewhere"),
        ({"sec-fetch-site": "none"}, "from elsewhere"),
        ({"host": "evil.example"}, "is not called 'evil.example'"),
        ({"host": ""}, "is not called"),
    ],
)
def test_no_page_of_others_changes_anything(
    control: Control, browse: Callable[..., Browser], headers: dict[str, str], why: str
) -> None:
    site = Site(control, authorize=anybody, hosts=())
    browser = browse(site)
    seal = browser.seal()
    right = {} if "this form" in why else {"x-kq-seal": seal}
    form = {} if "this form" in why else {"seal": seal}
    for path in changes(site):
        if path.startswith("/api/"):
            answer = browser.client.post(path, headers={**right, **headers}, json={}, follow_redirects=False)
        else:
            answer = browser.client.post(path, headers=headers, data=form, follow_redirects=False)
        said = "needs a token" if path.startswith("/api/") and not headers else why
        assert (answer.status_code, said in answer.text) == (403, True), (path, answer.text)
    assert control.audit() == []


LINK = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


@pytest.mark.parametrize("site_of", ["cross-site", "same-site", "whatever"])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
        {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
        {"sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
        LINK,
    ],
    ids=lambda how: how.get("sec-fetch-dest", "nothing"),
)
def test_a_page_of_others_makes_nobody_look_here_but_by_a_link(
    control: Control, browse: Callable[..., Browser], site_of: str, how: dict[str, str]
) -> None:
    site = Site(control, authorize=anybody, hosts=())
    browser, headers = browse(site), {"sec-fetch-site": site_of, **how}
    for path in ["/login", "/static/kq.css", *(path for method, path, _ in ways(site) if method == "GET")]:
        answer = browser.client.get(path, headers=headers, follow_redirects=False)
        led = how == LINK and not path.startswith("/api/v1")
        assert (answer.status_code == 403, "from elsewhere asked for this" in answer.text) == (not led, not led), path
    assert browser.get("/livez", headers=headers).status_code == 200


def test_a_browser_that_asks_by_itself_looks(control: Control, browse: Callable[..., Browser]) -> None:
    browser = browse(Site(control, authorize=anybody, hosts=()))
    for from_where in ("same-origin", "none"):
        headers = {"sec-fetch-site": from_where, "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}
        assert [browser.get(path, headers=headers).status_code for path in ("/", "/api/v1/status")] == [200, 200]


def test_a_page_of_ours_changes_something(open_page: Browser, control: Control) -> None:
    seal = open_page.seal()
    fine = {"origin": "http://localhost:8520", "sec-fetch-site": "same-origin", "host": "localhost:8520"}
    answer = open_page.client.post("/queues/doors/pause", headers=fine, data={"seal": seal}, follow_redirects=False)
    assert answer.status_code == 303
    assert control.queues()[0].paused


def test_the_seal_of_one_browser_is_nothing_to_another(control: Control, browse: Callable[..., Browser]) -> None:
    site = Site(control, authorize=anybody, hosts=())
    seal = browse(site).seal()
    other = browse(site)
    other.get("/")
    assert other.post("/queues/doors/pause", seal).status_code == 403


@pytest.mark.parametrize(
    "host", ["localhost:8520", "127.0.0.1", "[::1]:8520", "127.9.9.9:1", "kq.example", "KQ.example:9"]
)
def test_it_answers_to_its_own_names(guarded: Site, browse: Callable[..., Browser], host: str) -> None:
    assert browse(guarded).get("/login", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "kq.example.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "a@b:c:d"]
)
def test_it_answers_to_no_other_name(guarded: Site, browse: Callable[..., Browser], host: str) -> None:
    browser = browse(guarded)
    for path in ("/", "/login", "/static/kq.css", "/api/v1/status", "/nothing"):
        assert browser.get(path, headers={"host": host}).status_code == 403
    assert browser.get("/livez", headers={"host": host}).text == "ok\n"


def test_every_answer_says_what_a_browser_may_not_do(guarded: Site, browse: Callable[..., Browser]) -> None:
    browser = browse(guarded)
    sign_in(browser, "edda")
    for path in ("/", "/login", "/nothing", "/jobs/nobody", "/static/page.js", "/api/v1/status", "/api/v1/nothing"):
        headers = browser.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self'; base-uri 'none'"), path
        assert "unsafe" not in headers["content-security-policy"]
        assert (headers["x-frame-options"], headers["x-content-type-options"]) == ("DENY", "nosniff")
        assert ("no-store" in headers["cache-control"]) != path.startswith("/static"), path


def test_no_page_has_a_script_or_a_style_in_it(guarded: Site, browse: Callable[..., Browser], control: Control) -> None:
    control.pause("doors")
    browser = browse(guarded)
    sign_in(browser, "edda")
    for method, path, _ in ways(guarded):
        if method == "GET" and not path.startswith("/api/"):
            text = browser.get(path).text
            assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|<script(?! src=)", text), path


# Signing in.


def test_who_does_not_sign_in_sees_nothing(guarded: Site, browse: Callable[..., Browser]) -> None:
    browser = browse(guarded)
    for method, path, _ in ways(guarded):
        answer = asked(browser, method, path, {}, "")
        if path.startswith("/api/"):
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="kq"'), path
        elif method == "GET":
            assert answer.headers["location"].startswith("/login?back="), path
        else:
            assert answer.status_code == 401, path


def test_who_signs_in_comes_where_he_wanted_to_and_goes_again(guarded: Site, browse: Callable[..., Browser]) -> None:
    browser = browse(guarded)
    assert browser.get("/jobs?state=buried").headers["location"] == "/login?back=%2Fjobs%3Fstate%3Dburied"
    before = browser.seal("/login")
    answer = sign_in(browser, "vera", back="/jobs?state=buried")
    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs?state=buried")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Secure" not in cookie
    assert "vera view" in words(browser.get("/"))
    seal = re.search(r'name="seal" value="(\w+)"', browser.get("/").text)
    assert seal is not None
    assert seal[1] != before  # another session: whoever had planted the first one has nothing
    old = browser.client.cookies["kq_session"]
    assert browser.post("/logout", seal[1]).headers["location"] == "/login"
    assert browser.get("/").status_code == 303
    browser.client.cookies.set("kq_session", old)
    assert browser.get("/").status_code == 303


def test_behind_tls_the_cookie_never_leaves_it(guarded: Site, browse: Callable[..., Browser]) -> None:
    browser = browse(guarded)
    browser.client.base_url = httpx.URL("https://localhost:8520")
    assert "Secure" in sign_in(browser, "vera").headers["set-cookie"]


@pytest.mark.parametrize(
    "back", ["https://evil.example/", "//evil.example", "/\\evil.example", "/a\nb", "javascript:x", "\\\\evil"]
)
def test_nobody_is_sent_elsewhere(guarded: Site, browse: Callable[..., Browser], back: str) -> None:
    browser = browse(guarded)
    assert sign_in(browser, "edda", back=back).headers["location"] == "/"
    answer = browser.post("/queues/doors/pause", back=back)
    assert answer.headers["location"] == "/queues/doors"


@pytest.mark.parametrize(("name", "password"), [("edda", "wrong"), ("nobody", PASSWORD), ("", ""), ("edda", "")])
def test_a_wrong_password_says_no_more_than_that(
    guarded: Site, browse: Callable[..., Browser], name: str, password: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "kq.web"):
        answer = sign_in(browse(guarded), name, password)
    assert (answer.status_code, "Name or password is wrong." in answer.text) == (401, True)
    assert f"sign-in failed: {name} from testclient" in caplog.text
    if password:
        assert password not in caplog.text


def test_guessing_gets_slow(guarded: Site, browse: Callable[..., Browser]) -> None:
    browser = browse(guarded)
    answers = [sign_in(browser, "edda", f"guess {number}").status_code for number in range(TRIES)]
    assert answers == [401] * TRIES
    refused = sign_in(browser, "edda")
    assert (refused.status_code, 0 < int(refused.headers["retry-after"]) <= PERIOD + 1) == (429, True)


def test_guessing_tokens_gets_slow(guarded: Site, browse: Callable[..., Browser]) -> None:
    browser = browse(guarded)
    for _ in range(2 * sessions.TOKENS):
        assert browser.api("/me", token="an old token").status_code == 401  # a program that repeats one does not guess
    assert browser.api("/me", token=TOKENS["viewer"]).status_code == 200
    answers = {browser.api("/me", token=f"guess {number}").status_code for number in range(sessions.TOKENS - 2)}
    assert answers == {401}
    browser.api("/me", token="the last guess")
    refused = browser.api("/me", token=TOKENS["viewer"])
    assert (refused.status_code, 0 < int(refused.headers["retry-after"]) <= PERIOD + 1) == (429, True)


def test_refused_sign_ins_and_tokens_are_logged_once_a_minute(
    guarded: Site, browse: Callable[..., Browser], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "SECONDS", 0.5)
    browser = browse(guarded)

    def lines() -> list[str]:
        return [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]

    with caplog.at_level(logging.INFO, "kq.web"):
        for number in range(10):
            browser.api("/me", token=f"guess {number}")
        eventually(lambda: len(lines()) == 2, "the minute is over")
    assert lines() == [
        "token refused from testclient",
        "token refused from testclient; 8 more refused from there within a minute",
    ]
    assert "guess" not in caplog.text


def test_refused_acts_are_in_the_audit(guarded: Site, browse: Callable[..., Browser], control: Control) -> None:
    browser = browse(guarded)
    for path in ("/queues/doors/pause", "/types/login/pause", "/jobs/1/rm"):
        assert browser.api(path, {}, TOKENS["viewer"]).status_code == 403
        assert browser.api(path, {}, "").status_code == 401
    eventually(lambda: len(control.audit()) == 2, "a line about each who was refused")
    assert {(act.by, act.act, act.queue, act.reason) for act in control.audit()} == {
        ("viewer", "refused", "doors", "POST /api/v1/queues/{name}/pause takes the role operate, and viewer may view"),
        (
            "nobody known",
            "refused",
            "doors",
            "POST /api/v1/queues/{name}/pause takes the role operate, and comes from testclient",
        ),
    }


class Hand:
    """A clock that is moved by hand."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    time = monotonic


def test_tries_are_forgotten_and_one_name_is_not_tried_from_everywhere() -> None:
    clock: Any = Hand()
    throttle = Throttle(clock)
    for number in range(TRIES):
        assert throttle.wait("here", "ann") == 0.0, number
        throttle.failed("here", "ann")
    assert throttle.wait("here", "bo") == PERIOD
    assert throttle.wait("there", "ann") == 0.0
    clock.now += PERIOD
    assert throttle.wait("here", "ann") == 0.0
    for number in range(25):
        throttle.failed(f"host {number}", "ann")
    assert throttle.wait("elsewhere", "ann") > 0
    assert throttle.wait("elsewhere", "bo") == 0.0


def test_all_addresses_of_an_ipv6_network_are_one() -> None:
    clock: Any = Hand()
    throttle = Throttle(clock)
    for number in range(TRIES):
        throttle.failed(f"2001:db8::{number}", f"name {number}")
    assert throttle.wait("2001:db8::ffff", "ann") == PERIOD
    assert throttle.wait("2001:db8:0:1::1", "ann") == 0.0


def test_a_session_ends_when_it_is_old_or_idle() -> None:
    clock: Any = Hand()
    sessions = Sessions(clock)
    ann = User("ann")
    idle, busy = sessions.begin(ann), sessions.begin(ann)
    for _ in range(int(LONGEST / IDLE)):
        clock.now += IDLE - 1
        assert sessions.user(busy) == ann
    assert sessions.user(idle) is None
    clock.now += IDLE - 1
    assert sessions.user(busy) is None


@pytest.mark.parametrize("open_to_all", [True, False])
def test_a_program_without_a_token_is_told_how_to_get_one(
    guarded: Site, control: Control, browse: Callable[..., Browser], *, open_to_all: bool
) -> None:
    browser = browse(Site(control, authorize=anybody, hosts=()) if open_to_all else guarded)
    answer = browser.api("/jobs", {"type": "login", "args": ["a", "b"]}, token="")
    assert answer.status_code == (403 if open_to_all else 401)
    error = answer.json()["error"]
    assert error["code"] == "KQ602"
    role = "edit" if open_to_all else "view|operate|edit"
    assert f"kq web --new-token --role {role}" in error["fix"]
    assert "the token as Bearer in the header Authorization" in error["fix"]
    assert "form" not in answer.text
    assert control.jobs() == []
    stale = browser.api("/jobs", {"type": "login"}, token="", x_kq_seal="old")
    assert ("form is older" in stale.text) == open_to_all


def test_a_token_opens_the_api_and_only_as_far_as_its_role(guarded: Site, browse: Callable[..., Browser]) -> None:
    browser = browse(guarded)
    assert browser.api("/me", token=TOKENS["viewer"]).json()["role"] == "view"
    assert browser.api("/queues/doors/pause", {}, TOKENS["viewer"]).status_code == 403
    assert browser.api("/queues/doors/pause", {}, TOKENS["operator"]).json()["paused"] == "queue doors"
    assert browser.api("/me", token="edit-toke").status_code == 401
    assert "kq_session" not in browser.client.cookies
    by = browser.api("/audit", token=TOKENS["viewer"]).json()[0]["by"]
    assert by == "operator"


@pytest.mark.parametrize("path", ["/", "/jobs", "/queues", "/audit", "/find", "/api/v1/jobs", "/api/v1/events"])
def test_an_address_with_too_much_in_it_is_refused(open_page: Browser, path: str) -> None:
    answer = open_page.get(f"{path}?{'a=1&' * 3000}")
    assert answer.status_code == (200 if path == "/" else 422)


@pytest.mark.parametrize("notice", [b"[" * 2100, b"[]", b'{"text": {}}', b'{"text": "\\ud800"}', b"\xff"])
def test_whatever_a_notice_says_the_page_is_shown(open_page: Browser, notice: bytes) -> None:
    cookie = base64.urlsafe_b64encode(notice).decode()
    assert open_page.get("/", headers={"cookie": f"kq_notice={cookie}"}).status_code == 200


def test_a_request_that_is_too_large_is_refused(open_page: Browser) -> None:
    seal = open_page.seal()
    large = "x" * (BODY + 1)
    assert open_page.post("/jobs", seal, type="login", args=large).status_code == 413

    for size in ("9" * 5000, "٣" * 9, "-1", "1e3"):
        said = open_page.client.post("/jobs", content=b"", headers={b"content-length": size.encode()})
        assert said.status_code == 413

    def chunks() -> Iterable[bytes]:
        for _ in range(BODY // 2**16 + 2):
            yield b"x" * 2**16

    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert open_page.client.post("/jobs", content=chunks(), headers=kind).status_code == 422


# Hashes.


def test_a_password_is_known_by_its_hash_and_so_is_a_token() -> None:
    hash = password_hash(PASSWORD, lambda size: b"s" * size)
    assert hash.startswith("scrypt$15$8$1$")
    known = understood(f"edit {hash}")
    assert (known.role, known.fits(PASSWORD), known.fits(PASSWORD + "x")) == ("edit", True, False)
    assert hash not in repr(known)
    token, hash = new_token(lambda size: b"t" * size)
    known = understood(f" view  {hash} ")
    assert (known.role, known.fits(token), known.fits(token[:-1])) == ("view", True, False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "edit",
        "admin sha256$aaaa",
        "edit hunter2hunter2",
        "edit md5$abc",
        "edit sha256$abc",
        "edit scrypt$15$8$1$c2FsdHNhbHRzYWx0",
        "edit scrypt$30$8$1$c2FsdHNhbHRzYWx0$JhpuZJylqyMnEt0gssPxLNbLygkaTPP/3ipC7oclHqw",
        "edit scrypt$15$8$1$!!$JhpuZJylqyMnEt0gssPxLNbLygkaTPP/3ipC7oclHqw",
        "edit scrypt$0$8$1$c2FsdHNhbHRzYWx0$JhpuZJylqyMnEt0gssPxLNbLygkaTPP/3ipC7oclHqw",
    ],
)
def test_what_is_no_credential_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="role") as raised:
        understood(text)
    assert "hunter2" not in str(raised.value)


def test_a_short_password_is_refused() -> None:
    with pytest.raises(ValueError, match="8 characters"):
        password_hash("seven77", lambda size: b"s" * size)
