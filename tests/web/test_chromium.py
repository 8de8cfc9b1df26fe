"""The pages in a real browser: what a human sees and does there, on a desk and on a phone, by day and by night."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

import kq
from kq.conformance.contract.waiting import eventually
from kq.control import Control
from kq.web.pages import PAGES
from kq.web.site import Site
from tests.conftest import available, lasting
from tests.web.chromium import Chromium
from tests.web.conftest import PASSWORD, anybody
from tests.web.test_names import put

pytestmark = pytest.mark.xdist_group("chromium")

HOSTILE = "<script>document.title='hit'</script><img src=x onerror=\"document.title='hit'\">\u202e"
LONG = "a_name_that_is_longer_than_a_phone_is_wide_and_has_no_place_to_break"

#: What htmx does every two seconds.
POLL = "document.getElementById('live').dispatchEvent(new Event('poll'))"
PALE = Path(__file__).with_name("pale.js").read_text()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    with available(Chromium) as browser, lasting(browser):
        yield browser


@pytest.fixture
def browser(chromium: Chromium) -> Chromium:
    """The browser, as if it were new."""
    chromium.renew()
    chromium.look(1280)
    return chromium


@contextmanager
def served(site: ASGIApp) -> Iterator[str]:
    """Serve it on this host; the address."""
    server = uvicorn.Server(uvicorn.Config(site, port=0, log_level="error", ws="none", timeout_graceful_shutdown=2))
    serving = threading.Thread(target=server.run)
    serving.start()
    try:
        eventually(lambda: server.started, "it is served")
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        serving.join()


@pytest.fixture
def page(control: Control) -> Iterator[str]:
    """The address of a page at which nobody signs in."""
    with served(Site(control, authorize=anybody, hosts=())) as address:
        yield address


@pytest.fixture
def ids(app: kq.App, control: Control) -> dict[str, str]:
    """A job that is ready, one that is delayed, and two that lie buried; ids."""
    login, resize = app.jobs["login"], app.jobs["resize"]
    handles = {
        "ready": login.submit("ann", "s3cret", note=HOSTILE),
        "delayed": resize.options(delay=3600).submit("late.png"),
        "buried": login.submit("bo", "s3cret"),
        "ugly": resize.options(queue=f"{LONG} {HOSTILE[:-1]}").submit(HOSTILE),
    }
    ids = {name: handle.id for name, handle in handles.items()}
    control.bury(ids["buried"], "no such user", by="ops")
    control.bury(ids["ugly"], f"{HOSTILE} {LONG * 5}", by=HOSTILE)
    control.pause("images", reason=f"{HOSTILE} {LONG}", by="ops")
    return ids


def sees(browser: Chromium, text: str, where: str = "body") -> None:
    """Wait until text is to be read there."""
    eventually(lambda: text in browser.text(where), f"{text!r} is to be read")


def fits(browser: Chromium, width: int) -> None:
    """Raise when something on the page is cut off, pale, or forbidden."""
    wide = browser.run("return document.documentElement.scrollWidth")
    assert wide <= width, f"{browser.address} is {wide} wide"
    assert browser.run(PALE) == [], browser.address
    assert browser.run("return document.title") != "hit", browser.address
    assert browser.complaints() == [], browser.address


def test_what_chooses_jobs_is_folded_on_a_phone_and_not_on_a_desk(
    browser: Chromium, page: str, ids: dict[str, str]
) -> None:
    browser.forbid_scripts()  # it needs none
    browser.look(390, 800)
    browser.open(f"{page}/jobs")
    assert browser.run("return document.querySelector('table').getBoundingClientRect().top") < 400
    browser.click(".fold > summary")
    browser.write("input[name=type]", "resize")
    browser.click(".filter button")
    eventually(lambda: "type=resize" in browser.address, "what was chosen is asked for")
    sees(browser, "late.png")
    assert ids["ready"] not in browser.text("main")
    assert browser.run("return document.querySelector('input[name=type]').offsetParent !== null")
    browser.look(1280)
    browser.open(f"{page}/jobs")
    at = "const at = document.querySelector('input[name=type]').getBoundingClientRect();"
    assert browser.run(f"{at} return document.elementFromPoint(at.x + 9, at.y + 9)?.name") == "type"
    assert browser.run("return document.querySelector('.fold > summary').offsetParent === null")


@pytest.mark.parametrize(
    ("width", "dark"),
    [(1280, False), (1280, True), (390, False), (390, True)],
    ids=["desk by day", "desk by night", "phone by day", "phone by night"],
)
def test_all_is_to_be_read_everywhere(
    browser: Chromium, page: str, ids: dict[str, str], width: int, dark: bool
) -> None:
    browser.look(width, dark=dark)
    for path in (*(path for path in PAGES if "{" not in path), "/jobs?state=buried", "/queues/images"):
        browser.open(page + path)
        fits(browser, width)
    for id in ids.values():
        browser.open(f"{page}/jobs/{id}")
        browser.run("for (const each of document.querySelectorAll('details')) each.open = true")
        fits(browser, width)


def test_what_lies_buried_is_found_mended_and_kicked(
    browser: Chromium, page: str, ids: dict[str, str], control: Control
) -> None:
    browser.open(page)
    browser.click('.concerns a[href="/buried?queue=doors"]')
    browser.click('.group a[href^="/jobs/"]')
    sees(browser, ids["buried"])
    browser.click("details:has(form.edit) > summary")
    browser.write('.edit textarea[name="args"]', '["bob", "***"]')
    browser.write('.edit input[name="reason"]', "misspelt")
    browser.click(".edit button")
    sees(browser, "edited args.0", ".told")
    browser.click('details:has(form[action$="/kick"]) > summary')
    kick = f"kq jobs kick {ids['buried']} --yes"
    sees(browser, kick, 'form[action$="/kick"] code')
    browser.write('form[action$="/kick"] input[name="reason"]', "it's mended")
    sees(browser, f"""{kick} --reason 'it'"'"'s mended'""", 'form[action$="/kick"] code')
    browser.click('form[action$="/kick"] button')
    sees(browser, f"kicked {ids['buried']}", ".told")
    job = control.job(ids["buried"])
    assert job is not None
    assert (job.state.value, job.args) == ("ready", ["bob", "s3cret"])
    assert browser.complaints() == []


def test_a_page_lives_and_says_when_it_is_stale(browser: Chromium, control: Control, app: kq.App) -> None:
    with served(Site(control, authorize=anybody, hosts=())) as page:
        browser.open(f"{page}/queues")
        browser.run("document.body.dataset.mark = 'here all the time'")
        app.jobs["login"].submit("ann", "s3cret")
        sees(browser, "unserved", "main")
        assert browser.run("return document.body.dataset.mark") == "here all the time"
        browser.open(f"{page}/queues/doors")
        browser.click("details > summary")  # what is open is not taken away
        browser.write('input[name="reason"]', "I am writing")
        app.jobs["login"].submit("bo", "s3cret")
        app.jobs["login"].submit("cy", "s3cret")
        browser.run("document.addEventListener('htmx:before:request', (it) => window.held = it.defaultPrevented)")
        browser.run(POLL)
        eventually(lambda: browser.run("return window.held") is not None, "it was time to ask")
        assert browser.run("return window.held")
        assert browser.run("return document.querySelector('input[name=reason]').value") == "I am writing"
        browser.run("document.querySelector('details').open = false; document.activeElement.blur()")
        browser.run(POLL)
        sees(browser, "3\nready", ".tiles")
    sees(browser, "gets no answer")


POLLED = """
return performance.getEntriesByType("resource").map(each => each.name).filter(each => !each.includes("/static/"))
"""
FOREIGN = """
const all = "img, iframe, object, embed, style, [onerror], [onload], form[action='/evil'], script"
return [...document.querySelectorAll(all)]
  .filter(each => !each.src?.startsWith(location.origin + "/static/")).map(each => each.outerHTML)
"""


def test_a_page_asks_for_itself_and_has_no_element_of_others(browser: Chromium, control: Control, app: kq.App) -> None:
    markup = f"<form id=live action=/evil hx-post=/queues/doors/pause hx-trigger=load></form>{HOSTILE}"
    victim = app.jobs["login"].submit(markup, "pw", note=markup).id
    names = (f"../api/v1/jobs/{victim}", "%2e%2e", "a?b#c", "a%2fb&amp;", markup[:150])
    for name in names:
        put(app, name, name[:150])
    control.bury(app.jobs["login"].submit("bo", "pw").id, markup, by=markup)
    control.pause("doors", reason=markup, by=markup)
    odd = [f"/{kind}/{quote(name, safe='')}" for kind in ("queues", "jobs") for name in names]
    with served(Site(control, authorize=anybody, hosts=())) as page:
        for path in (*(path for path in PAGES if "{" not in path), f"/jobs/{victim}", *odd):
            browser.open(page + path)
            assert browser.run("return document.title.endsWith('kq')"), path
            if browser.run("return document.getElementById('live').hasAttribute('hx-get')"):
                browser.run(POLL)
                eventually(lambda: browser.run(POLLED), "the page is asked for again")
            assert set(browser.run(POLLED)) <= {browser.address}, path
            assert browser.run(FOREIGN) == [], path
            assert browser.complaints() == [], path
    assert [act.by for act in control.audit()] == [markup, markup]


@pytest.mark.parametrize(
    ("kind", "more"),
    [("text/html", {}), ("application/json", {"KQ-Fragment": "1"}), ("text/html-x", {"KQ-Fragment": "1"})],
)
def test_an_answer_that_is_no_page_of_ours_is_not_shown(
    browser: Chromium, control: Control, kind: str, more: dict[str, str]
) -> None:
    site = Site(control, authorize=anybody, hosts=())

    async def other(scope: Scope, receive: Receive, send: Send) -> None:
        """The page, but for what a page asks for by itself."""
        polled = scope["type"] == "http" and any(name == b"hx-request" for name, _ in scope["headers"])
        answer = Response("<b id=foreign></b>", headers={"Content-Type": kind, **more}) if polled else site
        await answer(scope, receive, send)

    with served(other) as page:
        browser.open(f"{page}/queues")
        browser.run(POLL)
        sees(browser, "an answer that is not its own", "#stale")
        assert browser.run("return document.getElementById('foreign')") is None


def test_without_scripts_all_works_too(browser: Chromium, page: str, ids: dict[str, str], control: Control) -> None:
    browser.forbid_scripts()
    browser.open(f"{page}/jobs?state=buried")
    browser.click(f'input[value="{ids["buried"]}"]')
    browser.click('#bulk button[formaction="/jobs/kick"]')
    sees(browser, f"kicked {ids['buried']}", ".told")
    browser.open(f"{page}/queues/doors")
    browser.click("details:has(form[action$='/pause']) > summary")
    browser.click("form[action$='/pause'] button")
    sees(browser, "paused queue doors", ".told")


def test_all_that_are_shown_are_ticked_at_once(
    browser: Chromium, page: str, ids: dict[str, str], control: Control
) -> None:
    browser.open(f"{page}/jobs?queue=doors")
    browser.click("#all")
    browser.click("#bulk details:has([formaction$='/rm']) > summary")
    browser.click("#bulk button[formaction$='/rm']")
    sees(browser, "deleted 2 jobs", ".told")


def test_who_signs_in_stays_and_goes(browser: Chromium, guarded: Site, ids: dict[str, str]) -> None:
    with served(guarded) as page:
        browser.open(f"{page}/jobs?state=buried")
        assert browser.address.startswith(f"{page}/login?back=")
        browser.look(390)
        fits(browser, 390)
        browser.write('input[name="name"]', "vera")
        browser.write('input[name="password"]', PASSWORD)
        browser.click("button")
        sees(browser, ids["buried"], "main")
        assert browser.address == f"{page}/jobs?state=buried"
        assert "vera view" in browser.text("header")
        assert browser.run("return document.querySelector('main button, #bulk')") is None
        browser.click("header button")
        sees(browser, "Password")
        browser.open(page)
        assert browser.address.startswith(f"{page}/login")


@pytest.mark.parametrize("how", ["form", "fetch", "frame"])
def test_a_page_of_others_changes_nothing_and_frames_nothing(
    browser: Chromium, page: str, ids: dict[str, str], control: Control, how: str
) -> None:
    address = f"{page}/queues/doors/pause"
    trap = {
        "form": f'<form method="post" action="{address}"><button>win</button></form>',
        "fetch": f"<script>fetch('{address}', {{method: 'POST', credentials: 'include', mode: 'no-cors'}})"
        ".finally(() => document.title = 'done')</script>",
        "frame": f'<iframe src="{page}/queues/doors"></iframe>',
    }

    async def evil(request: Request) -> HTMLResponse:
        return HTMLResponse(f"<title>evil</title>{trap[how]}")

    browser.open(page)  # so that it has our cookie
    with served(Starlette(routes=[Route("/", evil)])) as elsewhere:
        browser.open(elsewhere)
        if how == "form":
            browser.click("button")
            sees(browser, "a page from elsewhere asked for this change")
        elif how == "fetch":
            eventually(lambda: browser.run("return document.title") == "done", "it was tried")
        else:
            told = browser.complaints()
            assert any("frame-ancestors" in each or "X-Frame-Options" in each for each in told), told
    assert ("paused", "doors") not in {(act.act, act.queue) for act in control.audit()}
