"""Asking the broker: one question at a time on a channel, each with a deadline, from any thread."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any, TypeAlias

import amqp
from amqp import exceptions, spec
from amqp.protocol import queue_declare_ok_t
from amqp.serialization import dumps

from kq_transports.amqp.errors import refusal
from kq_transports.amqp.frames import Method, method_frame
from kq_transports.engine import EngineError, Unreachable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kq_transports.amqp.line import Line


class Answer:
    """What the broker will say; called with it by whoever reads it."""

    __slots__ = ("arguments", "ready")

    def __init__(self) -> None:
        self.ready = False
        self.arguments: tuple[Any, ...] = ()

    def __call__(self, name: tuple[int, int], *arguments: Any) -> None:
        self.arguments = arguments
        self.ready = True


class Asking:
    """For py-amqp's channels and its connection, which is channel 0: how they send a method and wait for its answer."""

    connection: Line | None
    channel_id: int
    _pending: dict[tuple[int, int], Answer]
    #: Why the broker closed this channel.
    fault: EngineError | None = None

    def send_method(
        self,
        sig: tuple[int, int],
        format: str | None = None,
        args: Sequence[Any] | None = None,
        content: Any = None,
        wait: tuple[int, int] | list[tuple[int, int]] | None = None,
        callback: Any = None,
        returns_tuple: bool = False,
    ) -> Any:
        """Send a method; wait: for one of these, and return its arguments.

        An answer that does not come in time ends the connection: come late it would be taken for another's.
        """
        link = self.link
        frame = method_frame(self.channel_id, sig, dumps(format, args) if format else b"")
        until = time.monotonic() + link.options.timeout
        if wait is None:
            link.write(frame, until, self)
            if callback is not None:
                callback()
            return None
        with self.asking:
            arguments = self._ask(link, frame, wait if isinstance(wait, list) else [wait], until)
        return arguments if returns_tuple else (arguments[0] if arguments else None)

    def _ask(self, link: Line, frame: bytes, names: list[tuple[int, int]], until: float) -> tuple[Any, ...]:
        answer = Answer()
        # Before the question is sent: another thread may be the one that reads the answer.
        self._pending.update(dict.fromkeys(names, answer))
        try:
            link.write(frame, until, self)
            if not link.wait_for(lambda: answer.ready or self.fault is not None, until):
                raise link.fail(Unreachable(f"{link.peer} did not answer in time", sent=True))
        finally:
            for name in names:
                self._pending.pop(name, None)
        if not answer.ready:
            self.raise_fault()
        return answer.arguments

    @property
    def asking(self) -> threading.Lock:
        """Held by who waits for an answer on this channel."""
        lock: threading.Lock = self.__dict__.setdefault("_asking", threading.Lock())
        return lock

    @property
    def link(self) -> Line:
        """The connection; raises when the channel was closed."""
        if self.connection is None:
            raise exceptions.RecoverableConnectionError("the channel is closed")
        return self.connection

    def raise_fault(self) -> None:
        """Raise what the broker closed this channel for, if it did."""
        if self.fault is not None:
            raise self.fault.with_traceback(None)


class Side(Asking, amqp.Channel):  # type: ignore[misc]
    """A channel beside the user's. When the broker closes it, only what was asked there fails.

    py-amqp would open a channel that was closed again under its old number, where a late ack ends somebody
    else's delivery. Here a channel that was closed stays so, and nothing is ever acknowledged on one like this
    that was not delivered to it.
    """

    def __init__(self, connection: Line, *, opened: bool = True) -> None:
        """opened: else it is asked for together with others; see side_by_side()."""
        super().__init__(connection, auto_decode=False)
        if opened:
            self.open()

    def queue_declare(
        self,
        queue: str = "",
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = True,
        arguments: Mapping[str, object] | None = None,
    ) -> queue_declare_ok_t:
        """Create queue or find it. py-amqp asks and then waits, when another thread may have read the answer."""
        given = (0, queue, passive, durable, exclusive, auto_delete, False, arguments or {})
        answer = spec.Queue.DeclareOk
        return queue_declare_ok_t(
            *self.send_method(spec.Queue.Declare, "BsbbbbbF", given, wait=answer, returns_tuple=True)
        )

    def take(self, method: Method) -> None:
        """What arrived for this channel."""
        self.dispatch_method(method.name, method.payload, method)

    def _on_close(self, reply_code: int, reply_text: str, class_id: int, method_id: int) -> None:
        link = self.link
        link.part(self, refusal(reply_code, reply_text, (class_id, method_id)))

    @property
    def usable(self) -> bool:
        return self.fault is None and self.connection is not None


#: A method to send: its name, the format of its arguments, and they.
Request: TypeAlias = "tuple[tuple[int, int], str, Sequence[Any]]"


def ask_all(side: Side, requests: Sequence[Request], answers: Sequence[tuple[int, int]]) -> list[tuple[Any, ...]]:
    """Send many questions at once; the arguments of their answers, in order. answers: what is one.

    Raises what the broker closed the side for, and Unreachable.
    """
    link, got, until = side.link, list[tuple[Any, ...]](), time.monotonic() + side.link.options.timeout
    with side.asking:
        for name in answers:
            side._callbacks[name] = lambda *arguments: got.append(arguments)
        try:
            link.write(_frames(side, requests), until, side)
            if not link.wait_for(lambda: len(got) == len(requests) or side.fault is not None, until):
                raise link.fail(Unreachable(f"{link.peer} did not answer in time", sent=True))
        finally:
            for name in answers:
                del side._callbacks[name]
    side.raise_fault()
    return got


def side_by_side(link: Line, tasks: Sequence[Sequence[Request]], width: int, until: float = math.inf) -> None:
    """Send requests that have no answer, on several channels, so that the broker works on width tasks at a time.

    The requests of one task are carried out in order. Returns when all is done; raises the first thing that the
    broker refused. It takes three answers, each of which has the time of one, and all of them until an instant.
    """
    sides = [Side(link, opened=False) for _ in range(min(width, len(tasks)))]
    _ask_each(sides, [[_OPEN]] * len(sides), spec.Channel.OpenOk, until)
    work = [[request for task in tasks[index :: len(sides)] for request in task] for index in range(len(sides))]
    # Something that has an answer comes last, to know that the rest was carried out.
    _ask_each(sides, [[*mine, _LAST] for mine in work], spec.Basic.QosOk, until)
    left = [side for side in sides if side.usable]
    for side in left:
        side.is_closing = True
    _ask_each(left, [[_CLOSE]] * len(left), spec.Channel.CloseOk, until)
    for side in sides:
        side.raise_fault()


_OPEN: Request = (spec.Channel.Open, "s", ("",))
_LAST: Request = (spec.Basic.Qos, "lBb", (0, 0, False))
_CLOSE: Request = (spec.Channel.Close, "BsBB", (0, "", 0, 0))


def _ask_each(
    sides: Sequence[Side], requests: Sequence[Sequence[Request]], last: tuple[int, int], until: float
) -> None:
    """Send each of sides its requests, and wait for the answer to the last one, or for the broker to close it."""
    if not sides:
        return
    link, answers = sides[0].link, [Answer() for _ in sides]
    until = min(until, time.monotonic() + link.options.timeout)
    for side, mine, answer in zip(sides, requests, answers, strict=True):
        side._pending[last] = answer
        link.write(_frames(side, mine), until, side)
    if not link.wait_for(lambda: all(a.ready or s.fault for a, s in zip(answers, sides, strict=True)), until):
        raise link.fail(Unreachable(f"{link.peer} did not answer in time", sent=True))


def _frames(side: Side, requests: Sequence[Request]) -> bytes:
    return b"".join(method_frame(side.channel_id, name, dumps(format, args)) for name, format, args in requests)
