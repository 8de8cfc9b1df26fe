"""The wire form of a job, version 1: what docs/protocol.md describes and every language can write.

A message is a JSON body `{"args": [...], "kwargs": {...}}`, a few headers, and the AMQP properties
message_id (the job's id), priority and content type. What is not JSON is never decoded, and
a type name is only ever looked up among registered job types.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec.structs import replace

from kq.clock import made_at
from kq.errors import MessageError
from kq.values.job import FALLBACKS, LATEST, Counters, check_name
from kq.values.policy import MOST_RETRIES, YEAR, Data, RetryPolicy, from_data
from kq.values.redaction import one_line
from kq.values.unique import Holds

VERSION = 1
CONTENT_TYPE = "application/json"

#: A job's history has at most so many lines: its first attempt and the latest.
HISTORY_LIMIT = 30

#: When a job was submitted whose id says it: this is not written. (The same object, or msgspec takes it for something.)
IN_ITS_ID = 0.0

#: A body larger than this, in bytes, is refused where it is submitted, and buried where it arrives.
BODY_LIMIT = 1024 * 1024

#: Headers that take more than this as JSON, in bytes, are no headers of a job either.
HEAD_LIMIT = BODY_LIMIT

#: A body nested deeper than this, its own braces included, is refused: not every reader of JSON survives it.
DEPTH_LIMIT = 64

Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MOST_RETRIES)]
Instant: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=LATEST)]
Bytes: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Timeout: TypeAlias = Annotated[float, msgspec.Meta(gt=0, le=YEAR)]
Stages: TypeAlias = Annotated[tuple["Stage", ...], msgspec.Meta(max_length=FALLBACKS)]


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a job's history: an execution that did not complete it, or what a human did to it.

    number: 1 for the first start. worker, host: who ran it, and where. started, ended: seconds since the epoch by the
    worker's clock. outcome: "raised", "timed out", "died", "out of memory", "bad storage" or "bad network". error: one
    line. counter: the counter that it counted to: "failed", "lost" or "infra". code: the version of the application.
    type: the job type that ran, where others may run instead. cpu: seconds of processor time that it used, rss: bytes
    that the process it had for itself held at most by then; None and 0 where that was not measured.
    Of a human's act number is 0, worker says who it was, outcome what he did ("kicked", "edited", "buried"), error why.
    """

    number: Count
    worker: str
    started: Instant
    ended: Instant
    outcome: str
    error: str = ""
    counter: str = ""
    host: str = ""
    code: str = ""
    type: str = ""
    cpu: Instant | None = None
    rss: Bytes = 0


class Stage(msgspec.Struct, frozen=True, omit_defaults=True):
    """A job type that runs instead of one that gave up.

    queue: where it runs; where the job is already when it is None. timeout, retry_policy: as in Head.
    """

    type: Name
    queue: str | None = None
    timeout: Timeout | None = None
    retry_policy: Data | None = None


class First(Stage, frozen=True, omit_defaults=True):
    """What a job was submitted as, to put it back so. assumed: what runs instead was its type's to say."""

    assumed: bool = False


class Head(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The headers of a message. Durations in seconds, instants in seconds since the epoch."""

    kq: int = VERSION
    id: Name
    type: Name
    submitted: Instant = IN_ITS_ID
    due: Instant | None = None  # since when it may start, if that is not when it was submitted
    again: bool = False  # an earlier submit of this id may have been stored, and the job may have run
    parent: Name | None = None  # the job that staged it
    held: bool = False  # it was delayed so that somebody may still revoke it
    repaired: Count = 0  # how often it was given another message: what was recorded of earlier ones is not its own
    failed: Count = 0
    lost: Count = 0
    infra: Count = 0
    timeout: Timeout | None = None
    deadline: Instant | None = None
    unique: str | None = None
    unique_until: Holds | None = None  # it lets go of its key otherwise than when it has ended or was buried
    unique_at_least: Instant | None = None  # the key is held at least until then
    unique_at_most: Instant | None = None  # its delay does not begin anew beyond this
    unique_late: bool = False  # who submitted it did not take the key
    retry_policy: Data | None = None
    degraded_by: Annotated[int, msgspec.Meta(ge=0, le=FALLBACKS)] = (
        0  # which of fallback the job is by now; 0: what it was submitted as
    )
    fallback: Stages | None = None  # what runs instead, in order; the job type's own where nobody says
    first: First | None = None  # what it was submitted as, when it is one of fallback
    history: tuple[Attempt, ...] = ()
    # Only on buried messages, see OF_BURIED:
    error: str | None = None
    traceback: str | None = None
    log: str | None = None  # the last lines that were logged in an executor that died
    buried: Instant | None = None
    queue: str | None = None

    @property
    def submitted_at(self) -> float:
        """When it was submitted, or its id was made; 0.0 where neither is known."""
        instant = self.submitted or made_at(self.id) or 0.0
        return instant if instant <= LATEST else 0.0

    @property
    def counters(self) -> Counters:
        return Counters(self.failed, self.lost, self.infra)

    @property
    def policy(self) -> RetryPolicy | None:
        return None if self.retry_policy is None else from_data(self.retry_policy)

    def counting(self, counters: Counters) -> Head:
        """This head with other counters."""
        return msgspec.structs.replace(self, failed=counters.failed, lost=counters.lost, infra=counters.infra)

    def after(self, attempt: Attempt) -> Head:
        """This head with one more line of history; the oldest but the first goes when it is full."""
        history = (*self.history, attempt)
        if len(history) > HISTORY_LIMIT:
            history = (history[0], *history[-HISTORY_LIMIT + 1 :])
        return msgspec.structs.replace(self, history=history)


class Envelope(msgspec.Struct, frozen=True):
    """A message ready for its queue. delay: seconds."""

    id: str
    queue: str
    body: bytes
    headers: Mapping[str, Any] = msgspec.field(default_factory=dict)
    priority: int = 0
    delay: float = 0.0

    def again(self) -> Envelope:
        """The same message, told apart from one that was never submitted before."""
        return replace(self, headers={**self.headers, "again": True})

    def to(self, queue: str) -> Envelope:
        """The same message for another queue."""
        return replace(self, queue=queue)


def encode_body(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    """The JSON body for these arguments.

    Raises TypeError, naming the argument (the first is 1), for what JSON cannot carry. Text is UTF-8; what JSON has
    no form for, but msgspec an agreed one (dates, bytes, sets, dataclasses), arrives as that form.
    """
    try:
        body = _encode({"args": args, "kwargs": kwargs})
    except (TypeError, ValueError, RecursionError) as error:
        raise _blamed(args, kwargs) or TypeError(f"the arguments have no JSON form: {one_line(error)}") from None
    # The encoder writes null for NaN and knows no limit of depth; look closer only where either may be.
    if (b"null" in body or body.count(b"[") + body.count(b"{") > DEPTH_LIMIT) and (wrong := _blamed(args, kwargs)):
        raise wrong
    return body


def encode_bodies(bodies: Sequence[bytes]) -> bytes:
    """One body for a job and for those that run instead of it: theirs, in order, behind its own."""
    first, *others = (_decode_arguments(body) for body in bodies)
    return _encode(_Whole(first.args, first.kwargs, [None, *others]))


def turned(body: bytes, here: int, there: int) -> bytes:
    """body with the arguments of another stage in front; 0 is what the job was submitted as.

    A stage that has no arguments of its own gets those of stage 0. What is no body stays as it is.
    """
    try:
        whole = _decode_whole(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return body
    if not whole.instead:
        return body
    stages = [*whole.instead, *[None] * (max(here, there) + 1 - len(whole.instead))]
    stages[here] = _Arguments(whole.args, whole.kwargs)
    front = stages[there] or stages[0] or stages[here]
    assert front is not None
    stages[there] = None
    return _encode(_Whole(front.args, front.kwargs, stages))


def with_arguments(body: bytes, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    """body, or what is there in its place, with other arguments in front. Raises as encode_body() does."""
    front = encode_body(args, kwargs)
    try:
        instead = _decode_whole(body).instead
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return front
    new = _decode_arguments(front)
    return _encode(_Whole(new.args, new.kwargs, instead)) if instead else front


def shares_arguments(body: bytes) -> bool:
    """Whether what runs instead gets the arguments that stand in front. Raises MessageError for what is no body."""
    return not _decoded(body).instead


def encode_result(value: Any, what: str = "the result") -> bytes:
    """The JSON of what a job returned, or emitted. Raises TypeError for what JSON cannot carry, as encode_body() does.

    what: it is called in errors.
    """
    if value is None:  # as most do
        return b"null"
    try:
        encoded = _encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise _wrong(what, value) or TypeError(f"{what} has no JSON form: {one_line(error)}") from None
    if (b"null" in encoded or _brackets(encoded) > _ARGUMENT_DEPTH) and (wrong := _wrong(what, value)):
        raise wrong
    return encoded


def decode_body(body: bytes) -> tuple[list[Any], dict[str, Any]]:
    """The arguments in a body. Raises MessageError for anything that is not one."""
    decoded = _decoded(body)
    if _brackets(body) > DEPTH_LIMIT and _is_deep([decoded.args, decoded.kwargs], DEPTH_LIMIT - 1):
        raise MessageError(_TOO_DEEP)
    return decoded.args, decoded.kwargs


def _decoded(body: bytes) -> _Body:
    try:
        decoded = _decode_body(body)
        twice = _twice(body, decoded)
    except RecursionError:
        raise MessageError(_TOO_DEEP) from None
    except (msgspec.MsgspecError, ValueError) as error:
        form = '{"args": [...], "kwargs": {...}}'
        raise MessageError(f"the body is no JSON of the form {form}: {one_line(error)}") from error
    if twice:
        raise MessageError(f"the body has the name {reprlib.repr(twice)} twice in one object")
    return decoded


def encode_head(head: Head) -> dict[str, Any]:
    """Headers for the wire."""
    return {"kq": head.kq, **msgspec.to_builtins(head)}


def decode_head(headers: Mapping[str, Any]) -> Head:
    """The head in a message's headers. Raises MessageError when they are not those of version 1."""
    version = headers.get("kq")
    if type(version) is not int or version != VERSION:
        what = "it has no header kq" if version is None else f"its version is {reprlib.repr(version)}"
        raise MessageError(f"not a kq message of version {VERSION}: {what}")
    try:
        head = msgspec.convert(headers, Head)
        # What could not be written again, as half a surrogate pair, must not come in.
        size = len(_encode(head)) + (0 if headers.keys() <= _OURS else len(_encode(_strange(headers))))
        for policy in _policies(head):
            from_data(policy)
        _check_names(head)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        raise MessageError(f"a header is wrong: {one_line(error)}") from error
    if size > HEAD_LIMIT:
        raise MessageError(f"the headers have {size:,} bytes, more than {HEAD_LIMIT:,}")
    return head


def _check_names(head: Head) -> None:
    """Raise ValueError where a name that head has would lead elsewhere as a part of an address."""
    for id in (head.id, head.parent):
        if id and "." in id:
            check_name("job id", id)
    check_name("job type", head.type)
    for stage in (head.first, *(head.fallback or ())):
        if stage is not None:
            check_name("job type", stage.type)


def _policies(head: Head) -> list[Data]:
    """All retry policies that head has."""
    if head.fallback is None and head.first is None:
        return [] if head.retry_policy is None else [head.retry_policy]
    stages = (head, head.first, *(head.fallback or ()))
    return [stage.retry_policy for stage in stages if stage is not None and stage.retry_policy is not None]


def only_id(message_id: str, headers: Mapping[str, Any]) -> str:
    """The job's id, as the property message_id and the header id say it; "" when neither does.

    Raises MessageError when they differ: what is said of such a job would be said of another one.
    """
    said = headers.get("id")
    if not isinstance(said, str) or said == message_id:
        return message_id
    if not message_id:
        return said
    raise MessageError(f"it has two ids: message_id {message_id!r}, but in its headers {reprlib.repr(said)}")


def replacing(headers: Mapping[str, Any], envelope: Envelope, now: float) -> Envelope:
    """envelope, as it takes the place of a message that waits: under that one's id, and with its past.

    headers: of the one that waits. now: by the state store's clock. Raises MessageError when they can't be read.
    """
    old, new = decode_head(headers), decode_head(envelope.headers)
    bound = old.unique_at_most if new.unique_at_most is not None else None
    head = msgspec.structs.replace(
        new,
        id=old.id,
        submitted=old.submitted,
        again=old.again,
        repaired=old.repaired + 1,
        history=old.history,
        unique_at_most=bound or new.unique_at_most,
    )
    delay = envelope.delay if bound is None else min(envelope.delay, max(0.0, bound - now))
    return replace(envelope, id=old.id, headers=again(envelope.headers, head), delay=delay)


def again(headers: Mapping[str, Any], head: Head) -> dict[str, Any]:
    """Headers for a message that goes round once more: head, and those that came along and are not kq's.

    What begins with x- belongs to one delivery and ends with it.
    """
    return {**_strange(headers), **encode_head(head)}


def may_travel(name: str, text: object) -> bool:
    """Whether an application may send this header along with a job: it is text, and neither kq's nor the broker's."""
    return isinstance(text, str) and name not in _OURS and not name.startswith("x-")


def travelling(headers: Mapping[str, Any]) -> dict[str, str]:
    """What an application sent along with a job."""
    return {name: text for name, text in headers.items() if may_travel(name, text)}


def set_aside(headers: Mapping[str, Any], *, error: str, buried: float, queue: str) -> dict[str, Any]:
    """Headers for a message that cannot be read, to be buried: as they came, and why (see Head)."""
    came = {name: value for name, value in headers.items() if not name.startswith("x-")}
    return {**came, "error": error, "buried": buried, "queue": queue}


class _Front(msgspec.Struct):
    args: list[Any] = msgspec.field(default_factory=list)
    kwargs: dict[str, Any] = msgspec.field(default_factory=dict)


class _Body(_Front):
    """A body. instead: the arguments of what runs instead, by its number; None for what stands in front."""

    instead: list[_Front | None] = msgspec.field(default_factory=list)


class _Arguments(msgspec.Struct, omit_defaults=True):
    """Arguments as they stand in a body."""

    args: msgspec.Raw = msgspec.Raw(b"[]")
    kwargs: msgspec.Raw = msgspec.Raw(b"{}")


class _Whole(_Arguments, omit_defaults=True):
    """A body with all arguments as they stand there."""

    instead: list[_Arguments | None] = msgspec.field(default_factory=list)


#: Headers that a message has only while it is buried.
OF_BURIED = ("error", "traceback", "log", "buried", "queue")

_OURS = frozenset(Head.__struct_fields__)
_encode = msgspec.json.Encoder().encode
_decode_body = msgspec.json.Decoder(_Body).decode
_decode_arguments = msgspec.json.Decoder(_Arguments).decode
_decode_whole = msgspec.json.Decoder(_Whole).decode
_ARGUMENT_DEPTH = DEPTH_LIMIT - 2
_TOO_DEEP = f"the body is nested more than {DEPTH_LIMIT} levels deep"


def _strange(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Those that came along and are not kq's. What begins with x- belongs to one delivery."""
    return {name: value for name, value in headers.items() if name not in _OURS and not name.startswith("x-")}


def _twice(body: bytes, decoded: _Body) -> str:
    """A name that stands twice in one object of body, or "". Readers of JSON differ in which of the two counts.

    What is written anew byte for byte has none; that is so for what kq writes, and costs no second look.
    """
    parts: dict[str, Any] = {"args": decoded.args, "kwargs": decoded.kwargs}
    if _encode({**parts, "instead": decoded.instead} if decoded.instead else parts) == body:
        return ""
    found: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        names = Counter(name for name, _ in pairs)
        found.extend(name for name, count in names.items() if count > 1)

    json.loads(body, object_pairs_hook=note)
    return found[0] if found else ""


def _blamed(args: Sequence[Any], kwargs: Mapping[str, Any]) -> TypeError | None:
    """What is wrong with the first argument that JSON cannot carry."""
    named = [*enumerate(args, 1), *kwargs.items()]
    return next((wrong for name, value in named if (wrong := _wrong(f"argument {name!r}", value))), None)


def _wrong(what: str, value: Any) -> TypeError | None:
    """Why JSON cannot carry value, if it can't. what: the value's name, for people."""
    try:
        encoded = _encode(value)
    except RecursionError:
        return TypeError(f"{what} is nested too deep, or contains itself")
    except UnicodeEncodeError:
        return TypeError(f"{what} holds text that is not Unicode (half of a surrogate pair)")
    except (TypeError, ValueError) as error:
        return TypeError(f"{what} has no JSON form: {one_line(error)}")
    if _brackets(encoded) > _ARGUMENT_DEPTH and _is_deep([msgspec.json.decode(encoded)], _ARGUMENT_DEPTH):
        return TypeError(f"{what} is nested more than {_ARGUMENT_DEPTH} levels deep")
    if b"null" in encoded and _has_nan(msgspec.to_builtins(value)):
        return TypeError(f"{what} holds NaN or infinity, which JSON does not have")
    return None


def _has_nan(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return any(map(_has_nan, inner))


def _brackets(encoded: bytes) -> int:
    """An upper bound of the nesting of JSON, in no time: the usual body is far below every limit."""
    return encoded.count(b"[") + encoded.count(b"{")


def _is_deep(values: list[Any], limit: int) -> bool:
    """Whether lists and objects stand more than limit levels deep in each other. Does not recurse."""
    level = values
    for _ in range(limit):
        level = [
            each
            for value in level
            for each in (value.values() if type(value) is dict else value)
            if type(each) is dict or type(each) is list
        ]
        if not level:
            return False
    return True
