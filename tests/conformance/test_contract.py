"""kq keeps its contract on every broker, and on brokers behind a network also when that is bad."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from kq.app import App
from kq.conformance.contract import ContractSuite, LotterySuite, ScarcitySuite, WireSuite
from kq.conformance.contract.alone import never_two, staff
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.faults import FAULTS
from kq.conformance.contract.figures import Figures, keeps, survives
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.outages import OUTAGE, Server
from kq.conformance.contract.page import PROMISES
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, Gate, deleted, elapsed
from tests.brokers import OnMemory, OnRabbit, OnRedis, OnSqlite, Wired
from tests.conftest import available, lasting
from tests.servers import RabbitServer, RedisServer


class TestContractOnMemory(OnMemory, ContractSuite):
    pass


class TestContractOnSqlite(OnSqlite, ContractSuite):
    pass


class TestASeatOfRabbit(OnRabbit, ContractWorld):
    """Whose queue people can take away with the tools of the broker, while it is consumed."""

    @keeps("C12")
    def test_when_its_queue_is_deleted_while_a_job_runs_the_next_one_waits_for_its_end(
        self, app: App, jobs: Jobs, crew: Crew, sole: str, diary: Diary, gate: Gate
    ) -> None:
        staff(app, crew, sole, 2)
        diary.begun(jobs.sole.submit(0.01, gate=gate.path))
        deleted(app, sole)
        since = time.monotonic()
        others = [jobs.sole.submit(0.01) for _ in range(3)]
        eventually(lambda: elapsed(since) > self.lease, "a lease is over")
        assert not diary.starts(others[0].id)
        gate.open()
        for other in others:
            other.result(20)
        never_two(diary)


class TestARemovedFile(OnSqlite, ContractWorld):
    """The end of a broker that is a file, for those who go on in the next one."""

    @keeps("C18")
    def test_workers_begin_anew_in_the_file_that_takes_the_place_of_one_that_was_removed(
        self, app: App, jobs: Jobs, crew: Crew, broker_url: str
    ) -> None:
        worker = crew.program()
        assert jobs.add.submit(1, 2).result(10) == 3
        for part in ("", "-wal", "-shm"):
            Path(broker_url.removeprefix("sqlite:///") + part).unlink()
        assert jobs.add.submit(3, 2).result(20) == 5
        assert "was removed or replaced" in worker.said()
        assert worker.process.poll() is None


class TestALockedFile(OnSqlite, ContractWorld):
    """An outage of a broker without a server."""

    lease = OUTAGE / 2

    @keeps("C18")
    def test_a_stranger_who_locks_the_file_for_longer_than_the_lease_is_survived(
        self, app: App, jobs: Jobs, crew: Crew, diary: Diary, broker_url: str, measured: Figures
    ) -> None:
        worker = crew.program(concurrency=2)
        handles = app.submit_many(jobs.nap.job(0.05) for _ in range(60))
        eventually(lambda: len(diary.starts()) >= 10, "jobs run")
        with closing(sqlite3.connect(broker_url.removeprefix("sqlite:///"), isolation_level=None)) as stranger:
            stranger.execute("BEGIN IMMEDIATE")
            time.sleep(OUTAGE)
            stranger.execute("ROLLBACK")
        back = time.time()
        for handle in handles:
            handle.result(20)
        assert worker.process.poll() is None
        first = min(start.at for start in diary.starts() if start.at > back)
        again = len(diary.starts()) - len(handles)
        measured(f"on after {first - back:.1f} s; 0 of {len(handles)} lost, {again} started again")


def test_the_page_of_the_contract_tells_every_promise_that_is_tested() -> None:
    promises = {
        promise
        for suite in (ContractSuite, WireSuite, LotterySuite)
        for name in dir(suite)
        if (promise := getattr(getattr(suite, name), "kq_promise", None))
    }
    assert promises == set(PROMISES)


def test_the_page_of_faults_tells_every_fault_that_is_brought_about() -> None:
    faults = {
        fault
        for suite in (ContractSuite, WireSuite, LotterySuite, ScarcitySuite)
        for name in dir(suite)
        if (fault := getattr(getattr(suite, name), "kq_fault", None))
    }
    of_workers = {"F7", "F10"}  # the same on every broker
    assert faults | of_workers == set(FAULTS)


class TestContractOnRedis(OnRedis, ContractSuite):
    pass


class TestContractOnRabbit(OnRabbit, ContractSuite):
    pass


@pytest.fixture(scope="module")
def mortal_redis() -> Iterator[RedisServer]:
    """A Redis that these tests end and start as they like.

    It syncs each write: with "everysec" it may put off even the write to its file while the disk is busy.
    """
    with available(lambda: RedisServer(fsync="always")) as server, lasting(server):
        yield server


class TestConsumerTimeoutOfRabbit(OnRabbit):
    @pytest.fixture
    def broker_url(self, mortal_rabbit: RabbitServer) -> Iterator[str]:
        with mortal_rabbit.impatient():
            yield mortal_rabbit.url

    @keeps("C3")
    @survives("F8")
    def test_a_job_that_is_longer_than_the_consumer_timeout_runs_once(
        self, jobs: Jobs, crew: Crew, diary: Diary, measured: Figures
    ) -> None:
        crew.worker()
        job = jobs.nap.submit(5.0)
        assert job.result(20)
        assert len(diary.starts(job.id)) == 1
        measured("1 start in 5 s under a consumer timeout of 2 s")
        measured.account()


class TestContractOnRedisInBadWeather(Wired, WireSuite):
    @pytest.fixture
    def server(self, mortal_redis: RedisServer) -> Server:
        return mortal_redis

    def url_at(self, port: int) -> str:
        return f"redis://127.0.0.1:{port}/0"


class TestContractOnRabbitInBadWeather(Wired, WireSuite):
    @pytest.fixture
    def server(self, mortal_rabbit: RabbitServer) -> Server:
        return mortal_rabbit

    @pytest.fixture
    def state_url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'state.db'}"

    def url_at(self, port: int) -> str:
        return f"amqp://guest:guest@127.0.0.1:{port}//"
