"""A page that no people are named for is opened by its own user alone, by a link that is good once."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kq.clock import SystemClock
from kq.control import Control
from kq.errors import ConfigError
from kq.web import links
from kq.web.links import Links
from kq.web.sessions import Doorkeeper
from kq.web.site import Site
from tests.cli.conftest import Place
from tests.web.conftest import TOKENS, Browser, tokens
from tests.web.test_program import LINK, furnished, serving


@pytest.fixture
def mine(tmp_path: Path) -> Links:
    return Links(tmp_path / "state" / "web")


@pytest.fixture
def browser(control: Control, browse: Callable[..., Browser], mine: Links) -> Browser:
    return browse(Site(control, links=mine, doorkeeper=Doorkeeper({}, tokens()), hosts=()))


def test_a_stranger_on_the_host_sees_and_does_nothing(browser: Browser) -> None:
    for path in ("/", "/jobs", "/queues/doors", "/audit"):
        assert browser.get(path).headers["location"].startswith("/login?back=")
    assert "kq web --link" in browser.get("/login").text
    assert browser.client.post("/jobs", data={"type": "login"}).status_code == 401
    assert browser.api("/status", token="").status_code == 401
    assert browser.api("/jobs", {"type": "login", "args": ["ann", "x"]}, token="").status_code == 401
    for link in ("", "wrong", "../key", "x" * 5000, "\x00", "é"):
        assert browser.client.get("/open", params={"link": link}).status_code == 403, link
    for cookie in ("", "v", "9999999999.x.", "9999999999.x.00", "...."):
        browser.client.cookies.set("kq_session", cookie)
        assert browser.get("/").status_code == 303, cookie


def test_a_link_opens_the_page_once(browser: Browser, mine: Links) -> None:
    link = mine.make()
    assert browser.client.head(f"/open?link={link}").status_code == 403  # what only looks does not use it up
    opened = browser.get(f"/open?link={link}")
    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    assert browser.get("/").status_code == 200
    assert browser.told("/jobs", type="login", args='["ann", "x"]', queue="doors")
    assert browser.api("/me", token="").json()["role"] == "edit"
    assert browser.api("/status", token=TOKENS["viewer"]).status_code == 200
    browser.client.cookies.clear()
    assert browser.get(f"/open?link={link}").status_code == 403
    assert browser.get("/").status_code == 303


def test_of_many_that_use_a_link_at_a_time_one_succeeds(mine: Links) -> None:
    with ThreadPoolExecutor(8) as threads:
        for link in [mine.make() for _ in range(50)]:
            assert sum(threads.map(mine.redeem, [link] * 8)) == 1


def test_a_session_outlives_the_program_and_ends_when_its_user_signs_out(
    control: Control, browse: Callable[..., Browser], browser: Browser, mine: Links, tmp_path: Path
) -> None:
    browser.get(f"/open?link={mine.make()}")
    again = browse(Site(control, links=Links(tmp_path / "state" / "web"), hosts=()))
    again.client.cookies = browser.client.cookies
    assert again.get("/").status_code == 200
    assert again.post("/logout").headers["location"] == "/login"
    assert browser.get("/").status_code == 303


class Ahead(SystemClock):
    """A clock that is ahead by so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def now(self) -> float:
        return super().now() + self._seconds


def test_links_and_sessions_end_after_their_time(mine: Links, tmp_path: Path) -> None:
    link, session = mine.make(), mine.begin()
    an_hour_later = Links(tmp_path / "state" / "web", Ahead(links.LINK + 1))
    assert not an_hour_later.redeem(link)
    assert an_hour_later.holds(session)
    assert not Links(tmp_path / "state" / "web", Ahead(links.SESSION + 1)).holds(session)


def test_what_others_could_read_is_not_used(tmp_path: Path, mine: Links) -> None:
    folder = tmp_path / "state" / "web"
    mine.make()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    folder.chmod(0o755)
    with pytest.raises(ConfigError, match="can be used by others"):
        Links(folder)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="no link can be kept"):
        Links(tmp_path / "file" / "web")


def test_the_program_prints_its_link_on_a_terminal_and_into_no_log(tmp_path: Path) -> None:
    place = furnished(tmp_path)
    with serving(place) as page:
        assert page.ask("GET", "/")[0] == 303
        page.open(place)
        assert page.ask("GET", "/")[0] == 200
        page.process.send_signal(signal.SIGHUP)
        page.again()
        assert page.ask("GET", "/")[0] == 200  # new code asks for no new link
        page.process.send_signal(signal.SIGTERM)
        assert page.process.stderr is not None
        said = page.said + page.process.stderr.read()
        assert "kq web --link prints a link" in said
        assert "?link=" not in said
    assert _on_a_terminal(place)


def _on_a_terminal(place: Place) -> bool:
    """Whether the program prints a link where its standard error is a terminal."""
    ours, theirs = pty.openpty()
    command = place.command("web", "--listen", "127.0.0.1:0")
    with subprocess.Popen(command, cwd=place.folder, env=place.environment(), stdin=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        while not (found := re.search(LINK.pattern.encode() + rb"\r?\n", said)):
            said += os.read(ours, 4096)  # ends with the program
        process.terminate()
        os.close(ours)
    return bool(found)


def test_where_people_sign_in_by_name_there_is_no_link(tmp_path: Path) -> None:
    place = furnished(tmp_path)
    users = json.dumps({"ann": "edit scrypt$1$1$1$c2FsdHNhbHRzYWx0$JhpuZJylqyMnEt0gssPxLNbLygkaTPP/3ipC7oclHqw"})
    place.write("kq.yaml", f"url: sqlite:///kq.db\nweb: {{users: {users}}}\n")
    said = place.kq("web", "--link")
    assert (said.code, "people sign in by name" in said.err) == (78, True)
