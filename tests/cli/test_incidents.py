"""Incidents, brought about with real workers on each broker: a stranger finds the cause with one command, and with at
most three keys at the monitor, and what to type next.

Each is a row of the table in docs/operations.md, which names its test: what is asked, what is said, which keys show it
and what is to be done are read from there.
"""

from __future__ import annotations

import io
import re
import shlex
import socket
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from kq import __version__
from kq.app import App
from kq.cli.frame import run
from kq.cli.monitor.board import Size, render
from kq.cli.monitor.press import press
from kq.cli.monitor.source import Live
from kq.cli.monitor.state import Ui
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, Gate, buried, requires
from kq.control import Control
from kq.values.job import State
from tests.brokers import OnMemory, OnRabbit, OnRedis, OnSqlite
from tests.conftest import available
from tests.docs.pages import ROOT
from tests.servers import RabbitServer, RedisServer, Server
from tests.unit.test_monitor_picture import text_of
from tests.worker.test_health import Answers

ROW = re.compile(
    r"^\|[^|]+\|[^|]+\| (?P<ask>[^|]+) \| (?P<says>[^|]+) \| (?P<seen>[^|]+) \| (?P<then>[^|]+) "
    r"\| `(?P<test>test_\w+)` \|$"
)
QUOTED = re.compile(r"`([^`]+)`")
SIZE = Size(100, 30)


def rows() -> Iterator[re.Match[str]]:
    """The table."""
    text = (ROOT / "docs" / "operations.md").read_text()
    table = text.partition("| incident |")[2].partition("\n\n")[0]
    for line in table.splitlines()[2:]:
        found = ROW.match(line)
        assert found, line
        yield found


def typed(*words: str) -> str:
    """What a command prints, whatever its exit code says."""
    with redirect_stdout(io.StringIO()) as said, redirect_stderr(said):
        run(words)
    return said.getvalue()


class Monitor:
    """The screen of a monitor, without its terminal."""

    def __init__(self, app: App) -> None:
        self._source = Live(lambda: Control(app), "", lambda shot: ())
        self._ui = Ui()

    def __enter__(self) -> Self:
        self._source.start()
        eventually(lambda: self._source.scene().freshness != "waiting", "the first look")
        return self

    def __exit__(self, *exc: object) -> None:
        self._source.stop()

    def press(self, key: str) -> None:
        self._ui, act = press(self._ui, key, self._source.scene())
        assert act is None, act
        self._source.want(self._ui.page, every=0.2)

    def seen(self) -> str:
        """What is on it, without frames and spaces: what is long is broken anywhere."""
        return bare(text_of(render(self._ui, self._source.scene(), SIZE)))


def bare(text: str) -> str:
    return re.sub(r"[\s│╭╮╰╯─]", "", text)


@dataclass(frozen=True)
class Incident:
    """A row. ask: the command; says: what its answer has to say; then: the command to type next.

    keys: what to press at the monitor, and shows: what is on its screen then; "" where it is not there that one looks.
    """

    ask: str
    says: tuple[str, ...]
    then: str
    keys: tuple[str, ...]
    shows: str
    app: App

    def happens(self, **names: str) -> None:
        """Ask, and find in the answer all that the row says, the next command too; and what it says of the monitor.

        names: what stands for what.
        """
        said = typed(*shlex.split(filled(self.ask, names))[1:])
        for each in (*self.says, self.then):
            assert filled(each, names) in said, said
        if self.shows:
            self._is_seen(bare(filled(self.shows, names)))

    def _is_seen(self, text: str) -> None:
        assert len(self.keys) <= 3
        with Monitor(self.app) as monitor:
            if "3" in self.keys:
                eventually(lambda: "failures&buried0" not in monitor.seen(), "its worker has told of it")
            for key in self.keys:
                monitor.press(key)
            eventually(lambda: text in monitor.seen(), f"{text} on the screen", more=monitor.seen)

    def mend(self, **names: str) -> str:
        """Type the next command."""
        return typed(*shlex.split(filled(self.then, names))[1:])


def filled(text: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        text = re.sub(rf"\b{name}\b", value, text)
    return text


class Staged(ContractWorld):
    """What the row of a test says."""

    @pytest.fixture
    def incident(self, request: pytest.FixtureRequest, app: App) -> Incident:
        (row,) = [row for row in rows() if row["test"] == request.node.originalname]
        (ask,), says = (QUOTED.findall(row[name]) for name in ("ask", "says"))
        then = re.findall(r"`(kq [^`]+|timedatectl [^`]+)`", row["then"])
        before, _, after = row["seen"].partition(":")
        keys = tuple(key.lower() for key in QUOTED.findall(before))
        return Incident(ask, tuple(says), then[0], keys, "".join(QUOTED.findall(after)), app)


class Incidents(Staged):
    """Those that may happen on any broker."""

    def test_no_worker_takes_a_queue(self, incident: Incident, jobs: Jobs, crew: Crew, queue: str) -> None:
        crew.worker(queues="another")
        job = jobs.note.submit("x")
        incident.happens(QUEUE=queue)
        crew.worker()
        assert job.result(10) == "x"

    def test_a_queue_is_paused(self, incident: Incident, jobs: Jobs, crew: Crew, queue: str) -> None:
        crew.worker()
        typed("queues", "pause", queue, "--reason", "the bank is closed")
        job = jobs.note.submit("x")
        incident.happens(ID=job.id, QUEUE=queue)
        incident.mend(QUEUE=queue)
        assert job.result(10) == "x"

    def test_a_job_type_is_paused(self, incident: Incident, jobs: Jobs, crew: Crew) -> None:
        crew.worker()
        typed("queues", "pause", "--type", "note")
        job = jobs.note.submit("x")
        eventually(lambda: job.state() is State.PAUSED, "it is parked")
        incident.happens()
        incident.mend()
        assert job.result(10) == "x"

    def test_a_job_kills_whatever_runs_it(
        self, incident: Incident, jobs: Jobs, crew: Crew, control: Control, queue: str
    ) -> None:
        crew.worker()
        job = jobs.perform.submit(["signal 9"])
        buried(control, queue, job)
        incident.happens(ID=job.id)
        assert "its executor died" in incident.mend(ID=job.id)
        typed("jobs", "edit", job.id, "--set", 'args.0=["return"]')
        typed("jobs", "kick", job.id)
        assert job.result(10) == 1

    def test_a_worker_is_dead(
        self,
        incident: Incident,
        app: App,
        jobs: Jobs,
        crew: Crew,
        control: Control,
        diary: Diary,
        gate: Gate,
        queue: str,
    ) -> None:
        requires(app, "shared")
        victim = crew.program()
        (name,) = [worker.name for worker in control.workers()]
        job = diary.begun(jobs.hold.submit(gate.path))
        victim.kill()
        gate.open()
        eventually(lambda: not control.workers(), "its lease is over")
        incident.happens(WORKER=name, QUEUE=queue)
        crew.worker()
        job.result(10)

    def test_a_backlog_grows(
        self, incident: Incident, app: App, jobs: Jobs, crew: Crew, control: Control, queue: str
    ) -> None:
        crew.worker()
        eventually(lambda: control.snapshot().history.total, "control has looked once")
        handles = app.submit_many(jobs.nap.job(0.2) for _ in range(40))
        eventually(lambda: "all busy" in typed("status"), "it is seen that it grows")
        incident.happens(QUEUE=queue)
        for _ in range(2):
            crew.worker(concurrency=4)
        for handle in handles:
            handle.result(20)

    def test_jobs_of_other_queues_take_all_the_room(
        self, incident: Incident, jobs: Jobs, crew: Crew, control: Control, diary: Diary, gate: Gate, queue: str
    ) -> None:
        other = f"{queue}-other"
        crew.worker(queues=f"{queue},{other}")
        long = diary.begun(jobs.hold.options(queue=other).submit(gate.path))
        job = jobs.note.submit("x")
        eventually(control.ping, "the worker says what it runs")
        incident.happens(QUEUE=queue, OTHER=other)
        crew.worker(queues=queue)
        assert job.result(10) == "x"
        gate.open()
        long.result(10)

    def test_a_job_waits_and_does_not_end(
        self, incident: Incident, jobs: Jobs, crew: Crew, control: Control, diary: Diary, gate: Gate
    ) -> None:
        crew.worker()
        job = diary.begun(jobs.hold.submit(gate.path))
        eventually(control.ping, "the worker says that it does")
        (name,) = [worker.name for worker in control.workers()]
        incident.happens(ID=job.id, WORKER=name)
        assert "in hold" in incident.mend(ID=job.id)
        gate.open()
        job.result(10)

    def test_the_worker_that_had_a_singletons_seat_is_gone(
        self, incident: Incident, app: App, jobs: Jobs, crew: Crew, control: Control, diary: Diary, sole: str
    ) -> None:
        requires(app, "shared")
        frozen = crew.program(queues=sole)
        first = diary.begun(jobs.sole.submit(60))
        eventually(control.ping, "its worker says that it has the seat")
        (name,) = [worker.name for worker in control.workers()]
        frozen.pause()
        next = jobs.sole.submit(0)
        eventually(lambda: not control.workers(), "its lease is over")
        incident.happens(QUEUE=sole, WORKER=name)
        first.revoke()
        crew.worker(queues=sole)
        next.result(20)

    def test_a_side_effect_is_in_doubt(
        self, incident: Incident, jobs: Jobs, crew: Crew, control: Control, queue: str
    ) -> None:
        crew.worker()
        job = jobs.deed.submit("invoice 7", "signal 9")
        buried(control, queue, job)
        incident.happens(ID=job.id)
        incident.mend(ID=job.id)
        assert job.result(10) is None

    def test_nobody_knows_the_type_of_a_job(
        self, incident: Incident, app: App, jobs: Jobs, crew: Crew, control: Control, queue: str
    ) -> None:
        crew.worker()
        job = app.submit("noet", "x")
        buried(control, queue, job)
        incident.happens(ID=job.id)
        typed("jobs", "kick", job.id)
        buried(control, queue, job)
        assert "deleted" in typed(*shlex.split(f"jobs rm {job.id} --yes"))


class TestOnMemory(Incidents, OnMemory):
    pass


class TestOnSqlite(Incidents, OnSqlite):
    pass


class TestOnRedis(Incidents, OnRedis):
    pass


class TestOnRabbit(Incidents, OnRabbit):
    pass


class Clocks(Staged):
    """A server has a clock of its own."""

    def test_the_clock_of_a_host_is_wrong(self, incident: Incident, crew: Crew, control: Control) -> None:
        crew.program(ahead=300.0)
        assert [worker.kq for worker in control.workers()] == [__version__]  # which the doctor compares, too
        incident.happens(HOST=socket.gethostname())


class TestClocksOnRedis(Clocks, OnRedis):
    pass


class TestClocksOnRabbit(Clocks, OnRabbit):
    @pytest.fixture
    def state_url(self, redis_url: str) -> str:
        return redis_url


class Lost(Staged):
    """The broker is lost, and found again. A subclass has a fixture `server`, which no other test uses meanwhile."""

    @pytest.fixture
    def broker_url(self, server: Server) -> str:
        return server.url

    def test_the_broker_is_lost(self, incident: Incident, server: Server, crew: Crew, jobs: Jobs) -> None:
        crew.worker()
        server.kill()
        incident.happens()
        assert "firewall" in incident.mend()
        server.start()
        assert jobs.note.submit("x").result(20) == "x"

    def test_a_worker_has_lost_its_broker(self, incident: Incident, server: Server, crew: Crew) -> None:
        answers = Answers()
        crew.worker("--health", answers.address)
        answers.becomes("/readyz", 200, "it takes jobs")
        server.kill()
        eventually(lambda: "not connected" in answers.ask("/readyz")[1], "it has given the connection up")
        incident.happens(**{"HOST:PORT": answers.address})
        server.start()
        answers.becomes("/readyz", 200, "it takes jobs again")


class TestLostOnRedis(Lost):
    @pytest.fixture
    def server(self) -> Iterator[Server]:
        with available(RedisServer) as server:
            yield server


class TestLostOnRabbit(Lost):
    @pytest.fixture
    def server(self, mortal_rabbit: RabbitServer) -> Server:
        return mortal_rabbit

    @pytest.fixture
    def state_url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'state.db'}"


def test_each_row_of_the_table_is_staged() -> None:
    staged = {name for kind in (Incidents, Clocks, Lost) for name in dir(kind) if name.startswith("test_")}
    assert {row["test"] for row in rows()} == staged
