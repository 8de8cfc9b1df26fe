"""An application for tests of traces: the other job types, and spans that go into a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from kq import otel
from kq.app import App
from kq.conformance.contract.jobs import QUEUE
from tests.worker.jobs import Odd

WHERE = f"{__name__}:app"
#: The environment variable that names the file.
SPANS = "KQ_TEST_SPANS"


class IntoFile(SpanExporter):
    """A line of JSON for each span."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._path.open("a") as file:
            file.write("".join(f"{span.to_json(indent=None)}\n" for span in spans))
        return SpanExportResult.SUCCESS


if SPANS in os.environ:
    provider = TracerProvider(shutdown_on_exit=False)
    # Nothing is sent before an executor ends, or somebody asks for it.
    provider.add_span_processor(BatchSpanProcessor(IntoFile(Path(os.environ[SPANS])), schedule_delay_millis=600_000))
    app = App("contract", queue=os.environ[QUEUE])
    otel.trace(app, provider)
    jobs = Odd(app)
