"""The world of the contract's tests: an app on an empty queue, its jobs, workers, a diary, and figures."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from kq.app import App
from kq.broker import BURIED, PARKED, Inspector
from kq.conformance.contract.crew import Crew, Program, Thread
from kq.conformance.contract.diary import VARIABLE, Diary
from kq.conformance.contract.figures import Figures
from kq.conformance.contract.jobs import NAME, QUEUE, WHERE, Jobs, sole_queue
from kq.conformance.contract.waiting import eventually
from kq.control import Control, JobInfo
from kq.errors import JobError
from kq.handles.handle import Handle
from kq.values.job import State
from kq.worker.pool import PoolKind

T = TypeVar("T", bound=Callable[..., object])

LEASE = 2.0  # seconds: short, so that tests of what follows its end are
SUBMIT_TIMEOUT = 2.0  # seconds, likewise


class ContractWorld:
    """What every part of ContractSuite stands on. A subclass has a fixture that says where the broker is."""

    lease = LEASE
    #: What workers import.
    application = WHERE
    #: What runs jobs has nothing to do with the broker. Tests that vary it run in each pool where this is None; else in
    #: this one, or in the first of theirs: for a suite beside others of which one has them all.
    pool: PoolKind | None = None

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Let tests run in the pools that they are told of by in_pools()."""
        pools: tuple[PoolKind, ...] = getattr(metafunc.function, "kq_pools", ())
        if pools:
            chosen = self.pool if self.pool in pools else pools[0]
            metafunc.parametrize("pool", [chosen] if self.pool else pools)

    @pytest.fixture
    def broker_url(self, tmp_path: Path) -> str:
        """The URL of a broker. It may be shared by many tests."""
        raise NotImplementedError

    @pytest.fixture
    def state_url(self) -> str | None:
        """The URL of the state store; None for the one that goes with the broker, or is a file beside it."""
        return None

    @pytest.fixture
    def settings(self, request: pytest.FixtureRequest) -> dict[str, str]:
        """More variables of the environment: a test says them by with_settings()."""
        return getattr(request.function, "kq_settings", {})

    @pytest.fixture
    def environment(
        self,
        broker_url: str,
        state_url: str | None,
        settings: dict[str, str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> dict[str, str]:
        """Variables of the environment that this process and the test's programs see."""
        told = {
            "KQ_URL": broker_url,
            "XDG_STATE_HOME": str(tmp_path / "state"),
            **({} if state_url is None else {"KQ_STATE": state_url}),
            "KQ_LEASE_LENGTH": str(self.lease),
            "KQ_SUBMIT_TIMEOUT": str(SUBMIT_TIMEOUT),
            QUEUE: f"contract-{uuid.uuid4().hex[:8]}",
            VARIABLE: str(tmp_path / "diary"),
            **settings,
        }
        for name, value in told.items():
            monkeypatch.setenv(name, value)
        return told

    @pytest.fixture
    def app(self, environment: dict[str, str]) -> Iterator[App]:
        """An app on an empty queue of its own, which is gone after the test."""
        app = App(environment.get(NAME, "contract"), queue=environment[QUEUE])
        yield app
        with suppress(Exception), app.broker.connection() as connection, connection.channel() as channel:
            for queue in (environment[QUEUE], sole_queue(environment[QUEUE]), environment[QUEUE] + "-far"):
                for place in ("", PARKED, BURIED):
                    channel.queue_delete(queue + place)
        app.close()

    @pytest.fixture
    def queue(self, environment: dict[str, str]) -> str:
        """The name of the queue of all jobs."""
        return environment[QUEUE]

    @pytest.fixture
    def sole(self, queue: str) -> str:
        """The name of the singleton queue."""
        return sole_queue(queue)

    @pytest.fixture
    def jobs(self, app: App) -> Jobs:
        return Jobs(app)

    @pytest.fixture
    def diary(self, environment: dict[str, str]) -> Diary:
        return Diary(Path(environment[VARIABLE]))

    @pytest.fixture
    def crew(self, app: App, queue: str, tmp_path: Path, diary: Diary, environment: dict[str, str]) -> Iterator[Crew]:
        """Makes workers; they are ended after the test, and nothing may stay behind."""
        crew = Crew(app, self.application, queue, tmp_path, environment)
        yield crew
        crew.close()

    @pytest.fixture
    def control(self, app: App) -> Iterator[Control]:
        with Control(app) as control:
            yield control

    @pytest.fixture
    def inspector(self, app: App) -> Iterator[Inspector]:
        inspector = app.inspector()
        yield inspector
        inspector.close()

    @pytest.fixture(autouse=True)
    def measured(self, request: pytest.FixtureRequest, app: App) -> Figures:
        """Takes down what the test measured."""
        return Figures(request.node, app.broker.traits.name)

    @pytest.fixture
    def gate(self, tmp_path: Path) -> Gate:
        """What jobs.hold waits for."""
        return Gate(tmp_path / "gate")


class Gate:
    """A file that is not there until it opens."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._path = path

    def open(self) -> None:
        self._path.touch()


def in_pools(*pools: PoolKind) -> Callable[[T], T]:
    """Run a test, whose argument `pool` it is, in these pools, or in one of them: as its suite says."""

    def mark(test: T) -> T:
        test.kq_pools = pools  # type: ignore[attr-defined]
        return test

    return mark


def with_settings(**settings: str) -> Callable[[T], T]:
    """Run a test, and its workers, with these variables of the environment, and no other test of its suite."""

    def mark(test: T) -> T:
        test.kq_settings = settings  # type: ignore[attr-defined]
        return test

    return mark


def requires(app: App, trait: str) -> None:
    """Skip a test that speaks of a trait which this broker says it hasn't got."""
    if not getattr(app.broker.traits, trait):
        pytest.skip(f"{app.broker.traits.name} is not {trait}, as its traits say")


def buried(control: Control, queue: str, handle: Handle[Any], within: float = 20.0) -> JobInfo:
    """A job as it lies among the buried ones of its queue."""

    def look() -> JobInfo | None:
        found = [job for job in control.jobs(queue, State.BURIED, limit=1000) if job.id == handle.id]
        return found[0] if found else None

    job = eventually(look, f"job {handle.id} is buried", within)
    assert job is not None
    return job


def outcome(handle: Handle[Any], within: float = 20.0) -> object:
    """What a job returned, or the error that says why it returned nothing."""
    try:
        return handle.result(within)
    except JobError as error:
        return error


def deleted(app: App, queue: str) -> None:
    """Take queue away with all that is in it, as people do with the tools of a broker."""
    with app.broker.connection() as connection, connection.channel() as channel:
        channel.queue_delete(queue)


def elapsed(since: float) -> float:
    """Seconds since an instant of the monotonic clock."""
    return time.monotonic() - since


__all__ = [
    "LEASE",
    "ContractWorld",
    "Crew",
    "Gate",
    "Program",
    "Thread",
    "buried",
    "deleted",
    "elapsed",
    "outcome",
    "requires",
]
