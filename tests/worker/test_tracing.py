"""Spans of submits and attempts, connected through each broker, through retries and fallbacks; with a real SDK."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from kq import otel
from kq.app import App
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.world import ContractWorld, buried
from kq.control import Control
from kq.errors import BrokerUnreachable
from kq.values.unique import Unique
from kq.worker.pool import PoolKind
from tests.brokers import OnMemory, OnRabbit, OnRedis, OnSqlite
from tests.worker.jobs import Odd
from tests.worker.traced import SPANS, WHERE
from tests.worker.world import POOLS


class Spans:
    """What was sent here, and what executors have written down when they have ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.sent = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.sent))

    def last_sent(self) -> ReadableSpan:
        return self.sent.get_finished_spans()[-1]

    def processed(self, id: str) -> list[dict[str, Any]]:
        """The spans of a job's attempts, in their order."""
        spans = [json.loads(line) for line in self._path.read_text().splitlines()]
        own = [span for span in spans if span["attributes"].get("messaging.message.id") == id]
        return sorted(
            (span for span in own if span["kind"] == "SpanKind.CONSUMER"), key=lambda each: each["start_time"]
        )


def place(span: ReadableSpan | dict[str, Any]) -> tuple[str, str]:
    """The trace and the span."""
    if isinstance(span, dict):
        return span["context"]["trace_id"], span["context"]["span_id"]
    assert span.context is not None
    return f"0x{span.context.trace_id:032x}", f"0x{span.context.span_id:016x}"


def parent(span: dict[str, Any]) -> tuple[str, str]:
    return span["context"]["trace_id"], span["parent_id"]


def links(span: dict[str, Any]) -> list[tuple[str, str]]:
    return [(link["context"]["trace_id"], link["context"]["span_id"]) for link in span["links"]]


class Traced(ContractWorld):
    """An app whose submits and jobs are traced."""

    application = WHERE

    @pytest.fixture
    def settings(self, tmp_path: Path) -> dict[str, str]:
        return {SPANS: str(tmp_path / "spans")}

    @pytest.fixture
    def spans(self, app: App, settings: dict[str, str]) -> Iterator[Spans]:
        spans = Spans(Path(settings[SPANS]))
        otel.trace(app, spans.provider)
        yield spans
        spans.provider.shutdown()

    @pytest.fixture
    def jobs(self, app: App) -> Odd:
        return Odd(app)


class Connected(Traced):
    def test_all_that_becomes_of_a_job_is_one_trace(
        self, app: App, control: Control, spans: Spans, jobs: Odd, crew: Crew, queue: str
    ) -> None:
        worker = crew.worker()
        retried = jobs.perform.submit(["raise OSError", "return"])
        sent_once = spans.last_sent()
        degraded = jobs.best.submit(["raise ValueError", "return"])
        sent_best = spans.last_sent()
        parent_of = jobs.beget.submit(["return"], ["a child"])
        group = app.submit_many([jobs.note.job("1"), jobs.note.job("2")])
        sent_both = spans.last_sent()
        failed = jobs.perform_plain.submit(["bad password=hunter2"])
        child = parent_of.result(10)[0]
        for handle in (retried, degraded, *group):
            handle.result(10)
        assert control.wait(child, 10)
        buried(control, queue, failed)
        worker.stop()  # executors that end in peace send what they have

        attempts = spans.processed(retried.id)
        assert [(parent(span), links(span)) for span in attempts] == [(place(sent_once), [place(sent_once)])] * 2
        assert [span["attributes"]["kq.job.attempt"] for span in attempts] == [1, 2]
        best, second = spans.processed(degraded.id)
        assert parent(best) == parent(second) == place(sent_best)
        assert (second["attributes"]["kq.job.type"], second["attributes"]["kq.job.degraded_by"]) == ("second", 1)
        (staging,), (staged,) = spans.processed(parent_of.id), spans.processed(child)
        assert parent(staged) == place(staging)
        assert [parent(*spans.processed(handle.id)) for handle in group] == [place(sent_both)] * 2
        (told,) = spans.processed(failed.id)
        assert told["status"]["status_code"] == "ERROR"
        assert told["attributes"]["error.type"] == "kq.errors.BadJob"
        assert told["status"]["description"] == "BadJob: password=***"
        (event,) = told["events"]
        assert (event["name"], event["attributes"]["exception.message"]) == ("exception", "password=***")
        assert "BadJob: password=***" in event["attributes"]["exception.stacktrace"]
        assert "hunter2" not in str(told)
        assert told["attributes"]["kq.job.final"] is True
        assert attempts[0]["attributes"]["kq.job.final"] is False


class TestOnMemory(Connected, OnMemory):
    pass


class TestOnSqlite(Connected, OnSqlite):
    pass


class TestOnRedis(Connected, OnRedis):
    pass


class TestOnRabbit(Connected, OnRabbit):
    pass


class TestSpans(Traced, OnSqlite):
    def test_a_span_says_what_it_is_about(
        self, app: App, control: Control, spans: Spans, jobs: Odd, crew: Crew, queue: str
    ) -> None:
        worker = crew.worker()
        (name,) = [each.name for each in control.workers()]
        job = jobs.add.submit(1, 2)
        assert job.result(10) == 3
        worker.stop()
        sent, (processed,) = spans.last_sent(), spans.processed(job.id)
        common = {
            "messaging.system": "sqlite",
            "messaging.destination.name": queue,
            "messaging.message.id": job.id,
            "messaging.message.body.size": 26,
            "kq.job.type": "add",
            "kq.job.priority": 5,
        }
        assert (sent.name, sent.kind) == (f"send {queue}", SpanKind.PRODUCER)
        operation = ("messaging.operation.name", "messaging.operation.type")
        assert sent.attributes == common | dict.fromkeys(operation, "send")
        assert processed["name"] == f"process {queue}"
        about = {"kq.job.attempt": 1, "messaging.client.id": name}
        assert processed["attributes"] == common | dict.fromkeys(operation, "process") | about

    @pytest.mark.parametrize("pool", POOLS)
    def test_jobs_side_by_side_do_not_mix_their_spans(
        self, control: Control, spans: Spans, jobs: Odd, crew: Crew, pool: PoolKind
    ) -> None:
        worker = crew.worker(pool=pool, concurrency=3)
        handles = [jobs.beget_async.submit([f"{number}", f"{number} too"]) for number in range(3)]
        begot = {handle.id: handle.result(10) for handle in handles}
        assert all(control.wait(child, 10) for children in begot.values() for child in children)
        worker.stop()
        for handle, sent in zip(handles, spans.sent.get_finished_spans(), strict=True):
            (own,) = spans.processed(handle.id)
            assert parent(own) == place(sent)
            told = [span for child in begot[handle.id] for span in spans.processed(child)]
            assert [parent(span) for span in told] == [place(own)] * 2

    def test_a_job_that_runs_out_of_time_says_so(
        self, control: Control, spans: Spans, jobs: Odd, crew: Crew, queue: str
    ) -> None:
        worker = crew.worker()
        job = jobs.tidy.options(timeout=0.2).submit()
        buried(control, queue, job)
        worker.stop()
        (span,) = spans.processed(job.id)
        assert span["attributes"]["error.type"] == "kq.errors.SoftTimeout"

    def test_a_submit_that_fails_is_a_span_that_failed(self, spans: Spans) -> None:
        lost = App("lost", "redis://:hush@127.0.0.1:1/0", submit_timeout=0.2)
        otel.trace(lost, spans.provider)
        with pytest.raises(BrokerUnreachable):
            lost.submit("note")
        span = spans.last_sent()
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes is not None
        told = {name: span.attributes[name] for name in ("error.type", "server.address", "server.port")}
        assert told == {"error.type": "kq.errors.BrokerUnreachable", "server.address": "127.0.0.1", "server.port": 1}
        assert "hush" not in span.to_json()

    def test_a_kick_and_an_edit_stay_in_the_trace(
        self, control: Control, spans: Spans, jobs: Odd, crew: Crew, queue: str
    ) -> None:
        worker = crew.worker()
        job = jobs.perform_plain.submit(["bad"])
        sent = spans.last_sent()
        found = buried(control, queue, job)
        control.edit(job.id, args=[["return"]], version=found.version)
        control.kick(ids=[job.id])
        assert job.result(10) == 1
        worker.stop()
        assert [parent(span) for span in spans.processed(job.id)] == [place(sent)] * 2

    def test_what_takes_the_place_of_another_job_is_in_the_trace_of_its_own_submit(
        self, spans: Spans, jobs: Odd, crew: Crew
    ) -> None:
        last = Unique("report", conflict="replace")
        first, second = (jobs.note.options(unique=last).submit(word) for word in ("old", "new"))
        sent = spans.last_sent()
        worker = crew.worker()
        assert second.result(10) == "new"
        worker.stop()
        assert first.id == second.id
        assert [parent(span) for span in spans.processed(first.id)] == [place(sent)]


class Measured(Traced):
    def test_submits_and_attempts_are_counted_and_timed(
        self, app: App, control: Control, jobs: Odd, crew: Crew, queue: str, settings: dict[str, str]
    ) -> None:
        reader = InMemoryMetricReader()
        otel.measure(app, MeterProvider([reader], shutdown_on_exit=False))
        worker = crew.worker()
        handles = [jobs.add.submit(1, 2), *app.submit_many([jobs.add.job(n, n) for n in range(3)])]
        for handle in handles:
            handle.result(10)
        buried(control, queue, jobs.perform_plain.submit(["bad"]))
        worker.stop()  # executors that end in peace send what they have
        told = reader.get_metrics_data()
        assert told is not None
        sent = numbers([json.loads(told.to_json())], "messaging.operation.name", "messaging.destination.name")
        assert sent == {
            ("messaging.client.sent.messages", "{message}", "send", queue): 5,
            ("messaging.client.operation.duration", "s", "send", queue): 3,
        }
        written = Path(settings[SPANS]).with_suffix(".numbers").read_text().splitlines()
        ran = numbers(map(json.loads, written), "messaging.operation.type", "kq.job.type", "error.type")
        assert ran == {
            ("messaging.client.consumed.messages", "{message}", "process", "add", None): 4,
            ("messaging.process.duration", "s", "process", "add", None): 4,
            ("messaging.client.consumed.messages", "{message}", "process", "perform_plain", "kq.errors.BadJob"): 1,
            ("messaging.process.duration", "s", "process", "perform_plain", "kq.errors.BadJob"): 1,
        }


class TestMeasuredOnSqlite(Measured, OnSqlite):
    pass


class TestMeasuredOnRedis(Measured, OnRedis):
    pass


def numbers(told: Iterable[Any], *by: str) -> dict[tuple[str | None, ...], int]:
    """How many things were counted or timed, by metric, unit and these attributes."""
    found: Counter[tuple[str | None, ...]] = Counter()
    for each in told:
        for resource in each["resource_metrics"]:
            for metric in (metric for scope in resource["scope_metrics"] for metric in scope["metrics"]):
                for point in metric["data"]["data_points"]:
                    labels = (point["attributes"].get(name) for name in by)
                    found[metric["name"], metric["unit"], *labels] += point.get("value", point.get("count"))
    return dict(found)


def test_who_has_not_installed_it_is_told_what_to_install() -> None:
    code = "import sys; sys.modules['opentelemetry'] = sys.modules['sentry_sdk'] = None\nimport kq\n"
    for name in ("otel", "sentry"):
        done = subprocess.run([sys.executable, "-c", f"{code}kq.{name}"], capture_output=True, text=True, check=False)
        assert f"pip install 'kq-jobs[{name}]'" in done.stderr
