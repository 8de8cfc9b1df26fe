"""The log of programs that go on: a line on stderr for each event, as text or as JSON."""

from __future__ import annotations

import json
import logging
from typing import Any

from kq.plain import LONGEST, cut, printable, printable_json


class Lines(logging.Formatter):
    """A line of text for each event, whatever a message that came in is called; a traceback below it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the name that logging calls)
        record.message = cut(printable(record.message), LONGEST)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        # Indented, so that no line of it looks like one of the log's own.
        return "\n".join(f"  {printable(line)}" for line in super().formatException(ei).split("\n"))


class JSONLines(logging.Formatter):
    """A line of JSON for each event."""

    def format(self, record: logging.LogRecord) -> str:
        event = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        event |= getattr(record, "kq", {})
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        short = {name: cut(value, LONGEST) if isinstance(value, str) else value for name, value in event.items()}
        return printable_json(json.dumps(short, ensure_ascii=False))


def start_logging(*, verbose: bool, as_json: bool) -> None:
    """Let kq's log go to stderr. The application's own loggers are its own matter.

    verbose: with a line for each job's start and end.
    """
    stream = logging.StreamHandler()
    plain = Lines("%(asctime)s %(levelname)-7s %(message)s")
    stream.setFormatter(JSONLines() if as_json else plain)
    root = logging.getLogger("kq")
    root.addHandler(stream)
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.getLogger("kq.jobs").setLevel(logging.NOTSET if verbose else logging.WARNING)
