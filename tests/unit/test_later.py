"""What a running job stages: how it is gathered, and what is refused."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

import kq
from kq.app import App
from kq.clock import derived_id, made_at, new_id
from kq.effects.context import STAGED_LIMIT, CurrentJob, Footing, running
from kq.values.job import State
from kq.values.message import decode_head

app = App("later", "memory://later", queue="later")


@app.job
def tell(whom: str) -> str:
    return whom


@pytest.fixture
def job() -> Iterator[CurrentJob]:
    """A job that runs here."""
    current = CurrentJob(new_id(), "t", "later", 1, float("inf"), Footing(app))
    token = running.set(current)
    yield current
    running.reset(token)


def test_a_staged_job_knows_its_parent_and_its_id_is_the_same_in_each_attempt(job: CurrentJob) -> None:
    again = CurrentJob(job.id, "t", "later", 2, float("inf"), Footing(app))
    first, second = job.later(tell.job("anna")), job.later(tell.job("bert"))
    assert first.id == again.later(tell.job("anna")).id != second.id
    staged = job.end()
    assert [each.id for each in staged] == [first.id, second.id]
    head = decode_head(staged[0].headers)
    assert (head.id, head.parent, head.held, head.again) == (first.id, job.id, False, False)


def test_a_job_that_is_staged_twice_is_submitted_once(job: CurrentJob) -> None:
    once = tell.job("anna")
    assert job.later(once) == job.later(once)
    assert len(job.end()) == 1


def test_what_is_changed_after_it_was_staged_is_sent_as_it_was(job: CurrentJob) -> None:
    job.later(kq.Job(new_id(), "tell", (names := ["anna"],)))
    names.append("bert")
    assert b"bert" not in job.end()[0].body


@pytest.mark.parametrize(
    ("delay", "hold", "waits"), [(None, 0, 0), (None, "5m", 300), (20, 10, 20), (20, 30.5, 30.5), (0, 0, 0)]
)
def test_the_longer_of_delay_and_hold_counts(
    job: CurrentJob, delay: float | None, hold: float | str, waits: float
) -> None:
    job.later(tell.options(delay=delay).job("anna"), hold=hold)
    (staged,) = job.end()
    assert staged.delay == waits
    assert decode_head(staged.headers).held == bool(hold)


def test_an_instant_stays_that_instant_however_long_the_job_runs_on(job: CurrentJob) -> None:
    at = time.time() + 0.05
    job.later(tell.options(at=at).job("anna"))
    while time.time() < at:
        threading.Event().wait(0.01)
    assert job.end()[0].delay == 0


def test_nothing_is_staged_when_the_job_has_ended_nor_in_another_process(job: CurrentJob) -> None:
    job.end()
    with pytest.raises(RuntimeError, match="has ended"):
        job.later(tell.job("anna"))
    elsewhere = CurrentJob("1", "t", "later", 1, float("inf"), Footing(app, process=os.getpid() + 1))
    with pytest.raises(RuntimeError, match="another process"):
        elsewhere.later(tell.job("anna"))


def test_too_many_and_too_much_are_refused_and_what_fits_stays(job: CurrentJob) -> None:
    big = "x" * 1_000_000
    for _ in range(4):
        job.later(tell.job(big))
    with pytest.raises(ValueError, match=r"4\.8 MiB, more than 4\.0 MiB"):
        job.later(tell.job(big))
    assert len(job.end()) == 4
    small = CurrentJob("1", "t", "later", 1, float("inf"), Footing(app))
    for _ in range(STAGED_LIMIT):
        small.later(tell.job("anna"))
    with pytest.raises(ValueError, match="at most 1000"):
        small.later(tell.job("anna"))
    assert len(small.end()) == STAGED_LIMIT


@pytest.mark.parametrize("hold", [-1, "soon", float("inf"), 400 * 86400.0])
def test_a_hold_that_is_none_is_refused(job: CurrentJob, hold: float | str) -> None:
    with pytest.raises(ValueError, match=r"hold|duration"):
        job.later(tell.job("anna"), hold=hold)
    assert job.end() == ()


def test_threads_that_stage_at_once_lose_nothing(job: CurrentJob) -> None:
    threads = [threading.Thread(target=lambda: [job.later(tell.job("x")) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each.id for each in job.end()}) == 80


def test_outside_of_a_worker_it_is_submitted_at_once() -> None:
    handle = app.later(tell.job("anna"), hold="1h")
    assert handle.state() is State.DELAYED
    with kq.Control(app) as control:
        assert [(held.id, held.parent) for held in control.held()] == [(handle.id, "")]
    assert handle.revoke()
    now = app.later(tell.job("anna"))
    assert now.state() is State.READY
    assert now.revoke()


def test_inside_of_a_job_the_app_stages_with_it(job: CurrentJob) -> None:
    handle = app.later(tell.job("anna"))
    assert [each.id for each in job.end()] == [handle.id]


def test_derived_ids_sort_with_their_parents_and_are_ids_also_of_foreign_ones() -> None:
    parent = new_id()
    assert made_at(derived_id(parent, 0)) == made_at(parent)
    ids = {derived_id(each, number) for each in (parent, "job 7", "", "\ud800") for number in range(50)}
    assert len(ids) == 200
    assert all(len(id) == 28 and int(id, 16) for id in ids)
