"""Observers: told of submits and attempts; what they do wrong is theirs alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from kq.app import App
from kq.broker import Inspector
from kq.effects.context import CurrentJob, Footing
from kq.effects.observer import Execution, Observer, Observers
from kq.errors import BadJob, MessageError, Retry, SoftTimeout
from kq.values.job import Counters
from kq.values.message import Envelope
from kq.values.outcome import Rules
from kq.values.policy import Fixed


class Diary(Observer):
    """Writes down what it is told, and sends the tenant along."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @contextmanager
    def submitting(self, jobs: Sequence[Envelope]) -> Iterator[None]:
        self.told.append(f"submitting {len(jobs)}")
        try:
            yield
        except BaseException as error:
            self.told.append(f"not submitted: {type(error).__name__}")
            raise

    def carry(self, headers: dict[str, str]) -> None:
        headers |= {"tenant": "acme", "queue": "elsewhere", "x-delay": "1"}

    @contextmanager
    def running(self, execution: Execution) -> Iterator[None]:
        self.told.append(f"running {execution.job.type} of {execution.headers.get('tenant')}")
        yield


class Broken(Observer):
    """Fails wherever it can."""

    @contextmanager
    def submitting(self, jobs: Sequence[Envelope]) -> Iterator[None]:
        yield
        raise RuntimeError("after a submit")

    def carry(self, headers: dict[str, str]) -> None:
        raise RuntimeError("in carry")

    @contextmanager
    def running(self, execution: Execution) -> Iterator[None]:
        if execution.size == 0:
            raise RuntimeError("before a run")
        yield

    def close(self) -> None:
        raise RuntimeError("in close")


def execution(app: App, rules: Rules | None = None, counters: Counters | None = None) -> Execution:
    job = CurrentJob("1", "note", "default", 1, 0.0, Footing(app))
    return Execution(job, {"tenant": "acme"}, rules=rules or Rules(), counters=counters or Counters())


@pytest.fixture
def app(prefix: str) -> Iterator[App]:
    app = App("shop", f"memory://{prefix}")
    yield app
    app.close()


@pytest.fixture
def inspector(app: App) -> Iterator[Inspector]:
    inspector = app.inspector()
    yield inspector
    inspector.close()


def test_what_is_sent_along_travels_but_for_kqs_own_headers(app: App, inspector: Inspector) -> None:
    diary = Diary()
    app.observe(diary)
    app.submit("note", 1)
    app.submit_many([])
    (seen,) = inspector.browse("default", "ready", 10)
    assert seen.headers["tenant"] == "acme"
    assert seen.headers.keys().isdisjoint({"queue", "x-delay"})
    assert diary.told == ["submitting 1"]


def test_a_submit_that_fails_comes_through(app: App) -> None:
    diary = Diary()
    app.observe(diary)
    app.close()
    app.configure(url="redis://127.0.0.1:1/0")
    app._submit_timeout = 0.1
    with pytest.raises(ConnectionError):
        app.submit("note")
    assert diary.told == ["submitting 1", "not submitted: BrokerUnreachable"]


def test_an_observer_that_fails_changes_nothing_and_is_logged(
    app: App, inspector: Inspector, caplog: pytest.LogCaptureFixture
) -> None:
    diary = Diary()
    app.observe(Broken())
    app.observe(diary)
    app.submit("note")
    assert len(inspector.browse("default", "ready", 10)) == 1
    watching = app.observers.running(execution(app))
    watching.end(ValueError("the job's own"))
    app.observers.close()
    assert diary.told == ["submitting 1", "running note of acme"]
    wrong = [record for record in caplog.records if record.name == "kq.observer"]
    assert [str(record.exc_info and record.exc_info[1]) for record in wrong] == [
        "in carry",
        "after a submit",
        "before a run",
        "in close",
    ]
    assert all(record.levelno == logging.ERROR for record in wrong)


def test_what_a_job_raises_comes_through_to_each_observer_in_reverse_order(app: App) -> None:
    seen: list[str] = []

    class Named(Observer):
        def __init__(self, name: str) -> None:
            self.name = name

        @contextmanager
        def running(self, execution: Execution) -> Iterator[None]:
            try:
                yield
            except ValueError as error:
                seen.append(f"{self.name}: {error}")
                raise

    observers = Observers()
    for name in ("outer", "inner"):
        observers.add(Named(name))
    observers.running(execution(app)).end(ValueError("bad row"))
    assert seen == ["inner: bad row", "outer: bad row"]


@pytest.mark.parametrize(
    ("error", "rules", "failed", "final"),
    [
        (ValueError(), Rules(), 0, True),
        (ConnectionError(), Rules(), 0, False),
        (ConnectionError(), Rules(Fixed(delay=0, retries=2)), 2, True),
        (ConnectionError(), Rules(Fixed(delay=0, retries=2)), 1, False),
        (BadJob("no"), Rules(fallback=True), 0, False),
        (MessageError("no"), Rules(), 0, True),
        (Retry(delay=5), Rules(), 0, False),
        (Retry(delay=5), Rules(Fixed(delay=0, retries=0)), 0, True),
        (SoftTimeout(), Rules(on_timeout="bury"), 0, True),
        (SoftTimeout(), Rules(on_timeout="revoke"), 0, True),
        (SoftTimeout(), Rules(), 0, False),
        (KeyboardInterrupt(), Rules(), 0, True),
    ],
)
def test_an_error_is_final_when_the_job_ends_with_it(
    app: App, error: BaseException, rules: Rules, failed: int, final: bool
) -> None:
    assert execution(app, rules, Counters(failed=failed)).is_final(error) is final
