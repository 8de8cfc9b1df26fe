"""C18 outage, and what C6 and C14 promise of it: for brokers that are reached through a network."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

import psutil
import pytest

from kq.app import App
from kq.conformance.contract.crew import Crew, Program
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.figures import Figures, keeps, survives
from kq.conformance.contract.jobs import QUEUE, Jobs
from kq.conformance.contract.processes import descriptors, status
from kq.conformance.contract.waiting import DEADLINE, eventually
from kq.conformance.contract.world import SUBMIT_TIMEOUT, ContractWorld, Gate, elapsed, outcome
from kq.control import Control, Health
from kq.errors import BrokerUnreachable, JobBuried
from kq.handles.handle import Handle
from kq.values.job import State

MIB = 1024 * 1024

#: Seconds that a long outage takes: twice a lease. `make outages` asks for half a minute under the usual lease.
OUTAGE = float(os.environ.get("KQ_OUTAGE") or 4)
#: How often the network resets every connection; 150 times with `make outages`, 10 000 times with `make churn`.
RESETS = int(os.environ.get("KQ_RESETS") or 20)
#: How often something is cut off that does not go on before it has noticed.
CUTS = int(os.environ.get("KQ_CUTS") or 3)
#: Seconds by which a slow network holds every byte back, in each direction; 1 with `make outages`.
SLOW = float(os.environ.get("KQ_SLOW") or 0.2)
#: So many connections may be needed for the first time when half of the resets are over.
LATER = 2
#: Bytes of memory by which a program may grow when a tenth of the resets is over.
GROWTH = 3 * MIB
SLACK = 0.5  # seconds by which a submit may end late
PRODUCERS = 3
BACK = 2.0  # seconds after which work goes on when the broker answers again


class Server(Protocol):
    """A broker's server that can be ended and started again with the same data, at the same address."""

    port: int

    def start(self) -> None:
        """Start it, and wait until it takes connections."""

    def stop(self) -> None:
        """End it in good order."""

    def kill(self) -> None:
        """kill -9."""

    def remember(self) -> None:
        """See to it that the queues which were declared survive a kill at once, where the server takes its time."""


class Wire(Protocol):
    """The network before the server, which misbehaves on command."""

    port: int

    @property
    def descriptors(self) -> int:
        """How many descriptors of this process it takes to pass on what goes through it now."""

    def cut(self) -> None:
        """Reset every connection; new ones work."""

    def drop(self) -> None:
        """Close every connection in good order; new ones work."""

    def delay(self, seconds: float) -> None:
        """Hold every byte back for so long, in each direction; 0 undoes it."""

    def refuse(self) -> None:
        """Reset every connection, and each new one at once, until restore()."""

    def freeze(self) -> None:
        """Be a black hole until restore(): nothing passes, nothing closes."""

    def forget(self) -> None:
        """Leave every connection half-open: the server's side ends, the client is never told."""

    def restore(self) -> None:
        """Be a good network again."""


class Ends:
    """What the two programs at the ends of a wire hold: the one that submits and a worker.

    The first is this process, and the wire is too: the descriptors that it needs are not counted.
    """

    def __init__(self, worker: Program, wire: Wire) -> None:
        self._wire = wire
        self._ends = psutil.Process(), worker.supervisor

    def descriptors(self) -> tuple[int, ...]:
        """How many are open, at each end."""
        here, there = (process.num_fds() for process in self._ends)
        return here - self._wire.descriptors, there

    def memory(self) -> tuple[int, ...]:
        """Resident bytes, at each end."""
        return tuple(process.memory_info().rss for process in self._ends)

    def told(self) -> str:
        """All descriptors, for people."""
        here, there = ("\n".join(descriptors(process)) for process in self._ends)
        return f"; {self.descriptors()} are, in the program that submits:\n{here}\nand in the supervisor:\n{there}"


class OnAWire(ContractWorld):
    """A broker behind a network.

    A subclass says what its URL is, and has two fixtures: `server`, a Server of the test's own or of its class', and
    `wire`, a Wire before it.
    """

    lease = OUTAGE / 2

    def url_at(self, port: int) -> str:
        """The URL of the broker at a loopback port."""
        raise NotImplementedError

    @pytest.fixture
    def broker_url(self, wire: Wire) -> str:
        return self.url_at(wire.port)

    @pytest.fixture
    def direct(self, environment: dict[str, str], state_url: str | None, server: Server) -> Iterator[App]:
        """The same app on a good network."""
        app = App("direct", self.url_at(server.port), state=state_url, queue=environment[QUEUE])
        yield app
        app.close()


def notices(worker: Program) -> None:
    """Wait until worker says that the broker is gone."""
    eventually(lambda: any(word in worker.said() for word in ("trying again", "run elsewhere")), "it has noticed")


def unretired(control: Control) -> list[str]:
    """The workers that are dead and have not been retired yet."""
    beats = control.heartbeat_check()
    return [beat.worker.name for beat in beats if beat.health is Health.DEAD and not beat.worker.retired]


class Produced:
    """What producers have been told. stored: ids; refused: how many submits raised."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        self.refused = 0
        self.over = threading.Event()

    def submit(self, url: str, state: str, queue: str) -> None:
        """The life of a producer: one job after the other, over a connection of its own."""
        app = App("producer", url, state=state, queue=queue)
        note = Jobs(app).note
        while not self.over.is_set():
            try:
                self.stored.append(note.submit().id)
            except BrokerUnreachable:
                self.refused += 1
        app.close()


@contextmanager
def producing(url: str, state: str, queue: str) -> Iterator[Produced]:
    """Producers that submit as fast as they can, until the body ends."""
    produced = Produced()
    with ThreadPoolExecutor(PRODUCERS) as pool:
        lives = [pool.submit(produced.submit, url, state, queue) for _ in range(PRODUCERS)]
        try:
            yield produced
        finally:
            produced.over.set()
    for life in lives:
        life.result()


def at_work(app: App, jobs: Jobs, crew: Crew, diary: Diary) -> tuple[Program, list[Handle[int]]]:
    """A worker that runs the first of a hundred short jobs."""
    worker = crew.program(concurrency=2)
    handles = app.submit_many(jobs.nap.job(0.05) for _ in range(100))
    eventually(lambda: len(diary.starts()) >= 20, "jobs run")
    return worker, handles


class Outage(OnAWire):
    """C18: workers go on by themselves, and nothing is lost."""

    @keeps("C18")
    @pytest.mark.parametrize("how", ["stop", "kill"])
    @survives("F3")
    def test_a_restart_of_the_broker_is_survived(
        self, app: App, jobs: Jobs, crew: Crew, diary: Diary, server: Server, measured: Figures, how: str
    ) -> None:
        worker, handles = at_work(app, jobs, crew, diary)
        server.remember()
        getattr(server, how)()
        notices(worker)
        server.start()
        self.goes_on(worker, handles, diary, measured)

    @keeps("C18")
    @survives("F3")
    def test_a_broker_that_is_down_for_longer_than_the_lease_is_waited_for(
        self, app: App, jobs: Jobs, crew: Crew, diary: Diary, server: Server, measured: Figures
    ) -> None:
        worker, handles = at_work(app, jobs, crew, diary)
        server.remember()
        server.kill()
        time.sleep(OUTAGE)
        server.start()
        self.goes_on(worker, handles, diary, measured)

    @keeps("C18")
    @pytest.mark.parametrize("how", ["stop", "kill"])
    @survives("F3")
    def test_a_restart_under_load_loses_nothing_that_was_acknowledged(
        self,
        app: App,
        control: Control,
        queue: str,
        crew: Crew,
        diary: Diary,
        server: Server,
        measured: Figures,
        how: str,
    ) -> None:
        workers = [crew.program(concurrency=2) for _ in range(2)]
        server.remember()
        with producing(app.address.url, app.address.state, queue) as produced:
            eventually(lambda: len(produced.stored) >= 200, "jobs are submitted")
            getattr(server, how)()
            server.start()
            goal, back = len(produced.stored) + 200, time.time()
            eventually(lambda: len(produced.stored) >= goal, "jobs are submitted again")
        stored = set(produced.stored)
        eventually(lambda: {end.id for end in diary.ends()} >= stored, "all that was stored has ended", 60)
        eventually(lambda: not control.jobs(queue), "nothing is left")
        assert all(worker.process.poll() is None for worker in workers)
        first = min(start.at for start in diary.starts() if start.at > back)
        measured(
            f"{len(stored)} submits of {PRODUCERS} producers, {produced.refused} refused: 0 lost, "
            f"{diary.twice()} run twice; on after {first - back:.1f} s"
        )
        measured.account(twice=diary.twice(), back=first - back)
        assert first - back <= BACK

    @keeps("C18")
    @survives("F4")
    def test_a_black_hole_that_is_longer_than_the_lease_is_survived(
        self, app: App, jobs: Jobs, crew: Crew, diary: Diary, wire: Wire, measured: Figures
    ) -> None:
        worker, handles = at_work(app, jobs, crew, diary)
        wire.freeze()
        time.sleep(OUTAGE)
        wire.restore()
        self.goes_on(worker, handles, diary, measured)

    @keeps("C18")
    @pytest.mark.parametrize("how", ["cut", "drop"])
    @survives("F4")
    def test_connections_that_end_again_and_again_are_survived(
        self, app: App, jobs: Jobs, crew: Crew, diary: Diary, wire: Wire, measured: Figures, how: str
    ) -> None:
        worker = crew.program(concurrency=2)
        handles = app.submit_many(jobs.nap.job(0.02) for _ in range(200))
        for number in range(5):
            eventually(lambda goal=20 * (number + 1): len(diary.starts()) >= goal, "jobs run")  # type: ignore[misc]
            getattr(wire, how)()
        self.goes_on(worker, handles, diary, measured)

    @keeps("C18")
    @survives("F4")
    def test_what_had_ended_when_the_connection_broke_does_not_run_again(
        self, control: Control, queue: str, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate, wire: Wire
    ) -> None:
        worker = crew.program()
        (executor,) = worker.executors()
        job = jobs.hold.submit(gate.path)
        eventually(lambda: diary.starts(), "it runs")
        worker.pause_supervisor()
        gate.open()
        eventually(lambda: diary.ends() and status(executor) == psutil.STATUS_SLEEPING, "its end waits to be heard")
        wire.cut()
        worker.supervisor.resume()
        assert job.result(20)
        eventually(lambda: not control.jobs(queue), "nothing is left")
        assert len(diary.starts()) == 1

    @keeps("C18")
    @pytest.mark.parametrize("since", ["jobs run", "it was born"])
    @survives("F4")
    def test_a_slow_network_costs_no_lease(
        self, direct: App, crew: Crew, diary: Diary, wire: Wire, measured: Figures, since: str
    ) -> None:
        wire.delay(SLOW if since == "it was born" else 0)
        lease = max(self.lease, 5.0)
        settings = {
            "KQ_LEASE_LENGTH": str(lease),
            "KQ_SUBMIT_TIMEOUT": str(lease / 3),
        }  # the usual part of the usual one
        worker = crew.program(concurrency=2, ready=False, settings=settings)
        nap = Jobs(direct).nap
        handles = direct.submit_many(nap.job(lease / 10) for _ in range(4))
        eventually(lambda: diary.starts(), "jobs run", DEADLINE + 40 * SLOW)
        wire.delay(SLOW)
        eventually(lambda: len(diary.ends()) == len(handles), "all have ended", DEADLINE + 80 * SLOW)
        wire.delay(0)
        assert all(handle.result(20) for handle in handles)
        assert len(diary.starts()) == len(handles)
        assert "run elsewhere" not in worker.said()
        measured(f"each of {len(handles)} jobs started once, {2 * SLOW:g} s for an answer, lease {lease:g} s")

    @keeps("C18")
    @survives("F4")
    def test_a_busy_worker_finds_out_that_its_connection_is_half_open(
        self, app: App, jobs: Jobs, crew: Crew, diary: Diary, wire: Wire, measured: Figures
    ) -> None:
        worker, handles = at_work(app, jobs, crew, diary)
        wire.forget()
        cut = time.time()
        eventually(lambda: diary.starts()[-1].at > cut + 0.5, "jobs run again", self.lease + BACK)
        # Jobs that it had been given may have run until now: broker and state store are asked in vain only then, each
        # for a third of a lease.
        self.goes_on(worker, handles, diary, measured, BACK + 2 * self.lease / 3)

    @keeps("C18")
    @survives("F13")
    def test_a_storm_of_resets_leaves_nothing_open_or_in_memory_and_each_is_recovered_from_at_once(
        self, control: Control, jobs: Jobs, crew: Crew, wire: Wire, measured: Figures
    ) -> None:
        worker = crew.program()
        # The thread of control has connections too: one more when it has the seat, and when it retires a dead worker.
        eventually(lambda: "has the seat" in worker.said(), "control is at work", DEADLINE + 2 * self.lease)
        eventually(lambda: not unretired(control), "what other tests have killed is retired", DEADLINE + 2 * self.lease)
        ends = Ends(worker, wire)
        slowest, early = 0.0, [ends.descriptors()]
        for number in range(RESETS):
            if number == RESETS // 10:  # by then what is kept for later is there, such as SQLite's pages
                memory = ends.memory()
            wire.cut()
            began = time.monotonic()
            assert jobs.note.submit(str(number)).result(20) == str(number)
            slowest = max(slowest, elapsed(began))
            if number < RESETS // 2:
                early.append(ends.descriptors())
        # What was reset is open until it is needed, what was closed is opened when it is needed: so what counts is the
        # most that was ever open.
        before = tuple(map(max, zip(*early, strict=True)))

        def as_before() -> tuple[int, ...] | None:
            now = ends.descriptors()
            return now if all(each <= most + LATER for each, most in zip(now, before, strict=True)) else None

        after = eventually(as_before, f"no more are open than {before}", more=ends.told)
        grown = [now - then for now, then in zip(ends.memory(), memory, strict=True)]
        assert worker.process.poll() is None
        measured(
            f"{RESETS} resets: a job done after {slowest:.1f} s at most, descriptors {before} to {after}, "
            f"memory {' and '.join(f'{each / MIB:+.1f}' for each in grown)} MiB"
        )
        measured.account(twice=0, back=slowest)
        assert slowest <= BACK
        assert max(grown) <= GROWTH

    @keeps("C18")
    @survives("F4i")
    def test_an_idle_worker_finds_out_that_its_connection_is_half_open(
        self, direct: App, crew: Crew, diary: Diary, wire: Wire, measured: Figures
    ) -> None:
        worker = crew.program()
        jobs, waits = Jobs(direct), []
        for number in range(CUTS):
            wire.forget()
            sent = time.time()
            job = jobs.note.submit(str(number))
            start = eventually(lambda job=job: diary.starts(job.id), "the job runs")[0]  # type: ignore[misc]
            waits.append(start.at - sent)
            assert job.result(20) == str(number)
        assert worker.process.poll() is None
        measured(f"{CUTS} cuts: a job started after {max(waits):.1f} s at most, lease {self.lease:g} s")
        measured.account(twice=diary.twice(), back=max(waits))
        assert max(waits) <= self.lease + BACK

    def goes_on(
        self, worker: Program, handles: list[Handle[int]], diary: Diary, measured: Figures, within: float = BACK
    ) -> None:
        """All jobs end, on the same worker, soon after the broker is back: within so many seconds."""
        back = time.time()
        for handle in handles:
            handle.result(30)
        assert worker.process.poll() is None
        # None of them: on a busy machine all may have run before we were told that the broker is back.
        first = min((start.at for start in diary.starts() if start.at > back), default=back)
        again = len(diary.starts()) - len(handles)
        measured(f"on after {first - back:.1f} s; 0 of {len(handles)} lost, {again} started again")
        measured.account(twice=diary.twice(), back=first - back)
        assert first - back <= within

    @keeps("C18")
    @survives("F3")
    def test_submits_during_a_short_outage_wait_for_its_end(
        self, app: App, jobs: Jobs, crew: Crew, server: Server, wire: Wire, measured: Figures
    ) -> None:
        crew.program()
        jobs.note.submit().result(10)
        wire.refuse()
        back = threading.Timer(SUBMIT_TIMEOUT / 2, wire.restore)
        back.start()
        began = time.monotonic()
        job = jobs.note.submit("x")
        measured(f"returned after {elapsed(began):.1f} s of an outage of {SUBMIT_TIMEOUT / 2:g} s")
        back.join()
        assert job.result(10) == "x"

    @keeps("C18")
    def test_who_waits_for_a_result_receives_it_after_the_outage(
        self, jobs: Jobs, crew: Crew, diary: Diary, wire: Wire
    ) -> None:
        worker = crew.program()
        job = jobs.nap.submit(1.0)
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(job.result, 20)
            diary.begun(job)
            wire.refuse()
            notices(worker)
            wire.restore()
            assert result.result() in {start.pid for start in diary.starts(job.id)}

    @keeps("C18")
    def test_who_follows_a_job_and_reads_its_stream_goes_on_after_the_outage(
        self, jobs: Jobs, crew: Crew, wire: Wire, gate: Gate
    ) -> None:
        worker = crew.program()
        job, words = jobs.say.submit(["one", "two"], gate.path), list[object]()
        with ThreadPoolExecutor(2) as pool:
            read = pool.submit(lambda: words.extend(chunk.value for chunk in job.stream(timeout=60)))
            told = pool.submit(lambda: [event.event for event in job.events(timeout=60)])
            eventually(lambda: words == ["one"], "its first word is read")
            wire.refuse()
            notices(worker)
            wire.restore()
            gate.open()
            assert told.result(60)[-1] == "completed"
            read.result(60)
        # An attempt that the outage ended has said its first word, and the next one begins anew.
        assert words[-2:] == ["one", "two"]

    @keeps("C6")
    def test_delayed_jobs_survive_a_restart_of_the_broker(
        self, jobs: Jobs, crew: Crew, diary: Diary, server: Server
    ) -> None:
        asked = time.time()
        job = jobs.note.options(delay=2.0).submit("x")
        server.remember()
        server.kill()
        server.start()
        waiting = {State.DELAYED, State.READY}
        eventually(lambda: job.state() in waiting, "it is still there")  # a server may take a moment to recover
        crew.program()
        assert job.result(10 + BACK) == "x"
        assert diary.starts(job.id)[0].at >= asked + 2.0

    @keeps("C3")
    @survives("F4")
    def test_a_worker_cut_off_from_the_broker_does_nothing_more_before_its_jobs_start_elsewhere(
        self, direct: App, crew: Crew, diary: Diary, wire: Wire, server: Server, measured: Figures
    ) -> None:
        crew.program()
        job = Jobs(direct).pulse.submit(30.0)
        eventually(lambda: diary.entries("pulse", [job.id]), "the job runs")
        crew.program("--url", self.url_at(server.port))
        wire.freeze()
        eventually(lambda: diary.starts(job.id)[1:], "the job runs elsewhere")
        first, again = diary.starts(job.id)
        last = max(pulse.at for pulse in diary.entries("pulse", [job.id]) if pulse.pid == first.pid)
        assert last < again.at
        measured(f"its last act {again.at - last:.2f} s before the job started elsewhere")
        wire.restore()

    @keeps("C7")
    @pytest.mark.parametrize("how", ["stop", "kill"])
    def test_a_job_that_must_start_once_does_when_the_broker_is_restarted_under_it(
        self, jobs: Jobs, crew: Crew, diary: Diary, server: Server, gate: Gate, how: str
    ) -> None:
        crew.program()
        job = diary.begun(jobs.hold_once.submit(gate.path))
        server.remember()
        getattr(server, how)()
        server.start()
        gate.open()
        assert isinstance(outcome(job), int | JobBuried)
        assert len(diary.starts(job.id)) == 1
