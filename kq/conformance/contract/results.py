"""C14 result: waited for without polling, until its time to live is over."""

from __future__ import annotations

import asyncio
import gc
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from kq.app import App
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.figures import Figures, keeps, ms, percentile
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.processes import cpu
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, Gate, elapsed, requires
from kq.errors import JobBuried, JobError, ResultTimeout
from kq.handles.handle import as_completed
from kq.values.record import job_key


class Results(ContractWorld):
    """C14: a result, or the error that there is instead."""

    @keeps("C14")
    def test_a_result_is_what_the_job_returned(self, jobs: Jobs, crew: Crew) -> None:
        crew.worker()
        assert jobs.add.submit(2, 3).result(10) == 5
        assert jobs.note_async.submit("ö").result(10) == "ö"

        async def awaited() -> int:
            return await (await jobs.add.submit_async(4, 5))

        assert asyncio.run(awaited()) == 9

    @keeps("C14")
    def test_the_error_of_a_job_that_failed_is_told_with_its_traceback(self, jobs: Jobs, crew: Crew) -> None:
        crew.worker()
        job = jobs.perform_plain.submit(["raise ValueError"])
        with pytest.raises(JobBuried) as caught:
            job.result(10)
        assert caught.value.error == "ValueError: as asked"
        assert 'raise {"RuntimeError"' in caught.value.traceback

    @keeps("C14")
    def test_waiting_for_a_result_ends_in_time(self, jobs: Jobs) -> None:
        began = time.monotonic()
        with pytest.raises(ResultTimeout):
            jobs.note.submit().result(0.3)
        assert 0.3 <= elapsed(began) < 0.8

    @keeps("C14")
    def test_a_result_is_there_as_soon_as_the_job_has_ended(
        self, jobs: Jobs, crew: Crew, diary: Diary, measured: Figures
    ) -> None:
        crew.worker()
        late = []
        for _ in range(50):
            job = jobs.nap.submit(0.02)
            job.result(10)
            received = time.time()
            late.append(received - diary.ends(job.id)[0].at)
        measured(f"{ms(percentile(late, 0.5))} after the end at p50, {ms(percentile(late, 0.9))} at p90")
        assert percentile(late, 0.9) < 0.1

    @keeps("C14")
    def test_waiting_costs_no_cpu(self, app: App, jobs: Jobs, crew: Crew, measured: Figures) -> None:
        requires(app, "shared")  # else the worker's own work is counted too
        crew.worker()
        job = jobs.nap.submit(2.0)
        process = psutil.Process()
        gc.freeze()  # to look through all that the other tests made takes the collector 0.15 s
        before, began = cpu([process]), time.monotonic()
        assert job.result(10)
        share = (cpu([process]) - before) / elapsed(began)
        assert share < 0.03  # the clock of the measure ticks 100 times a second
        measured(f"{share:.1%} of a core for {elapsed(began):.1f} s of waiting")

    @keeps("C14")
    def test_many_may_wait_for_the_same_job(
        self, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate, measured: Figures
    ) -> None:
        crew.worker()
        job = jobs.hold.submit(gate.path)
        with ThreadPoolExecutor(16) as pool:
            waiting = [pool.submit(job.result, 10) for _ in range(16)]
            diary.begun(job)
            gate.open()
            assert len({each.result(10) for each in waiting}) == 1

    @keeps("C14")
    def test_results_come_in_the_order_in_which_the_jobs_end(
        self, app: App, jobs: Jobs, crew: Crew, gate: Gate
    ) -> None:
        crew.worker(concurrency=2)
        held = jobs.hold.submit(gate.path)
        others = app.submit_many([jobs.add.job(n, n) for n in range(60)])
        failing = jobs.perform_plain.submit(["raise ValueError"])
        ended = iter(as_completed([held, *others, failing, others[7]], 30))
        first = [next(ended) for _ in range(62)]
        assert {handle.id for handle in first} == {handle.id for handle in (*others, failing)}
        with pytest.raises(JobBuried):
            first[[handle.id for handle in first].index(failing.id)].result()
        gate.open()
        assert [handle.id for handle in ended] == [held.id]
        assert [handle.result() for handle in others] == [2 * n for n in range(60)]

    @keeps("C14")
    def test_waiting_for_many_ends_in_time_and_tells_what_ended(self, jobs: Jobs, crew: Crew, gate: Gate) -> None:
        crew.worker(concurrency=2)
        held, quick = jobs.hold.submit(gate.path), jobs.add.submit(1, 2)
        quick.result(20)
        ended = iter(as_completed([held, quick], 0.3))
        assert next(ended) == quick
        with pytest.raises(ResultTimeout, match=held.id):
            next(ended)
        gate.open()

    @keeps("C14")
    def test_a_loop_goes_round_while_many_are_waited_for(self, app: App, jobs: Jobs, crew: Crew) -> None:
        crew.worker()
        handles = app.submit_many([jobs.add.job(n, 1) for n in range(70)])

        async def awaited() -> list[int]:
            return [await handle async for handle in as_completed(handles, 30)]

        assert sorted(asyncio.run(awaited())) == list(range(1, 71))

    @keeps("C14")
    def test_a_result_is_kept_for_its_time_and_no_longer(self, app: App, jobs: Jobs, crew: Crew) -> None:
        crew.worker()
        job = jobs.brief.submit("x")
        assert job.result(10) == "x"
        eventually(lambda: app.store.get([job_key(job.id)]) == [None], "the record is gone", within=3)
        with pytest.raises(JobError):
            job.result(0.1)
