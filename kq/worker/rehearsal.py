"""A rehearsal: the code of a job runs with its arguments, and what it would do is told instead of done.

It runs in a process forked for it, under the limits of its type, and ends as it would in a worker. What it writes to
the state store stays in that process, what it submits is told: the job, the ledger and the queues are not touched.
What else it does to the world happens.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from kq.app import App
from kq.broker import BURIED, Delivery, Inspector, Publisher, Seen, Swap
from kq.clock import RANDOM, SYSTEM
from kq.effects.context import Footing
from kq.effects.observer import Observers
from kq.state.overlay import Overlay
from kq.state.store import Rider, Store, Write
from kq.values.deed import Deed
from kq.values.job import Counters
from kq.values.message import Envelope, decode_body, decode_head
from kq.values.outcome import Done, Outcome, Verdict, verdict_after
from kq.values.record import job_key, lease_key
from kq.values.redaction import shown_call
from kq.values.stack import Frame, of_job
from kq.worker.child import Executor, outcome_of
from kq.worker.executor import DEAF_TO, be_deaf
from kq.worker.kin import adopt_orphans, call_itself, die_with, live_apart, living_children
from kq.worker.limits import Limits
from kq.worker.lookout import ASKED, look_out
from kq.worker.nursery import END_WITHIN, add_alerts, catalogue
from kq.worker.serial import run_serially
from kq.worker.slate import Written
from kq.worker.stacks import frames_told
from kq.worker.task import Task, kind_of
from kq.worker.wire import Claims, Frames, Order, Page, frame
from kq.worker.workbench import LEAVE_WITHIN, Workbench

#: The name of the worker that a rehearsed job meets.
NAME = "rehearsal"
#: Seconds between two looks at how far the job is.
LOOK = 0.25

#: Seconds until it is told for the first time where the job is; each time it takes twice as long.
SILENT = 3.0
#: Seconds that it has to say where it is.
ANSWERS = 1.0

Tell = Callable[[Deed], None]
Stands = Callable[[float, Sequence[Frame]], None]


@dataclass(frozen=True, slots=True)
class Played:
    """How it ended. verdict: what would become of the job; took: seconds."""

    outcome: Outcome
    verdict: Verdict
    took: float


class Rehearsal:
    """A process that plays one job of app. To be made before this one connects anywhere: it is forked here.

    max_rss: bytes of memory that it may hold; 0: any. Close it, or use it as a context manager.
    """

    def __init__(self, app: App, max_rss: int = 0) -> None:
        add_alerts(app)
        self._app = app
        ours, theirs = socket.socketpair()
        self._deeds, telling = socket.socketpair()
        page, claims = Page(1), Claims(1)
        self._others = living_children()
        adopt_orphans()
        before, parent = signal.pthread_sigmask(signal.SIG_BLOCK, DEAF_TO), os.getpid()
        try:
            pid = os.fork()
            if pid == 0:
                ours.close()
                self._deeds.close()
                stage = partial(_Stage, app, theirs, telling, page, claims)
                live_apart(lambda: _be_the_stage(parent, before, lambda: stage().play()))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        telling.close()
        ours.setblocking(False)
        self._deeds.setblocking(False)
        self._executor = Executor(1, ours, page, claims, 1, signalled=True, pid=pid)
        self._limits = Limits({1: self._executor}, SYSTEM, max_rss)
        self._heeded = [ours, self._deeds]
        self._silent, self._asked = SILENT, 0.0
        self._frames = Frames()

    def __enter__(self) -> Rehearsal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def play(self, seen: Seen, tell: Tell, show: Callable[[Written], None], stand: Stands) -> Played:
        """Let it run the job of a message. tell: is told of each deed; show: of what the job says of how far it is.

        stand: of one that runs for long, for how many seconds it has, and where it is: the calls of its code, the
        innermost last; none where it does not say. Raises MessageError when the message is none.
        """
        task, executor = self._task(seen), self._executor
        executor.give([task])
        executor.run([task], NAME, observed=False)
        self._limits.begun(executor.begins(SYSTEM.monotonic(), SYSTEM.now()))
        while (outcome := self._heard(task)) is None:
            self._wait()
            self._limits.enforce()
            self._tell(tell)
            self._show(task, show)
            self._stand(SYSTEM.monotonic() - task.started, task, stand)
        took = SYSTEM.monotonic() - task.started
        if executor.status is None:
            self._show(task, show)  # of a job that was quick nothing was seen before
        self._let_go()
        self._tell(tell)
        for envelope in outcome.staged if isinstance(outcome, Done) else ():
            tell(deed_of(self._app, "later", envelope))
        return Played(outcome, verdict_after(outcome, task.counters, task.rules, RANDOM), took)

    def timeout(self, seen: Seen) -> float:
        """Seconds that the job of a message may run. Raises MessageError when the message is none."""
        return self._task(seen).timeout

    def close(self) -> None:
        """End it, and all that the job started."""
        if self._executor.status is None:
            self._executor.kill()
            _, self._executor.status = os.waitpid(self._executor.pid, 0)
            self._executor.close()
        self._deeds.close()
        until = SYSTEM.monotonic() + END_WITHIN
        while (orphans := living_children() - self._others) and SYSTEM.monotonic() < until:
            for pid in orphans:
                with contextlib.suppress(ProcessLookupError, PermissionError, ChildProcessError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
        adopt_orphans(False)

    def _task(self, seen: Seen) -> Task:
        """The job as a worker has it. One that is buried is counted anew when it is kicked."""
        head = decode_head(seen.headers)
        (entry,) = (each for each in catalogue(self._app) if each.name == head.type)
        queue = seen.queue.removesuffix(BURIED)
        counters = Counters() if queue != seen.queue else head.counters
        delivery = Delivery(0, queue, seen.id, seen.headers, seen.body, seen.priority, False, "application/json")
        return Task(delivery, head, kind_of(entry, None), counters)

    def _heard(self, task: Task) -> Outcome | None:
        """How the job has ended, if it has."""
        try:
            for ended in self._executor.hear() or ():
                return outcome_of(ended, task)
        except EOFError:
            self._executor.kill()  # it is dead, or the job has cut its line
            _, self._executor.status = os.waitpid(self._executor.pid, 0)
            return self._executor.bury()[task]
        return None

    def _show(self, task: Task, show: Callable[[Written], None]) -> None:
        """What the job says of how far it is, or said last."""
        written = self._executor.page.written().get(task.seq)
        if written is not None and written.at:
            show(written)

    def _stand(self, ran: float, task: Task, stand: Stands) -> None:
        """Ask the job where it is when it has run for long, and tell what it answers."""
        page = self._executor.page
        if self._asked:
            frames = frames_told(page.told())
            if frames is not None or ran >= self._asked + ANSWERS:
                self._asked = 0.0
                stand(ran, of_job(frames or ()))
        elif ran >= self._silent:
            self._asked, self._silent = ran, 2 * self._silent
            page.ask(task.seq)
            self._executor.signal(ASKED)

    def _wait(self) -> None:
        left = self._limits.next_due - SYSTEM.monotonic()
        select.select(self._heeded, [], [], max(0.0, min(left, LOOK)))

    def _let_go(self) -> None:
        """Let the process end by itself, so that what it printed comes out."""
        if self._executor.status is not None:
            return
        self._executor.send(Order(leave=True))
        until = SYSTEM.monotonic() + LEAVE_WITHIN
        with contextlib.suppress(EOFError):
            while (left := until - SYSTEM.monotonic()) > 0:
                select.select([self._executor.sock], [], [], left)
                self._executor.hear()

    def _tell(self, tell: Tell) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while data := self._deeds.recv(1 << 16):
                for each in self._frames.feed(data):
                    tell(_decode_deed(each))
            self._heeded = [self._executor.sock]  # the job has closed it


def deed_of(app: App, kind: Any, envelope: Envelope) -> Deed:
    """A submit, as it is told. kind: "submit" or "later"."""
    name = str(envelope.headers.get("type"))
    known = app.jobs.get(name)
    names = () if known is None else known.signature.positional
    call = shown_call(name, names, *decode_body(envelope.body))
    return Deed(kind, id=envelope.id, queue=envelope.queue, call=call, delay=round(envelope.delay, 3))


def _be_the_stage(parent: int, mask: set[int | signal.Signals], play: Callable[[], None]) -> None:
    """The forked process, in a session of its own; it reads no terminal."""
    os.setsid()
    be_deaf()
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    die_with(parent)
    call_itself("kq-rehearsal")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # stdout is for what the command says
    play()


class _Stage:
    """What the job stands on: an executor of the process pool, which tells deeds instead of doing them."""

    def __init__(self, app: App, sock: socket.socket, telling: socket.socket, page: Page, claims: Claims) -> None:
        self._app = app
        self._bench = Workbench(app, sock, page, claims, Footing(app, NAME, rehearsal=self._tell))
        self._telling = telling
        self._lock = threading.Lock()

    def play(self) -> None:
        """Run what is ordered, until the other side says leave or is gone."""
        self._app.observers = Observers()  # it is told to nobody else
        shut = type("Shut", (_Shut, type(self._app)), {})
        self._app.__class__ = shut
        assert isinstance(self._app, _Shut)
        self._app.begin(self._tell)
        look_out(self._bench.page, self._bench.coroutines, "process")
        run_serially(self._bench)

    def _tell(self, deed: Deed) -> None:
        with self._lock:
            self._telling.sendall(frame(deed))


class _Shut(App):
    """An app that looks, and from which nothing goes out. Other apps of the program are as they are."""

    def begin(self, tell: Tell) -> None:
        """Be shut from now on."""
        facts = _Facts(super().open_store(self.submit_timeout, look=True))
        facts.write([Write(lease_key(NAME), b"1")])
        self.connect(_Submits(self, tell, facts.unsent), facts, _Silence)

    def open_store(self, timeout: float, *, look: bool = False) -> Store:
        return self.store

    def inspector(self) -> Inspector:
        return _Looks(self.broker)

    def apart(self) -> App:
        return self

    def close(self) -> None:
        """What a job says when it is done with an app; here that would open it again."""


class _Facts(Overlay):
    """unsent: the ids of jobs that were submitted here."""

    def __init__(self, below: Store) -> None:
        super().__init__(below)
        self.unsent: set[str] = set()

    def wait_any(self, keys: Sequence[str], timeout: float) -> dict[str, bytes]:
        for id in self.unsent:
            if job_key(id) in keys:
                raise RuntimeError(f"job {id} was not submitted, as this is a rehearsal: it has no result to wait for")
        return super().wait_any(keys, timeout)


class _Submits:
    """Tells what would be published."""

    def __init__(self, app: App, tell: Tell, unsent: set[str]) -> None:
        self._app, self._deed, self._unsent = app, tell, unsent

    def publish(self, envelopes: Sequence[Envelope], until: float, rider: Rider | None = None) -> bool:
        for envelope in envelopes:
            self._unsent.add(envelope.id)
            self._deed(deed_of(self._app, "submit", envelope))
        return True

    def replace(self, id: str, envelope: Envelope, now: float, until: float) -> bool:
        return self.publish([envelope], until)

    def has(self, queues: Sequence[str], id: str, until: float) -> bool:
        return Publisher(self._app.broker).has(queues, id, until)

    def close(self) -> None:
        """There is nothing to end."""


class _Looks(Inspector):
    """Looks at the broker and changes nothing there: a job that gives orders is told so."""

    def remove(self, queue: str, ids: Sequence[str]) -> list[str]:
        raise _no()

    def delete(self, queue: str) -> bool:
        raise _no()

    def swap(self, queue: str, swaps: Sequence[Swap]) -> list[bool]:
        raise _no()

    def expel(self, name: str) -> bool:
        raise _no()

    def nudge(self, token: str) -> None:
        raise _no()


def _no() -> RuntimeError:
    return RuntimeError("this is a rehearsal: nothing is changed at the broker")


class _Silence:
    """Tells no events."""

    def tell(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Nothing is told."""

    def close(self) -> None:
        """There is nothing to end."""


_decode_deed = msgspec.msgpack.Decoder(Deed).decode
