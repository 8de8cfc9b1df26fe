"""Logs over the broker: a handler for Python's logging that tells each line to whoever follows, on every transport.

    logging.getLogger().addHandler(kq.logging.Handler(app))

and `kq logs -f` somewhere else. What is logged inside jobs is told without that. While nobody follows nothing is sent;
no line is waited for, and none is kept. What looks like a secret in a line is not told.
"""

from __future__ import annotations

import logging
from typing import Any

from msgspec.structs import replace

from kq.app import App
from kq.effects.context import CurrentJob, current_job
from kq.values.event import Event
from kq.values.redaction import redacted_beginning

#: Characters of one line that are told.
LIMIT = 4096


class Handler(logging.Handler):
    """Tells each record as an event `log`, with the job in which it was logged. app: whose broker it goes over."""

    def __init__(self, app: App, level: int | str = logging.NOTSET) -> None:
        super().__init__(level)
        self._herald = app.heralding("logs")

    def emit(self, record: logging.LogRecord) -> None:
        """Tell record, if somebody follows. Never waits."""
        # What telling logs itself would be told for ever.
        if not self._herald.listened or record.threadName == self._herald.thread:
            return
        try:
            self._herald.say([self._event(record)])
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Tell what waits, and end."""
        self._herald.close()
        super().close()

    def _event(self, record: logging.LogRecord) -> Event:
        said = redacted_beginning(self.format(record), LIMIT)
        told = Event(event="log", at=record.created, level=record.levelname, logger=record.name, message=said)
        job = current_job()
        return told if job is None else replace(told, **_about(job))


def _about(job: CurrentJob) -> dict[str, Any]:
    worker = job.footing.worker
    return {"job": job.id, "type": job.type, "queue": job.queue, "worker": worker, "attempt": job.attempt}
