"""The log of programs that go on: a line on stderr for each event, as text, JSON or logfmt."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import click

from kq.cli.frame import flags
from kq.cli.logstream import LogStream
from kq.plain import LONGEST, cut, printable, printable_json
from kq.stated import stated

#: What a value of logfmt has to be in quotes for.
_QUOTED = re.compile(r'[\s="\\]')


class Lines(logging.Formatter):
    """A line of text for each event, whatever a message that came in is called; a traceback below it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the name that logging calls)
        record.message = cut(printable(record.message), LONGEST)
        return super().formatMessage(record)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        at = datetime.fromtimestamp(record.created, UTC).astimezone()
        return f"{at:%Y-%m-%d %H:%M:%S},{record.msecs:03.0f} {at:%z}"

    def formatException(self, ei: Any) -> str:  # noqa: N802
        # Indented, so that no line of it looks like one of the log's own.
        return "\n".join(f"  {printable(line)}" for line in super().formatException(ei).split("\n"))


class JSONLines(logging.Formatter):
    """A line of JSON for each event."""

    def format(self, record: logging.LogRecord) -> str:
        event = stated({"time": round(record.created, 3), **_fields(record, self)})
        return printable_json(json.dumps(event, ensure_ascii=False))


class Logfmt(logging.Formatter):
    """A line of name=value for each event, as Heroku, Go's programs and Loki have it; the time as ISO 8601, in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return " ".join(f"{name}={_bare(value)}" for name, value in {"time": at, **_fields(record, self)}.items())


def _fields(record: logging.LogRecord, formatter: logging.Formatter) -> dict[str, Any]:
    """What an event is made of, but for its time."""
    event: dict[str, Any] = {"level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
    event |= getattr(record, "kq", {})
    if record.exc_info:
        event["traceback"] = formatter.formatException(record.exc_info)
    return {name: cut(value, LONGEST) if isinstance(value, str) else value for name, value in event.items()}


def _bare(value: object) -> str:
    """value as logfmt has it: in quotes where it must be."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if text and not _QUOTED.search(text) and printable(text) == text:
        return text
    return printable_json(json.dumps(text, ensure_ascii=False))


def _stream() -> logging.Handler:
    try:
        return LogStream(sys.stderr)
    except (OSError, ValueError):  # somebody has put another thing in its place, which has no descriptor
        return logging.StreamHandler()


def start_logging(format: str | None) -> None:
    """Let the log of kq and its transports go to stderr; with a line for each start and end of a job if more is said.

    format: one of FORMATS. The application's own loggers are its own matter.
    """
    said = flags()
    stream = _stream()
    stream.setFormatter(FORMATS[format or ("json" if said.json else "text")]())
    verbose = said.verbose > 0
    for name in ("kq", "kq_transports"):
        root = logging.getLogger(name)
        root.addHandler(stream)
        root.setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.getLogger("kq.jobs").setLevel(logging.NOTSET if verbose else logging.WARNING)


FORMATS: Mapping[str, Callable[[], logging.Formatter]] = {
    "text": lambda: Lines("%(asctime)s %(levelname)-7s %(message)s"),
    "json": JSONLines,
    "logfmt": Logfmt,
}
#: Of all programs that go on.
LOG_FORMAT = click.option(
    "--log-format", "format", type=click.Choice(list(FORMATS)), help="Of the log. [text; json with --json]"
)
