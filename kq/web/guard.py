"""What every request passes before anything else: may its host be asked so, is it small, did our own page send it?

And what every answer says to the browser: run, load and frame nothing that is not ours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeAlias
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kq.errors import BadArguments, Forbidden, KqError
from kq.url import is_loopback
from kq.web.openapi import API

Refuse: TypeAlias = Callable[[Scope, KqError, int], Response]

#: Bytes that a request's body has at most: a job's own limit, and room for how a form writes it.
BODY = 4 * 2**20
SAFE = frozenset({"GET", "HEAD"})
#: For probes, by whatever name they ask: it tells nothing.
LIVE = "/livez"

#: No inline script or style, nothing from elsewhere, no page of others round ours.
POLICY = "; ".join(
    [
        "default-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "object-src 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: browsers would call the origin of our own forms null.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


class Guard:
    """An ASGI application in front of another.

    refuse: tells why something is not asked for, with a status. hosts: the names by which it may be asked, beside this
    host's own (DNS rebinding); None: whoever mounted it looks after that.
    """

    def __init__(self, app: ASGIApp, refuse: Refuse, hosts: Collection[str] | None) -> None:
        self._app, self._refuse = app, refuse
        self._hosts = None if hosts is None else frozenset(map(str.lower, hosts))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        answer: ASGIApp = self._app
        if wrong := self._wrong(scope, headers):
            answer = self._refuse(scope, Forbidden(wrong), 403)
        elif not scope["query_string"].isascii():
            answer = self._refuse(scope, BadArguments("the query is not percent-encoded"), 400)
        elif _size_of(headers) > BODY:
            answer = self._refuse(scope, BadArguments(f"the request is larger than {BODY:,} bytes"), 413)
        await answer(scope, _limited(receive), _covered(scope, send))

    def _wrong(self, scope: Scope, headers: Headers) -> str:
        host = headers.get("host", "")
        if self._hosts is not None and not _is_live(scope) and not self._is_ours(scope, host):
            return f"this page is not called {_name_of(host)[:100]!r}; kq web knows its names from web.hosts"
        if scope["method"] not in SAFE:
            return foreign(headers, host)
        return "" if _is_live(scope) or is_led_here(headers, _path(scope)) else "a page from elsewhere asked for this"

    def _is_ours(self, scope: Scope, host: str) -> bool:
        assert self._hosts is not None
        name, server = _name_of(host), scope.get("server")
        return is_loopback(name) or name in self._hosts or (server is not None and name == str(server[0]).lower())


def foreign(headers: Headers, host: str) -> str:
    """Why a change is none that a page of ours asked for; "" when nothing speaks against it.

    Browsers say where a request comes from; what is no browser says nothing, and needs a seal or a token all the same.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site not in (None, "same-origin"):
        return "a page from elsewhere asked for this change"
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        return "a page from elsewhere asked for this change"
    return ""


def is_led_here(headers: Headers, path: str) -> bool:
    """Whether somebody looks who may have been led here by a link at most.

    A page from elsewhere reads no answer, but could make a browser ask for what takes its time, again and again, and
    learn how long that takes. It may lead people to our pages, in a window of their own; programs need no leading.
    """
    if headers.get("sec-fetch-site") in (None, "same-origin", "none"):
        return True
    wanted = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
    return wanted == ("navigate", "document") and not path.startswith(API)


def _name_of(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _size_of(headers: Headers) -> int:
    """Bytes that a body is said to have; too many where that is no number."""
    said = headers.get("content-length", "0")
    return int(said) if said.isdecimal() and len(said) < 20 else BODY + 1


def _is_live(scope: Scope) -> bool:
    return _path(scope) == LIVE


def _path(scope: Scope) -> str:
    """Where it is asked for on this page, wherever that is mounted."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "").rstrip("/"))


def _limited(receive: Receive) -> Receive:
    """receive, which fails when more comes than was allowed, whatever the header said."""
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > BODY:
            return {"type": "http.disconnect"}
        return message

    return limited


def _covered(scope: Scope, send: Send) -> Send:
    """send, with what every answer says."""

    async def covered(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return covered
