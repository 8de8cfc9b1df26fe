"""Templates, and how values are written for people. Everything is escaped; what can't be seen is spelt out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from kq import __version__
from kq.control import commands
from kq.plain import middle_cut, printable, spelt
from kq.units import format_duration, format_instant, format_rate, format_size
from kq.values import advice
from kq.values.redaction import redacted_text

#: What stands where nobody knows.
NOTHING = "–"
#: Characters of JSON that stand on one line.
SHORT = 80
#: Characters of a name in a table.
NAME = 40


def span(seconds: float | None) -> str:
    """A duration."""
    return NOTHING if seconds is None else format_duration(seconds) if seconds else "0s"


def ago(instant: float | None, now: float) -> str:
    """How long ago that was, or in how long it will be."""
    if not instant:
        return NOTHING
    return f"{span(now - instant)} ago" if instant <= now else f"in {span(instant - now)}"


def clock(instant: float | None) -> str:
    """The day and the time."""
    return NOTHING if not instant else format_instant(instant)


def rate(number: float | None) -> str:
    """How many a second."""
    return NOTHING if number is None else format_rate(number)


def count(number: int | None) -> str:
    """How many."""
    return NOTHING if number is None else f"{number:,}"


def size(number: int | None) -> str:
    """Bytes."""
    return NOTHING if number is None else format_size(number)


def named(name: str) -> Markup:
    """A name where many stand beside each other: of a long one its beginning and its end, and all of it to point at."""
    shown = middle_cut(name, NAME)
    if shown == name:
        return escape(printable(name))
    return Markup('<span title="{}">{}</span>').format(printable(name), printable(shown))


def as_json(value: Any, indent: int | None = None) -> str:
    """A value as JSON, as people write it."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def laid_out(value: Any) -> str:
    """The same, on lines of their own where it is long."""
    short = as_json(value)
    return short if len(short) <= SHORT else as_json(value, 2)


def value(text: str) -> Markup:
    """Text of others as the value of a field, which comes back as it was: what can't be seen is a character reference.

    HTML has none for most control characters and for halves of characters: they are spelt out.
    """
    return Markup(spelt(str(escape(text)), _reference))


def _reference(char: str) -> str:
    if char in "\t\n\r" or (char > "\x9f" and not "\ud800" <= char <= "\udfff"):
        return f"&#{ord(char)};"
    return printable(char)


def lines(text: str) -> Markup:
    """A text of several lines, for a <pre>."""
    return Markup("\n").join(printable(line) for line in text.splitlines())


def _shown(value: Any) -> Any:
    """What a template writes: None as a dash, text of strangers on one line with what can't be seen spelt out."""
    if value is None:
        return NOTHING
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("kq.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    made.filters |= {
        "veiled": redacted_text,
        "span": span,
        "clock": clock,
        "rate": rate,
        "count": count,
        "size": size,
        "lines": lines,
        "value": value,
        "command": commands.written,
        "held": advice.held,
        "named": named,
    }
    made.globals |= {"commands": commands, "ago": ago, "as_json": as_json, "laid_out": laid_out, "version": __version__}
    return made


_TEMPLATES = _environment()


def draw(template: str, fragment: bool, values: Mapping[str, Any]) -> str:
    """A page, or the part of it that lives."""
    layout = "fragment.html" if fragment else "layout.html"
    return _TEMPLATES.get_template(template).render({**values, "layout": layout})
