"""The page as an ASGI application: who asks, whether he may, and who answers."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote, unquote, urlsplit

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from kq.control import Control
from kq.control.veil import Veil
from kq.credential import Role
from kq.errors import BadArguments, Busy, ConfigError, Forbidden, KqError, NotFound
from kq.handles.standing import caller
from kq.web import api, notices, pages
from kq.web.acts import ACTS, Act
from kq.web.asked import SEAL, Asked, form_of, keep_visit, local, must_be_sealed, new_visit, root_of, visit_of
from kq.web.desk import Desk
from kq.web.drawing import draw
from kq.web.errors import described, status_of
from kq.web.fields import from_form
from kq.web.guard import LIVE, SAFE, Guard
from kq.web.identity import Authorize, User
from kq.web.limits import group_of
from kq.web.links import Links
from kq.web.looks import LOOKS
from kq.web.openapi import API
from kq.web.refusals import Refusals
from kq.web.sessions import Doorkeeper, Seals, Sessions, Throttle

log = logging.getLogger("kq.web")

Answer: TypeAlias = Callable[[Asked], Awaitable[Response]]

#: Where a link leads.
OPEN = "/open"
STATIC = Path(__file__).with_name("static")
NOTICE = "kq_notice"
#: The header of what may be put into a page; page.js takes no answer without it.
FRAGMENT = "KQ-Fragment"
#: Characters that a name, and a password, has at most where somebody signs in.
LONG = 1024
#: Passwords that are looked at at a time, so that many who guess at once take neither all memory nor all threads.
HASHES = 2


@dataclass(frozen=True, slots=True)
class _RefusedAct:
    """kind, name: what the act was meant for, see `Control.refused`."""

    kind: str
    name: str
    reason: str
    by: str


class _Name(Convertor[str]):
    """A name in a path, as people chose it: with slashes and ends of lines."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("kq_name", _Name())


class Site:
    """The page. Close it, where whoever mounts it does not run its lifespan.

    authorize: who makes a request. Without it, doorkeeper knows users and tokens; with links, it is the user of this
    program who opens the page, and doorkeeper knows tokens only. most: the role that nobody goes beyond. traces: where
    traces are looked at; see config.Web.
    """

    def __init__(
        self,
        control: Control,
        *,
        authorize: Authorize | None = None,
        doorkeeper: Doorkeeper | None = None,
        links: Links | None = None,
        hosts: Collection[str] | None = None,
        hide: Sequence[str] = (),
        secret: bytes | None = None,
        most: Role = "edit",
        traces: str = "",
    ) -> None:
        self._most, self._traces = most, checked(traces)
        self._desk, self._veil, self._seals = Desk(control), Veil(hide), Seals(secret)
        self._authorize, self._doorkeeper, self._links = authorize, doorkeeper, links
        self._sessions, self._throttle = Sessions(), Throttle()
        self._hashing = CapacityLimiter(HASHES)
        self._refusals, self._refused_acts = Refusals(_warn), Refusals(self._leave_refusal)
        self._leaving = set[asyncio.Task[None]]()
        self.routes = list(self._routes())
        handlers = {HTTPException: _no_way}
        app = Starlette(routes=self.routes, lifespan=self._lifespan, exception_handlers=handlers)
        self._app = Guard(app, _refused, hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    def close(self) -> None:
        """End the connections that were made for it."""
        self._desk.close()

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await run_in_threadpool(self.close)

    # The ways.

    def _routes(self) -> list[BaseRoute]:
        """All that may be asked for; each way but four is for who may."""
        return [
            Route(LIVE, _live),
            Route("/login", self._sign_in_page, methods=["GET"]),
            Route("/login", self._sign_in, methods=["POST"]),
            Route(OPEN, self._open, methods=["GET"]),
            Mount("/static", _Files(directory=STATIC)),
            self._way("POST", "/logout", "view", self._sign_out),
            *self._api(),
            *(self._way("POST", each.path, each.role, partial(self._act, at=each)) for each in ACTS),
            self._way("GET", "/find", "view", _find),
            *(self._way("GET", path, "view", partial(self._page, see=see)) for path, see in pages.PAGES.items()),
        ]

    def _api(self) -> list[BaseRoute]:
        fixed: dict[str, Answer] = {
            "/me": api.me,
            "/openapi.json": api.described_api,
            "/metrics": api.numbers,
            "/events": partial(api.heard, what="events"),
            "/logs": partial(api.heard, what="logs"),
            "/jobs/{name}/ended": api.ended,
            "/jobs/{name}/events": api.followed,
            "/jobs/{name}/stream": api.streamed,
        }
        return [
            *(self._way("GET", API + path, "view", answer) for path, answer in fixed.items()),
            *(self._way("GET", API + look.path, "view", partial(api.look, at=look)) for look in LOOKS),
            *(self._way("POST", API + act.path, act.role, partial(api.act, at=act)) for act in ACTS),
        ]

    def _way(self, method: str, path: str, role: Role, answer: Answer) -> Route:
        """A way for those who may do what takes this role."""
        wrong = self._wrong_api if path.startswith(API) else self._wrong_page

        async def endpoint(request: Request) -> Response:
            if path.startswith(API) and "hx-request" in request.headers:
                return api.wrong(BadArguments("the API is for programs; a page asks for pages"), 400)
            user = await self._user(request)
            if user is None:
                if method == "POST":
                    self._refused_act(request, path, None, role)
                return self._stranger(request)
            if user.may(self._most):
                user = replace(user, role=self._most)
            visit = visit_of(request) or new_visit()
            asked = Asked(request, user, visit, self._desk, self._veil, self._seals, self._signs_in)
            try:
                if not user.may(role):
                    self._refused_act(request, path, user, role)
                    raise Forbidden(f"{user.name} may {user.role}, and this takes the role {role}")
                response = await answer(asked)
            except Exception as error:
                if status_of(error) == 500:
                    log.exception("%s %s failed", method, request.url.path)
                response = wrong(asked, error)
            if visit != visit_of(request) and user.known_by != "token":
                keep_visit(request, response, visit)
            return response

        route = Route(path.replace("{name}", "{name:kq_name}"), endpoint, methods=[method], name=f"{method} {path}")
        route.role = role  # type: ignore[attr-defined]
        return route

    # Who asks.

    async def _user(self, request: Request) -> User | None:
        if self._authorize is not None:
            said = self._authorize(request)
            return await said if inspect.isawaitable(said) else said
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self._by_token(request, token.strip()[:LONG])
        if self._links is not None:
            return User(caller(), "edit", "link") if self._links.holds(visit_of(request)) else None
        return self._sessions.user(visit_of(request))

    @property
    def _signs_in(self) -> bool:
        return self._authorize is None

    def _by_token(self, request: Request, token: str) -> User | None:
        address = _address(request)
        if self._doorkeeper is None or self._throttle.wait_token(address):
            return None
        user = self._doorkeeper.by_token(token)
        if user is None:
            self._throttle.failed_token(address, token)
            self._refusals.note(group_of(address), f"token refused from {address}")
        return user

    def _refused_act(self, request: Request, path: str, user: User | None, role: Role) -> None:
        """Leave a line in the audit; of all who are not known, and of each user, one a minute."""
        if path == "/logout":
            return
        kind = path.removeprefix(API).split("/")[1]
        name = str(request.path_params.get("name", ""))[:LONG]
        reason = f"POST {path} takes the role {role}"
        by = "nobody known" if user is None else user.name
        reason += f", and comes from {_address(request)}" if user is None else f", and {by} may {user.role}"
        self._refused_acts.note(by, _RefusedAct(kind, name, reason, by))

    def _leave_refusal(self, act: _RefusedAct, before: int) -> None:
        reason = act.reason + (f"; so were {before} before, within a minute" if before else "")

        def leave(control: Control) -> None:
            control.refused(act.kind, act.name, reason=reason, by=act.by)

        task = asyncio.get_running_loop().create_task(self._leave(leave))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _leave(self, leave: Callable[[Control], None]) -> None:
        try:
            await self._desk.change(leave)
        except (KqError, ConnectionError) as error:
            log.warning("the audit has no line about a refused act: %s", error)

    def _stranger(self, request: Request) -> Response:
        """What somebody hears whom nobody knows."""
        path = request.url.path.removeprefix(root_of(request))
        if path.startswith(API) and (wait := self._throttle.wait_token(_address(request))):
            told = Busy("too many wrong tokens came from this address", fix=f"Wait {wait:.0f} s.")
            answer = api.wrong(told)
            answer.headers["Retry-After"] = str(int(wait) + 1)
            return answer
        if path.startswith(API):
            return api.wrong(Forbidden("nobody knows who asks", fix=api.token_wanted("view|operate|edit")), 401)
        if not self._signs_in:
            return PlainTextResponse("you may not look at this page\n", 403)
        if "hx-request" in request.headers or request.method not in SAFE:
            return PlainTextResponse("sign in first\n", 401)
        back = quote(request.url.path + (f"?{request.url.query}" if request.url.query else ""), safe="")
        return RedirectResponse(f"{root_of(request)}/login?back={back}", 303)

    # Signing in.

    async def _sign_in_page(self, request: Request) -> Response:
        return self._door(request, "", 200)

    def _door(self, request: Request, wrong: str, status: int, name: str = "", wait: float = 0.0) -> Response:
        if not self._signs_in:
            return PlainTextResponse("nobody signs in here\n", 404)
        visit = visit_of(request) or new_visit()
        back = local(unquote(request.query_params.get("back", "")))
        values = {"root": root_of(request), "seal": self._seals.seal(visit), "back": back, "wrong": wrong, "name": name}
        told = {**values, "by_link": self._links is not None, "title": "Sign in"}
        response = HTMLResponse(draw("login.html", False, told), status)
        if wait:
            response.headers["Retry-After"] = str(int(wait) + 1)
        keep_visit(request, response, visit)
        return response

    async def _open(self, request: Request) -> Response:
        """Begin a session for a link."""
        if self._links is None:
            return PlainTextResponse("nobody signs in here\n", 404)
        if request.method != "GET" or not self._links.redeem(request.query_params.get("link", "")[:LONG]):
            return self._door(request, "This link was used, or is too old.", 403)
        log.info("sign-in: by a link from %s", _address(request))
        response = RedirectResponse(f"{root_of(request)}/", 303)
        keep_visit(request, response, self._links.begin())
        return response

    async def _sign_in(self, request: Request) -> Response:
        if self._doorkeeper is None or self._links is not None:
            return PlainTextResponse("nobody signs in here\n", 404)
        try:
            form = await form_of(request)
        except KqError as error:
            return PlainTextResponse(f"{error}\n", 400)
        said = {name: values[-1][:LONG] for name, values in form.items()}
        name, address = said.get("name", ""), _address(request)
        if not self._seals.fits(visit_of(request), said.get(SEAL, "")):
            return self._door(request, "This form was too old. Try again.", 403, name)
        if wait := self._throttle.wait(address, name):
            return self._door(request, f"Too many tries. Wait {wait:.0f} s.", 429, name, wait)
        # Counted before it is known, so that many tries at once are counted too.
        self._throttle.failed(address, name)
        password = said.get("password", "")
        user = await to_thread.run_sync(self._doorkeeper.by_password, name, password, limiter=self._hashing)
        if user is None:
            self._refusals.note(group_of(address), f"sign-in failed: {name[:100]} from {address}")
            return self._door(request, "Name or password is wrong.", 401, name)
        self._throttle.succeeded(address, name)
        log.info("sign-in: %s (%s) from %s", user.name, user.role, address)
        self._sessions.end(visit_of(request))
        response = RedirectResponse(local(said.get("back", "")) or f"{root_of(request)}/", 303)
        keep_visit(request, response, self._sessions.begin(user))
        return response

    async def _sign_out(self, asked: Asked) -> Response:
        form = await form_of(asked.request)
        must_be_sealed(asked, form.get(SEAL, [""])[-1])
        if asked.user.known_by == "link" and self._links is not None:
            self._links.end_all()
        self._sessions.end(asked.visit)
        response = RedirectResponse(asked.at("login" if asked.signs_in else ""), 303)
        keep_visit(asked.request, response, new_visit())
        return response

    # Pages.

    async def _page(self, asked: Asked, see: pages.See) -> Response:
        page = await see(asked)
        fragment = "hx-request" in asked.request.headers
        notice = {} if fragment else notices.read(asked.request.cookies.get(NOTICE, ""))
        values = {**page.values, "title": page.title, "tab": page.tab, "still": page.still, "notice": notice}
        response = HTMLResponse(draw(page.template, fragment, {**self._common(asked), **values}))
        if fragment:
            response.headers[FRAGMENT] = "1"
        if notice:
            response.delete_cookie(NOTICE, path=root_of(asked.request) or "/", httponly=True, samesite="strict")
        return response

    def _common(self, asked: Asked) -> dict[str, Any]:
        here = {"at": asked.at, "root": root_of(asked.request), "traces": self._traces}
        return {**here, "asked": asked, "user": asked.user, "seal": asked.seal}

    async def _act(self, asked: Asked, at: Act) -> Response:
        form = await form_of(asked.request)
        must_be_sealed(asked, form.pop(SEAL, [""])[-1])
        back = local(form.pop("back", [""])[-1]) or _back(asked, at)
        done = await api.done(asked, at, from_form(at.fields, form))
        response = RedirectResponse(back, 303)
        path = root_of(asked.request) or "/"
        notice = notices.written(notices.of(at, done))
        response.set_cookie(NOTICE, notice, max_age=30, path=path, httponly=True, samesite="strict")
        return response

    def _wrong_page(self, asked: Asked, error: Exception) -> Response:
        told, status = described(error), status_of(error)
        if "hx-request" in asked.request.headers:
            return PlainTextResponse(told["message"], status)
        values = {"told": asked.veil.data(told), "status": status, "title": "It can't be done", "tab": "", "notice": {}}
        again = status == 503 and asked.request.method in SAFE
        return HTMLResponse(draw("error.html", False, {**self._common(asked), **values, "again": again}), status)

    @staticmethod
    def _wrong_api(asked: Asked, error: Exception) -> Response:
        return api.wrong(error, veil=asked.veil)


def _warn(what: str, before: int) -> None:
    log.warning("%s%s", what, f"; {before} more refused from there within a minute" if before else "")


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def checked(traces: str) -> str:
    """The same. Raises ConfigError for an address that a browser would not open, or that names no trace."""
    if traces and not _names_a_trace(traces):
        fix = "Write one such as https://traces.example.org/trace/{trace}."
        raise ConfigError(f"web.traces is {traces!r}, which is no web address with {{trace}} in it", fix=fix)
    return traces


def _names_a_trace(traces: str) -> bool:
    try:
        at = urlsplit(traces)
    except ValueError:
        return False
    place, trace = at.netloc.rpartition("@")[2], "{trace}"
    written = traces.isascii() and traces.isprintable() and not set(traces) & set(" \"'<>\\`")
    named = trace not in at.netloc and trace in at.path + at.query + at.fragment
    return written and at.scheme in ("https", "http") and bool(place) and named


class _Files(StaticFiles):
    """The page's own files; their addresses have kq's version in them."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "public, max-age=86400"
        return response


def _refused(scope: Scope, error: KqError, status: int) -> Response:
    """An error about which it was not asked who is there: to programs as JSON, to browsers as a line of text."""
    path: str = scope["path"].removeprefix(scope.get("root_path", "").rstrip("/"))
    return api.wrong(error, status) if path.startswith(API) else PlainTextResponse(f"{error.message}\n", status)


async def _no_way(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = NotFound(f"there is no {request.method} {request.url.path}", fix=f"{API}/openapi.json says what there is.")
    answer = _refused(request.scope, told, error.status_code)
    answer.headers.update(error.headers or {})
    return answer


async def _find(asked: Asked) -> Response:
    """To the page of a job whose id somebody wrote into a form."""
    return RedirectResponse(asked.at("jobs", "".join(asked.query().get("id", [""])).strip()), 303)


async def _live(request: Request) -> Response:
    """For probes: this program goes round. Whether the broker answers is another question."""
    return PlainTextResponse("ok\n")


def _back(asked: Asked, at: Act) -> str:
    """Where to go after an act that does not say: to what it was done to, or among its like."""
    noun = at.path.split("/")[1]
    if "{name}" in at.path and noun in ("queues", "jobs"):
        return asked.at(noun, asked.name)
    return asked.at("" if noun == "types" else noun)
