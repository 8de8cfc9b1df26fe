"""A worker as a program and as an object: signals, threads, new code."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import FrameType, TracebackType

from kq.app import App
from kq.broker import answer_time
from kq.clock import SYSTEM
from kq.control.program import Program, controlled
from kq.errors import ConfigError
from kq.handles.standing import Order, decode_order
from kq.handles.trouble import ALERT, queue_of
from kq.loading import whereabouts
from kq.thread import begin
from kq.url import host_and_port
from kq.values.job import check_queue
from kq.values.record import encode
from kq.worker.kin import be_private
from kq.worker.notify import Notifier
from kq.worker.plan import Plan
from kq.worker.pool import OnEnd, Pool, PoolKind
from kq.worker.relay import answer_calls
from kq.worker.supervisor import Supervisor

log = logging.getLogger("kq.worker")

#: How many jobs a worker of each kind runs at a time when nobody says.
CONCURRENCY: dict[str, int] = {"process": os.cpu_count() or 2, "thread": 10, "async": 100}
#: In the environment of a worker that begins anew: what was ordered about it. No job is to see that.
LEFT = "KQ_WORKER_LEFT"
_LEFT = decode_order(os.environ.pop(LEFT, "").encode() or None)


class Worker:
    """A worker for app's jobs: `run()` it as a program, or let it work in the background of this one.

        with kq.Worker(app): ...

    queues: names, or names and how many jobs of each may run at a time; all queues of the app's job types
        by default. concurrency: how many jobs run at a time in all.
    pool: "process": each job in a process of its own turn, the default; "thread"; "async".
    grace: seconds that running jobs get to finish when the worker is stopped.
    max_jobs, max_rss: an executor that has run so many jobs, or holds four fifths of so many bytes, is replaced; one
        that passes max_rss while jobs run is killed; 0: never.
    unfit_after, unfit_within: when bad storage ended so many different jobs here within so many seconds, the worker
        ends itself as if it had been stopped, and run() raises WorkerUnfit; 0: never.
    accept: TYPE@QUEUE, in which * stands for anything: job types that may run from queues that they are not declared
        for, also as a fallback that only the message names. Another message that asks for one is buried.
    where: "module:app" for the executors to import; found out by default.
    remote_control: obey orders of control: pause, resume, revoke, retire, set, and who listens to events. Without
        it, only signals and the broker steer the worker.
    debuggable: let its processes leave core files, and other processes of the same user trace them (gdb, py-spy).
        Without it neither is so for executors, nor for a program that calls run().
    control: make the control program's rounds too, unless another worker makes them.
    health: HOST:PORT where it answers /livez, /readyz and /metrics over HTTP; None: nowhere.
    """

    def __init__(
        self,
        app: App,
        *,
        queues: Mapping[str, int] | Sequence[str] | None = None,
        concurrency: int | None = None,
        pool: PoolKind = "process",
        grace: float = 30.0,
        max_jobs: int = 0,
        max_rss: int = 0,
        unfit_after: int = 0,
        unfit_within: float = 60.0,
        accept: Sequence[str] = (),
        remote_control: bool = True,
        debuggable: bool = False,
        where: str | None = None,
        control: bool = True,
        health: str | None = None,
    ) -> None:
        if health is not None:
            host_and_port(health)
        if pool not in CONCURRENCY:
            raise ConfigError(f"there is no pool {pool!r}; use one of {', '.join(CONCURRENCY)}")
        limits, size = _room(queues, concurrency, CONCURRENCY[pool])
        self.app = app
        place = where or whereabouts(app)

        def make_pool(on_end: OnEnd) -> Pool:
            address = app.address
            return Pool(
                place,
                address.url,
                address.state,
                pool,
                size,
                SYSTEM,
                on_end,
                max_jobs=max_jobs,
                max_rss=max_rss,
                relay=None if app.broker.traits.shared else partial(answer_calls, app),
                debuggable=debuggable,
            )

        wanted = app.alerts.wanted
        if wanted and limits:
            limits[queue_of(app.name)] = 1
        plan = Plan(
            queues=limits,
            slots=size,
            lease=app.lease,
            grace=grace,
            keep=app.keep,
            unfit_after=unfit_after,
            unfit_within=unfit_within,
            alert=ALERT if wanted else "",
            accept=accept,
            remote_control=remote_control,
            remember=app.remembering.keep,
            most=app.remembering.most,
        )
        self._store = app.open_store(answer_time(app.broker, app.lease))
        self.supervisor = Supervisor(plan, app.broker, self._store, make_pool)
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._ending = False
        self._loops = True  # whether what is asked of the supervisor is done
        self._obeying = threading.Lock()
        self._reload = False
        self._notifier: Notifier | None = None
        self._control, self._debuggable = control, debuggable
        self._health = health

    # As an object.

    def start(self) -> None:
        """Work in a thread of this program. Returns when the application is imported; raises KqError when it is not."""
        self.supervisor.on_ready = self._ready.set
        self._thread = threading.Thread(target=self._run_in_thread, name="kq-worker", daemon=True)
        begin(self._thread)
        self._ready.wait()
        if self._error is not None:
            raise self._error

    def stop(self, timeout: float | None = None) -> None:
        """Finish what runs, give back the rest, and end the thread. timeout: seconds to wait, for ever by default."""
        self.supervisor.ask(self.supervisor.stop)
        if self._thread is not None:
            self._thread.join(timeout)

    def __enter__(self) -> Worker:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _work(self) -> None:
        try:
            with controlled(self.app) if self._control else nullcontext() as rounds, self._answering(rounds):
                self.supervisor.run()
        finally:
            self._store.close()

    def _answering(self, rounds: Program | None) -> AbstractContextManager[None]:
        """Answer over HTTP, if somebody wants that. rounds: who makes control's, if this worker may."""
        if self._health is None:
            return nullcontext()
        # Here and not above: who is not asked does not pay for a server.
        from kq.control.health import Answers, served

        app = self.app.apart() if self.app.broker.traits.shared else self.app
        answers = Answers(app, self.supervisor, lambda: rounds is not None and rounds.seated)
        return served(self._health, answers)

    def _run_in_thread(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._error = error
            if self._ready.is_set():
                log.exception("the worker ended")
        finally:
            self.supervisor.close()
            self._ready.set()

    # As a program.

    def run(self, orders: int = -1) -> None:
        """Work until a signal says stop, in the main thread.

        TERM or INT: finish within the grace, give back the rest; again: kill and give back. HUP: the same, then
        begin anew with new code, if that imports. USR1: log what runs, with stacks. USR2: kill the executor that is
        longest at its job. orders: a descriptor on which a parent says which of these to obey, instead of them.
        """
        if not self._debuggable:
            be_private()
        supervisor = self.supervisor
        supervisor.order = _LEFT or supervisor.order
        actions: dict[int, Callable[[], None]] = {
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._stop,
            signal.SIGHUP: self._try_new_code,
            signal.SIGUSR1: supervisor.pool.dump,
            signal.SIGUSR2: supervisor.pool.kill_stuck,
        }

        def on_signal(number: int, at: FrameType | None) -> None:
            if orders < 0:
                supervisor.ask(actions[number])

        def obey() -> None:
            while order := os.read(orders, 1):
                with self._obeying:
                    if self._loops:
                        supervisor.ask(actions[order[0]])
                    else:
                        os.kill(os.getpid(), order[0])
            supervisor.ask(self._stop)  # there is no parent any more

        for number in actions:
            signal.signal(number, on_signal)
        signal.set_wakeup_fd(supervisor.wakeup, warn_on_full_buffer=False)
        if orders >= 0:
            begin(threading.Thread(target=obey, name="kq-orders", daemon=True))
        else:
            self._notify(Notifier())
        try:
            self._work()
        finally:
            signal.set_wakeup_fd(-1)
            self.supervisor.close()
        if self._reload:
            self._heed_last()
        if self._reload:
            log.warning("starting anew with new code")
            for number in actions.keys() - {signal.SIGTERM, signal.SIGINT}:
                # It would end the new program, which hears nothing yet. What is saved by then it imports anyway.
                signal.signal(number, signal.SIG_IGN)
            left = {LEFT: encode(supervisor.order).decode()} if supervisor.order != Order() else {}
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **left})

    def _heed_last(self) -> None:
        """Obey what was said while the loop ended; from here on TERM and INT end this process at once."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, at: sys.exit(0))
        with self._obeying:
            self._loops = False
        self.supervisor.heed()

    def _notify(self, notifier: Notifier) -> None:
        """Let the service manager know when this worker is ready, and that its loop goes round."""
        supervisor = self.supervisor
        before = supervisor.on_connect

        def connected() -> None:
            if before is not None:
                before()
            notifier.ready(supervisor.busy)

        supervisor.on_connect = connected
        self._notifier = notifier
        if notifier.every is not None:
            supervisor.pulse_every = notifier.every
            supervisor.on_pulse = lambda: notifier.beat(supervisor.busy)

    def _stop(self) -> None:
        self._ending = True
        if self._notifier is not None:
            self._notifier.stopping()
        if self._reload:
            self._reload = False  # it is ending already; only, it does not come back
        else:
            self.supervisor.stop()

    def _try_new_code(self) -> None:
        """Begin anew when the new code imports, which a process of its own finds out while this one works on."""
        if not self._ending and not self._reload:  # else it ends anyway
            self.supervisor.pool.trial.begin(self._tried)

    def _tried(self, wrong: str) -> None:
        """wrong: why the new code does not import."""
        if wrong:
            log.error("the worker stays with the code that it has: %s", wrong)
        elif not self._ending:
            self._reload = True
            self.supervisor.stop()


def _room(
    queues: Mapping[str, int] | Sequence[str] | None, concurrency: int | None, usual: int
) -> tuple[dict[str, int], int]:
    """How many jobs of each queue, and how many in all, may run at a time. Raises ConfigError.

    queues: named with limits, or without. usual: how many when nobody says.
    """
    if isinstance(queues, str):  # which is a sequence too, of one queue for each letter
        raise ConfigError(f"queues {queues!r} is one text; write [{queues!r}]")
    named = dict(queues) if isinstance(queues, Mapping) else {}
    for queue in queues or ():
        try:
            check_queue(queue)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if named and named[queue] < 1:
            limit = named[queue]
            raise ConfigError(f"queue {queue!r} can't run {limit} jobs at a time; use 1 or more, or leave it out")
    size = concurrency or sum(named.values()) or usual
    if size < 1:
        raise ConfigError(f"a worker can't run {size} jobs at a time; use 1 or more")
    return {queue: min(named.get(queue, size), size) for queue in queues or ()}, size
