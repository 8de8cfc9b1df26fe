"""The line to a RabbitMQ: reading, writing, waiting for answers, heartbeats, and how it ends.

py-amqp's connection with other habits. Threads may share it: one of those that wait reads for all, and what it reads
is told to whom it belongs. No wait is without a deadline. What breaks the line ends it for good.

The lease. RabbitMQ drops a connection when it heard nothing for two to three of the negotiated intervals; that is a
third of the lease, so silence ends it within the lease. We give up earlier: after one and a half without a word from
the broker, which speaks once in each (and half a second more, for a busy machine).
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import amqp
from amqp import exceptions, spec
from amqp.transport import AMQP_PROTOCOL_HEADER

from kq_transports.amqp.errors import rejection
from kq_transports.amqp.frames import (
    BEAT,
    LARGEST_FRAME,
    SMALLEST_FRAME,
    BrokenStream,
    Incoming,
    Method,
    method_frame,
)
from kq_transports.amqp.question import Asking
from kq_transports.amqp.wire import dial
from kq_transports.engine import EngineError, LeaseLost, Options, Unreachable
from kq_transports.thread import begin

if TYPE_CHECKING:
    from kq_transports.amqp.question import Side

#: An instant that has passed: look, but do not wait.
NOW = float("-inf")
#: Seconds that who reads may take to notice that the line was hung up; he does at once, unless what he read keeps him.
READER_GOES = 1.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where RabbitMQ is and how to get in. tls: py-amqp's options, None for none."""

    host: str
    port: int
    virtual_host: str
    user: str
    password: str
    login_method: str
    tls: Mapping[str, Any] | None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Line(Asking, amqp.Connection):  # type: ignore[misc]
    """A connection that reads, writes and waits."""

    library_properties = {"product": "kq_transports", "product_version": amqp.__version__}

    _METHODS = {**amqp.Connection._METHODS, spec.Connection.Blocked: spec.method(spec.Connection.Blocked, "s")}

    def __init__(self, address: Address, options: Options) -> None:
        self.address = address
        self.options = options
        self.name = options.name or f"kq-{os.urandom(6).hex()}"
        self.peer = f"RabbitMQ at {address}"
        #: Why the broker takes no publishes at present; empty when it does.
        self.blocked = ""
        self._process = os.getpid()
        self._incoming = Incoming(self._take)
        self._turn_lock = threading.RLock()
        self._turn = threading.Condition(self._turn_lock)
        self._reader = 0  # the thread that reads for all
        self._writing = threading.Lock()
        self._opening = threading.Lock()
        self._broken: EngineError | None = None
        self._held = False
        self._closed = False
        #: Set when it is not to be used any more.
        self.stopped = threading.Event()
        self._heard = time.monotonic()
        #: When something was last sent.
        self.spoke = self._heard
        super().__init__(
            host=str(address),
            userid=address.user,
            password=address.password,
            login_method=address.login_method,
            virtual_host=address.virtual_host,
            heartbeat=max(1, int(options.lease // 3)),
            client_properties={"connection_name": self.name},
        )

    @property
    def link(self) -> Line:
        return self

    # The beginning.

    def connect(self, callback: None = None) -> None:
        """Get in within connect_timeout, by three answers. Raises Unreachable, or EngineError when they say no."""
        until = time.monotonic() + (self.options.connect_timeout or self.options.timeout)
        address = self.address
        self._transport = self._wire = dial(address.host, address.port, within=self.options.timeout, tls=address.tls)
        weakref.finalize(self, self._wire.close)
        self.frame_writer = self._send
        try:
            self._wire.write(AMQP_PROTOCOL_HEADER, until)
            if not self.wait_for(lambda: self._handshake_complete, until):
                raise Unreachable(f"{self.peer} did not let us in in time", sent=False)
        except EngineError as error:
            self._wire.close()
            if isinstance(self._broken or error, ConnectionError):
                raise Unreachable(str(error), sent=False) from error
            raise self._broken or error from None
        if self.options.keep_alive:
            begin(threading.Thread(target=_keep_alive, args=(weakref.ref(self), self.stopped), daemon=True))

    @property
    def version(self) -> str:
        """The server's."""
        return str(self.server_properties.get("version", "?"))

    # Reading and waiting.

    def wait_for(self, ready: Callable[[], object], until: float | None) -> bool:
        """Read until ready() says so; False when until (monotonic; None: never) came first.

        Looks at least once. Raises when the line ends. Another thread may be the one that reads.
        """
        looked = False
        while not ready():
            self._check_line()
            if looked and until is not None and time.monotonic() >= until:
                return False
            looked = True
            try:  # around both: an interruption between them would leave a reader who does not read
                if self._may_read(until):
                    self._read(until)
            finally:
                with self._turn_lock:
                    if self._reader == threading.get_ident():
                        self._reader = 0
                        self._turn.notify_all()
        return True

    def _may_read(self, until: float | None) -> bool:
        """Whether this thread is the one to read; else it waited until something was read, or until then."""
        with self._turn_lock:
            if self._closed:
                return False
            if not self._reader:
                self._reader = threading.get_ident()
                return True
            self._turn.wait(None if until is None else max(0.0, until - time.monotonic()))
            return False

    def _read(self, until: float | None) -> None:
        limit = self._silent_until()
        try:
            data = self._wire.read(limit if until is None else min(until, limit))
            if data:
                self._heard = time.monotonic()
                self._take_in(data)
            elif time.monotonic() >= limit:
                self.fail(Unreachable(f"{self.peer} was silent for too long", sent=True))
        except EngineError as error:
            self.fail(error)

    def _take_in(self, data: bytes) -> None:
        """Pass on what was read. All of it, or the line ends: nobody would ever miss the rest.

        Whatever decoding raises means that the broker sent nonsense: Unreachable, as any outage.
        """
        try:
            self._incoming.feed(data)
        except EngineError:
            raise
        except Exception as error:
            why = str(error) if isinstance(error, BrokenStream | exceptions.AMQPError) else repr(error)
            raise Unreachable(f"{self.peer} sent what makes no sense: {why}", sent=True) from error
        except BaseException as error:
            self.fail(Unreachable(f"what {self.peer} said was not taken in: {error!r}", sent=True))
            raise

    def _silent_until(self) -> float:
        """Until when we believe that the broker lives though it says nothing."""
        return self._heard + (1.5 * self.heartbeat + 0.5 if self.heartbeat else self.options.timeout)

    def _take(self, method: Method) -> None:
        """Give a method to whom it is for."""
        if method.channel == 0:
            self.dispatch_method(method.name, method.payload, None)
            return
        channel = self.channels.get(method.channel)
        if channel is None or (method.name == spec.Channel.CloseOk and not channel.is_closing):
            return  # it answers who had the number before, and whose goodbye crossed the broker's own
        channel.take(method)

    def look(self) -> None:
        """Read what has arrived, without waiting; raises when the line has ended."""
        try:
            self._check_line()
            if self._wire.has_news:
                self.wait_for(lambda: False, NOW)
        except Unreachable as error:
            error.sent = False  # by who looks before he speaks
            raise

    # Writing.

    def write(self, data: bytes, until: float, channel: Asking | None = None) -> None:
        """Send frames, all of them before until. Raises Unreachable, and why the broker closed channel if it did."""
        if not self._writing.acquire(timeout=max(0.0, until - time.monotonic())):
            raise Unreachable(f"{self.peer} takes no data", sent=False)
        try:
            self._check_line()
            if channel is not None:
                channel.raise_fault()
            began = time.monotonic()
            self._put(data, until)
        finally:
            self._writing.release()
        self.spoke = began

    def _put(self, data: bytes, until: float) -> None:
        """Send data. If some of it may be sent and some is not the line ends: what follows would not be understood."""
        try:
            self._wire.write(data, until)
        except Unreachable as error:
            if error.sent or error.__cause__ is not None:
                self.fail(error)
            raise
        except BaseException as error:
            self.fail(Unreachable(f"what was said to {self.peer} was cut off: {error!r}", sent=True))
            raise

    def _send(self, kind: int, channel: int, name: Any, arguments: Any, content: Any) -> None:
        """py-amqp's way to write a frame."""
        self.write(method_frame(channel, name, arguments or b""), time.monotonic() + self.options.timeout)

    # The lease.

    def beat(self) -> None:
        """Tell the broker that we live, if it is time, and find out whether it does."""
        self.check()
        self.look()
        if time.monotonic() - self.spoke >= self.heartbeat / 4:
            self.write(BEAT, time.monotonic() + self.options.timeout)

    @property
    def assured(self) -> float:
        """Until when the broker surely keeps for us what we hold, although it hears nothing more.

        It looks once in each heartbeat, and hangs up when it has heard nothing at two looks in turn
        (rabbit_heartbeat.erl): after two heartbeats at the earliest, three at the latest.
        """
        return float(self.spoke + 2 * self.heartbeat)

    @property
    def held(self) -> bool:
        """Whether there is a lease to lose: consumers or messages."""
        raise NotImplementedError

    @property
    def trouble(self) -> str:
        """What is known to be wrong with the broker, as the end of a sentence."""
        return f"; it said: {self.blocked}" if self.blocked else ""

    # The end.

    @property
    def connected(self) -> bool:
        """Whether Kombu should go on using it.

        True for one that ended with what it held, so that whoever uses it is told so and does not drain, for ever, a
        new connection on which nothing consumes.
        """
        ours = not self._closed and self._process == os.getpid()
        return ours and (self._broken is None or self._held)

    @property
    def alive(self) -> bool:
        """Whether there is a point in speaking to the broker."""
        return not self._closed and self._broken is None and self._process == os.getpid()

    def check(self) -> None:
        """Raise when nothing can be said to the broker on this connection any more."""
        if self._process != os.getpid():
            raise Unreachable(
                f"this connection belongs to process {self._process}; open another one after a fork", sent=False
            )
        if self._closed:
            raise exceptions.RecoverableConnectionError("the connection is closed")
        if self._broken is not None:
            if self._held:
                raise LeaseLost(f"{self._broken}; what this connection held is delivered to others") from self._broken
            raise Unreachable(str(self._broken), sent=False) from self._broken

    def _check_line(self) -> None:
        """Raise when nothing more will be read; what was sent before may have been carried out."""
        if self._broken is not None or self._closed or self._process != os.getpid():
            try:
                self.check()
            except Unreachable as error:
                error.sent = self._process == os.getpid()
                raise

    def fail(self, error: EngineError) -> EngineError:
        """End the line for the reason that error tells; all who wait or come later hear of it. Returns error."""
        if self._broken is None:
            self._held = self.held
            self._broken = error
        self._wire.hang_up()
        with self._turn:
            self._turn.notify_all()
        return error

    def part(self, side: Side, fault: EngineError) -> None:
        """The broker closed a channel. Agree, after which nobody says anything on it."""
        with self._writing:
            side.fault = fault
            with suppress(Unreachable):
                closed = method_frame(side.channel_id, spec.Channel.CloseOk, b"")
                self._wire.write(closed, time.monotonic() + self.options.timeout)
        side.collect()

    def close(self) -> None:
        """Give back all that is held and let go. May be repeated. In a forked child: not a word, it is the parent's."""
        if self.alive and not self.blocked:  # else it would not hear us
            with suppress(EngineError, exceptions.AMQPError):
                self.send_method(spec.Connection.Close, "BsBB", (200, "", 0, 0), wait=spec.Connection.CloseOk)
        self.collect()

    def collect(self) -> None:
        """Let go of all that is on this side, without a word."""
        self._closed = True
        self.stopped.set()
        if self._process == os.getpid():
            self._wire.hang_up()
            self._let_reader_go()
        for channel in [channel for channel in self.channels.values() if channel is not self]:
            channel.collect()
        self._wire.close()

    def _let_reader_go(self) -> None:
        """Wait until nobody else reads: the descriptor may be a stranger's soon, for whom he would wait then."""
        with self._turn:
            self._turn.wait_for(lambda: self._reader in (0, threading.get_ident()), READER_GOES)

    def _on_close(self, reply_code: int, reply_text: str, class_id: int, method_id: int) -> None:
        with suppress(EngineError):
            self.send_method(spec.Connection.CloseOk)
        address, text = self.address, f"{self.peer} closed the connection: {reply_text}"
        self.fail(rejection(reply_code, reply_text, address.user, str(address)) or Unreachable(text, sent=True))

    def _on_tune(self, channel_max: int, frame_max: int, server_heartbeat: int) -> None:
        """Agree on the size of frames; the broker says 0 when it sets no limit."""
        if 0 < frame_max < SMALLEST_FRAME:
            raise BrokenStream(f"frames of {frame_max} bytes are less than AMQP's least, {SMALLEST_FRAME}")
        self._incoming.limit = min(frame_max or self._incoming.limit, LARGEST_FRAME)
        super()._on_tune(channel_max, self._incoming.limit, server_heartbeat)

    def _on_close_ok(self) -> None:
        """The end that we asked for."""

    def _on_blocked(self, reason: str = "") -> None:
        self.blocked = reason or "it is short of memory or disk"

    def _on_unblocked(self) -> None:
        self.blocked = ""


def _keep_alive(reference: weakref.ref[Line], stopped: threading.Event) -> None:
    """Beat until the connection ends or is forgotten."""
    while True:
        line = reference()
        if line is None or not line.alive:
            return
        with suppress(EngineError, exceptions.AMQPError):
            line.beat()
        interval = line.heartbeat / 2
        del line
        if stopped.wait(interval):
            return
