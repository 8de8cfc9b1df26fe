"""What jobs emit, on its way to a state store that fails, and past others who speak for the same job."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from kq.app import App
from kq.clock import new_id
from kq.conformance.between import Between
from kq.conformance.contract.waiting import eventually
from kq.effects.context import CurrentJob, Footing
from kq.errors import LeaseLost, ResultTimeout
from kq.handles.handle import Handle
from kq.state import Store, Write
from kq.state.store import StoreUnreachable
from kq.values.job import State
from kq.values.record import Record, encode, job_key, lease_key


class Failing(Between):
    """A state store that fails at so many of the next writes. after: they are carried out all the same."""

    fails = 0
    after = False

    def write(self, writes: Sequence[Write]) -> list[bool]:
        self.fails -= 1
        if self.fails < 0:
            return super().write(writes)
        if self.after:
            super().write(writes)
        raise StoreUnreachable("gone")


class World:
    """Attempts at one job, by workers whose leases hold until they are ended."""

    def __init__(self, app: App) -> None:
        self.app, self.job = app, new_id()
        self.store: Store = app.store
        self.failing = Failing(app.store)
        app.connect(app.publisher, self.failing)
        for worker in ("w1", "w2"):
            self.store.write([Write(lease_key(worker), b"1")])

    def attempt(self, number: int, worker: str, seconds: float = 60.0) -> CurrentJob:
        return CurrentJob(self.job, "say", "q", number, time.monotonic() + seconds, Footing(self.app, worker))

    def die(self, worker: str) -> None:
        self.store.write([Write(lease_key(worker), None)])

    def end(self) -> None:
        """Record that the job has completed."""
        self.store.write([Write(job_key(self.job), encode(Record(State.COMPLETED)))])

    def read(self, offset: int = 0) -> list[tuple[int, object, bool]]:
        chunks = Handle[object](self.job, "q", self.app).stream(offset, timeout=10)
        return [(chunk.attempt, chunk.value, chunk.begins) for chunk in chunks]


@pytest.fixture(params=["memory", "sqlite"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    url = f"memory://{new_id()}" if request.param == "memory" else f"sqlite:///{tmp_path}/kq.db"
    app = App("emits", url)
    yield World(app)
    eventually(lambda: all(thread.name != "kq-emitter" for thread in threading.enumerate()), "nothing is emitted", 30)
    app.close()


def test_chunks_come_once_each_when_answers_of_the_store_are_lost(world: World) -> None:
    world.failing.fails, world.failing.after = 5, True
    job = world.attempt(1, "w1")
    for number in range(100):
        assert job.emit(number)
    job.finish()
    world.end()
    assert world.read() == [(1, number, number == 0) for number in range(100)]


def test_chunks_wait_for_a_store_that_is_away(world: World) -> None:
    world.failing.fails = 5
    job = world.attempt(1, "w1")
    assert job.emit("a")
    eventually(lambda: world.failing.fails < 0, "it is written at last")
    job.finish()
    world.end()
    assert world.read() == [(1, "a", True)]


def test_what_is_lost_with_a_store_that_stays_away_is_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.failing.fails = 1_000_000
    job = world.attempt(1, "w1", seconds=0.0)
    job.emit("a")
    with caplog.at_level(logging.WARNING, "kq.jobs"):
        job.finish()
    assert "1 chunks of its stream are lost: gone" in caplog.text


def test_an_attempt_takes_the_place_of_the_one_before_and_that_is_refused(world: World) -> None:
    first, second = world.attempt(1, "w1"), world.attempt(2, "w2")
    for word in "abc":
        first.emit(word)
        first.finish()
    second.emit("d")
    second.finish()
    first.emit("late")
    first.finish()
    with pytest.raises(LeaseLost):
        first.emit("later")
    world.end()
    assert world.read() == world.read(1) == [(2, "d", True)]


def test_a_worker_without_a_lease_says_nothing(world: World) -> None:
    world.die("w1")
    job = world.attempt(1, "w1")
    job.emit("a")
    job.finish()
    with pytest.raises(LeaseLost):
        job.emit("b")
    world.end()
    assert world.read() == []


def test_what_can_not_travel_or_comes_from_elsewhere_is_refused(world: World) -> None:
    job = world.attempt(1, "w1")
    with pytest.raises(TypeError, match="what is emitted"):
        job.emit(object())
    forked = CurrentJob(world.job, "say", "q", 1, 1e9, Footing(world.app, "w1", process=os.getpid() + 1))
    with pytest.raises(RuntimeError, match="another process"):
        forked.emit("a")
    job.end()
    with pytest.raises(RuntimeError, match="has ended"):
        job.emit("a")


def test_one_large_chunk_too_many_is_left_out_and_a_small_one_fits(world: World) -> None:
    job = world.attempt(1, "w1")
    assert [job.emit("x" * 600_000), job.emit("y" * 600_000), job.emit("z")] == [True, False, True]
    job.finish()
    stream = Handle[object](world.job, "q", world.app).stream(timeout=0)
    assert [next(stream).value for _ in range(2)] == ["x" * 600_000, "z"]
    with pytest.raises(ResultTimeout):
        next(stream)
