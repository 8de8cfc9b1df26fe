"""Streams: what a job emits is read while it runs and after, by who comes late too, on every broker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from kq.conformance.contract.crew import Crew
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, Gate, in_pools, with_settings
from kq.control import Control
from kq.errors import JobBuried, ResultTimeout, StreamCut
from kq.handles.handle import Handle
from kq.handles.stream import Chunk
from kq.state import Write
from kq.values.record import lease_key

#: So many chunks are kept where they are too many.
MOST = 40
WORDS = ["one ", "two ", "three ", "four"]


@contextmanager
def reading(job: Handle[int]) -> Iterator[list[Chunk]]:
    """What is read of a job's stream in a thread, from now to the job's end; the block ends with it."""
    read: list[Chunk] = []
    thread = threading.Thread(target=lambda: read.extend(job.stream(timeout=30)), daemon=True)
    # extend() takes one after the other, so that what has come is seen.
    thread.start()
    yield read
    thread.join(30)
    assert not thread.is_alive()


def values(chunks: Sequence[Chunk]) -> list[object]:
    return [chunk.value for chunk in chunks]


class Streaming(ContractWorld):
    """What a job says piece by piece."""

    @in_pools("process", "thread", "async")
    def test_who_reads_gets_what_was_emitted_and_then_what_comes(
        self, jobs: Jobs, crew: Crew, gate: Gate, pool: str
    ) -> None:
        crew.worker(pool=pool)  # type: ignore[arg-type]
        job = jobs.say.submit(WORDS, gate.path)
        stream = job.stream(timeout=20)
        begun = [next(stream).value for _ in WORDS[:-1]]
        assert begun == WORDS[:-1]  # while it runs
        gate.open()
        assert [chunk.value for chunk in stream] == WORDS[-1:]
        assert job.result(20) == len(WORDS)

    @in_pools("async", "process")
    def test_coroutines_emit_and_read_likewise(self, jobs: Jobs, crew: Crew, gate: Gate, pool: str) -> None:
        crew.worker(pool=pool)  # type: ignore[arg-type]

        async def follow(job: Handle[int]) -> list[object]:
            read: list[object] = []
            async with job.stream(timeout=20) as stream:
                async for chunk in stream:
                    read.append(chunk.value)
                    if len(read) == len(WORDS) - 1:
                        gate.open()
            return read

        assert asyncio.run(follow(jobs.say_async.submit(WORDS, gate.path))) == WORDS

    def test_who_comes_late_reads_all_and_who_comes_back_the_rest(self, jobs: Jobs, crew: Crew) -> None:
        crew.worker()
        job = jobs.say.submit([{"n": n, "text": "ö" * n} for n in range(MOST)])
        assert job.result(20) == MOST
        read = list(job.stream(timeout=5))
        assert values(read) == [{"n": n, "text": "ö" * n} for n in range(MOST)]
        assert [chunk.offset for chunk in read] == list(range(MOST))
        assert [chunk.begins for chunk in read] == [True, *[False] * (MOST - 1)]
        assert list(job.stream(MOST - 3, timeout=5)) == read[-3:]
        assert list(job.stream(MOST, timeout=5)) == []

    def test_many_read_one_stream_at_once(self, jobs: Jobs, crew: Crew, gate: Gate) -> None:
        job = jobs.say.submit(WORDS, gate.path)
        with reading(job) as first, reading(job) as second:
            crew.worker()
            eventually(lambda: len(first) == len(second) == len(WORDS) - 1, "both have read the beginning")
            gate.open()
        assert values(first) == values(second) == WORDS

    def test_a_retry_begins_anew_and_the_reader_learns_it(self, jobs: Jobs, crew: Crew) -> None:
        crew.worker()
        job = jobs.say.submit(WORDS, acts=["raise OSError", "signal 9"])
        assert job.result(30) == len(WORDS)
        late = list(job.stream(timeout=5))
        assert values(late) == WORDS
        assert late[0].begins
        assert {chunk.attempt for chunk in late} == {3}
        assert late[0].offset >= len(WORDS)  # counted through all attempts
        assert list(job.stream(2, timeout=5)) == late  # who was in the middle of the first attempt

    def test_who_reads_while_it_fails_sees_both_attempts(self, jobs: Jobs, crew: Crew, gate: Gate) -> None:
        job = jobs.say.submit(WORDS, gate.path, acts=["raise OSError"])
        with reading(job) as read:
            crew.worker()
            eventually(lambda: len(read) == len(WORDS) - 1, "the beginning is read")
            gate.open()
        second = next(number for number, chunk in enumerate(read) if chunk.begins and number)
        assert values(read[second:]) == WORDS
        assert [chunk.attempt for chunk in read] == [1] * second + [2] * len(WORDS)

    def test_a_stream_ends_with_a_job_that_is_buried(self, jobs: Jobs, crew: Crew) -> None:
        crew.worker()
        job = jobs.say.submit(WORDS, acts=["bad"])
        assert values(list(job.stream(timeout=20))) == WORDS
        with pytest.raises(JobBuried):
            job.result(5)

    @with_settings(KQ_STREAMS_MOST=str(MOST))
    def test_what_is_too_much_is_left_out_and_the_reader_is_told(self, jobs: Jobs, crew: Crew) -> None:
        crew.worker()
        job = jobs.say.submit(list(range(MOST + 7)))
        assert job.result(20) == MOST
        stream, read = job.stream(timeout=5), list[object]()
        with pytest.raises(StreamCut) as cut:
            read.extend(chunk.value for chunk in stream)
        assert (cut.value.job, cut.value.error) == (job.id, "7 of its chunks were left out")
        assert read == list(range(MOST))

    def test_reading_ends_at_the_timeout(self, jobs: Jobs, crew: Crew, gate: Gate) -> None:
        crew.worker()
        job = jobs.say.submit(WORDS, gate.path)
        stream = job.stream(timeout=3)
        assert [next(stream).value for _ in WORDS[:-1]] == WORDS[:-1]
        with pytest.raises(ResultTimeout):
            next(stream)
        gate.open()
        job.result(20)

    def test_a_job_that_emits_nothing_has_an_empty_stream(self, jobs: Jobs, crew: Crew) -> None:
        crew.worker()
        assert list(jobs.note.submit("word").stream(timeout=20)) == []

    def test_of_a_job_whose_result_is_not_kept_no_stream_is(self, jobs: Jobs, crew: Crew, diary: object) -> None:
        crew.worker()
        job, last = jobs.whisper.submit(WORDS), jobs.note.submit()
        last.result(20)
        with pytest.raises(ResultTimeout):
            list(job.stream(timeout=0))

    def test_the_words_of_a_worker_that_lost_its_lease_are_refused(
        self, control: Control, jobs: Jobs, crew: Crew, gate: Gate
    ) -> None:
        worker = crew.worker()
        job = jobs.say.submit(WORDS, gate.path)
        stream = job.stream(timeout=30)
        assert [next(stream).value for _ in WORDS[:-1]] == WORDS[:-1]
        (name,) = (each.name for each in control.workers())
        (executor,) = eventually(worker.executors, "there is an executor")
        assert executor.is_running()
        control.app.store.write([Write(lease_key(name), None)])  # as it is when others took it for dead
        gate.open()
        rest = list(stream)
        # What it said last was refused, and the attempt that counts said all of it.
        second = next(number for number, chunk in enumerate(rest) if chunk.begins)
        assert values(rest[:second]) in ([], WORDS[-1:])
        assert values(rest[second:]) == WORDS
