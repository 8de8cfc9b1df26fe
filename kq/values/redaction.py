"""What may be shown of a job outside of kq: its arguments and errors without what looks like a secret. Pure.

An argument is hidden by its name, or by its look: a token, a password in a URL. That is a net with holes, as every one
of its kind is: what must not be seen does not belong into arguments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from kq.secret_names import HIDDEN, is_secret
from kq.url import redact

#: Characters of a text that are shown, and of a whole call.
TEXT, CALL = 200, 2000
#: Smaller numbers are no card's.
_LEAST_CARD = 10**13
#: Characters of an argument, and how many arguments, where many calls stand beside each other.
BRIEF, FEW = 60, 8

#: What a short text has in it where it may hold a secret.
_SIGN = re.compile(r"[=:@_\-<]|\d{4}|[A-Z]{4}|eyJ|[Bb](?:earer|asic)")
#: Each of these begins where a word does, gives back nothing that it took, or has an end: a text is read once, whatever
#: stands in it. A value is what is between quotes or brackets, or goes on to a blank.
_VALUE = re.compile(
    r"(?:[bruf]{0,2}(?P<quote>\\*[\"'])[^\n]*?(?:(?P=quote)(?!\w)|$)|[\[({][^\])}\n]*[\])}]?|"
    r"(?:(?:basic|bearer|digest|token)[ \t]+)?[^\s\"',;&)<]+)(?:;[ \t]*[\w.\-]++=[^;,\s\"']*+)*+",
    re.IGNORECASE | re.MULTILINE,
)
#: A name before = or :, which that follows; pairs of a cookie; what an Authorization header says.
_NAMED = re.compile(r"(?<![\w.\-])([\w.\-]++)\\*[\"']?\]?[ \t]*(?:[=:]{1,2}>?|%3[AD])[ \t]*", re.IGNORECASE)
_ALNUM = re.compile(r"[^\W_]")
_ELEMENT = re.compile(r"(<(?P<name>[\w:.\-]{1,80}+)(?:\s[^<>]{0,200})?>)[^<]++(?=</)")
#: Options of commands: --password word, -u user:word, mysql -pWORD.
_OPTION = re.compile(r"(?<!\S)(--?(?P<name>[a-z][\w\-]*+)[ \t]+)(?!-)[\"']?[^\s\"']+[\"']?", re.IGNORECASE)
_USER = re.compile(r"(?<!\S)((?:-u|--user|--proxy-user)[ \t=]*[\"']?[^\s:\"']{1,256}:)[^\s\"']+")
_MYSQL = re.compile(r"(\b(?:mysql|mariadb)[\w\-]{0,16}[ \t][^\n|;&]{0,200}?(?<!\S)-p)[^\s]+")
#: user:word@host. Mail addresses and versions behind an @ are none.
_AT = re.compile(
    r"(?<![\w.+\-:/@])(?!(?:mailto|e?-?mail|from|to|cc|bcc|reply-to|sips?|xmpp|acct|user|username|login|npm|pkg):)"
    r"([a-z][\w.+\-]{0,63}:)[^\s:@/\"']{1,256}@(?!sha\d+:)(?=(?:[a-z][\w.\-]*|\d{1,3}(?:\.\d{1,3}){3}|\[))",
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


def redacted(value: Any, name: str = "", also: Sequence[str] = (), longest: int | None = TEXT) -> Any:
    """value, which JSON can carry, with what looks like a secret hidden and long texts cut.

    name: what it is called. also: as for is_secret(). longest: characters that a text keeps; None: all.
    """
    if value is None or value is True or value is False:
        return value
    if name and is_secret(name, also, number=isinstance(value, int | float)):
        return HIDDEN
    match value:
        case str():
            if longest is None or len(value) <= longest:
                return redacted_text(value)
            return f"{redacted_beginning(value, longest)}… ({len(value):,} characters)"
        case int() if value >= _LEAST_CARD:
            from kq.values.secret_values import is_card

            return HIDDEN if is_card(str(value)) else value
        case dict():
            named = _said_name(value.get("name", value.get("key")))
            return {
                key: redacted(each, named if key == "value" and named else str(key), also, longest)
                for key, each in value.items()
            }
        case list() | tuple() if value and all(map(_is_pair, value)):  # headers, as many programs write them
            return [[first, redacted(second, first, also, longest)] for first, second in value]
        case list() | tuple():
            return [redacted(each, name, also, longest) for each, name in zip(value, _names_in(value), strict=True)]
        case _:
            return value


def _said_name(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _names_in(values: Sequence[Any]) -> list[str]:
    """What the values of a list are called: those behind an option of a command, such as --password."""
    return ["", *(each if isinstance(each, str) and each.startswith("-") else "" for each in values)][: len(values)]


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], str)


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
    from kq.values.secret_values import without_known  # compiles for 3 ms, which many programs never need

    shown = _without_said(without_known(redact(text)))
    if "<" in shown:
        shown = _ELEMENT.sub(lambda found: f"{found[1]}{HIDDEN}" if is_secret(found["name"]) else found[0], shown)
    if "-" in shown:
        shown = _OPTION.sub(lambda found: f"{found[1]}{HIDDEN}" if is_secret(found["name"]) else found[0], shown)
        shown = _MYSQL.sub(rf"\1{HIDDEN}", _USER.sub(rf"\1{HIDDEN}", shown))
    if "@" in shown:
        shown = _AT.sub(rf"\1{HIDDEN}@", shown)
    return _RUN.sub(_shown_run, _JWT.sub(HIDDEN, _BEARER.sub(rf"\1{HIDDEN}", shown)))


def _without_said(text: str) -> str:
    """text without the values that follow the name of a secret."""
    pieces, shown = list[str](), 0
    for named in _NAMED.finditer(text):
        if named.start() < shown or (not is_secret(named[1]) or (value := _VALUE.match(text, named.end())) is None):
            continue
        said = value[0]
        # Small numbers count something, and a lone sign is what a parser has met.
        if not (said.isdecimal() and (len(said) < 3 or not is_secret(named[1], number=True))) and _ALNUM.search(said):
            pieces += [text[shown : named.end()], HIDDEN]
            shown = value.end()
    return "".join([*pieces, text[shown:]]) if pieces else text


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
