"""Sentry: failures of jobs are reported where they happen, with their stack; by default those alone that are final.

    sentry_sdk.init(…)          # where the app is defined; pip install 'kq-jobs[sentry]'
    kq.sentry.report(app)

An attempt that is tried again, or that another job type takes over from, is no news. Where tracing is on, a submit and
an attempt are `queue.publish` and `queue.process`, which Sentry's Queues page is made of. What no code here lives to
see, an executor that is killed, a message that can't be read, is told by alerts (docs/control.md), not by Sentry.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from kq.app import App
from kq.effects.observer import Execution, Observer
from kq.errors import ConfigError
from kq.values.message import Envelope

try:
    import sentry_sdk
    from sentry_sdk.utils import event_from_exception
except ImportError as error:
    raise ConfigError("kq.sentry needs sentry-sdk", fix="pip install 'kq-jobs[sentry]'") from error

#: Seconds that an ending process may take to send its last events.
FLUSH_WITHIN = 2.0


def report(app: App, *, every_attempt: bool = False) -> None:
    """Report failures of app's jobs. every_attempt: those too that are tried again."""
    app.observe(Reporting(every_attempt))


class Reporting(Observer):
    """Reports."""

    def __init__(self, every_attempt: bool = False) -> None:
        self._every_attempt = every_attempt

    @contextmanager
    def submitting(self, jobs: Sequence[Envelope]) -> Iterator[None]:
        queue = jobs[0].queue
        with sentry_sdk.start_span(op="queue.publish", name=queue) as span:
            span.set_data("messaging.destination.name", queue)
            if len(jobs) == 1:
                span.set_data("messaging.message.id", jobs[0].id)
                span.set_data("messaging.message.body.size", len(jobs[0].body))
            yield

    def carry(self, headers: dict[str, str]) -> None:
        trace, baggage = sentry_sdk.get_traceparent(), sentry_sdk.get_baggage()
        if trace:
            headers["sentry-trace"] = trace
        if baggage:
            headers["baggage"] = ",".join(filter(None, [headers.get("baggage"), baggage]))

    @contextmanager
    def running(self, execution: Execution) -> Iterator[None]:
        job = execution.job
        with sentry_sdk.isolation_scope() as scope:
            scope.set_transaction_name(job.type, "task")
            scope.set_tags({"kq.queue": job.queue, "kq.job.type": job.type})
            about = {"id": job.id, "attempt": job.attempt, "worker": job.footing.worker, "degraded_by": job.degraded_by}
            scope.set_context("kq", about)
            going_on = sentry_sdk.continue_trace(dict(execution.headers), "queue.process", job.type, "task")
            with sentry_sdk.start_transaction(going_on) as transaction:
                transaction.set_data("messaging.message.id", job.id)
                transaction.set_data("messaging.destination.name", job.queue)
                transaction.set_data("messaging.message.body.size", execution.size)
                transaction.set_data("messaging.message.retry.count", job.attempt - 1)
                try:
                    yield
                except BaseException as error:
                    transaction.set_status("internal_error")
                    if self._every_attempt or execution.is_final(error):
                        _tell(error)
                    raise

    def close(self) -> None:
        sentry_sdk.flush(FLUSH_WITHIN)


def _tell(error: BaseException) -> None:
    options = sentry_sdk.get_client().options
    event, hint = event_from_exception(error, client_options=options, mechanism={"type": "kq", "handled": False})
    sentry_sdk.capture_event(event, hint=hint)
