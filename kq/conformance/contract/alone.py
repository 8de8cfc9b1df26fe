"""C12 singleton: at most one job of a singleton queue runs at a time, wherever workers are, whatever befalls them."""

from __future__ import annotations

import itertools
import random
import signal
import time
from collections.abc import Sequence
from typing import Any

import pytest

from kq.app import App
from kq.broker import declare
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary, Entry
from kq.conformance.contract.figures import Figures, keeps, ms, survives
from kq.conformance.contract.jobs import SOLE, Jobs
from kq.conformance.contract.outages import OnAWire, Wire
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, Gate, buried, elapsed, in_pools, requires
from kq.control import Control
from kq.handles.handle import Handle
from kq.values.job import State
from kq.worker.pool import PoolKind

PROMPT = 1.5  # seconds within which what happens at once has happened on a busy machine


class Alone(ContractWorld):
    """C12, on a broker that stays well."""

    @keeps("C12")
    @in_pools("process", "thread", "async")
    def test_one_job_at_a_time_runs_on_three_workers_with_three_slots_each_in_order(
        self, app: App, jobs: Jobs, crew: Crew, sole: str, diary: Diary, measured: Figures, pool: PoolKind
    ) -> None:
        staff(app, crew, sole, 3, pool=pool, concurrency=3)
        if pool == "async":
            handles = app.submit_many(jobs.sole_async.job(0.01) for _ in range(40))
        else:
            handles = app.submit_many(jobs.sole.job(0.01) for _ in range(40))
        for handle in handles:
            handle.result(30)
        order = never_two(diary)
        assert order == [handle.id for handle in handles], as_run(diary)
        measured(f"{len(handles)} jobs one after the other, in order")

    @keeps("C12")
    def test_workers_side_by_side_are_several_too(
        self, app: App, jobs: Jobs, crew: Crew, sole: str, diary: Diary
    ) -> None:
        requires(app, "shared")
        crew.program("--processes", "3", concurrency=2, queues=sole, ready=False)
        handles = [jobs.sole.options(priority=chance).submit(0.01) for chance in random.Random(3).sample(range(10), 10)]
        for handle in handles:
            handle.result(30)
        never_two(diary)

    @keeps("C12")
    def test_other_queues_run_beside_it_and_its_jobs_go_by_priority(
        self, app: App, jobs: Jobs, crew: Crew, queue: str, sole: str, diary: Diary, gate: Gate
    ) -> None:
        low = jobs.sole.options(priority=1).submit(0.01)
        first = jobs.sole.options(priority=9).submit(0.01, gate=gate.path)
        high = jobs.sole.options(priority=8).submit(0.01)
        crew.worker(concurrency=3, queues=f"{queue},{sole}")
        diary.begun(first)
        assert jobs.add.submit(1, 2).result(10) == 3
        beside = [jobs.hold.submit(gate.path) for _ in range(2)]
        eventually(lambda: diary.starts(beside[1].id), "jobs of the other queue have the other slots")
        gate.open()
        low.result(10)
        assert [start.id for start in diary.starts(low.id, first.id, high.id)] == [first.id, high.id, low.id]

    @keeps("C12")
    @survives("F1")
    def test_when_its_worker_is_killed_another_takes_over_within_the_lease(
        self, app: App, jobs: Jobs, crew: Crew, sole: str, diary: Diary, measured: Figures
    ) -> None:
        requires(app, "shared")
        victim = crew.program(queues=sole)
        first, second = jobs.sole.submit(0.1, gate="never"), jobs.sole.submit(0.01)
        diary.begun(first)
        heir = crew.program(concurrency=2, queues=sole)
        killed = time.time()
        victim.kill()
        again = eventually(lambda: diary.starts(first.id)[1:], "it runs elsewhere")[0]
        late = again.at - killed
        assert late <= self.lease + PROMPT
        assert heir.process.poll() is None
        assert not diary.starts(second.id)
        never_two(diary)
        measured(f"taken over after {late:.1f} s, lease {self.lease:g} s")
        measured.account(back=late)

    @keeps("C12")
    @survives("F1")
    def test_a_job_whose_executor_dies_is_run_again_with_nobody_beside_it(
        self, app: App, jobs: Jobs, crew: Crew, sole: str, diary: Diary
    ) -> None:
        staff(app, crew, sole, 2, concurrency=2)
        handles = app.submit_many(jobs.sole.job(0.01, dies) for dies in ("signal 9", "return", "exit 3", "return"))
        for handle in handles:
            handle.result(20)
        assert len(never_two(diary)) == len(handles) + 2

    @keeps("C12")
    @survives("F2")
    @pytest.mark.parametrize(("who", "pool"), [("supervisor", "thread"), ("all", "process")])
    def test_what_a_frozen_worker_ran_does_not_go_on_beside_the_next_one(
        self,
        app: App,
        jobs: Jobs,
        crew: Crew,
        sole: str,
        diary: Diary,
        gate: Gate,
        measured: Figures,
        who: str,
        pool: PoolKind,
    ) -> None:
        requires(app, "shared")
        zombie = crew.program(queues=sole, pool=pool)
        job = jobs.sole.submit(0.1, gate=gate.path)
        eventually(lambda: len(pulses(diary, job)) > 3, "it runs")
        crew.program(queues=sole, pool=pool)
        zombie.pause() if who == "all" else zombie.pause_supervisor()
        frozen = time.time()
        first, again = eventually(lambda: diary.starts(job.id)[1:] and diary.starts(job.id)[:2], "it runs elsewhere")
        zombie.resume()
        eventually(lambda: "the lease" in zombie.said(), "the zombie learns it")
        gate.open()
        assert job.result(20) == again.pid
        last = max(pulse.at for pulse in pulses(diary, job) if pulse.pid == first.pid)
        assert last < again.at
        assert again.at - frozen <= self.lease + PROMPT
        measured(
            f"taken over after {again.at - frozen:.1f} s, lease {self.lease:g} s; no step of the zombie after that"
        )
        measured.account(back=again.at - frozen)

    @keeps("C12")
    @survives("F10")
    @pytest.mark.parametrize("how", ["while it runs", "while it is idle", "twice"])
    def test_a_worker_that_ends_in_good_order_hands_over_at_once(
        self, app: App, jobs: Jobs, crew: Crew, sole: str, diary: Diary, gate: Gate, measured: Figures, how: str
    ) -> None:
        requires(app, "shared")
        leaving = crew.program(queues=sole, concurrency=2)
        if how == "while it is idle":
            jobs.sole.submit(0.01).result(10)
        else:
            first = diary.begun(jobs.sole.submit(0.01, gate="never" if how == "twice" else gate.path))
        heir = crew.program(queues=sole, concurrency=2)
        second = jobs.sole.submit(0.01) if how == "while it runs" else None
        leaving.send(signal.SIGTERM)
        eventually(lambda: "told to end" in leaving.said(), "it was told")
        if how == "twice":
            leaving.send(signal.SIGTERM)
            ended = time.time()
            eventually(lambda: diary.starts(first.id)[1:], "the first is run again, before others")
            late = diary.starts(first.id)[1].at - ended
        elif second is None:
            leaving.wait()
            ended = time.time()
            late = jobs.sole.submit(0.01).result(10) and diary.starts()[-1].at - ended
        else:
            gate.open()
            second.result(10)
            late = diary.starts(second.id)[0].at - diary.ends(first.id)[0].at
        assert late <= PROMPT
        assert heir.process.poll() is None
        never_two(diary)
        measured(f"after {ms(max(0.0, late))}")

    @keeps("C12")
    def test_the_queue_of_a_worker_that_is_retired_at_once_rests_until_its_lease_would_be_over(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, sole: str, diary: Diary, measured: Figures
    ) -> None:
        requires(app, "shared")
        victim = crew.program(queues=sole)
        job = diary.begun(jobs.sole.submit(0.1, gate="never"))
        crew.program(queues=sole)
        (name,) = [worker.name for worker in control.workers() if worker.pid == victim.process.pid]
        retired = time.time()
        assert control.retire(name, now=True)
        again = eventually(lambda: diary.starts(job.id)[1:], "it runs elsewhere")[0]
        assert again.at - retired <= self.lease + PROMPT
        never_two(diary)
        measured(f"after {again.at - retired:.1f} s, lease {self.lease:g} s")

    @keeps("C12")
    def test_a_pause_and_its_end_let_nobody_in_beside_the_job_that_runs(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, sole: str, diary: Diary, gate: Gate
    ) -> None:
        staff(app, crew, sole, 2, concurrency=2)
        first, second = jobs.sole.submit(0.01, gate=gate.path), jobs.sole.submit(0.01)
        diary.begun(first)
        control.pause(sole)
        assert len(control.ping()) == len(control.workers())
        control.resume(sole)
        assert len(control.ping()) == len(control.workers())
        control.pause(sole)
        assert len(control.ping()) == len(control.workers())
        gate.open()
        first.result(10)
        eventually(lambda: not control.jobs(sole, State.RUNNING), "its worker has told")
        assert second.state() is State.READY
        control.resume(sole)
        second.result(10)
        never_two(diary)

    @keeps("C12")
    def test_a_worker_without_room_leaves_it_to_one_with_room(
        self, app: App, jobs: Jobs, crew: Crew, queue: str, sole: str, diary: Diary, gate: Gate, measured: Figures
    ) -> None:
        crew.worker(queues=f"{queue},{sole}")
        jobs.sole.submit(0.01).result(10)
        busy = diary.begun(jobs.hold.submit(gate.path))
        crew.worker(queues=sole)
        asked = time.monotonic()
        jobs.sole.submit(0.01).result(10)
        measured(f"after {elapsed(asked):.1f} s")
        assert elapsed(asked) <= 2 + PROMPT
        gate.open()
        busy.result(10)
        assert jobs.sole.submit(0.01).result(10)
        never_two(diary)

    @keeps("C12")
    def test_its_jobs_are_delayed_retried_buried_and_kicked_like_any_others(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, sole: str, diary: Diary
    ) -> None:
        staff(app, crew, sole, 2, concurrency=2)
        handles = [
            jobs.sole.options(delay=0.3).submit(0.01),
            jobs.sole.submit(0.01, "retry 0.2"),
            jobs.sole.submit(0.01, "raise OSError"),
        ]
        aside = jobs.sole.submit(0.01, "bury")
        buried(control, sole, aside)
        assert len(control.kick(sole, limit=1)) == 1
        eventually(lambda: len(diary.starts(aside.id)) == 2, "what was kicked runs again")
        for handle in handles:
            handle.result(20)
        never_two(diary)

    @keeps("C12")
    def test_why_and_the_lists_tell_who_has_it(
        self, control: Control, jobs: Jobs, crew: Crew, queue: str, sole: str, diary: Diary, gate: Gate
    ) -> None:
        first, second = jobs.sole.submit(0.01, gate=gate.path), jobs.sole.submit(0.01)
        assert "singleton" not in control.why_queue(sole)
        assert seat_of(control, sole) == ""
        crew.worker(concurrency=2, queues=sole)
        diary.begun(first)
        control.ping()
        (worker,) = control.workers()
        assert (worker.singletons, seat_of(control, sole)) == ([sole], worker.name)
        said = f"singleton held by {worker.name}"
        assert f"it is the next; {said}" in control.why(second.id)
        assert f"{said}, whose last beat was " in control.why_queue(sole)
        assert f"which runs sole {first.id} for " in control.why_queue(sole)
        jobs.add.submit(1, 2)
        assert seat_of(control, queue) is None
        gate.open()
        second.result(10)

    @keeps("C12")
    def test_a_queue_of_the_other_kind_is_no_trouble_to_who_submits_and_refused_by_workers(
        self, app: App, jobs: Jobs, crew: Crew, sole: str
    ) -> None:
        with app.broker.connection() as connection, connection.channel() as channel:
            declare(channel, sole, single=False)
        assert jobs.sole.submit(0.01).state() is State.READY
        requires(app, "shared")
        refused = crew.program(queues=sole, ready=False)
        assert refused.wait() != 0
        assert f"queue '{sole}' is an ordinary queue of the broker" in refused.said()
        assert f"kq queues rm {sole}" in refused.said()

    @keeps("C12")
    def test_who_does_not_know_that_a_queue_is_a_singleton_submits_to_it_by_name(
        self, app: App, jobs: Jobs, crew: Crew, sole: str, diary: Diary
    ) -> None:
        jobs.sole.submit(0.01).state()
        stranger = App("stranger", queue=sole)
        handle = stranger.submit("sole", 0.01)
        crew.worker(queues=sole)
        assert handle.result(10)
        stranger.close()


class AloneOnAWire(OnAWire):
    """C12, while the network between the broker and one of the workers fails."""

    @keeps("C12")
    @survives("F4")
    @pytest.mark.parametrize("fault", ["drop", "forget", "freeze"])
    def test_who_is_cut_off_runs_nothing_beside_the_next_one(
        self, direct: App, wire: Wire, crew: Crew, sole: str, diary: Diary, measured: Figures, fault: str
    ) -> None:
        jobs = Jobs(direct)
        crew.program(queues=sole, concurrency=2)
        assert jobs.sole.submit(0.01).result(10)  # so that it has the seat
        crew.program(queues=sole, concurrency=2, url=direct.address.url)
        first, second = jobs.sole.submit(1.5 * self.lease), jobs.sole.submit(0.01)
        eventually(lambda: len(pulses(diary, first)) > 3, "the first runs")
        began = time.time()
        getattr(wire, fault)()
        if fault == "freeze":  # else it may come back in time and go on
            eventually(lambda: diary.starts(first.id)[1:], "it runs elsewhere", self.lease + 20)
        wire.restore()
        first.result(3 * self.lease + 20)
        second.result(20)
        never_two(diary)
        late = diary.starts(first.id)[-1].at - began
        assert late <= self.lease + PROMPT
        measured(f"taken over after {late:.1f} s, lease {self.lease:g} s" if late > 0 else "it went on")
        measured.account(back=max(0.0, late))


def staff(app: App, crew: Crew, queue: str, number: int, **options: Any) -> None:
    """So many workers for queue."""
    if app.broker.traits.shared:
        for worker in [crew.program(queues=queue, ready=False, **options) for _ in range(number)]:
            worker.ready()
    else:
        for _ in range(number):
            crew.worker(queues=queue, **options)


def pulses(diary: Diary, job: Handle[Any]) -> list[Entry]:
    return diary.entries("pulse", [job.id])


def seat_of(control: Control, queue: str) -> str | None:
    """Who has the seat at a queue, as control tells."""
    (info,) = [each for each in control.queues() if each.name == queue]
    return info.singleton


def never_two(diary: Diary) -> list[str]:
    """Check that no two executions of singleton jobs overlapped; returns the jobs in the order of their starts."""
    assert diary.entries("overlap") == []
    spans = executions([entry for entry in diary.entries() if entry.word == SOLE])
    for (begun, ended), (next_begun, _) in itertools.pairwise(spans):
        assert ended <= next_begun, f"one began at {begun}, was seen until {ended}, and another began at {next_begun}"
    return [start.id for start in diary.starts() if start.word == SOLE]


def as_run(diary: Diary) -> str:
    """Each start as it was written down, by whom and when, for who must find out why the order is another."""
    return "\n".join(f"{start.id} attempt {start.attempt} by {start.pid} at {start.at:.3f}" for start in diary.starts())


def executions(entries: Sequence[Entry]) -> list[tuple[float, float]]:
    """When each execution began and was last seen, in the order of their beginnings."""
    spans = list[tuple[float, float]]()
    running: dict[tuple[str, int], int] = {}
    for entry in entries:
        if entry.what == "start":
            running[entry.id, entry.pid] = len(spans)
            spans.append((entry.at, entry.at))
        place = running[entry.id, entry.pid]
        spans[place] = (spans[place][0], entry.at)
    return spans
