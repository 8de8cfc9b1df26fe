"""A page over a broker in memory, and browsers that look at it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from html import unescape
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

import kq
from kq.control import Control
from kq.credential import Credential, Role, token_hash
from kq.web import User
from kq.web.sessions import Doorkeeper
from kq.web.site import Site

HOME = "http://localhost:8520"
#: A hash of "correct horse" that costs next to nothing.
PASSWORD = "correct horse"
CHEAP = "scrypt$1$1$1$c2FsdHNhbHRzYWx0$JhpuZJylqyMnEt0gssPxLNbLygkaTPP/3ipC7oclHqw"
TOKENS = {"viewer": "view-token", "operator": "operate-token", "editor": "edit-token"}

#: What nobody should send, and somebody will.
JUNK: tuple[Any, ...] = (
    *(None, "", "x", "\x00", "\ud800", "<b>", "a" * 5000, "-5m", "5m", "1e999", "NaN", "٣", "*" * 200),
    *("9" * 5000, f"{'9' * 400}s", f"{'9' * 400}/s", f"+doors:{'9' * 5000}"),
    *(-1, 0, 3, 1.5, 10**400, 1e308, float("nan"), float("inf"), True, False),
    *([], {}, ["x"], ["\ud800", 1], {"a": {"b": []}}, [[[[[[[[]]]]]]]], {"": None}, {"\x00": "\ud800"}),
)


class Browser:
    """A browser that keeps cookies and follows no redirects by itself."""

    def __init__(self, client: TestClient) -> None:
        self.client = client

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.client.get(path, follow_redirects=False, **more)

    def seal(self, path: str = "/submit") -> str:
        """What a form of that page brings back."""
        found = re.search(r'name="seal" value="(\w+)"', self.get(path).text)
        assert found is not None, path
        return found[1]

    def post(self, path: str, seal: str | None = None, /, **fields: Any) -> httpx.Response:
        """Send a form of ours."""
        data = {"seal": self.seal() if seal is None else seal, **fields}
        return self.client.post(path, data=data, follow_redirects=False)

    def told(self, path: str, **fields: Any) -> str:
        """What the page says after a form was sent."""
        response = self.post(path, **fields)
        assert response.status_code == 303, response.text
        return words(self.get(response.headers["location"]))

    def api(self, path: str, body: Any = None, token: str = TOKENS["editor"], **more: str) -> httpx.Response:
        """Ask the API; with a body, for a change. more: headers, with _ for each -."""
        headers = {name.replace("_", "-"): value for name, value in more.items()}
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        if body is None:
            return self.client.get(f"/api/v1{path}", headers=headers)
        return self.client.post(f"/api/v1{path}", json=body, headers=headers)


def words(response: httpx.Response) -> str:
    """What a page says to people."""
    assert response.status_code == 200, response.text
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", response.text)).split())


@pytest.fixture
def app(tmp_path: Path) -> Iterator[kq.App]:
    app = kq.App("shop", f"memory://{tmp_path.name}")

    @app.job(name="login", queue="doors")
    def login(name: str, password: str, *, note: str = "", api_key: str = "") -> str:
        return name

    @app.job(name="resize", queue="images")
    def resize(path: str, width: int = 800) -> str:
        return path

    yield app
    app.close()


@pytest.fixture
def control(app: kq.App) -> Iterator[Control]:
    with Control(app) as control:
        yield control


@pytest.fixture
def browse() -> Iterator[Callable[..., Browser]]:
    """Makes browsers before a page; both are closed afterwards."""
    opened: list[TestClient] = []

    def make(site: Any, **more: Any) -> Browser:
        client = TestClient(site, base_url=HOME, raise_server_exceptions=True, **more)
        client.__enter__()
        opened.append(client)
        return Browser(client)

    yield make
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def open_page(control: Control, browse: Callable[..., Browser]) -> Browser:
    """A page that lets everybody in."""
    return browse(Site(control, authorize=anybody, hosts=()))


def anybody(request: Request) -> User:
    """Whoever asks may do everything, as one who came by a link."""
    return User("ann", "edit", "link")


def by_header(request: Request) -> User | None:
    """Who a request says it comes from: the other application knows."""
    role: Any = request.headers.get("x-role")
    return User("ann", role) if role else None


def credentials(**roles: Role) -> Mapping[str, Credential]:
    return {name: Credential(role, CHEAP) for name, role in roles.items()}


def tokens() -> Mapping[str, Credential]:
    roles: dict[str, Role] = {"viewer": "view", "operator": "operate", "editor": "edit"}
    return {name: Credential(role, token_hash(TOKENS[name])) for name, role in roles.items()}


@pytest.fixture
def guarded(control: Control) -> Site:
    """A page at which people sign in, and programs have tokens."""
    users = credentials(vera="view", ola="operate", edda="edit")
    return Site(control, doorkeeper=Doorkeeper(users, tokens()), hosts={"kq.example"})


def sign_in(browser: Browser, name: str, password: str = PASSWORD, back: str = "") -> httpx.Response:
    return browser.post("/login", browser.seal("/login"), name=name, password=password, back=back)
