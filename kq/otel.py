"""OpenTelemetry: a span for each submit and for each attempt at a job, connected through broker, retries and fallbacks.

    kq.otel.trace(app)          # where the app is defined; pip install 'kq-jobs[otel]', and an SDK that you choose

Names and attributes are those of OpenTelemetry's semantic conventions for messaging (1.38, in development); what they
have no name for begins with `kq.`. How the context travels is the application's choice (opentelemetry.propagate): W3C's
`traceparent` by default, a header of the message. Each attempt is a child of the span that submitted the job, so that
one trace shows both and is sampled as a whole, and links to it too.

Spans of jobs are made in executors, which are forked: configure the SDK where the app is imported, with a
BatchSpanProcessor, which goes on in a fork. An executor that ends in peace sends what it has; one that is killed can't.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from kq.app import App
from kq.errors import ConfigError
from kq.failure import names_of
from kq.message import Envelope
from kq.observer import Execution, Observer

try:
    from opentelemetry import propagate
    from opentelemetry.context import Context
    from opentelemetry.trace import (
        Link,
        SpanKind,
        TracerProvider,
        get_current_span,
        get_tracer,
        get_tracer_provider,
        use_span,
    )
except ImportError as error:
    raise ConfigError("kq.otel needs opentelemetry-api", fix="pip install 'kq-jobs[otel]'") from error

Attributes: TypeAlias = dict[str, str | int]

#: Milliseconds that an ending process may take to send its last spans.
FLUSH_WITHIN = 2000


def trace(app: App, provider: TracerProvider | None = None) -> None:
    """Make spans of what app submits and runs. provider: whose they are; by default the one that is set globally."""
    app.observe(Tracing(app, provider))


class Tracing(Observer):
    """Makes spans."""

    def __init__(self, app: App, provider: TracerProvider | None = None) -> None:
        self._app = app
        self._provider = provider
        self._tracer = get_tracer("kq", tracer_provider=provider)
        self._about_broker: Attributes = {}

    @contextmanager
    def submitting(self, jobs: Sequence[Envelope]) -> Iterator[None]:
        queues = {job.queue for job in jobs}
        queue = queues.pop() if len(queues) == 1 else ""
        attributes = self._attributes("send", queue)
        if len(jobs) == 1:
            attributes |= _of_job(jobs[0].id, str(jobs[0].headers["type"]), len(jobs[0].body), jobs[0].priority)
        else:
            attributes["messaging.batch.message_count"] = len(jobs)
        span = self._tracer.start_span(f"send {queue}".rstrip(), None, SpanKind.PRODUCER, attributes)
        with use_span(span, end_on_exit=True):
            try:
                yield
            except Exception as error:
                span.set_attribute("error.type", names_of(error)[0])
                raise

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
        with use_span(span, end_on_exit=True):
            try:
                yield
            except BaseException as error:
                span.set_attributes({"error.type": names_of(error)[0], "kq.job.final": execution.is_final(error)})
                raise

    def close(self) -> None:
        flush = getattr(self._provider or get_tracer_provider(), "force_flush", None)  # the SDK's; the API has none
        if flush is not None:
            flush(FLUSH_WITHIN)

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


def _of_job(id: str, type: str, size: int, priority: int) -> Attributes:
    return {
        "messaging.message.id": id,
        "messaging.message.body.size": size,
        "kq.job.type": type,
        "kq.job.priority": priority,
    }
