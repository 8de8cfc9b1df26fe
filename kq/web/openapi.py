"""The description of the API (OpenAPI 3.1), made of the tables of what may be seen and done."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from kq import __version__
from kq.control.schema import WRITTEN
from kq.web.acts import ACTS, Act
from kq.web.fields import Field
from kq.web.looks import LOOKS, Look

API = "/api/v1"
#: What the command line prints otherwise, or not at all.
_OWN: dict[str, Any] = {
    "me": {
        "description": "Who asks, and the seal that a change needs where nobody has a token.",
        "type": "object",
        "required": ["schema", "name", "role", "seal"],
        "properties": {"name": {"type": "string"}, "role": {"type": "string"}, "seal": {"type": "string"}},
    },
}
HEARD = (
    Field("job", "text", "Only of this job.", ""),
    Field("queue", "text", "Only of this queue.", ""),
    Field("type", "text", "Only of this job type; * stands for anything.", ""),
    Field("seconds", "duration", "For how long to listen, at most 5m.", 30.0),
)
FOLLOWED = (Field("seconds", "duration", "For how long to follow, at most 5m.", 300.0),)
STREAMED = (Field("offset", "number", "Begin with this chunk.", 0), *FOLLOWED)
WAITED = (Field("seconds", "duration", "For how long to wait, at most 50 s.", 30.0),)
_KINDS: dict[str, dict[str, Any]] = {
    "text": {"type": "string"},
    "flag": {"type": "boolean"},
    "duration": {"description": 'Seconds, or text such as "5m".', "type": ["number", "string"]},
    "json": {},
    "texts": {"type": "array", "items": {"type": "string"}},
}


def document(root: str = "") -> dict[str, Any]:
    """The whole of it. root: where the page is mounted."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "kq",
            "version": __version__,
            "description": "What the command line can, over HTTP, in the forms that it prints with --json. An error is "
            "an object with error.code, error.message and error.fix. A change needs a token (Authorization: Bearer), "
            "or the seal of a session (X-KQ-Seal). Values that look like secrets are shown as ***.",
        },
        "servers": [{"url": f"{root}{API}"}],
        "security": [{"token": []}, {"session": []}],
        "paths": _paths(),
        "components": {"schemas": schemas(), "securitySchemes": _SECURITY},
    }


_SECURITY = {
    "token": {"type": "http", "scheme": "bearer"},
    "session": {"type": "apiKey", "in": "cookie", "name": "kq_session"},
}


@cache
def schemas() -> dict[str, Any]:
    """The forms, by names that OpenAPI allows."""
    forms = json.loads(WRITTEN.read_text(encoding="utf-8"))["$defs"] | _OWN
    wanted = {look.form for look in LOOKS} | {act.form for act in ACTS} | {"me", "error", "events", "jobs stream"}
    found: dict[str, Any] = {}
    while wanted:
        name = wanted.pop()
        found[component(name)] = _renamed(forms[name])
        wanted |= {each for each in _references(forms[name]) if component(each) not in found}
    return dict(sorted(found.items()))


def component(form: str) -> str:
    """A form's name in the document: jobs-ls."""
    return form.replace(" ", "-")


def _references(form: Any) -> Iterator[str]:
    yield from re.findall(r'"#/\$defs/([^"]+)"', json.dumps(form))


def _renamed(form: Any) -> Any:
    text = re.sub(
        r'"#/\$defs/([^"]+)"', lambda found: f'"#/components/schemas/{component(found[1])}"', json.dumps(form)
    )
    return json.loads(text)


def _paths() -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for look in LOOKS:
        paths.setdefault(look.path, {})["get"] = _look(look)
    for act in ACTS:
        paths.setdefault(act.path, {})["post"] = _act(act)
    for what in ("events", "logs"):
        told = {"application/x-ndjson": {"schema": _ref("events")}}
        paths[f"/{what}"] = {"get": _operation(what, f"The {what} as they happen, a line of JSON each.", told, HEARD)}
    about = "A job as soon as it has ended or was buried, or as it is when time is up; its state says which."
    told = {"application/json": {"schema": _ref("jobs show")}}
    paths["/jobs/{name}/ended"] = {"get": _operation("jobs ended", about, told, WAITED, named=True)}
    about = (
        "How a job stands, then what happens to it, until it has ended or was buried, as server-sent events. The last "
        "one has the id `end`; whoever asks again after that (Last-Event-ID) is told 204."
    )
    told = {"text/event-stream": {"schema": {"type": "string"}}}
    paths["/jobs/{name}/events"] = {"get": _operation("jobs events", about, told, FOLLOWED, named=True)}
    about = (
        "What a job emits, as server-sent events `chunk`, whose ids are the offsets (Last-Event-ID goes on behind it); "
        "last comes `end`, when the job has ended or was buried."
    )
    paths["/jobs/{name}/stream"] = {"get": _operation("jobs stream", about, told, STREAMED, named=True)}
    plain = {"text/plain": {"schema": {"type": "string"}}}
    paths["/metrics"] = {"get": _operation("metrics", "Numbers of all queues and workers for Prometheus.", plain)}
    own = {"application/json": {"schema": _ref("me")}}
    paths["/me"] = {"get": _operation("me", "Who asks.", own)}
    return paths


def _look(look: Look) -> dict[str, Any]:
    told = {"application/json": {"schema": _ref(look.form)}}
    name = "failures" if look.path == "/failures" else look.form
    return _operation(name, look.about, told, look.fields, named="{name}" in look.path)


def _act(act: Act) -> dict[str, Any]:
    told = {"application/json": {"schema": _ref(act.form)}}
    name = re.sub(r"[^a-z]+", "-", act.path.replace("{name}", "one").strip("/")) if act.path != "/jobs" else "submit"
    made = _operation(name, f"{act.about} Takes the role {act.role}.", told, named="{name}" in act.path)
    if act.fields:
        body = {
            "type": "object",
            "properties": {each.name: _schema(each) for each in act.fields},
            "additionalProperties": False,
        }
        if must := [each.name for each in act.fields if each.must]:
            body["required"] = must
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return made


def _operation(
    name: str, about: str, content: dict[str, Any], fields: Sequence[Field] = (), named: bool = False
) -> dict[str, Any]:
    parameters = [
        {"name": each.name, "in": "query", "required": each.must, "description": each.about, "schema": _schema(each)}
        for each in fields
    ]
    if named:
        path = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
        parameters.insert(0, {**path, "description": "What it is about, percent-encoded."})
    made: dict[str, Any] = {"operationId": component(name), "summary": about}
    if parameters:
        made["parameters"] = parameters
    wrong = {"application/json": {"schema": _ref("error")}}
    made["responses"] = {
        "200": {"description": "So it is.", "content": content},
        "default": {"description": "It can't be told or done, and why.", "content": wrong},
    }
    return made


def _schema(field: Field) -> dict[str, Any]:
    if field.kind == "number":
        made: dict[str, Any] = {"type": "integer", "minimum": field.least, "maximum": field.most}
    else:
        made = dict(_KINDS[field.kind])
    if field.choices:
        made["enum"] = list(field.choices)
    if field.usual not in (None, "", 0.0, []):
        made["default"] = field.usual
    return {**made, "description": field.about}


def _ref(form: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{component(form)}"}
