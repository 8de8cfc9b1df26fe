"""The bar: mails under kill -9, freezes and partitions, against a mail server that counts (promise C13).

Workers are killed at each moment of a mail's way and at random ones. Then an account: with `on_doubt="bury"` no mail
was accepted twice, and none is lost: it was accepted, or its job lies buried with the question. KQ_ONCE_KILLS and
KQ_SEED make it larger, or repeat one.
"""

from __future__ import annotations

import os
import random
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count, cycle, islice
from typing import Any

import pytest

from kq.app import App
from kq.conformance.contract.crew import Crew, Program
from kq.conformance.contract.figures import Figures, keeps, survives
from kq.conformance.contract.outages import OnAWire, Wire
from kq.conformance.contract.post import REFEREE, SERVER, WHERE, mail_of
from kq.conformance.contract.processes import ended, lives, pids
from kq.conformance.contract.referee import MOMENTS, TEXT, Referee
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, buried
from kq.control import Control
from kq.handles.handle import Handle
from kq.jobtype import JobType
from kq.values.job import State

KILLS = int(os.environ.get("KQ_ONCE_KILLS") or 8)
SEED = int(os.environ.get("KQ_SEED") or random.randrange(10_000))
WORKERS = 2
SLOTS = 2  # executors of each
AHEAD = 12  # mails that wait, so that all workers have something to do
PATIENCE = 60.0
VICTIMS = ("executor", "supervisor", "executor", "tree")
QUESTION = "nobody knows whether the effect"


class PostWorld(ContractWorld):
    """Workers that send mail, and a referee."""

    application = WHERE

    @pytest.fixture(autouse=True)
    def referee(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Referee]:
        with Referee() as referee:
            monkeypatch.setenv(SERVER, referee.server.url)
            monkeypatch.setenv(REFEREE, str(referee.port))
            yield referee

    @pytest.fixture
    def mail(self, app: App) -> JobType[..., dict[str, str]]:
        return mail_of(app)

    @pytest.fixture
    def send(
        self, app: App, mail: JobType[..., dict[str, str]], referee: Referee
    ) -> Callable[[int], list[Handle[Any]]]:
        """Submits so many mails, each to another person."""
        # People who never got a mail: the ledger may be shared with other tests.
        people = (f"{uuid.uuid4().hex}@example.org" for _ in count())

        def send(number: int) -> list[Handle[Any]]:
            jobs = [mail.job(next(people), "weather", TEXT) for _ in range(number)]
            referee.expect(jobs)
            return app.submit_many(jobs)

        return send


class Executioner:
    """Kills by plan: at each moment of a mail's way, somebody; one kill in five comes at a random one."""

    def __init__(self, chance: random.Random, kills: int) -> None:
        self._chance = chance
        self._kills = kills
        planned = [*islice(zip(cycle((*MOMENTS, *["any"] * 4)), cycle(VICTIMS), strict=False), kills)]
        chance.shuffle(planned)
        self._plan = cycle(planned)  # some come too late, as somebody else was killed just before
        self._next = next(self._plan)
        self.workers: list[Program] = []
        self.done: list[str] = []
        self._lock = threading.Lock()

    @property
    def over(self) -> bool:
        return len(self.done) >= self._kills

    def act(self, moment: str, recipient: str, pid: int) -> None:
        """Kill, if that is what is planned next."""
        with self._lock:
            planned, victim = self._next
            if self.over or planned not in (moment, "any"):
                return
            self._next = next(self._plan)
            if planned == moment:
                self._kill(victim, pid)
                return
        threading.Timer(self._chance.uniform(0, 0.02), self._kill, (victim, pid)).start()

    def _kill(self, victim: str, pid: int) -> None:
        ended(lambda: self._strike(victim, pid))

    def _strike(self, victim: str, pid: int) -> None:
        worker = next((each for each in self.workers if pid in pids(each.tree())), None)
        if worker is None:
            return
        if victim == "executor":
            executors = worker.executors()
            struck = [each for each in executors if each.pid == pid] or executors[:1]
        else:
            struck = [worker.supervisor] if victim == "supervisor" else worker.tree()
        for process in struck:
            ended(process.kill)
        if struck:
            self.done.append(victim)

    def replace(self, make: Callable[[], Program]) -> None:
        """Start new workers in the place of those that are gone."""
        self.workers = [each for each in self.workers if each.process.poll() is None]
        while len(self.workers) < WORKERS:
            self.workers.append(make())


class OnceUnderKills(PostWorld):
    """C13, the hard way."""

    @keeps("C13")
    @survives("F1")
    def test_no_mail_is_accepted_twice_and_none_is_lost_whoever_is_killed_and_when(
        self,
        control: Control,
        crew: Crew,
        queue: str,
        referee: Referee,
        send: Callable[[int], list[Handle[Any]]],
        measured: Figures,
    ) -> None:
        killer = Executioner(random.Random(SEED), KILLS)
        referee.act = killer.act
        handles = send(AHEAD)

        def all_are_killed() -> bool:
            killer.replace(lambda: crew.program(concurrency=SLOTS, ready=False))
            handles.extend(send(AHEAD) if waiting(control, queue) < AHEAD // 2 else [])
            return killer.over

        eventually(all_are_killed, f"all are killed, seed {SEED}", PATIENCE + 4 * KILLS)
        referee.act = lambda moment, recipient, pid: None
        killer.replace(lambda: crew.program(concurrency=SLOTS, ready=False))
        states = eventually(lambda: over(control, handles), f"all mails are over, seed {SEED}", PATIENCE)
        assert states is not None
        accepted = Counter(mail.recipient for mail in referee.server.accepted)
        doubtful = [handle for handle in handles if states[handle.id] is State.BURIED]
        twice = [recipient for recipient, times in accepted.items() if times > 1]
        assert not twice, f"seed {SEED}"
        assert accepted.total() >= len(handles) - len(doubtful), f"seed {SEED}"
        arrived = self.answer(control, doubtful, accepted)
        eventually(
            lambda: over(control, doubtful, State.COMPLETED), f"what was answered is over, seed {SEED}", PATIENCE
        )
        again = Counter(mail.recipient for mail in referee.server.accepted)
        assert (again.total(), len(again)) == (len(handles), len(handles)), f"seed {SEED}"
        struck = ", ".join(f"{number} {what}" for what, number in sorted(Counter(killer.done).items()))
        measured(
            f"seed {SEED}: {len(killer.done)} kills ({struck}); {len(handles)} mails submitted, {accepted.total()} "
            f"accepted, 0 twice, 0 lost, {len(doubtful)} in doubt, {arrived} of these accepted; answered, all were once"
        )
        measured.account()

    @staticmethod
    def answer(control: Control, doubtful: list[Handle[Any]], accepted: Counter[str]) -> int:
        """Answer all questions as the server's book says; returns how many mails had arrived."""
        arrived = 0
        for handle in doubtful:
            job = control.job(handle.id)
            assert job is not None
            assert QUESTION in job.error
            has_arrived = job.args[0] in accepted
            arrived += has_arrived
            control.answer(handle.id, "done" if has_arrived else "repeat", "found in the book")
        return arrived


class OnceUnderFreeze(PostWorld):
    """C13 and C4: nothing is sent in the name of a lease that is over."""

    @keeps("C13")
    @survives("F2")
    @pytest.mark.parametrize(("moment", "sent"), [("before intend", 1), ("after intend", 0)])
    def test_an_executor_that_wakes_after_its_lease_sends_nothing_although_nobody_kills_it(
        self,
        control: Control,
        crew: Crew,
        referee: Referee,
        send: Callable[[int], list[Handle[Any]]],
        moment: str,
        sent: int,
    ) -> None:
        zombie, asleep, awake = crew.program(), threading.Event(), threading.Event()

        def act(now: str, recipient: str, pid: int) -> None:
            if pid not in pids(zombie.tree()):
                return
            if now == moment and not asleep.is_set():
                zombie.pause()
                asleep.set()
            elif asleep.is_set() and now in ("after intend", "before withdraw"):
                awake.set()

        referee.act = act
        (handle,) = send(1)
        assert asleep.wait(PATIENCE)
        (executor,) = zombie.executors()
        crew.program()
        if sent:
            assert handle.result(PATIENCE)
        else:
            assert QUESTION in buried(control, handle.queue, handle).error
        ended(executor.resume)  # it alone: its supervisor and its nursery sleep on
        eventually(lambda: awake.is_set() or not lives(executor), "it has gone on, or ended itself", PATIENCE)
        zombie.resume()
        eventually(lambda: "the lease" in zombie.said(), "the zombie learns it")
        assert len(referee.server.accepted) == sent
        assert handle.state() is (State.COMPLETED if sent else State.BURIED)


class OnceApart(PostWorld, OnAWire):
    """The same of a worker that is cut off from its broker, and knows nothing of it."""

    @keeps("C13")
    @survives("F4")
    @pytest.mark.parametrize(("moment", "sent"), [("before intend", 1), ("after intend", 0)])
    def test_a_worker_that_is_cut_off_sends_nothing_after_its_lease(
        self,
        app: App,
        direct: App,
        crew: Crew,
        wire: Wire,
        referee: Referee,
        send: Callable[[int], list[Handle[Any]]],
        moment: str,
        sent: int,
    ) -> None:
        worker, cut_off, leave = crew.program(), threading.Event(), threading.Event()

        def act(now: str, recipient: str, pid: int) -> None:
            if now == moment and not cut_off.is_set():
                wire.freeze()
                cut_off.set()
                leave.wait(PATIENCE)

        referee.act = act
        (handle,) = send(1)
        assert cut_off.wait(PATIENCE)
        (executor,) = worker.executors()
        eventually(lambda: not lives(executor), "its executor is ended in time", 2 * self.lease)
        leave.set()
        assert not referee.server.accepted
        wire.restore()
        with Control(direct) as control:
            if sent:
                assert handle.result(PATIENCE)
            else:
                assert QUESTION in buried(control, handle.queue, handle, PATIENCE).error
        assert len(referee.server.accepted) == sent


def waiting(control: Control, queue: str) -> int:
    """How many mails are ready."""
    return sum(each.ready for each in control.queues() if each.name == queue)


def over(control: Control, handles: list[Handle[Any]], *wanted: State) -> dict[str, State] | None:
    """How all of handles ended, once they have."""
    states = {}
    for handle in handles:
        job = control.job(handle.id)
        if job is None or job.state not in (wanted or (State.COMPLETED, State.BURIED)):
            return None
        states[handle.id] = job.state
    return states


__all__ = ["OnceApart", "OnceUnderFreeze", "OnceUnderKills"]
