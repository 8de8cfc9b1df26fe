"""Lets jobs submit jobs where the broker lives in one process only, as the memory broker does.

The supervisor's process answers its executors' calls, each from a thread of its own; the executor's app
publishes and reads state through it. Where processes share the broker, executors have connections of their own.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from kq.app import App
from kq.errors import BrokerFull, BrokerUnreachable, KqError
from kq.events import Mouth
from kq.state.store import Rider, Store, StoreUnreachable, Write
from kq.values.message import Envelope
from kq.worker.wire import frame, read_frame

#: Seconds that one call to wait may block the others of its executor.
PATIENCE = 0.2


class Publish(msgspec.Struct, tag="publish"):
    envelopes: list[Envelope]
    until: float


class Replace(msgspec.Struct, tag="replace"):
    id: str
    envelope: Envelope
    now: float
    until: float


class Has(msgspec.Struct, tag="has"):
    queues: list[str]
    id: str
    until: float


class Get(msgspec.Struct, tag="get"):
    keys: list[str]


class Put(msgspec.Struct, tag="put"):
    writes: list[Write]


class Scan(msgspec.Struct, tag="scan"):
    prefix: str
    limit: int


class Wait(msgspec.Struct, tag="wait"):
    keys: list[str]
    timeout: float


class Now(msgspec.Struct, tag="now"):
    pass


class Tell(msgspec.Struct, tag="tell"):
    messages: list[tuple[str, bytes]]


Call: TypeAlias = Publish | Replace | Has | Get | Put | Scan | Wait | Now | Tell


class Answer(msgspec.Struct):
    """value: what the call returned; error: what it raised, and full whether the broker had no room."""

    value: Any = None
    error: str = ""
    full: bool = False


_decode_call = msgspec.msgpack.Decoder(Call).decode
_decode_answer = msgspec.msgpack.Decoder(Answer).decode


def answer_calls(app: App) -> socket.socket:
    """Answer one executor's calls, in a thread, until it hangs up; returns its end of the line.

    Raises OSError where the system has no room for that.
    """
    near, far = socket.socketpair()
    try:
        threading.Thread(target=_answer, args=(app, near), name="kq-relay", daemon=True).start()
    except RuntimeError as error:
        near.close()
        far.close()
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error
    return far


def _answer(app: App, sock: socket.socket) -> None:
    mouths: list[Mouth] = []
    with sock:
        try:
            while (data := read_frame(sock)) is not None:
                sock.sendall(frame(_carry_out(app, mouths, _decode_call(data))))
        except OSError:
            return  # the executor died in the middle of a call
        finally:
            for mouth in mouths:
                mouth.close()


def _carry_out(app: App, mouths: list[Mouth], call: Call) -> Answer:
    """mouths: what tells events, when some were told before."""
    try:
        match call:
            case Publish(envelopes, until):
                app.publisher.publish(envelopes, until)
                return Answer()
            case Replace(id, envelope, now, until):
                return Answer(app.publisher.replace(id, envelope, now, until))
            case Has(queues, id, until):
                return Answer(app.publisher.has(queues, id, until))
            case Get(keys):
                return Answer(app.store.get(keys))
            case Put(writes):
                return Answer(app.store.write(writes))
            case Scan(prefix, limit):
                return Answer(app.store.scan(prefix, limit))
            case Wait(keys, timeout):
                return Answer(app.store.wait_any(keys, timeout))
            case Now():
                return Answer(app.store.now())
            case Tell(messages):
                if not mouths:
                    mouths.append(Mouth(app.broker))
                mouths[0].tell(messages)
                return Answer()
    except (KqError, StoreUnreachable) as error:
        return Answer(error=str(error), full=isinstance(error, BrokerFull))


class Relay:
    """An executor's end. May be used by several threads."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()

    def ask(self, call: Call) -> Answer:
        with self._lock:
            self._sock.sendall(frame(call))
            data = read_frame(self._sock)
        if data is None:
            raise BrokerUnreachable("the worker ended while this job called it", stored="unknown")
        return _decode_answer(data)


class RelayedPublisher:
    """Publishes through the supervisor's process."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def publish(self, envelopes: Sequence[Envelope], until: float, rider: Rider | None = None) -> bool:
        """rider: none, for RelayedStore has none."""
        self._ask(Publish(list(envelopes), until))
        return True

    def replace(self, id: str, envelope: Envelope, now: float, until: float) -> bool:
        return bool(self._ask(Replace(id, envelope, now, until)))

    def has(self, queues: Sequence[str], id: str, until: float) -> bool:
        return bool(self._ask(Has(list(queues), id, until)))

    def _ask(self, call: Call) -> Any:
        answer = self._relay.ask(call)
        if answer.error:
            raise BrokerFull(answer.error) if answer.full else BrokerUnreachable(answer.error, stored="unknown")
        return answer.value

    def close(self) -> None:
        """The relay stays: it is the executor's."""


class RelayedMouth:
    """Tells events through the supervisor's process."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def tell(self, messages: Sequence[tuple[str, bytes]]) -> None:
        answer = self._relay.ask(Tell(list(messages)))
        if answer.error:
            raise BrokerUnreachable(answer.error, stored="unknown")

    def close(self) -> None:
        """The relay stays: it is the executor's."""


class RelayedStore(Store):
    """The state store of the supervisor's process."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def _ask(self, call: Call) -> Any:
        answer = self._relay.ask(call)
        if answer.error:
            raise StoreUnreachable(answer.error)
        return answer.value

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        return msgspec.convert(self._ask(Get(list(keys))), list[bytes | None])

    def write(self, writes: Sequence[Write]) -> list[bool]:
        return msgspec.convert(self._ask(Put(list(writes))), list[bool])

    def scan(self, prefix: str, limit: int = 1000) -> list[tuple[str, bytes]]:
        return msgspec.convert(self._ask(Scan(prefix, limit)), list[tuple[str, bytes]])

    def wait_any(self, keys: Sequence[str], timeout: float) -> dict[str, bytes]:
        until = time.monotonic() + timeout
        while True:
            left = until - time.monotonic()
            found: dict[str, bytes] = self._ask(Wait(list(keys), max(0.0, min(PATIENCE, left))))
            if found or left <= 0:
                return found

    def now(self) -> float:
        return float(self._ask(Now()))

    def close(self) -> None:
        """The relay stays: it is the executor's."""
