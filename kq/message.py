"""The wire form of a job, version 1: what docs/protocol.md describes and every language can write.

A message is a JSON body `{"args": [...], "kwargs": {...}}`, a few headers, and the AMQP properties
message_id (the job's id), priority and content type. What is not JSON is never decoded, and
a type name is only ever looked up among registered job types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from kq.errors import MessageError
from kq.job import HIGHEST, LOWEST, Counters
from kq.policy import Data, RetryPolicy, from_data

VERSION = 1
CONTENT_TYPE = "application/json"

#: A job's history keeps its first attempt and the last so many.
HISTORY_LIMIT = 30

#: Nothing nested deeper than this is decoded: C code behind JSON parsers recurses.
DEPTH_LIMIT = 64


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a job's history: an execution that did not complete it.

    number: 1 for the first start. started, ended: seconds since the epoch by the worker's clock.
    outcome: "raised", "timed out", "died" or "refused"; error: one line.
    """

    number: int
    worker: str
    started: float
    ended: float
    outcome: str
    error: str = ""


class Head(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The headers of a message. Durations in seconds, instants in seconds since the epoch."""

    kq: int = VERSION
    id: str
    type: str
    submitted: float = 0.0
    failed: int = 0
    lost: int = 0
    infra: int = 0
    timeout: float | None = None
    deadline: float | None = None
    unique: str | None = None
    retry_policy: Data | None = None
    history: tuple[Attempt, ...] = ()
    # Only on buried messages:
    error: str | None = None
    traceback: str | None = None
    buried: float | None = None
    queue: str | None = None

    @property
    def counters(self) -> Counters:
        return Counters(self.failed, self.lost, self.infra)

    @property
    def policy(self) -> RetryPolicy | None:
        return None if self.retry_policy is None else from_data(self.retry_policy)

    def counting(self, counters: Counters) -> Head:
        """This head with other counters."""
        return msgspec.structs.replace(self, failed=counters.failed, lost=counters.lost, infra=counters.infrastructure)

    def after(self, attempt: Attempt) -> Head:
        """This head with one more line of history; the oldest but the first goes when it is full."""
        history = (*self.history, attempt)
        if len(history) > HISTORY_LIMIT:
            history = (history[0], *history[-HISTORY_LIMIT + 1 :])
        return msgspec.structs.replace(self, history=history)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message ready for its queue. delay: seconds."""

    id: str
    queue: str
    body: bytes
    headers: Mapping[str, Any] = field(default_factory=dict)
    priority: int = 0
    delay: float = 0.0

    def to(self, queue: str) -> Envelope:
        """The same message for another queue."""
        return replace(self, queue=queue)


def encode_body(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    """The JSON body for these arguments. Raises TypeError for what JSON cannot carry."""
    return _encoder.encode({"args": args, "kwargs": kwargs})


def decode_body(body: bytes) -> tuple[list[Any], dict[str, Any]]:
    """The arguments in a body. Raises MessageError for anything that is not one."""
    if _depth(body) > DEPTH_LIMIT:
        raise MessageError(f"the body is nested more than {DEPTH_LIMIT} levels deep")
    try:
        decoded = _body_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f'the body is no JSON of the form {{"args": [...], "kwargs": {{...}}}}: {error}') from error
    return decoded.args, decoded.kwargs


def encode_head(head: Head) -> dict[str, Any]:
    """Headers for the wire."""
    headers: dict[str, Any] = msgspec.to_builtins(head)
    headers["kq"] = head.kq
    return headers


def decode_head(headers: Mapping[str, Any]) -> Head:
    """The head in a message's headers. Raises MessageError when they are not those of version 1."""
    version = headers.get("kq")
    if version != VERSION:
        what = "it has no header kq" if version is None else f"its version is {version!r}"
        raise MessageError(f"not a kq message of version {VERSION}: {what}")
    try:
        head = msgspec.convert(headers, Head)
    except (msgspec.ValidationError, RecursionError) as error:
        raise MessageError(f"a header is wrong: {error}") from error
    if not head.id or not head.type:
        raise MessageError("the headers id and type must not be empty")
    return head


def checked_priority(priority: int) -> int:
    """priority, held within 0..9."""
    return max(LOWEST, min(HIGHEST, priority))


class _Body(msgspec.Struct):
    args: list[Any] = msgspec.field(default_factory=list)
    kwargs: dict[str, Any] = msgspec.field(default_factory=dict)


def _depth(body: bytes) -> int:
    """An upper bound of the nesting of body: cheap for the usual small one, exact enough for a hostile one."""
    opened = body.count(b"[") + body.count(b"{")
    if opened <= DEPTH_LIMIT:
        return opened
    depth = deepest = 0
    quoted = escaped = False
    for byte in body:
        if escaped:
            escaped = False
        elif quoted:
            escaped = byte == 0x5C
            quoted = byte != 0x22
        elif byte == 0x22:
            quoted = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


_encoder = msgspec.json.Encoder()
_body_decoder = msgspec.json.Decoder(_Body)
