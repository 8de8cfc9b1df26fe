"""OpenTelemetry: a span for each submit and for each attempt at a job, connected through broker, retries and fallbacks.

    kq.otel.trace(app)          # where the app is defined; pip install 'kq-jobs[otel]', and an SDK that you choose
    kq.otel.measure(app)        # the same as metrics

Names and attributes are those of OpenTelemetry's semantic conventions for messaging (1.45, in development); what they
have no name for begins with `kq.`. There are no spans of receiving, as the conventions have none for what is fetched
before it is wanted; and none of settling: supervisors do that, which run nothing that could hold them up.

How the context travels is the application's choice (opentelemetry.propagate): W3C's `traceparent` by default, a header
of the message. Each attempt is a child of the span that submitted the job, so that one trace shows both and is sampled
as a whole, and links to it too.

Spans and numbers of jobs are made in executors, which are forked: configure the SDK where the app is imported, with a
BatchSpanProcessor and a PeriodicExportingMetricReader, which go on in a fork. An executor that ends in peace sends what
it has; one that is killed can't.
"""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from kq.app import App
from kq.effects.observer import Execution, Observer
from kq.errors import ConfigError
from kq.values.failure import names_of
from kq.values.message import Envelope
from kq.values.redaction import redacted_text

try:
    from opentelemetry import propagate
    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider, get_meter, get_meter_provider
    from opentelemetry.trace import (
        Link,
        Span,
        SpanKind,
        Status,
        StatusCode,
        TracerProvider,
        get_current_span,
        get_tracer,
        get_tracer_provider,
        use_span,
    )
except ImportError as error:
    raise ConfigError("kq.otel needs opentelemetry-api", fix="pip install 'kq-jobs[otel]'") from error

Attributes: TypeAlias = dict[str, str | int]
#: Upper bounds of what is timed, in seconds, as the conventions have them.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

#: Milliseconds that an ending process may take to send its last spans.
FLUSH_WITHIN = 2000


def trace(app: App, provider: TracerProvider | None = None) -> None:
    """Make spans of what app submits and runs. provider: whose they are; by default the one that is set globally."""
    app.observe(Tracing(app, provider))


def measure(app: App, provider: MeterProvider | None = None) -> None:
    """Count and time what app submits and runs. provider: of meters; by default the one that is set globally."""
    app.observe(Measuring(app, provider))


class _Telling(Observer):
    """What spans and metrics say alike."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._about_broker: Attributes = {}

    def _attributes(self, operation: str, queue: str) -> Attributes:
        if not self._about_broker:
            self._about_broker = self._of_broker()
        told: Attributes = {"messaging.operation.name": operation, "messaging.operation.type": operation}
        return {**self._about_broker, **told, **({"messaging.destination.name": queue} if queue else {})}

    def _of_broker(self) -> Attributes:
        host, port = self._app.address.server
        told: Attributes = {"messaging.system": self._app.broker.traits.name}
        if host:
            told["server.address"] = host
        if port:
            told["server.port"] = port
        return told


class Tracing(_Telling):
    """Makes spans."""

    def __init__(self, app: App, provider: TracerProvider | None = None) -> None:
        super().__init__(app)
        self._provider = provider
        self._tracer = get_tracer("kq", tracer_provider=provider)

    @contextmanager
    def submitting(self, jobs: Sequence[Envelope]) -> Iterator[None]:
        queue = _queue_of(jobs)
        attributes = self._attributes("send", queue)
        if len(jobs) == 1:
            attributes |= _of_job(jobs[0].id, str(jobs[0].headers["type"]), len(jobs[0].body), jobs[0].priority)
        else:
            attributes["messaging.batch.message_count"] = len(jobs)
        span = self._tracer.start_span(f"send {queue}".rstrip(), None, SpanKind.PRODUCER, attributes)
        with _in(span):
            yield

    def carry(self, headers: dict[str, str]) -> None:
        propagate.inject(headers)

    @contextmanager
    def running(self, execution: Execution) -> Iterator[None]:
        job = execution.job
        attributes = self._attributes("process", job.queue)
        attributes |= _of_job(job.id, job.type, execution.size, execution.priority)
        attributes |= {"kq.job.attempt": job.attempt, "messaging.client.id": job.footing.worker}
        if job.degraded_by:
            attributes["kq.job.degraded_by"] = job.degraded_by
        # Never the context that happens to be current here: an earlier job may have left its own.
        submitted = propagate.extract(execution.headers, Context())
        creation = get_current_span(submitted).get_span_context()
        links = [Link(creation)] if creation.is_valid else []
        span = self._tracer.start_span(f"process {job.queue}", submitted, SpanKind.CONSUMER, attributes, links)
        with _in(span):
            try:
                yield
            except BaseException as error:
                span.set_attributes({**_of_error(error), "kq.job.final": execution.is_final(error)})
                raise

    def close(self) -> None:
        _flush(self._provider or get_tracer_provider())


class Measuring(_Telling):
    """Counts and times."""

    def __init__(self, app: App, provider: MeterProvider | None = None) -> None:
        super().__init__(app)
        self._provider = provider
        meter = get_meter("kq", meter_provider=provider)
        self._operations = meter.create_histogram(
            "messaging.client.operation.duration",
            "s",
            "Duration of messaging operation initiated by a producer or consumer client.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self._sent = meter.create_counter(
            "messaging.client.sent.messages",
            "{message}",
            "Number of messages producer attempted to send to the broker.",
        )
        self._consumed = meter.create_counter(
            "messaging.client.consumed.messages",
            "{message}",
            "Number of messages that were delivered to the application.",
        )
        self._processed = meter.create_histogram(
            "messaging.process.duration",
            "s",
            "Duration of processing operation.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )

    @contextmanager
    def submitting(self, jobs: Sequence[Envelope]) -> Iterator[None]:
        began, error = time.monotonic(), Attributes()
        try:
            yield
        except Exception as raised:
            error = _of_error(raised)
            raise
        finally:
            took = time.monotonic() - began
            self._operations.record(took, self._attributes("send", _queue_of(jobs)) | error)
            for queue, number in Counter(job.queue for job in jobs).items():
                self._sent.add(number, self._attributes("send", queue) | error)

    @contextmanager
    def running(self, execution: Execution) -> Iterator[None]:
        job, began, error = execution.job, time.monotonic(), Attributes()
        try:
            yield
        except BaseException as raised:
            error = _of_error(raised)
            raise
        finally:
            told = self._attributes("process", job.queue) | {"kq.job.type": job.type} | error
            self._processed.record(time.monotonic() - began, told)
            self._consumed.add(1, told)

    def close(self) -> None:
        _flush(self._provider or get_meter_provider())


@contextmanager
def _in(span: Span) -> Iterator[None]:
    """Let span be the current one, and end with the block. Of an error it says what may be shown."""
    with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            yield
        except Exception as error:
            if span.is_recording():
                said, lines = redacted_text(str(error)), "".join(traceback.format_exception(error))
                shown = {"exception.message": said, "exception.stacktrace": redacted_text(lines)}
                span.record_exception(error, shown)
                span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {said}"))
                span.set_attributes(_of_error(error))
            raise


def _flush(provider: object) -> None:
    flush = getattr(provider, "force_flush", None)  # the SDK's; the API has none
    if flush is not None:
        flush(FLUSH_WITHIN)


def _queue_of(jobs: Sequence[Envelope]) -> str:
    """The queue that all of them go to; "" where they go to several."""
    queues = {job.queue for job in jobs}
    return queues.pop() if len(queues) == 1 else ""


def _of_error(error: BaseException) -> Attributes:
    return {"error.type": names_of(error)[0]}


def _of_job(id: str, type: str, size: int, priority: int) -> Attributes:
    return {
        "messaging.message.id": id,
        "messaging.message.body.size": size,
        "kq.job.type": type,
        "kq.job.priority": priority,
    }
