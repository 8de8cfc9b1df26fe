"""An application for tests of reports: the other job types, and a Sentry that is a file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from kq import sentry
from kq.app import App
from kq.conformance.contract.jobs import QUEUE
from tests.worker.jobs import Odd

WHERE = f"{__name__}:app"
#: The environment variables that name the file, and say that failures are reported that are no end.
EVENTS, EVERY = "KQ_TEST_EVENTS", "KQ_TEST_EVERY"


class IntoFile(Transport):
    """A line of JSON for each event and transaction, when it is flushed."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(options)
        self._lines: list[str] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self._lines += [json.dumps(item.payload.json) for item in envelope.items if item.payload.json]

    def flush(self, timeout: float, callback: Any = None) -> None:
        with Path(os.environ[EVENTS]).open("a") as file:
            file.write("".join(f"{line}\n" for line in self._lines))
        self._lines.clear()


def start() -> None:
    """Let Sentry be that file."""
    sentry_sdk.init(
        "http://key@127.0.0.1:1/1",
        transport=IntoFile,
        traces_sample_rate=1.0,
        default_integrations=False,
        auto_session_tracking=False,
        enable_backpressure_handling=False,  # it has a thread
    )


if EVENTS in os.environ:
    start()
    app = App("contract", queue=os.environ[QUEUE])
    sentry.report(app, every_attempt=EVERY in os.environ)
    jobs = Odd(app)
