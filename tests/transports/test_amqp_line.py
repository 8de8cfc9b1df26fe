"""The line to a RabbitMQ, against a server that says what a test tells it to, when it tells it to."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from amqp import exceptions, spec
from amqp.serialization import dumps

from kq_transports.amqp import line as line_module
from kq_transports.amqp import wire as wire_module
from kq_transports.amqp.frames import LARGEST_FRAME, Incoming, Method, method_frame
from kq_transports.amqp.line import Address
from kq_transports.amqp.outlet import Outlet
from kq_transports.amqp.publisher import Publisher
from kq_transports.amqp.question import Side
from kq_transports.conformance.kombu.world import eventually
from kq_transports.engine import EngineError, Options, Unreachable

PATIENCE = 10.0


class Server:
    """Takes one connection. heard: the methods that came, in order."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.heard: list[Method] = []
        self._incoming = Incoming(self.heard.append)
        #: What it answers to which method, by itself.
        self.answers: dict[tuple[int, int], Callable[[Method], bytes]] = {
            spec.Connection.StartOk: lambda method: said(0, spec.Connection.Tune, "BlB", 2047, 131072, 60),
            spec.Connection.Open: lambda method: said(0, spec.Connection.OpenOk, "s", ""),
            spec.Connection.Close: lambda method: said(0, spec.Connection.CloseOk),
            spec.Channel.Open: lambda method: said(method.channel, spec.Channel.OpenOk, "S", ""),
            spec.Channel.Close: lambda method: said(method.channel, spec.Channel.CloseOk),
        }
        self.greeting = said(0, spec.Connection.Start, "ooFSS", 0, 9, {}, "PLAIN AMQPLAIN", "en_US")
        self._peer: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            self._peer, _ = self._listening.accept()
            begun = False
            while data := self._peer.recv(65536):
                if not begun:  # the protocol's header
                    begun, data = True, data[8:]
                    self.say(self.greeting)
                before = len(self.heard)
                self._incoming.feed(data)
                for method in self.heard[before:]:
                    if answer := self.answers.get(method.name):
                        self.say(answer(method))

    def say(self, data: bytes) -> None:
        assert self._peer is not None
        self._peer.sendall(data)

    def count(self, name: tuple[int, int]) -> int:
        """How often it heard a method."""
        return sum(method.name == name for method in self.heard)

    def close(self) -> None:
        self._listening.close()
        if self._peer is not None:
            with suppress(OSError):
                self._peer.shutdown(socket.SHUT_RDWR)
            self._peer.close()
        self._thread.join(PATIENCE)


def said(channel: int, name: tuple[int, int], format: str = "", *arguments: Any) -> bytes:
    """The frame of a method."""
    return method_frame(channel, name, dumps(format, arguments) if format else b"")


@pytest.fixture
def server() -> Iterator[Server]:
    with closing(Server()) as server:
        yield server


def dialled(server: Server, **options: Any) -> Publisher:
    """A line to server, not yet connected."""
    address = Address("127.0.0.1", server.port, "/", "guest", "guest", "PLAIN", None)
    return Publisher(address, Options(timeout=PATIENCE, **options))


@pytest.fixture
def line(server: Server) -> Iterator[Publisher]:
    line = dialled(server)
    line.connect()
    yield line
    line.collect()


def in_thread(act: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    """Begin with act; what it raises comes into the list."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, raised


class TestAtTheDoor:
    @pytest.mark.parametrize("greeting", [b"AMQP\x00\x00\x09\x01", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
    def test_a_server_of_another_kind_is_known_at_once(self, server: Server, greeting: bytes) -> None:
        server.greeting = greeting
        begin = time.monotonic()
        with pytest.raises(Unreachable, match="makes no sense: a frame is of kind"):
            dialled(server).connect()
        assert time.monotonic() - begin < PATIENCE / 2


def nonsense_at_the_door() -> dict[str, bytes]:
    """What a server may say instead of its greeting, by what is wrong with it."""
    start = said(0, spec.Connection.Start, "ooFSS", 0, 9, {}, "PLAIN AMQPLAIN", "en_US")
    deep = b"".join(b"\x01kF" + (7 * (5000 - level)).to_bytes(4, "big") for level in range(5000)) + b"\x01kV"

    def greeting(table: bytes) -> bytes:
        return method_frame(0, spec.Connection.Start, b"\x00\x09" + len(table).to_bytes(4, "big") + table)

    return {
        "a method of one byte": b"\x01\x00\x00\x00\x00\x00\x01x\xce",
        "a table 5,000 deep": greeting(deep),
        "a timestamp of 2^63": greeting(b"\x01kT" + (1 << 63).to_bytes(8, "big")),
        "a Start that ends early": start[:3] + (9).to_bytes(4, "big") + start[7:16] + b"\xce",
        "a frame of 4 GiB": b"\x01\x00\x00\xff\xff\xff\xff",
        "frames of 7 bytes": start + said(0, spec.Connection.Tune, "BlB", 2047, 7, 60),
        "capabilities that are a number": said(0, spec.Connection.Start, "ooFSS", 0, 9, {"capabilities": 7}, "P", "en"),
        "an unknown method": method_frame(0, (10, 99), b""),
    }


class TestNonsense:
    @pytest.mark.parametrize("what", nonsense_at_the_door())
    def test_nonsense_instead_of_a_greeting_is_an_outage(self, server: Server, what: str) -> None:
        server.greeting = nonsense_at_the_door()[what]
        if "a frame of" in what:
            server.greeting += bytes(1)
        begin = time.monotonic()
        with pytest.raises(Unreachable, match="makes no sense"):
            dialled(server).connect()
        assert time.monotonic() - begin < PATIENCE / 2

    @pytest.mark.parametrize(
        "said_later",
        [
            method_frame(1, spec.Basic.Ack, (1 << 62).to_bytes(8, "big") + b"\x01"),  # of publishes never made
            method_frame(1, spec.Basic.Ack, b"\x00"),
            method_frame(1, spec.Basic.Deliver, b"") + b"\x02\x00\x01\x00\x00\x00\x01x\xce",
            method_frame(1, spec.Basic.Return, b"") + method_frame(1, spec.Basic.Return, b""),
            b"\x01\x00\x01\x7f\xff\xff\xff\x00",
        ],
    )
    def test_nonsense_on_an_open_line_ends_it_as_an_outage(
        self, server: Server, line: Publisher, said_later: bytes
    ) -> None:
        server.answers[spec.Confirm.Select] = lambda method: said(method.channel, spec.Confirm.SelectOk)
        outlet = Outlet(line)
        assert outlet.channel_id == 1
        server.say(said_later)
        with pytest.raises(Unreachable, match="makes no sense"):
            line.wait_for(lambda: False, time.monotonic() + PATIENCE)
        with pytest.raises(Unreachable):
            line.check()

    def test_the_largest_frame_is_agreed_and_no_larger_one_is_taken(self, server: Server) -> None:
        server.answers[spec.Connection.StartOk] = lambda method: said(0, spec.Connection.Tune, "BlB", 0, 1 << 31, 60)
        line = dialled(server)
        line.connect()
        assert line.frame_max == LARGEST_FRAME
        line.collect()


class TestChannels:
    def test_a_goodbye_that_crossed_the_brokers_own_is_not_taken_for_the_next_ones(
        self, server: Server, line: Publisher
    ) -> None:
        side = Side(line)
        number = side.channel_id
        # The broker closes the channel; what it answers to our own close comes when it has heard that we agree.
        server.answers[spec.Channel.Close] = lambda method: said(number, spec.Channel.Close, "BsBB", 504, "x", 0, 0)
        with pytest.raises(EngineError, match="x"):
            side.close()
        late = said(number, spec.Channel.CloseOk)
        server.answers[spec.Channel.Open] = lambda method: late + said(method.channel, spec.Channel.OpenOk, "S", "")
        again = Side(line)
        assert (again.channel_id, again.usable) == (number, True)

    def test_what_the_broker_closed_is_agreed_to_once_and_nothing_is_said_there_any_more(
        self, server: Server, line: Publisher
    ) -> None:
        side, other = Side(line), Side(line)
        server.say(said(side.channel_id, spec.Channel.Close, "BsBB", 404, "no such thing", 0, 0))
        assert line.wait_for(lambda: not side.usable, time.monotonic() + PATIENCE)
        with pytest.raises(exceptions.RecoverableConnectionError, match="the channel is closed"):
            side.exchange_declare("any", "direct")
        assert other.usable
        eventually(lambda: server.count(spec.Channel.CloseOk) == 1, "the channel is over")
        assert server.count(spec.Exchange.Declare) == 0


class TestThreads:
    def test_who_reads_on_a_line_that_is_closed_has_gone_before_its_descriptor_is_anothers(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(line_module, "READER_GOES", PATIENCE)
        about_to_wait, may_wait = threading.Event(), threading.Event()
        make = wire_module._waiter

        def slowly(sock: socket.socket, event: int) -> Callable[[float | None], bool]:
            wait = make(sock, event)

            def hold(until: float | None) -> bool:
                if threading.current_thread() is not threading.main_thread() and not may_wait.is_set():
                    about_to_wait.set()
                    may_wait.wait(PATIENCE)
                return wait(until)

            return hold

        monkeypatch.setattr(wire_module, "_waiter", slowly)
        line = dialled(server, lease=180.0)
        line.connect()
        reader, raised = in_thread(lambda: line.wait_for(lambda: False, time.monotonic() + 4 * PATIENCE))
        assert about_to_wait.wait(PATIENCE)
        closer, _ = in_thread(line.collect)
        eventually(lambda: not line.alive, "the line is closed")
        closer.join(0.2)  # who does not wait for the reader has closed by now
        one, two = socket.socketpair()  # they get the numbers that are free, and nothing is ever said there
        with one, two:
            may_wait.set()
            reader.join(PATIENCE)
            assert not reader.is_alive()
        assert isinstance(raised[0], exceptions.RecoverableConnectionError)
        closer.join(PATIENCE)

    def test_who_is_interrupted_before_it_reads_leaves_the_others_reading(
        self, server: Server, line: Publisher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        may_read = line._may_read

        def interrupted(until: float | None) -> bool:
            monkeypatch.undo()
            may_read(until)
            raise KeyboardInterrupt

        monkeypatch.setattr(line, "_may_read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            line.wait_for(lambda: False, time.monotonic() + PATIENCE)
        assert Side(line).usable


class TestInterruptions:
    def test_a_line_on_which_half_a_frame_was_said_is_not_used_any_more(
        self, line: Publisher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(data: bytes, until: float) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(line._wire, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Side(line)
        assert not line.alive

    def test_a_line_of_which_something_was_not_taken_in_is_not_used_any_more(
        self, server: Server, line: Publisher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        side = Side(line)

        def interrupted(method: Method) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(side, "take", interrupted)
        server.say(said(side.channel_id, spec.Channel.Flow, "b", False))
        with pytest.raises(KeyboardInterrupt):
            line.wait_for(lambda: False, time.monotonic() + PATIENCE)
        assert not line.alive


class Renegotiating(socket.socket):
    """A socket whose TLS must hear something before it says more, again and again."""

    tries = 0
    willing_after = 10**9

    def send(self, data: Any, flags: int = 0) -> int:
        self.tries += 1
        if self.tries <= self.willing_after:
            raise ssl.SSLWantReadError
        return super().send(data, flags)


def renegotiating() -> tuple[Renegotiating, socket.socket]:
    ours, theirs = socket.socketpair()
    return Renegotiating(fileno=ours.detach()), theirs


def test_who_writes_while_tls_must_hear_something_waits_for_it_and_not_without_end() -> None:
    ours, theirs = renegotiating()
    with ours, theirs:
        with pytest.raises(Unreachable, match="takes no data") as raised:
            wire_module.Wire(ours, "here").write(b"x", time.monotonic() + 0.3)
        assert not raised.value.sent
        assert ours.tries < 20  # it tried as often as the processor could


def test_it_goes_on_when_something_was_heard_by_whomever() -> None:
    ours, theirs = renegotiating()
    with ours, theirs:
        ours.willing_after = 2
        wire_module.Wire(ours, "here").write(b"x", time.monotonic() + PATIENCE)
        assert theirs.recv(1) == b"x"
        theirs.send(b"heard")
        ours.willing_after = ours.tries + 1
        wire_module.Wire(ours, "here").write(b"y", time.monotonic() + PATIENCE)
        assert theirs.recv(1) == b"y"
