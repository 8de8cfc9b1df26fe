"""Slates: what one process writes there another reads, whole."""

from __future__ import annotations

import mmap
import os
import threading

import pytest

from kq.effects.context import CurrentJob, Footing
from kq.worker.slate import NOTHING, SIZE, TEXT, Slate, Written
from kq.worker.wire import Page


@pytest.fixture
def slate() -> Slate:
    return Slate(mmap.mmap(-1, 3 * SIZE), SIZE)


def test_what_is_written_is_read(slate: Slate) -> None:
    assert slate.read() == NOTHING
    slate.progress(3, 10, "page 3", 7.5)
    slate.extend(60)
    slate.extend(1.5)
    assert slate.read() == Written(3, 10, "page 3", 7.5, 61.5)
    slate.progress(4, 10, "", 8.5)
    assert slate.read() == Written(4, 10, "", 8.5, 61.5)


def test_a_new_job_finds_a_clean_slate(slate: Slate) -> None:
    slate.wipe()
    slate.progress(3, 10, "page 3", 7.5)
    slate.wipe()
    assert slate.read() == NOTHING


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_a_number_that_is_none_is_not_read(slate: Slate, number: float) -> None:
    slate.progress(number, 10, "page 3", 7.5)  # a job's code that reaches for its slate
    assert slate.read() == NOTHING
    slate.wipe()
    slate.extend(number)
    assert slate.read() == NOTHING


def test_a_text_is_kept_without_what_looks_like_a_secret_also_where_it_is_cut(slate: Slate) -> None:
    slate.progress(1, 0, f"{'å ' * 40}redis://:hunter2{'x' * 99}@host", 1.0)
    assert "hunter2" not in slate.read().text


def test_a_long_text_is_cut_between_characters(slate: Slate) -> None:
    slate.progress(1, 0, "å" * 100, 1.0)
    assert slate.read().text == "å" * (TEXT // 2)
    slate.progress(1, 0, "\ud800 half", 1.0)
    assert slate.read().text == "? half"


def test_neighbours_are_left_alone() -> None:
    memory = mmap.mmap(-1, 3 * SIZE)
    slates = [Slate(memory, place * SIZE) for place in range(3)]
    slates[1].progress(1, 2, "x" * 200, 3.0)
    assert [each.read().text for each in slates] == ["", "x" * TEXT, ""]


def test_who_reads_while_somebody_writes_sees_one_or_the_other(slate: Slate) -> None:
    over = threading.Event()

    def write() -> None:
        n = 0
        while not over.is_set():
            n += 1
            slate.progress(n, n, "x" * (n % TEXT), n)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(2000):
            seen = slate.read()
            assert seen.n == seen.of == seen.at
    finally:
        over.set()
        writer.join()


def test_the_supervisor_reads_what_jobs_write_by_job() -> None:
    page = Page(3)
    try:
        ours = Page(3, os.dup(page.descriptor))
        ours.mark(1, 7)
        ours.slates[1].progress(1, 2, "", 3.0)
        ours.mark(2, 8)
        assert page.written() == {7: Written(1, 2, "", 3.0)}
        ours.mark(1, 9)
        assert page.written() == {}
        ours.close()
    finally:
        page.close()


def job(slate: Slate) -> CurrentJob:
    return CurrentJob("1", "t", "q", 1, 100.0, Footing(None), slate=slate)  # type: ignore[arg-type]


@pytest.mark.parametrize(("n", "of"), [(-1, 0), (float("nan"), 0), (1, float("inf")), (1, -3)])
def test_progress_that_is_no_number_is_refused(slate: Slate, n: float, of: float) -> None:
    with pytest.raises(ValueError, match="out of range"):
        job(slate).progress(n, of)


def test_more_time_adds_up_and_may_be_written_as_people_do(slate: Slate) -> None:
    running = job(slate)
    running.extend("5m")
    running.extend(1)
    assert (running.until, slate.read().more) == (401.0, 301.0)
    for wrong in (-1, 400 * 86400):
        with pytest.raises(ValueError, match="out of range|duration"):
            running.extend(wrong)


def test_the_last_lines_of_a_log_stay(slate: Slate) -> None:
    running = job(slate)
    for number in range(1000):
        running.keep(f"line {number:04}\n")
    lines = running.log.splitlines()
    assert lines[-1] == "line 0999"
    assert lines[0] == f"line {1000 - len(lines):04}"
    assert 4000 < len(running.log) <= 4096
    running.keep("x" * 10_000)
    assert len(running.log) == 4096
