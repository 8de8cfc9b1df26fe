"""What may be shown of a job outside of kq: its arguments and errors without what looks like a secret. Pure.

An argument is hidden by its name, or by its look: a token, a password in a URL. That is a net with holes, as every one
of its kind is: what must not be seen does not belong into arguments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from kq.url import redact

HIDDEN = "***"
#: Characters of a text that are shown, and of a whole call.
TEXT, CALL = 200, 2000

_WORDS = (
    "passw(?:or)?d|passwd|pwd|secret|token|api_?key|auth|credential|cookie|session|private|signature|cvv|cvc|iban|pin"
)
_NAME = re.compile(
    rf"(?:^|[_\-.\s])(?:{_WORDS}|ssn|card(?:_?number)?)(?:$|[_\-.\s\d])|(?:password|secret|token|apikey)$",
    re.IGNORECASE,
)
#: JSON web tokens, and long runs of hex or base64 that hold both letters and digits.
_TOKEN = re.compile(
    r"\beyJ[\w\-]+\.[\w\-.]+|(?<![\w/+\-])(?=[\w/+\-]*\d)(?=[\w/+\-]*[A-Za-z])[A-Za-z0-9_/+\-]{32,}={0,2}"
)
_SAID = re.compile(rf"\b([\w\-]*(?:{_WORDS}))([\"']?\s*[=:]\s*)([\"']?)[^\s\"',;&)]+\3", re.IGNORECASE)


def is_secret(name: str) -> bool:
    """Whether what is called like this is not to be shown: password, api_key, X-Auth-Token."""
    return _NAME.search(re.sub(r"([a-z])([A-Z])", r"\1_\2", name)) is not None


def redacted(value: Any, name: str = "") -> Any:
    """value, which JSON can carry, with what looks like a secret hidden and long texts cut. name: what it is called."""
    if name and is_secret(name):
        return HIDDEN
    match value:
        case str():
            text = redacted_text(value)
            return text if len(text) <= TEXT else f"{text[:TEXT]}… ({len(text):,} characters)"
        case dict():
            return {key: redacted(each, str(key)) for key, each in value.items()}
        case list() | tuple():
            return [redacted(each) for each in value]
        case _:
            return value


def redacted_text(text: str) -> str:
    """text, such as an error's, without passwords in URLs, tokens, and what follows password=."""
    return _TOKEN.sub(HIDDEN, _SAID.sub(rf"\1\2{HIDDEN}", redact(text)))


def shown_call(type: str, names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """A job as a call that may be shown: login("ann", password="***"). names: of the positional parameters."""
    called = [*names[: len(args)], *[""] * (len(args) - len(names))]
    words = [_json(redacted(value, name)) for name, value in zip(called, args, strict=True)]
    words += [f"{name}={_json(redacted(value, name))}" for name, value in kwargs.items()]
    call = f"{type}({', '.join(words)})"
    return call if len(call) <= CALL else f"{call[:CALL]}…"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
