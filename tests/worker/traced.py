"""An application for tests of traces and metrics: the other job types, spans and numbers that go into files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
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


class Numbers(MetricExporter):
    """A line of JSON for each time that numbers are sent; what came since the last."""

    def __init__(self, path: Path) -> None:
        kinds: dict[type, AggregationTemporality] = dict.fromkeys((Counter, Histogram), AggregationTemporality.DELTA)
        super().__init__(preferred_temporality=kinds)
        self._path = path

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **more: Any) -> MetricExportResult:
        with self._path.open("a") as file:
            file.write(f"{metrics_data.to_json(indent=None)}\n")
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **more: Any) -> None:
        """Nothing is open."""


if SPANS in os.environ:
    provider = TracerProvider(shutdown_on_exit=False)
    # Nothing is sent before an executor ends, or somebody asks for it.
    provider.add_span_processor(BatchSpanProcessor(IntoFile(Path(os.environ[SPANS])), schedule_delay_millis=600_000))
    app = App("contract", queue=os.environ[QUEUE])
    otel.trace(app, provider)
    numbers = Numbers(Path(os.environ[SPANS]).with_suffix(".numbers"))
    reader = PeriodicExportingMetricReader(numbers, export_interval_millis=600_000)
    otel.measure(app, MeterProvider([reader], shutdown_on_exit=False))
    jobs = Odd(app)
