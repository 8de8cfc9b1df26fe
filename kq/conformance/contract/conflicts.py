"""C11 unique, the whole of it: what makes jobs the same, how long that counts, and what becomes of the second one."""

from __future__ import annotations

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from kq.app import App
from kq.broker import BURIED, Inspector
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.figures import Figures, keeps
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.unique import submitted
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, Gate, outcome, requires
from kq.control import Control
from kq.errors import JobBuried, JobRevoked, NotUnique
from kq.handles.handle import Handle
from kq.handles.lock import Lock
from kq.values.job import State
from kq.values.record import claim_key, turn_key, unique_key
from kq.values.unique import Conflict, Unique, Until, by_arguments

#: Kills of the lottery.
KILLS = int(os.environ.get("KQ_UNIQUE_KILLS") or 2)


class Conflicts(ContractWorld):
    """C11: by arguments, period and states; join, reject, after, replace and debounce."""

    @pytest.fixture
    def gates(self, tmp_path: Path) -> list[Gate]:
        return [Gate(tmp_path / f"gate-{number}") for number in range(4)]

    @keeps("C11")
    def test_jobs_with_the_same_arguments_are_the_same_however_these_are_passed(self, app: App, jobs: Jobs) -> None:
        only = jobs.add.options(unique=by_arguments)
        first = only.submit(1, 2)
        assert only.submit(1, right=2) == first
        assert only.submit(2, 1) != first
        left = jobs.add.options(unique=Unique(by_arguments("left")))
        assert left.submit(1, 2) == left.submit(1, 3) != first
        summed = jobs.add.options(unique=lambda left, right: f"sum {left + right}")
        assert summed.submit(1, 4) == summed.submit(2, 3)

    @keeps("C11")
    def test_until_it_starts_one_may_run_and_one_may_wait(
        self, jobs: Jobs, crew: Crew, diary: Diary, gates: list[Gate]
    ) -> None:
        only = jobs.hold.options(unique=Unique("cat", until="start"))
        crew.worker(concurrency=1)
        first = diary.begun(only.submit(gates[0].path))
        second = only.submit(gates[1].path)
        assert second != first
        assert only.submit(gates[2].path) == second
        for gate in gates:
            gate.open()
        assert first.result(20)
        assert second.result(20)

    def test_who_finds_a_key_held_is_counted_and_who_does_not_is_not(
        self, app: App, control: Control, queue: str, jobs: Jobs
    ) -> None:
        only = jobs.note.options(unique="x")
        first = only.submit()
        app.submit_many([jobs.note.job(), jobs.note.options(unique="y").job()])
        assert counts(control, queue, first) == ({}, 0)
        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(lambda _: only.submit(), range(12))) == {first}
        app.submit_many([only.job(), jobs.note.job(), only.job()])
        with pytest.raises(NotUnique):
            jobs.note.options(unique=Unique("x", conflict="reject")).submit()
        assert counts(control, queue, first) == ({"join": 14, "reject": 1}, 15)
        found = control.job(first.id)
        assert found is not None
        assert found.duplicates is not None
        assert found.submitted is not None
        assert found.submitted <= found.duplicates.latest <= time.time()

    def test_who_takes_the_place_of_a_job_is_counted_as_one_that_met_it(
        self, control: Control, queue: str, jobs: Jobs
    ) -> None:
        only = jobs.note.options(unique=Unique("x", conflict="replace"), delay=60)
        first = only.submit("a")
        assert only.submit("b") == first
        assert counts(control, queue, first) == ({"replace": 1}, 1)

    @keeps("C11")
    def test_until_it_is_gone_a_buried_job_has_its_key(
        self, app: App, control: Control, jobs: Jobs, crew: Crew
    ) -> None:
        only = jobs.perform.options(unique=Unique("cat", until="gone"))
        worker = crew.worker()
        first = only.submit(["bad"])
        assert isinstance(outcome(first), JobBuried)
        assert only.submit(["return"]) == first
        worker.stop()
        assert control.kick(ids=[first.id])[0].refused == ""
        assert only.submit(["return"]) == first
        control.bury(first.id)
        assert only.submit(["return"]) == first
        control.delete(first.id)
        assert only.submit(["return"]) != first

    @keeps("C11")
    def test_a_period_lasts_whatever_became_of_the_job(self, app: App, jobs: Jobs, crew: Crew) -> None:
        only = jobs.perform.options(unique=Unique("cat", period=2.0))
        crew.worker()
        began = time.monotonic()
        first = only.submit(["bad"])
        outcome(first)
        seconds = [only.submit(["return"]) for _ in range(3)]
        assert set(seconds) == {first} or time.monotonic() - began > 2
        other = eventually(lambda: (handle := only.submit(["return"])) != first and handle, "the period is over")
        assert 1.9 < time.monotonic() - began < 8
        assert isinstance(other, Handle)
        assert other.result(10) == 1

    @keeps("C11")
    def test_who_wants_no_other_is_told_so_and_nothing_is_stored(
        self, app: App, control: Control, queue: str, jobs: Jobs
    ) -> None:
        only = jobs.note.options(unique=Unique("cat", conflict="reject"))
        first = only.submit("a")
        with pytest.raises(NotUnique, match="has the unique key 'cat'") as caught:
            app.submit_many([jobs.note.job("b"), jobs.note.options(unique="dog").job("c"), only.job("d")])
        assert caught.value.job == first.id
        assert [job.id for job in control.jobs(queue)] == [first.id]
        assert jobs.note.options(unique="dog").submit("e") != first

    @keeps("C11")
    def test_a_job_that_waits_is_replaced_and_who_had_its_handle_gets_the_new_result(
        self, control: Control, queue: str, jobs: Jobs, crew: Crew, diary: Diary
    ) -> None:
        only = jobs.note.options(unique=Unique("cat", conflict="replace"))
        handles = [only.options(priority=word % 10, delay=60).submit(f"{word}") for word in range(4)]
        assert len(set(handles)) == 1
        (job,) = control.jobs(queue)
        assert (job.args, job.priority, job.state) == (["3"], 3, State.DELAYED)
        last = only.submit("last")
        (job,) = control.jobs(queue)
        assert (job.args, job.state, job.priority) == (["last"], State.READY, 5)
        crew.worker()
        assert {handle.result(10) for handle in [*handles, last]} == {"last"}
        assert len(diary.starts()) == 1
        assert only.submit("new") != last

    @keeps("C11")
    def test_a_job_that_runs_is_followed_by_the_last_and_never_joined(
        self, jobs: Jobs, crew: Crew, diary: Diary, gates: list[Gate]
    ) -> None:
        crew.worker(concurrency=3)
        only = jobs.hold.options(unique=Unique("cat", conflict="replace"))
        first = diary.begun(only.submit(gates[0].path))
        gates[2].open()
        second = only.submit(gates[1].path)
        assert second != first
        assert only.submit(gates[2].path) == second
        time.sleep(0.3)  # as long as a worker that does not know better would need to start it
        assert not diary.starts(second.id)
        gates[0].open()
        assert second.result(20)
        assert [entry.word for entry in diary.entries()] == [gates[0].path] * 2 + [gates[2].path] * 2

    @keeps("C11")
    def test_a_delay_begins_anew_with_each_submit_but_not_for_ever(
        self, control: Control, queue: str, jobs: Jobs, crew: Crew
    ) -> None:
        crew.worker()
        only = jobs.note.options(unique=Unique("cat", conflict="debounce"), delay=2.0)
        first = only.submit("0")
        for word in range(1, 5):
            time.sleep(0.5)  # the first delay is over by the last one
            assert only.submit(f"{word}") == first
        last = time.monotonic()
        assert first.result(20) == "4"
        assert time.monotonic() - last > 1.9
        bounded = jobs.note.options(unique=Unique("dog", conflict="debounce", at_most=1.0), delay=60)
        began = time.monotonic()
        first = bounded.submit("0")
        assert bounded.submit("1") == first
        assert first.result(20) == "1"
        assert time.monotonic() - began > 0.9

    @keeps("C11")
    def test_after_the_one_that_runs_there_is_one_more(
        self, jobs: Jobs, crew: Crew, diary: Diary, gates: list[Gate]
    ) -> None:
        crew.worker(concurrency=3)
        only = jobs.hold.options(unique=Unique("cat", conflict="after"))
        first = diary.begun(only.submit(gates[0].path))
        with ThreadPoolExecutor(4) as pool:
            (second,) = set(pool.map(lambda _: only.submit(gates[1].path), range(8)))
        assert second != first
        gates[1].open()
        assert only.submit(gates[1].path) == second
        assert not diary.starts(second.id)
        gates[0].open()
        assert second.result(20)
        assert diary.starts(second.id)[0].at > diary.ends(first.id)[0].at

    @keeps("C11")
    def test_a_turn_outlives_the_worker_and_retries_and_ends_with_its_job(
        self, app: App, jobs: Jobs, crew: Crew, diary: Diary, gates: list[Gate]
    ) -> None:
        requires(app, "shared")
        worker = crew.program()
        first = diary.begun(jobs.hold.options(unique=Unique("cat", conflict="after")).submit(gates[0].path))
        second = jobs.perform.options(unique=Unique("cat", conflict="after")).submit(["raise RuntimeError", "return"])
        worker.kill()
        crew.program(concurrency=2)
        eventually(lambda: len(diary.starts(first.id)) == 2, "it runs again", 20)
        assert not diary.starts(second.id)
        gates[0].open()
        assert second.result(20) == 2
        assert diary.starts(second.id)[0].at > diary.ends(first.id)[0].at
        free(app, "cat")

    @keeps("C11")
    def test_a_job_that_can_not_be_read_has_no_key_any_more(self, app: App, jobs: Jobs, crew: Crew) -> None:
        crew.worker()
        conflicts: tuple[Conflict, ...] = ("join", "after")
        for conflict in conflicts:
            only = jobs.note.options(unique=Unique("x", conflict=conflict))
            assert isinstance(outcome(app.submit(replace(only.job(), type="nobody.knows"))), JobBuried)
            free(app, "x")

    @keeps("C11")
    def test_a_staged_job_takes_its_key_when_it_is_taken_and_joins_who_has_it(
        self, app: App, jobs: Jobs, crew: Crew, diary: Diary, gates: list[Gate]
    ) -> None:
        crew.worker(concurrency=3)
        only = jobs.hold.options(unique="cat")
        first = diary.begun(only.submit(gates[0].path))
        begets = jobs.beget_unique.submit("cat", gates[1].path)
        joined = Handle[object](str(begets.result(10)), first.queue, app)
        assert f"job {first.id} has its unique key 'cat'" in str(outcome(joined))
        assert isinstance(outcome(joined), JobRevoked)
        gates[0].open()
        first.result(10)
        free(app, "cat")
        taken = Handle[object](str(jobs.beget_unique.submit("cat", gates[1].path).result(10)), first.queue, app)
        diary.begun(taken)
        assert only.submit(gates[2].path) == taken
        gates[1].open()
        assert taken.result(10)
        free(app, "cat")

    @keeps("C11")
    @pytest.mark.parametrize("removed", [False, True])
    def test_who_dies_while_he_takes_a_unique_job_away_leaves_no_lock_without_a_job(
        self,
        app: App,
        control: Control,
        inspector: Inspector,
        queue: str,
        jobs: Jobs,
        removed: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("kq.handles.lock.IN_DOUBT", 0.5)
        only = jobs.note.options(unique="x")
        first = only.submit("first")
        (seen,) = inspector.find(queue, [first.id])
        lock = Lock.of(seen.headers, first.id, queue)
        assert lock is not None
        app.store.write(lock.doubted())  # as far as he comes who revokes, deletes or buries it
        if removed:
            assert inspector.remove(queue, [first.id])
        second = eventually(lambda: submitted(only), "it is known whether the job is there")
        assert second is not None
        assert (second == first) is not removed
        assert [job.id for job in control.jobs(queue)] == [second.id]
        assert second.revoke()
        free(app, "x")

    @keeps("C11")
    def test_who_dies_while_he_kicks_a_unique_job_leaves_no_lock_without_a_job(
        self, app: App, control: Control, inspector: Inspector, queue: str, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("kq.handles.lock.IN_DOUBT", 0.5)
        only = jobs.note.options(unique="x")
        first = only.submit("first")
        control.bury(first.id)
        (seen,) = inspector.find(queue + BURIED, [first.id])
        lock = Lock.of(seen.headers, first.id, queue)
        assert lock is not None
        assert all(app.store.write(lock.claimed()))
        second = eventually(lambda: submitted(only), "the key is free again")
        assert second != first
        assert control.kick(ids=[first.id])[0].refused

    @keeps("C11")
    @pytest.mark.parametrize(("until", "conflict"), [("start", "join"), ("end", "replace")])
    def test_workers_and_producers_killed_again_and_again_leave_no_lock_and_lose_no_submit(
        self, app: App, jobs: Jobs, crew: Crew, diary: Diary, measured: Figures, until: Until, conflict: Conflict
    ) -> None:
        requires(app, "shared")
        seed = random.randrange(10_000)
        chance = random.Random(seed)
        only = jobs.beat.options(unique=Unique("x", until=until, conflict=conflict))
        told: list[tuple[float, str]] = []
        for _ in range(KILLS):
            worker = crew.program(concurrency=2)
            with crew.start(SUBMITS, until, conflict) as producer:
                assert producer.stdout is not None
                for _ in range(chance.randint(5, 15)):
                    at, _, id = producer.stdout.readline().strip().partition(" ")
                    told.append((float(at), id))
                producer.kill()
            time.sleep(chance.uniform(0, 0.05))
            worker.kill()
        crew.program(concurrency=2)
        last = eventually(lambda: submitted(only), "the key is not stuck", 30)
        assert last is not None
        told.append((time.time(), last.id))
        eventually(lambda: {id for _, id in told} <= {end.id for end in diary.ends()}, f"all run, seed {seed}", 30)
        free(app, "x", 30)
        if conflict != "join":  # a run began after each submit
            starts = [start.at for start in diary.starts()]
            assert max(starts) > told[-1][0] - 0.1
        if until == "end":
            assert overlapping(diary) == 0
        measured(f"{until}, {conflict}, seed {seed}: {2 * KILLS} kills, {len(told)} submits, {len(diary.ends())} runs")


SUBMITS = """
import sys, time
from kq.conformance.contract.jobs import jobs
from kq.values.unique import Unique
only = jobs.beat.options(unique=Unique("x", until=sys.argv[1], conflict=sys.argv[2]))
while True:
    at = time.time()
    try:
        print(at, only.submit().id, flush=True)
    except Exception as error:
        sys.stderr.write(f"{error}\\n")
    time.sleep(0.01)
"""


def free(app: App, key: str, within: float = 10.0) -> None:
    """Wait until nothing holds key."""
    names = [unique_key(key), turn_key(key), claim_key(key)]
    eventually(lambda: app.store.get(names[:2]) == [None] * 2, f"{key} is free", within)


def overlapping(diary: Diary) -> int:
    """How many runs began while another was under way; one that was killed has no end and is not counted."""
    spans = []
    for end in diary.ends():
        start = max(each.at for each in diary.starts(end.id) if each.at <= end.at and each.pid == end.pid)
        spans.append((start, end.at))
    spans.sort()
    return sum(later[0] < earlier[1] for earlier, later in pairwise(spans))


def counts(control: Control, queue: str, job: Handle[Any]) -> tuple[dict[str, int], int]:
    """How many submits to queue found their unique key held, by what becomes of such; how many, by job."""
    (row,) = [each for each in control.snapshot().queues if each.name == queue]
    found = control.job(job.id)
    assert found is not None
    return row.duplicates, 0 if found.duplicates is None else found.duplicates.count
