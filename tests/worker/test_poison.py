"""A job that kills its executors is set aside soon, with its last words, and the jobs behind it run on."""

from __future__ import annotations

import time

import pytest

from kq.app import App
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.world import ContractWorld, buried
from kq.control import Control
from kq.worker.pool import PoolKind
from kq.worker.wire import LOG_SIZE, Page
from tests.brokers import OnMemory, OnRabbit, OnRedis, OnSqlite
from tests.worker.unruly import WHERE, Unruly
from tests.worker.world import POOLS

INNOCENT = 40
WITHIN = 5.0  # seconds until it is set aside


class Poison(ContractWorld):
    application = WHERE

    @pytest.fixture
    def jobs(self, app: App) -> Unruly:
        return Unruly(app)

    @pytest.mark.parametrize("pool", POOLS)
    def test_it_is_buried_with_its_signal_and_its_last_words_while_others_run(
        self, app: App, control: Control, jobs: Unruly, crew: Crew, diary: Diary, pool: PoolKind
    ) -> None:
        crew.worker(pool=pool, concurrency=2)
        began = time.monotonic()
        poison, *others = app.submit_many(
            [jobs.last_words.job(300), *(jobs.note.job(str(number)) for number in range(INNOCENT))]
        )
        assert [handle.result(WITHIN) for handle in others] == [str(number) for number in range(INNOCENT)]
        found = buried(control, poison.queue, poison, WITHIN)
        assert time.monotonic() - began < WITHIN
        assert found.attempt == len(diary.starts(poison.id)) == 3
        assert "signal 9" in found.error
        lines = found.log.splitlines()
        assert lines[-1].endswith("WARNING shop: page 300 of 300")
        assert len(lines) > 50
        assert len(found.log.encode()) <= LOG_SIZE
        # Those that shared the first executor with it may have been started again.
        assert all(len(diary.starts(handle.id)) <= 2 for handle in others)


class TestOnMemory(OnMemory, Poison):
    pass


class TestOnSqlite(OnSqlite, Poison):
    pass


class TestOnRedis(OnRedis, Poison):
    pass


class TestOnRabbit(OnRabbit, Poison):
    pass


class TestTheLogOfAPage:
    def test_it_keeps_the_last_whole_lines_in_their_order(self) -> None:
        page = Page(1)
        assert page.log() == ""
        page.remember("first\n")
        assert page.log() == "first\n"
        for number in range(1000):
            page.remember(f"line {number}\n")
        lines = page.log().splitlines()
        assert lines == [f"line {number}" for number in range(1000 - len(lines), 1000)]
        assert LOG_SIZE - 20 <= len(page.log()) <= LOG_SIZE
        page.remember("é" * 3 * LOG_SIZE + "\n")
        page.remember("last\n")
        assert page.log() == "last\n"
        page.forget()
        assert page.log() == ""
        page.close()
