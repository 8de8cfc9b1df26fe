"""Clients that are slow: they give up their place, and others do not notice them. Over real sockets."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from time import monotonic

import pytest
import uvicorn
from anyio import to_thread
from anyio.lowlevel import checkpoint
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

import kq
from kq.conformance.contract.waiting import eventually
from kq.control import Control
from kq.effects.context import CurrentJob, Footing
from kq.state import Write
from kq.values.config import Web
from kq.values.record import lease_key
from kq.web import desk, limits, patience
from kq.web.program import config_of
from kq.web.site import Site
from tests.web.conftest import TOKENS, anybody


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is less patient than it is."""
    for name, seconds in (("ASKS", 1.0), ("SENDS", 0.3), ("READS", 0.3), ("LOOK", 0.05)):
        monkeypatch.setattr(patience, name, seconds)


@contextmanager
def served(site: ASGIApp) -> Iterator[int]:
    """Serve it as kq web does; the port."""
    with socket.create_server(("127.0.0.1", 0)) as line:
        line.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, 4096
        )  # what nobody reads waits in the server, not below it
        server = uvicorn.Server(config_of(site, Web()))
        serving = threading.Thread(target=server.run, args=([line],))
        serving.start()
        try:
            eventually(lambda: server.started, "it is served")
            yield line.getsockname()[1]
        finally:
            server.should_exit = True
            serving.join()


@pytest.fixture
def port(control: Control) -> Iterator[int]:
    with served(Site(control, authorize=anybody, hosts=())) as port:
        yield port


@contextmanager
def connected(port: int, *said: bytes) -> Iterator[socket.socket]:
    """A connection on which something was said; it never waits."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        for each in said:
            line.sendall(each)
        line.setblocking(False)
        yield line


def is_cut(line: socket.socket, more: bytes = b"") -> bool:
    """Whether the other side has ended the connection. more: what is said before looking."""
    try:
        line.send(more)
        return line.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def status(port: int, path: str = "/livez") -> int:
    """Of an answer; 0 where the connection was ended before."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        line.request("GET", path)
        return line.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        line.close()


BEGIN = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "
BODY = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"


@pytest.mark.parametrize(
    ("said", "more"),
    [(b"", b""), (BEGIN, b"x"), (BODY, b"x")],
    ids=["nothing is said", "a header without an end", "a body byte by byte"],
)
def test_who_does_not_say_in_time_what_he_wants_is_cut_off(hurry: None, port: int, said: bytes, more: bytes) -> None:
    with connected(port, said) as line:
        eventually(lambda: is_cut(line, more), "it is cut off")
    eventually(lambda: status(port) == 200, "others are served")


def test_who_waits_between_two_requests_is_not_hurried_and_then_is(hurry: None, port: int) -> None:
    asked = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connected(port, asked) as patient, connected(port, BEGIN) as slow:
        eventually(lambda: b"200" in _read(patient), "it is answered")
        eventually(lambda: is_cut(slow, b"x"), "another one has had more than his time")
        assert not is_cut(patient, asked)
        eventually(lambda: b"200" in _read(patient), "it is answered again")
        patient.send(BEGIN)
        eventually(lambda: is_cut(patient, b"x"), "now it is too slow")


@pytest.mark.parametrize(
    "said", [b"", BEGIN, BODY.replace(b"login", b"jobs")], ids=["nothing", "half a header", "half a body"]
)
def test_connections_that_wait_for_their_clients_make_room_for_others(port: int, said: bytes) -> None:
    with ExitStack() as stack:
        lines = [stack.enter_context(connected(port, said)) for _ in range(230)]
        assert [status(port, path) for path in ("/livez", "/api/v1/status")] == [200, 200]
        assert is_cut(lines[0])
        assert not is_cut(lines[-1])


def test_a_client_between_two_requests_gives_up_its_connection_last(port: int) -> None:
    asked = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with ExitStack() as stack:
        lines = [stack.enter_context(connected(port, BEGIN)) for _ in range(limits.WAITING - 1)]
        with connected(port, asked) as busy:
            eventually(lambda: b"200" in _read(busy), "it is answered")
            lines += [stack.enter_context(connected(port, BEGIN)) for _ in range(5)]
            eventually(lambda: is_cut(lines[4], b"x"), "the oldest connections are ended")
            assert not is_cut(busy, asked)


def test_health_is_answered_while_all_requests_that_are_allowed_are_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REQUESTS_OF_ONE", 3)
    over = threading.Event()

    async def answer(request: Request) -> Response:
        if request.url.path == "/slow":
            await to_thread.run_sync(over.wait, 20)
        return Response()

    with served(Starlette(routes=[Route("/{path:path}", answer)])) as port, ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connected(port, b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n"))
        eventually(lambda: status(port, "/") == 503, "no more requests are taken")
        assert status(port) == 200
        over.set()
        eventually(lambda: status(port, "/") == 200, "there is room again")


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_addresses_of_one_client_are_one_group(address: str, group: str) -> None:
    assert limits.group_of(address) == group


@pytest.mark.parametrize(
    ("listed", "is_in"),
    [(["10.0.0.1"], True), (["10.0.0.0/8"], True), (["*"], True), (["10.0.0.2", "proxy"], False), ([], False)],
)
def test_a_proxy_is_known_by_its_address_or_network(listed: list[str], is_in: bool) -> None:
    assert limits.is_among("10.0.0.1", listed) == is_in


def _read(line: socket.socket) -> bytes:
    with suppress(BlockingIOError):
        return line.recv(2**16)
    return b""


def test_who_does_not_read_the_answer_is_cut_off(hurry: None) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def endless() -> AsyncIterator[bytes]:
        begun.set()
        try:
            while True:
                yield bytes(2**16)
                await checkpoint()
        finally:
            ended.set()

    async def answer(request: Request) -> Response:
        return StreamingResponse(endless()) if request.url.path == "/" else Response()

    with served(Starlette(routes=[Route("/{path:path}", answer)])) as port, connected(port, BEGIN + b"x\r\n\r\n"):
        assert begun.wait(20)
        assert ended.wait(20)
        eventually(lambda: status(port) == 200, "others are served")


def test_so_many_listen_at_a_time_and_who_goes_leaves_his_place(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/api/v1/events?seconds=60"
    asked = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    lines = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(desk.EARS)]
    try:
        for line in lines:
            line.sendall(asked)
            assert line.recv(12) == b"HTTP/1.1 200"
        eventually(lambda: status(port, path) == 429, "no more may listen")
        lines.pop().close()
        eventually(lambda: status(port, "/api/v1/events?seconds=0") == 200, "there is room again")
    finally:
        for line in lines:
            line.close()


def test_one_who_takes_all_the_places_that_he_may_leaves_some_to_others(guarded: Site) -> None:
    def asked(path: str, who: str) -> bytes:
        return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKENS[who]}\r\n\r\n".encode()

    def answer(port: int, who: str) -> int:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
            line.sendall(asked("/api/v1/events?seconds=0", who))
            return int(line.recv(12)[9:])

    with served(guarded) as port, ExitStack() as stack:
        for _ in range(desk.EARS // 2):
            line = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            line.sendall(asked("/api/v1/events?seconds=60", "viewer"))
            assert line.recv(12) == b"HTTP/1.1 200"
        eventually(lambda: answer(port, "viewer") == 429, "he may have no more")
        assert answer(port, "editor") == 200
        assert answer(port, "operator") == 200
        line.close()
        eventually(lambda: answer(port, "viewer") == 200, "he has left one place")


def test_who_follows_and_reads_nothing_gives_up_his_place_and_what_waits_for_him(
    hurry: None, app: kq.App, control: Control
) -> None:
    id = app.jobs["login"].submit("ann", "pw").id
    app.store.write([Write(lease_key("w"), b"1")])
    job = CurrentJob(id, "login", "doors", 1, monotonic() + 60, Footing(app, "w"))
    for _ in range(3000):
        job.emit("x" * 300)
    job.finish()

    def ears() -> list[threading.Thread]:
        return [each for each in threading.enumerate() if each.name == "kq-web-ear"]

    with served(Site(control, authorize=anybody, hosts=())) as port, ExitStack() as stack:
        for _ in range(desk.EARS):
            line = stack.enter_context(socket.socket())
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            line.connect(("127.0.0.1", port))
            line.sendall(f"GET /api/v1/jobs/{id}/stream?seconds=60 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert line.recv(12) == b"HTTP/1.1 200"
        eventually(lambda: not ears(), "they are cut off, and nobody hears for them")
        eventually(lambda: status(port, f"/api/v1/jobs/{id}/stream?seconds=0") == 200, "there is room again")
