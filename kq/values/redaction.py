"""What may be shown of a job outside of kq: its arguments and errors without what looks like a secret. Pure.

An argument is hidden by its name, or by its look: a token, a password in a URL. That is a net with holes, as every one
of its kind is: what must not be seen does not belong into arguments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any

from kq.url import redact

HIDDEN = "***"
#: Characters of a text that are shown, and of a whole call.
TEXT, CALL = 200, 2000
#: Characters of an argument, and how many arguments, where many calls stand beside each other.
BRIEF, FEW = 60, 8

_WORDS = (
    "passw(?:or)?d|passwd|pwd|secret|token|api_?key|auth|credential|cookie|session|private|signature|cvv|cvc|iban|pin"
)
_NAME = re.compile(
    rf"(?:^|[_\-.\s])(?:{_WORDS}|ssn|card(?:_?number)?)(?:$|[_\-.\s\d])|(?:password|secret|token|apikey)$",
    re.IGNORECASE,
)
#: What a text has in it that is shorter than the tokens that are known by their length, and holds a secret.
_SIGN = re.compile(r"[=:]|eyJ|bearer", re.IGNORECASE)
#: Each of these begins where a word does, gives back nothing that it took, or has an end: a text is read once, whatever
#: stands in it. A name before = or :, and what follows; with the kind of credentials that an Authorization header says.
_SAID = re.compile(
    rf"(?<![\w\-])([\w\-]*(?:{_WORDS}|authorization))([\"']?\s*[=:]\s*)([\"']?)"
    r"(?:(?:basic|bearer|digest|token)[ \t]+)?[^\s\"',;&)]+\3",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(bearer[ \t]+)[\w.~+/\-]{8,}=*", re.IGNORECASE)
#: A JSON web token, of which the first part is short.
_JWT = re.compile(r"(?<!\w)eyJ[\w\-]{1,256}+\.[\w\-.]+")
#: A long run of what hex and base64 are made of; and the path of a file as a traceback names it, which is none.
_RUN = re.compile(r"(?P<file>File \"[^\"\n]+\", line )|(?<![\w/+\-])[\w/+\-]{32,}+={0,2}")
#: A key as kq's own errors tell it, who is to say what becomes of it: it is shown wherever there is one, so here too.
_KEY = re.compile(r"(\b(?:effect|unique key|unique lock) '[\w.\-]+(?::[\w.\-]+)*')")
#: What names are made of: words, abbreviations, numbers. Chance makes them of one or two characters.
_ATOM = re.compile(r"[A-Z]?[^\W\dA-Z_]+|[A-Z]+|\d+")
#: What is between words, and a word or a small number: words of one case, which chance does not make.
_BETWEEN, _WORD = re.compile(r"[_\-]"), re.compile(r"[A-Z]?[a-z]{1,20}|[A-Z]{1,20}|\d{1,6}")
_UNBROKEN = re.compile(r"[^\W_]{24}")
#: Characters that they have on average in the path of a file, and in a part of one; of 48,000 paths with digits one in
#: sixty has fewer, of 40,000 tokens with slashes all but one in a hundred.
_PATH, _PART = 2.8, 2.4
#: Parts of a path that are shorter are too short to tell, and a path that is longer is none.
_SHORT, _ENDLESS = 16, 4096
#: Characters behind what is shown of a text that are looked at too, so that what a secret begins with is not shown.
_BEHIND = 4096


def is_secret(name: str, also: Sequence[str] = ()) -> bool:
    """Whether what is called like this is not to be shown: password, api_key, X-Auth-Token.

    also: more names, in any case of letters; * stands for anything.
    """
    if any(fnmatchcase(name.casefold(), pattern.casefold()) for pattern in also):
        return True
    return _NAME.search(re.sub(r"([a-z])([A-Z])", r"\1_\2", name)) is not None


def redacted(value: Any, name: str = "", also: Sequence[str] = (), longest: int | None = TEXT) -> Any:
    """value, which JSON can carry, with what looks like a secret hidden and long texts cut.

    name: what it is called. also: as for is_secret(). longest: characters that a text keeps; None: all.
    """
    if name and is_secret(name, also):
        return HIDDEN
    match value:
        case str():
            if longest is None or len(value) <= longest:
                return redacted_text(value)
            return f"{redacted_beginning(value, longest)}… ({len(value):,} characters)"
        case dict():
            return {key: redacted(each, str(key), also, longest) for key, each in value.items()}
        case list() | tuple():
            return [redacted(each, "", also, longest) for each in value]
        case _:
            return value


def restored(edited: Any, shown: Any, whole: Any) -> Any:
    """What somebody made of shown, with what was hidden from him as it is in whole, where he left it.

    shown: whole, redacted. Raises ValueError where something hidden was moved or changed in part: nobody knows what is
    meant.
    """
    if _json(edited) == _json(shown):
        return whole
    match edited, shown, whole:
        case dict(), dict(), dict():
            return {key: restored(each, shown.get(key), whole.get(key)) for key, each in edited.items()}
        case list(), list(), list():
            return [
                restored(each, *((shown[place], whole[place]) if place < len(whole) else (None, None)))
                for place, each in enumerate(edited)
            ]
        case ((dict() | list()), _, _):
            return restored(edited, type(edited)(), type(edited)())
        case str(), _, _ if HIDDEN in edited:
            raise ValueError(f"{HIDDEN} stands where it did not: leave a value with it as it is, or write another")
        case _:
            return edited


def redacted_beginning(text: str, longest: int) -> str:
    """What redacted_text() makes of text, cut to so many characters; of an endless one no more than that is read."""
    return redacted_text(text[: longest + _BEHIND])[:longest]


def redacted_end(text: str, longest: int) -> str:
    """The same from its end."""
    return redacted_text(end_of(text, longest))[-longest:]


def beginning(text: str, longest: int, mark: str = "") -> str:
    """text where it is no longer than that; else its beginning, without secrets: nobody knows one by a part of it."""
    return text if len(text) <= longest else redacted_beginning(text, longest) + mark


def one_line(text: object) -> str:
    """str(text) on one line, cut to what fits a log and a header; then without what looks like a secret."""
    return beginning(" ".join(str(text).split()), 400, "…")


def both_ends(text: str, longest: int, between: str = "…") -> str:
    """text where it is no longer than that, else its beginning and its end: without secrets, as beginning() does."""
    half = longest // 2
    return text if len(text) <= longest else redacted_beginning(text, half) + between + redacted_end(text, half)


def ends_of(text: str, longest: int) -> str:
    """As much of text as both_ends() looks at to show so many characters of it, or of a longer text that it stands in.

    For what is to be laid out before it is cut.
    """
    half = longest // 2 + _BEHIND
    return text if len(text) <= 2 * half else text[:half] + text[-half:]


def end_of(text: str, longest: int) -> str:
    """As much of text as redacted_end() looks at."""
    return text[-longest - _BEHIND :]


def redacted_text(text: str) -> str:
    """text, such as an error's, without passwords in URLs, tokens, and what follows password=."""
    if len(text) < 32 and _SIGN.search(text) is None:
        return text
    pieces = _KEY.split(text)
    pieces[::2] = map(_redacted, pieces[::2])
    return "".join(pieces)


def _redacted(text: str) -> str:
    shown = _SAID.sub(rf"\1\2{HIDDEN}", redact(text))
    return _RUN.sub(_shown_run, _JWT.sub(HIDDEN, _BEARER.sub(rf"\1{HIDDEN}", shown)))


def _shown_run(found: re.Match[str]) -> str:
    run = found[0]
    return run if found["file"] or not _has_both(run) or _is_path(run) or _is_name(run) else HIDDEN


def _is_name(run: str) -> bool:
    """Whether a long run is a name: four words or more, one or two of which may be short and mixed, as an id is."""
    words = [word for word in _BETWEEN.split(run) if word]
    others = [word for word in words if _WORD.fullmatch(word) is None]
    return (
        len(words) >= 4
        and len(words) >= 2 * len(others)
        and len(others) <= 2
        and all(len(word) <= 10 for word in others)
    )


def _is_path(run: str) -> bool:
    """Whether a long run of letters, digits and slashes is made of names, all of it and each part."""
    parts = run.split("/")
    return len(parts) > 1 and len(run) <= _ENDLESS and _of_names(run) >= _PATH and not any(map(_is_token, parts))


def _is_token(part: str) -> bool:
    return len(part) >= _SHORT and _has_both(part) and (_of_names(part) < _PART or _UNBROKEN.search(part) is not None)


def _of_names(text: str) -> float:
    """Characters that an atom of text has on average."""
    atoms = _ATOM.findall(text)
    return sum(map(len, atoms)) / len(atoms)


def _has_both(text: str) -> bool:
    """Whether letters and digits are in it."""
    return any(char.isdigit() for char in text) and any(char.isalpha() for char in text)


def shown_call(type: str, names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """A job as a call that may be shown: login("ann", password="***"). names: of the positional parameters."""
    called = [*names[: len(args)], *[""] * (len(args) - len(names))]
    words = [_json(redacted(value, name)) for name, value in zip(called, args, strict=True)]
    words += [f"{name}={_json(redacted(value, name))}" for name, value in kwargs.items()]
    call = f"{type}({', '.join(words)})"
    return call if len(call) <= CALL else f"{call[:CALL]}…"


def brief_arguments(names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The first arguments of a call by their names, as they may be shown, and cut.

    names: of the positional parameters; an argument beyond them is called by its place.
    """
    called = [*names[: len(args)], *map(str, range(len(names), len(args)))]
    found = {**dict(zip(called, args, strict=True)), **kwargs}
    return {name: _brief(redacted(value, name)) for name, value in islice(found.items(), FEW)}


def _brief(value: Any) -> Any:
    text = value if isinstance(value, str) else _json(value)
    return value if len(text) <= BRIEF else f"{text[:BRIEF]}…"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
