"""A server that answers nonsense instead of what a Redis would: each answer counts as an outage, in bounded time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import count
from typing import Any

import hiredis
import pytest

from kq.state.redis import RedisStore
from kq.state.store import StoreUnreachable
from kq_transports import redis as redis_module
from kq_transports.engine import Action, Options, Unreachable, Verdict, Want
from kq_transports.redis import RedisEngine
from kq_transports.redislink import Place
from kq_transports.redislink import wire as wire_module

PATIENCE = 10.0


class Server:
    """Answers what is in answers, by command; +OK to all others. Takes any number of connections."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.answers: dict[bytes, Callable[[], bytes]] = {}
        self._threads = [threading.Thread(target=self._listen, daemon=True)]
        self._peers: list[socket.socket] = []
        self._threads[0].start()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                peer, _ = self._listening.accept()
                self._peers.append(peer)
                self._threads.append(threading.Thread(target=self._serve, args=(peer,), daemon=True))
                self._threads[-1].start()

    def _serve(self, peer: socket.socket) -> None:
        reader = hiredis.Reader()
        with suppress(OSError):
            while data := peer.recv(65536):
                reader.feed(data)
                while command := reader.gets():
                    peer.sendall(self.answers.get(command[0].upper(), lambda: b"+OK\r\n")())

    def close(self) -> None:
        for each in (self._listening, *self._peers):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(PATIENCE)


@pytest.fixture
def server() -> Iterator[Server]:
    with closing(Server()) as server:
        yield server


@pytest.fixture
def engine(server: Server) -> Iterator[RedisEngine]:
    with closing(RedisEngine(Place.of(f"redis://127.0.0.1:{server.port}/0"), Options(timeout=1.0))) as engine:
        engine.open()
        server.answers[b"EVALSHA"] = lambda: b":1\r\n"
        yield engine
        server.answers.clear()


@pytest.fixture
def store(server: Server) -> Iterator[RedisStore]:
    with closing(RedisStore(f"redis://127.0.0.1:{server.port}/0", timeout=1.0)) as store:
        yield store


#: Answers that are RESP and no answer to anything, or that are no RESP.
NONSENSE = {
    "a simple text": b"+what\r\n",
    "a list of numbers": b"*3\r\n:1\r\n:2\r\n:3\r\n",
    "a list in a list": b"*2\r\n*1\r\n$1\r\nx\r\n*0\r\n",
    "a text that is no UTF-8": b"*2\r\n$1\r\n\xff\r\n$1\r\n\xff\r\n",
    "no RESP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a size that is no number": b"$x\r\n",
}
VERBS: dict[str, Callable[[RedisEngine], object]] = {
    "queues": lambda engine: engine.queues(),
    "bindings": lambda engine: engine.bindings("e"),
    "reserve": lambda engine: engine.reserve([Want(("q",), 1)]),
    "count": lambda engine: engine.count("q"),
    "survey": lambda engine: engine.survey(),
    "browse": lambda engine: engine.browse("q"),
    "find": lambda engine: engine.find("q", ["x"]),
    "leases": lambda engine: engine.leases(),
}


class TestEngine:
    @pytest.mark.parametrize("verb", VERBS)
    @pytest.mark.parametrize("what", NONSENSE)
    def test_an_answer_that_makes_no_sense_is_an_outage(
        self, server: Server, engine: RedisEngine, verb: str, what: str
    ) -> None:
        if what == "a list of numbers" and verb == "count":
            return  # this is what it answers
        server.answers[b"EVALSHA"] = lambda: NONSENSE[what]
        with pytest.raises(Unreachable, match="sent what makes no sense"):
            VERBS[verb](engine)

    def test_settle_takes_no_nonsense(self, server: Server, engine: RedisEngine) -> None:
        server.answers[b"EVALSHA"] = lambda: b"*1\r\n:-1\r\n"
        engine.reserve([Want(("q",), 1)])
        with pytest.raises(Unreachable, match="sent what makes no sense"):
            engine.settle([Verdict("1", Action.DONE)])

    def test_an_expulsion_that_never_ends_is_given_up(
        self, server: Server, engine: RedisEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(redis_module, "ROUNDS", 0.2)
        server.answers[b"EVALSHA"] = lambda: b":0\r\n"
        with pytest.raises(Unreachable, match="always more to do"):
            engine.expel("x")

    def test_a_reply_without_end_is_not_read_to_the_end_of_memory(
        self, server: Server, engine: RedisEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(wire_module, "LARGEST", 1 << 20)
        server.answers[b"EVALSHA"] = lambda: b"$4294967296\r\n" + bytes(4 << 20)
        with pytest.raises(Unreachable, match="more than 1,048,576 bytes"):
            engine.count("q")

    def test_a_reply_that_drips_is_given_up_in_time(
        self, server: Server, engine: RedisEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(wire_module, "TIMEOUTS", 1)

        def drip() -> bytes:
            for _ in range(100):
                time.sleep(0.1)
                server._peers[0].sendall(b"$9")  # never a whole line
            return b""

        server.answers[b"EVALSHA"] = drip
        begin = time.monotonic()
        with pytest.raises(Unreachable, match="did not answer in time"):
            engine.count("q")
        assert time.monotonic() - begin < PATIENCE / 2


class TestStore:
    @pytest.mark.parametrize("what", NONSENSE)
    def test_an_answer_that_makes_no_sense_is_an_outage(self, server: Server, store: RedisStore, what: str) -> None:
        server.answers.update(dict.fromkeys((b"MGET", b"TIME", b"ZSCAN", b"EVALSHA"), lambda: NONSENSE[what]))
        acts: list[Callable[[], Any]] = [
            lambda: store.get(["a"]),
            store.now,
            lambda: store.scan("job:"),
            lambda: store.gather(["job:"]),
        ]
        for act in acts:
            with pytest.raises(StoreUnreachable, match="sent what makes no sense"):
                act()

    @pytest.mark.parametrize("cursors", [[7], range(1, 1 << 40)])
    def test_a_scan_whose_cursor_never_comes_back_is_given_up(
        self, server: Server, store: RedisStore, cursors: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("kq.state.redis._SCANNING", 0.5)
        numbers = count(1) if len(cursors) > 1 else iter(lambda: 7, 0)
        server.answers[b"ZSCAN"] = lambda: b"*2\r\n$%d\r\n%d\r\n*0\r\n" % (len(str(n := next(numbers))), n)
        with pytest.raises(StoreUnreachable, match="goes on for ever"):
            store.scan("job:")
