"""What a worker answers over HTTP, and what it tells systemd."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import kq
from kq.app import App
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.jobs import WHERE, Jobs
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld
from kq.control import Control, health
from kq.errors import ConfigError
from tests.brokers import OnMemory, OnRabbit, OnRedis, OnSqlite
from tests.conftest import available
from tests.servers import RedisServer, free_port
from tests.worker.world import WorkerWorld


class Answers:
    """What is asked of a worker."""

    def __init__(self) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"

    def ask(self, path: str) -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def becomes(self, path: str, status: int, what: str) -> str:
        """What is answered as soon as it is answered with that status."""
        found = status, ""

        def look() -> bool:
            nonlocal found
            found = self.ask(path)
            return found[0] == status

        eventually(look, what, 30)
        return found[1]

    def numbers(self) -> dict[str, float]:
        """The samples of /metrics by name, those of the same name together."""
        status, text = self.ask("/metrics")
        assert status == 200
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
        return found


@pytest.fixture
def answers() -> Answers:
    return Answers()


class Asked(ContractWorld):
    """On every broker."""

    @pytest.fixture
    def worker(self, app: App, queue: str, answers: Answers) -> Iterator[kq.Worker]:
        with kq.Worker(app, queues=[queue], where=WHERE, concurrency=1, grace=5, health=answers.address) as worker:
            yield worker

    def test_a_worker_is_ready_when_it_takes_jobs(self, worker: kq.Worker, answers: Answers) -> None:
        eventually(lambda: answers.ask("/readyz") == (200, "ok\n"), "it takes jobs")
        assert answers.ask("/livez") == (200, "ok\n")
        assert answers.ask("/")[0] == 404

    def test_it_tells_what_it_has_done_and_as_control_what_waits(
        self, worker: kq.Worker, answers: Answers, jobs: Jobs, queue: str
    ) -> None:
        for handle in [jobs.note.submit() for _ in range(3)]:
            handle.result(20)
        jobs.note.options(delay=600).submit()
        eventually(lambda: answers.numbers().get("kq_jobs_started_total") == 3, "the beat after the jobs")
        eventually(lambda: "kq_workers" in answers.numbers(), "it makes control's rounds")
        told = answers.numbers()
        assert told["kq_job_duration_seconds_count"] == told["kq_job_wait_seconds_count"] == 3
        assert told["kq_broker_up"] == told["kq_build_info"] == 1
        delayed = f'kq_queue_jobs{{queue="{queue}",state="delayed"}} 1'
        eventually(lambda: delayed in answers.ask("/metrics")[1], "the broker tells of what is delayed")
        text = answers.ask("/metrics")[1]
        assert f'kq_job_wait_seconds_count{{queue="{queue}",priority="5"}} 3' in text
        assert told["kq_broker_roundtrip_seconds_count"] >= 1

    def test_it_tells_what_its_side_effects_came_to(
        self, worker: kq.Worker, answers: Answers, jobs: Jobs, queue: str
    ) -> None:
        word = uuid.uuid4().hex
        for _ in range(2):
            jobs.deed.submit(word).result(20)
        told = [
            f'kq_side_effects_total{{queue="{queue}",type="deed",result="{result}"}} {number}'
            for result, number in (("done", 1), ("duplicate", 1), ("unknown", 0))
        ]
        eventually(lambda: set(told) <= set(answers.ask("/metrics")[1].splitlines()), "the beat after the jobs", 30)

    def test_it_tells_how_often_it_had_to_join_again(
        self, worker: kq.Worker, answers: Answers, control: Control, queue: str
    ) -> None:
        eventually(lambda: answers.numbers().get("kq_broker_reconnects_total") == 0, "its first beat")
        (name,) = eventually(
            lambda: [row.name for row in control.snapshot().workers if queue in row.queues], "that beat is written down"
        )
        control.expel(name)
        eventually(lambda: answers.numbers()["kq_broker_reconnects_total"] == 1, "it is back", 30)


class TestAskedOnMemory(OnMemory, Asked):
    pass


class TestAskedOnSqlite(OnSqlite, Asked):
    pass


class TestAskedOnRedis(OnRedis, Asked):
    pass


class TestAskedOnRabbit(OnRabbit, Asked):
    pass


class TestOutages(ContractWorld):
    @pytest.fixture
    def server(self) -> Iterator[RedisServer]:
        with available(RedisServer) as server:
            yield server

    @pytest.fixture
    def broker_url(self, server: RedisServer) -> str:
        return server.url

    def test_a_worker_without_a_broker_lives_and_is_not_ready(
        self, app: App, queue: str, answers: Answers, server: RedisServer
    ) -> None:
        with kq.Worker(app, queues=[queue], where=WHERE, concurrency=1, grace=1, health=answers.address):
            eventually(lambda: answers.ask("/readyz")[0] == 200, "it takes jobs")
            server.stop()
            assert "broker" in answers.becomes("/readyz", 503, "it takes none")
            assert answers.ask("/livez") == (200, "ok\n")
            assert answers.ask("/metrics")[0] == 200
            server.start()
            eventually(lambda: answers.ask("/readyz")[0] == 200, "it takes jobs again")


class TestAlone(WorkerWorld):
    def test_a_loop_that_does_not_come_round_is_told(
        self, app: App, queue: str, answers: Answers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(health, "STUCK", 0.5)
        monkeypatch.setattr(type(app), "lease", 1.0)
        with kq.Worker(app, queues=[queue], where=WHERE, concurrency=1, health=answers.address) as worker:
            eventually(lambda: answers.ask("/readyz")[0] == 200, "it takes jobs")
            worker.supervisor.ask(lambda: time.sleep(2.0))
            assert "has not come round" in answers.becomes("/livez", 503, "it is stuck")
            eventually(lambda: answers.ask("/livez")[0] == 200, "it goes on")

    def test_one_that_ends_is_not_ready(
        self, app: App, jobs: Jobs, queue: str, diary: Diary, answers: Answers, tmp_path: Path
    ) -> None:
        gate = tmp_path / "gate"
        with kq.Worker(app, queues=[queue], where=WHERE, concurrency=1, health=answers.address) as worker:
            job = diary.begun(jobs.hold.submit(str(gate)))
            worker.supervisor.ask(worker.supervisor.stop)
            eventually(lambda: answers.ask("/readyz") == (503, "it ends\n"), "it ends")
            gate.touch()
            job.result(20)

    def test_an_address_that_is_none_or_taken_is_an_error_that_says_so(self, app: App, answers: Answers) -> None:
        with pytest.raises(ConfigError, match="no address"):
            kq.Worker(app, where=WHERE, health="8090")
        with (
            closing(socket.create_server(("127.0.0.1", answers.port))),
            pytest.raises(ConfigError, match="nobody can listen"),
        ):
            kq.Worker(app, where=WHERE, health=answers.address).start()

    def test_kq_health_tells_a_container_whether_it_takes_jobs(self, crew: Crew, answers: Answers) -> None:
        def asked(*more: str) -> int:
            code = "import sys; from kq.cli import main; sys.argv[0] = 'kq'; main()"
            with crew.start(code, "health", answers.address, *more) as process:
                return process.wait(30)

        assert asked() == 69
        crew.program("--health", answers.address)
        assert (asked(), asked("--live")) == (0, 0)

    def test_control_by_itself_answers_too_and_tells_of_all_queues(
        self, crew: Crew, jobs: Jobs, queue: str, answers: Answers
    ) -> None:
        jobs.note.submit()
        code = "import sys; from kq.cli import main; sys.argv[0] = 'kq'; main()"
        with crew.start(code, "control", "--health", answers.address) as process:
            eventually(lambda: refused(answers.ask, "/readyz") == (200, "ok\n"), "it makes rounds")
            assert answers.ask("/livez") == (200, "ok\n")
            eventually(lambda: f'{{queue="{queue}",state="ready"}} 1' in answers.ask("/metrics")[1], "it has the seat")
            process.terminate()
            assert process.wait(20) == 0


def refused(ask: Callable[[str], tuple[int, str]], path: str) -> tuple[int, str]:
    """What is answered; nothing while nobody listens."""
    try:
        return ask(path)
    except OSError:
        return 0, ""


class TestUnderSystemd(WorkerWorld):
    @pytest.fixture(autouse=True)
    def heard(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
        """What systemd is told, message by message."""
        heard: list[str] = []
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "400000")
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
            manager.bind(str(tmp_path / "notify"))

            def listen() -> None:
                while told := manager.recv(4096):
                    heard.append(told.decode())

            listener = threading.Thread(target=listen)
            listener.start()
            yield heard
            with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as last:
                last.sendto(b"", str(tmp_path / "notify"))
            listener.join(10)

    @pytest.mark.parametrize(("processes", "busy"), [(1, "STATUS=0 of 1 jobs"), (2, "STATUS=2 workers")])
    def test_it_is_told_of_readiness_of_every_beat_and_of_the_end(
        self, crew: Crew, heard: list[str], processes: int, busy: str
    ) -> None:
        worker = crew.program("--processes", str(processes), ready=False).ready(processes)
        beat = f"WATCHDOG=1\n{busy}"
        eventually(lambda: heard.count(beat) > 3, "it goes round", 20)
        assert f"READY=1\n{busy}" in heard
        worker.stop()
        assert "STOPPING=1\nSTATUS=ending" in heard


def test_several_processes_have_no_address_in_common(tmp_path: Path) -> None:
    from tests.cli.conftest import Place

    place = Place(tmp_path)
    place.write("jobs.py", 'import kq\napp = kq.App("shop")\n')
    said = place.kq("worker", "-A", "jobs:app", "--processes", "2", "--health", "127.0.0.1:0")
    assert said.code == 78
    assert "worker.processes is 2" in said.err
