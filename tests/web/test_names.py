"""Names that an address could take for something else: the page asks for itself, and the API is not put into it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from html import unescape
from typing import Any
from urllib.parse import quote, urljoin

import pytest

import kq
from kq.broker import declare_missing
from kq.control import Control
from kq.errors import MessageError
from kq.values.job import Job, check_name
from kq.values.message import decode_head
from kq.web.site import Site
from tests.web.conftest import HOME, Browser, anybody

#: The test client decodes a % twice: names with one are looked at in a browser, in test_chromium.
ODD = (
    *("a?b=c", "a#b", "a/b", "a//b", "/a", "a&amp;\"'<b", "ü;x", "a\\..\\b", "a\nb"),
    "../api/v1/jobs/x",
)


def put(app: kq.App, id: str, queue: str) -> None:
    """Publish a message as another program would, with whatever names."""
    with app.broker.connection() as connection, connection.channel() as channel:
        declare_missing(channel, [queue], set())
        headers = {"kq": 1, "id": id, "type": "login", "submitted": 1.0}
        message = channel.prepare_message(b"{}", 5, "application/json", "utf-8", headers, {"message_id": id})
        channel.basic_publish(message, exchange="", routing_key=queue)


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("query", ["", "?type=%26%3F"])
def test_a_page_polls_its_own_address(
    app: kq.App, control: Control, browse: Callable[..., Browser], name: str, query: str
) -> None:
    put(app, name, name)
    browser = browse(Site(control, authorize=anybody, hosts=()))
    for path in (f"/queues/{quote(name, safe='')}", f"/jobs/{quote(name, safe='')}", "/jobs"):
        answer = browser.get(path + query)
        assert answer.status_code == 200, path
        polled = re.search(r'hx-get="([^"]*)"', answer.text)
        assert polled is not None, path
        assert urljoin(HOME + path, unescape(polled[1])) == HOME + path + query
        fragment = browser.get(unescape(polled[1]), headers={"hx-request": "true"})
        assert (fragment.status_code, fragment.headers["kq-fragment"]) == (200, "1")


def test_only_a_fragment_says_that_it_is_one(open_page: Browser) -> None:
    assert "kq-fragment" not in open_page.get("/").headers
    assert "kq-fragment" not in open_page.get("/jobs/nobody", headers={"hx-request": "true"}).headers


def test_the_api_is_not_for_a_page(open_page: Browser) -> None:
    for path in ("/status", "/jobs/nobody", "/openapi.json", "/metrics", "/events?seconds=0"):
        answer = open_page.get(f"/api/v1{path}", headers={"hx-request": "true"})
        assert (answer.status_code, "kq-fragment" in answer.headers) == (400, False), path


def test_no_json_has_markup_in_it(app: kq.App, open_page: Browser) -> None:
    job = app.jobs["login"].submit("<img src=x onerror=alert(1)>&\u2028", "pw", note="</script>")
    assert open_page.api(f"/jobs/{job.id}").json()["args"][0] == "<img src=x onerror=alert(1)>&\u2028"
    for path in (f"/jobs/{job.id}", "/jobs?text=%3Cb%3E", "/jobs/%3Cb%3E", "/openapi.json", "/nothing%3Cb%3E"):
        assert not set("<>&\u2028\u2029") & set(open_page.api(path).text), path


DOTS = ("..", ".", "../x", "x/..", "x/./y", "x/../y", "/..", "../")


@pytest.mark.parametrize("name", DOTS)
def test_a_name_with_a_dot_segment_is_refused(app: kq.App, name: str) -> None:
    refused = "has a segment"
    with pytest.raises(ValueError, match=refused):
        app.submit(name)
    with pytest.raises(ValueError, match=refused):
        app.jobs["login"].options(queue=name)
    with pytest.raises(ValueError, match=refused):
        app.job(name=name)(print)
    with pytest.raises(ValueError, match=refused):
        Job(name, "login")
    with pytest.raises(MessageError):
        decode_head({"kq": 1, "id": name, "type": "login", "submitted": 1.0})
    for more in ({"type": name}, {"parent": name}, {"first": {"type": name, "at": 1}}, {"fallback": [{"type": name}]}):
        with pytest.raises(MessageError):
            decode_head({"kq": 1, "id": "x", "type": "login", "submitted": 1.0, **more})


@pytest.mark.parametrize("name", ["a.b.c", "...", ".a", "a.", "a..b", "a/.b/c..", "\n.", "x/\n"])
def test_dots_within_a_segment_are_allowed(name: str) -> None:
    check_name("job type", name)
    assert decode_head({"kq": 1, "id": name, "type": name, "submitted": 1.0}).type == name


def test_a_query_that_is_not_percent_encoded_is_refused(control: Control) -> None:
    told: list[Any] = []

    async def send(message: Any) -> None:
        told.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    scope: dict[str, Any] = {"type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "root_path": ""}
    scope |= {"path": "/jobs", "raw_path": b"/jobs", "query_string": b"search=\xff", "extensions": {}, "state": {}}
    scope |= {"headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80)}
    asyncio.run(Site(control, hosts=())(scope, receive, send))
    assert told[0]["status"] == 400
