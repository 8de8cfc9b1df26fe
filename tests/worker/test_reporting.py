"""What Sentry hears of jobs: failures that are an end, with their stack, and its own traces. No server is needed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sentry_sdk

from kq import sentry
from kq.app import App
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.world import buried
from kq.control import Control
from kq.values.policy import Fixed
from kq.worker.pool import PoolKind
from tests.brokers import OnSqlite
from tests.worker.jobs import Odd
from tests.worker.reported import EVENTS, EVERY, WHERE, start
from tests.worker.world import POOLS


class Reported(OnSqlite):
    application = WHERE

    @pytest.fixture
    def settings(self, tmp_path: Path) -> dict[str, str]:
        return {EVENTS: str(tmp_path / "events")}

    @pytest.fixture
    def jobs(self, app: App) -> Odd:
        return Odd(app)

    @pytest.fixture
    def here(self, app: App) -> Iterator[None]:
        """Sentry in the program that submits."""
        start()
        sentry.report(app)
        yield
        sentry_sdk.init()


def heard(settings: dict[str, str]) -> list[dict[str, Any]]:
    """All that came, errors and transactions."""
    return [json.loads(line) for line in Path(settings[EVENTS]).read_text().splitlines()]


def errors(settings: dict[str, str]) -> list[dict[str, Any]]:
    return [event for event in heard(settings) if "exception" in event]


class TestFailures(Reported):
    @pytest.mark.parametrize("pool", POOLS)
    def test_only_the_end_is_reported_with_its_stack_and_its_job(
        self,
        control: Control,
        jobs: Odd,
        crew: Crew,
        queue: str,
        settings: dict[str, str],
        pool: PoolKind,
    ) -> None:
        worker = crew.worker(pool=pool)
        retried = jobs.perform.submit(["raise OSError", "raise OSError", "return"])
        degraded = jobs.best.submit(["raise ValueError", "return"])
        failed = jobs.perform_plain.submit(["raise ValueError"])
        overdue = jobs.tidy.options(timeout=0.2).submit()
        wrong = jobs.unspeakable.submit("object")
        assert (retried.result(10), degraded.result(10)) == (3, [1, 1])
        for handle in (failed, overdue, wrong):
            buried(control, queue, handle)
        worker.stop()
        told = {event["contexts"]["kq"]["id"]: event for event in errors(settings)}
        assert told.keys() == {failed.id, overdue.id, wrong.id}
        event = told[failed.id]
        assert event["transaction"] == "perform_plain"
        assert (event["tags"]["kq.job.type"], event["tags"]["kq.queue"]) == ("perform_plain", queue)
        (raised,) = event["exception"]["values"]
        assert (raised["type"], raised["value"], raised["mechanism"]["handled"]) == ("ValueError", "as asked", False)
        assert [frame["function"] for frame in raised["stacktrace"]["frames"]][-2:] == ["perform", "act"]
        assert told[overdue.id]["exception"]["values"][-1]["type"] == "SoftTimeout"

    def test_the_last_of_several_attempts_is_the_one_that_is_reported(
        self, control: Control, jobs: Odd, crew: Crew, queue: str, settings: dict[str, str]
    ) -> None:
        worker = crew.worker()
        job = jobs.perform_fixed.submit(["raise OSError"])
        buried(control, queue, job)
        worker.stop()
        assert [event["contexts"]["kq"]["attempt"] for event in errors(settings)] == [3]

    def test_a_message_with_a_policy_of_its_own_is_heeded(
        self, control: Control, jobs: Odd, crew: Crew, queue: str, settings: dict[str, str]
    ) -> None:
        worker = crew.worker()
        job = jobs.perform.options(retry_policy=Fixed(delay=0, retries=1)).submit(["raise OSError"])
        buried(control, queue, job)
        worker.stop()
        assert [event["contexts"]["kq"]["attempt"] for event in errors(settings)] == [2]

    def test_a_trace_begins_at_the_submit(
        self, here: None, jobs: Odd, crew: Crew, queue: str, settings: dict[str, str]
    ) -> None:
        worker = crew.worker()
        with sentry_sdk.start_transaction(op="http.server", name="/order"):
            job = jobs.add.submit(1, 2)
        job.result(10)
        worker.stop()
        sentry_sdk.flush()
        order, add = sorted(heard(settings), key=lambda event: event["start_timestamp"])
        (span,) = order["spans"]
        assert (span["op"], span["data"]["messaging.message.id"]) == ("queue.publish", job.id)
        trace = add["contexts"]["trace"]
        assert (trace["op"], trace["trace_id"]) == ("queue.process", order["contexts"]["trace"]["trace_id"])
        assert trace["parent_span_id"] == span["span_id"]
        assert trace["data"]["messaging.destination.name"] == queue


class TestEveryAttempt(Reported):
    @pytest.fixture
    def settings(self, tmp_path: Path) -> dict[str, str]:
        return {EVENTS: str(tmp_path / "events"), EVERY: "1"}

    def test_who_wants_every_failure_hears_of_it(self, jobs: Odd, crew: Crew, settings: dict[str, str]) -> None:
        worker = crew.worker()
        assert jobs.perform.submit(["raise OSError", "return"]).result(10) == 2
        worker.stop()
        assert [event["contexts"]["kq"]["attempt"] for event in errors(settings)] == [1]
