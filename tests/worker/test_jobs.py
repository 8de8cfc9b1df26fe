"""What may be said of jobs, as workers keep it: unique keys, deadlines, steering, limits of queues."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest

from kq.app import App
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import buried, outcome, with_settings
from kq.control import Control
from kq.errors import ConfigError, JobBuried, JobRevoked
from kq.values.job import State
from kq.values.policy import MOST_RETRIES, Fixed
from kq.worker import Worker
from kq.worker.pool import PoolKind
from tests.brokers import OnRedis
from tests.worker.jobs import Odd
from tests.worker.world import POOLS, WorkerWorld


class TestDeadline(WorkerWorld):
    def test_a_job_whose_deadline_is_over_does_not_start(
        self, control: Control, jobs: Odd, crew: Crew, diary: Diary
    ) -> None:
        deadline = time.time() + 0.2
        late = jobs.note.options(deadline=deadline).submit("late")
        eventually(lambda: time.time() > deadline, "the deadline is over")
        crew.worker()
        assert isinstance(outcome(late), JobRevoked)
        assert late.state() is State.EXPIRED
        assert not diary.starts(late.id)
        eventually(lambda: not control.jobs(late.queue), "nothing is left of it")

    def test_a_job_in_time_is_not_cut_short_by_its_deadline(self, jobs: Odd, crew: Crew) -> None:
        crew.worker()
        assert jobs.nap.options(deadline=time.time() + 1.0).submit(1.5).result(10)


class TestDeadlineOnAServer(OnRedis):
    def test_a_deadline_is_by_the_clock_of_the_state_store(self, jobs: Jobs, crew: Crew) -> None:
        crew.program(ahead=7200)
        assert jobs.note.options(deadline=time.time() + 600).submit("in time").result(10) == "in time"


class TestSteering(WorkerWorld):
    def test_retry_says_when(self, jobs: Odd, crew: Crew, diary: Diary) -> None:
        crew.worker()
        job = jobs.perform_plain.submit(["retry 0.3", "retry 0", "return"])
        assert job.result(10) == 3
        first, second, third = diary.starts(job.id)
        assert 0.3 <= second.at - first.at < 0.8
        assert third.at - second.at < 0.3

    @pytest.mark.parametrize(
        ("act", "error"),
        [("bad", "BadJob: row 7 has no date"), ("bury", "Bury: a human should look")],
    )
    def test_bury_and_bad_job_are_final_whatever_the_policy(
        self, control: Control, jobs: Odd, crew: Crew, diary: Diary, act: str, error: str
    ) -> None:
        crew.worker()
        job = jobs.perform.submit([act])
        caught = outcome(job)
        assert isinstance(caught, JobBuried)
        assert caught.error == error
        assert buried(control, job.queue, job).args == [[act]]
        assert len(diary.starts(job.id)) == 1

    def test_what_hinders_a_job_does_not_count_against_it(
        self, control: Control, jobs: Odd, crew: Crew, diary: Diary
    ) -> None:
        crew.worker()
        job = jobs.cut_off.submit()
        eventually(lambda: len(diary.starts(job.id)) >= 2, "it is tried again")
        eventually(lambda: job.state() is State.RETRYING, "it waits")
        (found,) = control.jobs(job.queue, State.RETRYING)
        assert [each.error for each in found.history] == ["BadNetwork: no route"] * len(found.history)
        assert job.revoke()


class TestEndlessRetries(WorkerWorld):
    @pytest.mark.parametrize("failing", ["raise RuntimeError", "retry 0"])
    def test_a_job_that_fails_at_once_waits_a_second_from_the_20th_retry_on(
        self, control: Control, jobs: Odd, crew: Crew, diary: Diary, failing: str
    ) -> None:
        worker = crew.program()
        endless = Fixed(delay=0, retries=MOST_RETRIES)
        job = jobs.perform_plain.options(retry_policy=endless).submit([failing] * 100)
        eventually(lambda: len(diary.starts(job.id)) >= 22, "it was tried 22 times")
        starts = [start.at for start in diary.starts(job.id)]
        assert starts[19] - starts[0] < 10
        assert starts[20] - starts[19] >= 1
        assert starts[21] - starts[20] >= 1
        assert job.revoke()
        told = [f"attempt {number}) failed" in worker.said() for number in (1, 19, 20, 21)]
        assert told == [True, True, True, False]

    @with_settings(KQ_WORKER_MAX_RETRIES="3")
    def test_the_policy_of_a_message_is_bounded_and_that_of_a_job_type_is_not(
        self, control: Control, jobs: Odd, crew: Crew, diary: Diary
    ) -> None:
        crew.worker()
        job = jobs.perform_plain.options(retry_policy=Fixed(delay=0, retries=MOST_RETRIES)).submit(["retry 0"] * 100)
        assert isinstance(outcome(job), JobBuried)
        assert len(diary.starts(job.id)) == 4
        own = jobs.beget.submit([*["retry 0"] * 5, "return"], [])
        assert own.result(10) == []


class TestQueues(WorkerWorld):
    def test_a_queue_takes_no_more_slots_than_it_may(
        self, app: App, jobs: Odd, crew: Crew, diary: Diary, queue: str
    ) -> None:
        narrow, wide = f"{queue}.narrow", queue
        crew.worker(concurrency=4, queues=f"{narrow}:1,{wide}:4")
        handles = app.submit_many(
            [jobs.nap.options(queue=name).job(0.1, name) for _ in range(6) for name in (narrow, wide)]
        )
        for handle in handles:
            handle.result(20)
        assert busiest(diary, narrow) == 1
        assert busiest(diary, wide) > 1

    @pytest.mark.parametrize("pool", POOLS)
    def test_a_limit_holds_for_short_jobs_that_travel_together(
        self, app: App, jobs: Odd, crew: Crew, diary: Diary, queue: str, pool: PoolKind
    ) -> None:
        narrow, wide = f"{queue}.narrow", queue
        crew.worker(concurrency=4, pool=pool, queues=f"{narrow}:2,{wide}:4")
        nap = jobs.nap_async if pool == "async" else jobs.nap
        handles = app.submit_many(
            nap.options(queue=wide if number % 5 == 4 else narrow).job(0.0005, wide if number % 5 == 4 else narrow)
            for number in range(400)
        )
        for handle in handles:
            handle.result(20)
        assert busiest(diary, narrow) == 2
        assert len(diary.starts()) == len(handles)

    def test_a_limit_of_none_at_all_is_refused(self, app: App) -> None:
        with pytest.raises(ConfigError, match="queue 'a' can't run 0 jobs at a time; use 1 or more"):
            Worker(app, queues={"a": 0, "b": 2})

    def test_a_queue_that_is_no_list_of_queues_is_refused(self, app: App) -> None:
        with pytest.raises(ConfigError, match=r"queues 'mail' is one text; write \['mail'\]"):
            Worker(app, queues="mail")

    def test_a_worker_serves_only_the_queues_that_it_is_told(
        self, jobs: Odd, crew: Crew, diary: Diary, queue: str
    ) -> None:
        other = jobs.note.options(queue=f"{queue}.other").submit("other")
        crew.worker()
        assert jobs.note.submit("mine").result(10) == "mine"
        assert other.state() is State.READY
        assert [start.word for start in diary.starts()] == ["mine"]


class TestAsyncio(WorkerWorld):
    def test_jobs_are_submitted_and_awaited_without_blocking_the_loop(self, jobs: Odd, crew: Crew) -> None:
        crew.worker(concurrency=2)

        async def main() -> list[int]:
            handles = await asyncio.gather(*(jobs.add.submit_async(number, 1) for number in range(10)))
            return list(await asyncio.gather(*handles))

        assert asyncio.run(main()) == list(range(1, 11))


def busiest(diary: Diary, word: str) -> int:
    """How many jobs with this word ran at a time, at most."""
    moments = sorted((entry.at, 1 if entry.what == "start" else -1) for entry in diary.entries() if entry.word == word)
    assert all(before <= after for before, after in pairwise(moments))
    now = most = 0
    for _, change in moments:
        now += change
        most = max(most, now)
    return most
