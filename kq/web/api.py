"""The API: what may be seen and done, as JSON, by programs."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing
from typing import Any, TypeVar

import anyio
import msgspec
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse

from kq import __version__
from kq.control import Control, schema
from kq.control.veil import Veil
from kq.errors import BadArguments, Forbidden
from kq.handles.standing import Hearing
from kq.handles.stream import Chunk
from kq.plain import printable_json
from kq.stated import stated
from kq.values import metrics
from kq.values.event import ENDS, Event
from kq.web.acts import Act, Wanted
from kq.web.asked import SEAL_HEADER, Asked, must_be_sealed, root_of
from kq.web.errors import described, status_of
from kq.web.fields import Said, from_form, from_json
from kq.web.looks import JOB, Look
from kq.web.openapi import FOLLOWED, HEARD, STREAMED, WAITED, document

T = TypeVar("T")

#: Seconds that one may listen to events by one request.
LONGEST = 300.0
#: The id of the last event of a job, and looks without any after which a line says so.
LAST, SILENT = "end", 20
#: So that nobody on the way takes the line for dead.
NOTHING = b": nothing yet\n\n"
#: Seconds that one may wait for a job by one request: less than proxies wait for an answer.
PATIENCE = 50.0


async def look(asked: Asked, at: Look) -> Response:
    """What may be seen."""
    return await _seen(asked, at, from_form(at.fields, asked.query()))


async def _seen(asked: Asked, at: Look, said: Said) -> Response:
    name = asked.name if "{name}" in at.path else ""
    ask = asked.desk.slowly if at.slow else asked.desk.look
    return told(await ask(lambda control: asked.veil.data(at.see(control, asked.veil, name, said))))


async def act(asked: Asked, at: Act) -> Response:
    """What may be done."""
    seal = asked.request.headers.get(SEAL_HEADER, "")
    if not seal and asked.user.known_by != "token":  # a program, which knows nothing of seals
        raise Forbidden("a program needs a token to change something here", fix=token_wanted(at.role))
    must_be_sealed(asked, seal)
    said = from_json(at.fields, await _body(asked))
    return told(await done(asked, at, said))


def token_wanted(role: str) -> str:
    """How a program gets a token for what takes role, and where it goes."""
    return (
        f"Make one: kq web --new-token --role {role}. Write the line that it prints into kq.yaml (web.tokens), start "
        "kq web anew, and send the token as Bearer in the header Authorization."
    )


async def done(asked: Asked, at: Act, said: dict[str, Any]) -> dict[str, Any]:
    """What became of an act, without secrets."""
    name, over = asked.name if "{name}" in at.path else "", threading.Event()

    def do(control: Control) -> dict[str, Any]:
        done: dict[str, Any] = asked.veil.data(at.do(Wanted(control, asked.veil, name, said, asked.by, over)))
        return done

    if not at.slow(said):
        return await asked.desk.change(do)
    return await _unless_gone(asked, over, asked.desk.slowly(do))


async def ended(asked: Asked) -> Response:
    """A job as soon as it has ended, or as it is when time is up."""
    seconds, over = from_form(WAITED, asked.query())["seconds"], threading.Event()
    if seconds > PATIENCE:
        raise BadArguments(f"seconds can be {PATIENCE:g} at most", fix="Ask again when it is over.")
    await _seen(asked, JOB, {})  # nobody waits for a job that nobody knows
    await _unless_gone(asked, over, asked.desk.ended(asked.who, asked.name, seconds, over))
    return await _seen(asked, JOB, {})


async def _unless_gone(asked: Asked, over: threading.Event, work: Awaitable[T]) -> T:
    """What comes of work. Sets over when who asked is gone meanwhile, and at the end."""

    async def notice() -> None:
        while (await asked.request.receive())["type"] != "http.disconnect":
            pass
        over.set()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(notice)
            done = await work
            group.cancel_scope.cancel()
    except BaseExceptionGroup as errors:  # a group of tasks makes one of whatever is raised in it
        raise errors.exceptions[0] from None
    finally:
        over.set()
    return done


async def me(asked: Asked) -> Response:
    """Who asks."""
    return told({"name": asked.user.name, "role": asked.user.role, "seal": asked.seal})


async def described_api(asked: Asked) -> Response:
    """The description."""
    return Response(safe_json(json.dumps(document(root_of(asked.request)), indent=1)), media_type="application/json")


async def numbers(asked: Asked) -> Response:
    """For Prometheus."""
    shot = await asked.desk.snapshot()
    answers = await asked.desk.look(lambda control: control.answers)
    text = metrics.text([metrics.of_build(__version__, shot.transport), *metrics.of_all(shot, answers)])
    return Response(text, headers={"Content-Type": metrics.CONTENT_TYPE})


async def heard(asked: Asked, what: Hearing) -> Response:
    """Events as they happen, for some time."""
    said = from_form(HEARD, asked.query())
    if said["seconds"] > LONGEST:
        raise BadArguments(f"seconds can be {LONGEST:g} at most", fix="Ask again when it is over.")
    asked.desk.must_hear(asked.who)
    return StreamingResponse(_lines(asked, what, said), media_type="application/x-ndjson")


def _lines(asked: Asked, what: Hearing, said: dict[str, Any]) -> AsyncIterator[bytes]:
    def write(event: Event) -> bytes:
        line = safe_json(json.dumps(asked.veil.data(schema.event(event)), ensure_ascii=False))
        return line.encode() + b"\n"

    return asked.desk.events(asked.who, what, said["job"], said["queue"], said["type"], said["seconds"], write)


async def followed(asked: Asked) -> Response:
    """What happens to one job, as server-sent events: a browser's EventSource hears it, and asks again by itself."""
    seconds = from_form(FOLLOWED, asked.query())["seconds"]
    if seconds > LONGEST:
        raise BadArguments(f"seconds can be {LONGEST:g} at most", fix="Ask again when it is over.")
    if asked.request.headers.get("last-event-id") == LAST:
        return Response(status_code=204)  # which tells it not to ask again
    await _seen(asked, JOB, {})  # nobody follows a job that nobody knows
    asked.desk.must_hear(asked.who)
    return StreamingResponse(_moves(asked, seconds), media_type="text/event-stream")


def _moves(asked: Asked, seconds: float) -> AsyncIterator[bytes]:
    def write(event: Event) -> bytes:
        return _sent(event.event, asked.veil.data(schema.event(event)), LAST if event.event in ENDS else "")

    return _spoken(asked.desk.moves(asked.who, asked.name, seconds, write))


async def _spoken(told: AsyncGenerator[bytes | None, None]) -> AsyncIterator[bytes]:
    """The same, with a word now and then where there was none for long."""
    silent = 0
    async with aclosing(told):
        async for each in told:
            silent = 0 if each is not None else silent + 1
            if each is not None:
                yield each
            elif silent % SILENT == 0:
                yield NOTHING


async def streamed(asked: Asked) -> Response:
    """What a job emits, as server-sent events, from where a browser's EventSource was before."""
    said, seen = from_form(STREAMED, asked.query()), asked.request.headers.get("last-event-id", "")
    if said["seconds"] > LONGEST:
        raise BadArguments(f"seconds can be {LONGEST:g} at most", fix="Ask again when it is over.")
    if seen == LAST:
        return Response(status_code=204)
    await _seen(asked, JOB, {})
    asked.desk.must_hear(asked.who)
    offset = int(seen) + 1 if seen.isdecimal() and len(seen) < 19 else said["offset"]
    return StreamingResponse(_chunks(asked, offset, said["seconds"]), media_type="text/event-stream")


def _chunks(asked: Asked, offset: int, seconds: float) -> AsyncIterator[bytes]:
    def write(chunk: Chunk | str) -> bytes:
        if isinstance(chunk, str):
            return _sent(LAST, {"error": chunk or None}, LAST)
        told = schema.chunk(chunk)
        return _sent("chunk", told | {"value": asked.veil.value(told["value"])}, str(chunk.offset))

    return _spoken(asked.desk.chunks(asked.who, asked.name, offset, seconds, write))


def _sent(name: str, data: dict[str, Any], id: str) -> bytes:
    """A server-sent event. id: where its reader goes on when he asks again; "" says nothing of that."""
    line = safe_json(json.dumps(data, ensure_ascii=False))
    place = f"id: {id}\n" if id else ""
    return f"event: {name}\n{place}data: {line}\n\n".encode()


async def _body(asked: Asked) -> Any:
    kind = asked.request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise BadArguments(f"a change is sent as application/json, not as {kind[:80] or 'nothing'}")
    try:
        body = await asked.request.body()
    except ClientDisconnect:
        raise BadArguments("the body is too large") from None
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadArguments(f"the body is no JSON: {error}") from error


#: Characters that HTML gives a meaning to, as JSON may write them. In JSON they stand only within strings.
_MARKUP = {ord(char): f"\\u{ord(char):04x}" for char in "<>&"}


def safe_json(text: str) -> str:
    """JSON that means the same and stays text where a browser takes it for HTML."""
    return printable_json(text).translate(_MARKUP)


def told(data: Any, status: int = 200) -> Response:
    """data as the command line prints it."""
    text = safe_json(msgspec.json.encode(stated(data)).decode())
    return Response(text, status, media_type="application/json")


def wrong(error: Exception, status: int | None = None, veil: Veil | None = None) -> Response:
    """An error, as the command line prints it. veil: over what it says of a job."""
    status = status or status_of(error)
    said = described(error)
    answer = told({"error": said if veil is None else veil.data(said)}, status)
    if status == 401:
        answer.headers["WWW-Authenticate"] = 'Bearer realm="kq"'
    return answer
