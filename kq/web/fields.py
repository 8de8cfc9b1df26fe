"""What a request says besides its path: fields by name, from a form, a query or JSON, as values of the right kind."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import msgspec

from kq.errors import BadArguments
from kq.units import parse_duration

#: text, flag (true or false), number, duration (seconds, or "5m"), json (any value; in a form as JSON text), texts (a
#: list of them).
Kind: TypeAlias = Literal["text", "flag", "number", "duration", "json", "texts"]


#: Characters of a number: far more than any of them has, and far fewer than Python reads.
DIGITS = 30


@dataclass(frozen=True, slots=True)
class Field:
    """One thing that may be said. usual: when it is not. choices: nothing else. least, most: of a number."""

    name: str
    kind: Kind
    about: str
    usual: Any = None
    choices: tuple[str, ...] = ()
    least: int = 0
    most: int = 2**31
    must: bool = False


Said: TypeAlias = dict[str, Any]


def from_json(fields: Sequence[Field], said: object) -> Said:
    """The values of fields in an object of JSON. Raises BadArguments, which names the field."""
    if not isinstance(said, dict):
        raise BadArguments('the body is no JSON object; write {"reason": "…"}, or {}')
    _must_be_known(fields, said)
    return {field.name: _value(field, said.get(field.name)) for field in fields}


def from_form(fields: Sequence[Field], said: Mapping[str, Sequence[str]]) -> Said:
    """The same of a form or a query, where all is text; what is empty was not said."""
    _must_be_known(fields, said)
    return {field.name: _value(field, _unwritten(field, said.get(field.name, ()))) for field in fields}


def _must_be_known(fields: Sequence[Field], said: Mapping[str, object]) -> None:
    known = [field.name for field in fields]
    for name in said:
        if name not in known:
            raise BadArguments(f"there is no field {name[:100]!r}", fix=f"There are {', '.join(known) or 'none'}.")


def _unwritten(field: Field, texts: Sequence[str]) -> Any:
    """What texts mean as JSON would have it."""
    if field.kind == "texts":
        return [line for text in texts for line in text.split() if line] or None
    text = texts[-1] if texts else ""
    if not text.strip():
        return None
    match field.kind:
        case "flag":
            return {"true": True, "on": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
        case "number":
            return int(text) if text.strip().isdecimal() and len(text) < DIGITS else text
        case "json":
            try:
                return msgspec.json.decode(text)
            except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
                raise BadArguments(f"{field.name} is no JSON: {error}") from error
        case _:
            return text


def _value(field: Field, value: Any) -> Any:
    if value is None:
        if field.must:
            raise BadArguments(f"{field.name} is missing", fix=field.about)
        return field.usual
    match field.kind:
        case "duration":
            try:
                return parse_duration(value)
            except (ValueError, OverflowError, AttributeError) as error:
                raise BadArguments(f"{field.name}: {error}") from error
        case "number":
            fits = isinstance(value, int) and not isinstance(value, bool) and field.least <= value <= field.most
        case "flag":
            fits = isinstance(value, bool)
        case "texts":
            fits = isinstance(value, list) and all(isinstance(each, str) for each in value)
        case "text":
            fits = isinstance(value, str) and (not field.choices or value in field.choices)
        case _:
            fits = True
    if not fits:
        raise BadArguments(f"{field.name} can't be {json.dumps(value)[:100]}", fix=f"It is {_meant(field)}.")
    return value


def _meant(field: Field) -> str:
    if field.choices:
        return f"one of {', '.join(field.choices)}"
    words = {"flag": "true or false", "text": "text", "texts": "a list of texts"}
    return words.get(field.kind, f"a number from {field.least} to {field.most}")
