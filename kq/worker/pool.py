"""The supervisor's side of its executors: starting, feeding, interrupting, killing and burying them.

No broker and no policy here: a pool is given tasks and says how each execution ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeAlias

import msgspec

from kq.clock import Clock
from kq.context import STAGED_SIZE
from kq.errors import KqError
from kq.failure import Failure
from kq.message import travelling
from kq.outcome import Asked, Died, Done, GivenBack, Outcome, OutOfMemory, Raised, TimedOut, Unusable
from kq.record import RESULT_LIMIT
from kq.units import format_size
from kq.worker.lapse import Lapse
from kq.worker.task import Kind, Task, kind_of
from kq.worker.usage import rss
from kq.worker.wire import (
    DONE,
    INTERRUPTED,
    RETRY,
    UNUSABLE,
    Circumstances,
    Claims,
    Ended,
    Exited,
    Frames,
    Hello,
    Order,
    Page,
    Run,
    Spawn,
    Spawned,
    Welcome,
    frame,
    read_frame,
)

PoolKind: TypeAlias = Literal["process", "thread", "async"]

_decode_hello = msgspec.msgpack.Decoder(Hello).decode
_decode_report = msgspec.msgpack.Decoder(Hello | Spawned | Exited).decode
_decode_ended = msgspec.msgpack.Decoder(Ended).decode

#: Jobs that last long are sent one by one; of short ones, so many seconds' worth at a time.
BATCH_SECONDS = 0.005
BATCH_LIMIT = 32
#: Seconds that a nursery has to end with all its children; it is killed after that.
NURSERY_ENDS_WITHIN = 6.0
#: Seconds that idle executors have at the end to send what observers of the app have gathered.
LAST_WORDS = 3.0
#: Seconds between two looks at how much memory executors hold while they run jobs.
WEIGH = 0.25
#: The part of max_rss from which on an executor is replaced when its jobs have ended.
RIPE = 0.8
#: Bytes of the longest frame that an executor sends: a result with what was staged, or an error with its traceback.
FRAME_LIMIT = RESULT_LIMIT + STAGED_SIZE + 256 * 1024


@dataclass(slots=True, eq=False)
class Executor:
    """One child process as its supervisor sees it.

    tasks: by seq, all that it was given; active: how many of them have a slot; queued: those that have none yet.
    """

    number: int
    sock: socket.socket
    page: Page
    claims: Claims
    slots: int
    pid: int = 0
    seq: int = 0
    finished: int = 0
    tasks: dict[int, Task] = field(default_factory=dict)
    active: int = 0
    queued: deque[Task] = field(default_factory=deque)
    frames: Frames = field(default_factory=partial(Frames, FRAME_LIMIT))
    unsent: bytearray = field(default_factory=bytearray)
    leaving: bool = False
    gone: bool = False  # its socket closed
    status: int | None = None  # its exit was reported
    culprit: Task | None = None  # for whose sake it was killed
    log: str = ""  # its last lines, when it has died
    doomed: bool = False  # to be killed as soon as its birth is reported
    excess: int = 0  # bytes that it held when it was killed for holding so many
    on_readable: Callable[[], None] = field(default=lambda: None)

    @property
    def open(self) -> bool:
        """Whether it can start one more task."""
        return len(self.tasks) < self.slots and not self.leaving and not self.gone

    def close(self) -> None:
        self.sock.close()
        self.page.close()
        self.claims.close()


class Pool:
    """Executors of one kind, fed by one supervisor."""

    def __init__(
        self,
        where: str,
        url: str,
        state: str,
        kind: PoolKind,
        size: int,
        clock: Clock,
        on_end: Callable[[Task, Outcome], None],
        *,
        max_jobs: int = 0,
        max_rss: int = 0,
        relay: Callable[[socket.socket], None] | None = None,
    ) -> None:
        self.kind = kind
        self.size = size  # how many jobs run at a time
        self._where, self._url, self._state = where, url, state
        self._clock = clock
        self._on_end = on_end
        #: Called with each task that begins.
        self.on_start: Callable[[Task], None] = lambda task: None
        self._relay = relay
        self._max_jobs, self._max_rss = max_jobs, max_rss
        self._processes = size if kind == "process" else 1
        self._slots = 1 if kind == "process" else size
        self._numbers = 0
        self.executors: dict[int, Executor] = {}
        self.kinds: dict[str, Kind] = {}
        self.queues: list[str] = []
        #: Those of which one job runs at a time.
        self.singletons: set[str] = set()
        #: The name under which the supervisor holds its lease.
        self.worker = ""
        #: The version of the application, and whether anybody observes it.
        self.code, self.observed = "", False
        self._nursery: subprocess.Popen[bytes] | None = None
        self._report: socket.socket | None = None
        self._imported = False
        self._report_frames = Frames()
        self._enforcing = threading.Lock()
        #: Until when executors may run, whether or not we live to see it.
        self.lapse = Lapse()
        #: Changes whenever descriptors() does.
        self.version = 0
        #: When the next running task is to be interrupted or killed; monotonic.
        self.next_due = float("inf")

    # Starting.

    def start(self) -> None:
        """Import the application and fork the executors. Raises KqError when it does not import."""
        self._start_nursery()
        try:
            while not self._imported:
                self.read_report()
        except KqError:
            self.close()
            raise
        assert self._report is not None
        self._report.setblocking(False)

    def _start_nursery(self) -> None:
        """Start the process that imports the application. Once it has, it is asked for executors."""
        self._nursery, self._report = start_nursery(self._where, self._url, self._state, self.lapse)
        self._report_frames = Frames()
        self._imported = False
        self.version += 1

    def _greeted(self, hello: Hello) -> None:
        """The application is imported; raises KqError when it does not import."""
        if hello.error:
            raise KqError(hello.error)
        self._imported = True
        self.kinds = {entry.name: kind_of(entry, self.kinds.get(entry.name)) for entry in hello.entries}
        self.code, self.observed = hello.code, hello.observed
        self.queues = sorted({entry.queue for entry in hello.entries})
        self.singletons = {entry.queue for entry in hello.entries if entry.singleton}
        self._fill()

    def _fill(self) -> None:
        """Have as many executors as there are to be."""
        staying = sum(not executor.leaving for executor in self.executors.values())
        while self._imported and staying < self._processes and self._spawn():
            staying += 1

    def _spawn(self) -> bool:
        """Ask for one more executor; False when there is no nursery to ask."""
        self._numbers += 1
        ours, theirs = socket.socketpair()
        page, claims = Page(self._slots), Claims(self._slots + BATCH_LIMIT)
        executor = Executor(self._numbers, ours, page, claims, self._slots)
        executor.on_readable = partial(self.read, executor)
        self.version += 1
        self.executors[executor.number] = executor
        assert self._report is not None
        order = frame(Spawn(executor.number, self.kind, self._slots, self._relay is not None))
        sent = [theirs]
        if self._relay is not None:
            near, far = socket.socketpair()
            self._relay(near)
            sent.append(far)
        try:
            descriptors = [theirs.fileno(), page.descriptor, claims.reader, *(each.fileno() for each in sent[1:])]
            socket.send_fds(self._report, [order], descriptors)
        except OSError:
            self.executors.pop(executor.number)  # the nursery died: read_report() starts another
            executor.close()
            return False
        finally:
            for each in sent:
                each.close()
        ours.setblocking(False)
        return True

    def trial(self) -> str:
        """Why the application, as it is now, does not import, in one line; "" when it does. Takes as long as that."""
        nursery, sock = start_nursery(self._where, self._url, self._state, self.lapse)
        with sock:
            data = read_frame(sock)
        nursery.kill()
        status = nursery.wait()
        if data is None:
            return f"the process that imports {self._where} ended with status {status}"
        error = _decode_hello(data).error.splitlines()
        return f"{error[0]} {error[-1]}" if len(error) > 1 else "".join(error)

    # Reading.

    def descriptors(self) -> Mapping[int, Callable[[], None]]:
        """What to watch for reading, and what to call then."""
        found: dict[int, Callable[[], None]] = {}
        if self._report is not None:
            found[self._report.fileno()] = self.read_report
        for executor in self.executors.values():
            if not executor.gone:
                found[executor.sock.fileno()] = executor.on_readable
        return found

    def read(self, executor: Executor) -> None:
        """Take in what executor says."""
        self._heard(executor)

    def _heard(self, executor: Executor) -> bool:
        """Take in what executor says; False when it says nothing now."""
        try:
            data = executor.sock.recv(1 << 18)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        try:
            ends = [_decode_ended(each) for each in executor.frames.feed(data)]
        except (msgspec.DecodeError, ValueError):
            # A job wrote into its executor's socket: nothing that comes from there can be trusted any more.
            ends, data = [], b""
        for each in ends:
            self._ended(executor, each)
        if not data:
            self._lost(executor)
        return bool(data)

    def read_report(self) -> None:
        """Take in what the nursery says."""
        assert self._report is not None
        try:
            data = self._report.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        for each in self._report_frames.feed(data):
            match _decode_report(each):
                case Hello() as hello:
                    self._greeted(hello)
                case Spawned(number, pid):
                    if number in self.executors:
                        self.executors[number].pid = pid
                        if self.executors[number].doomed:
                            self._kill(self.executors[number])
                case Exited(pid, status):
                    for executor in [each for each in self.executors.values() if each.pid == pid]:
                        self._exited(executor, status)
        if not data:
            self._revive_nursery()

    def _ended(self, executor: Executor, ended: Ended) -> None:
        task = executor.tasks.pop(ended.seq, None)
        if task is None:
            return
        executor.finished += 1
        executor.active -= 1
        task.kind.took(ended.took)
        task.log = ended.log
        self._on_end(task, outcome_of(ended, task))
        self._begin(executor)
        self._recycle(executor)

    def _outcome_of_death(self, task: Task, executor: Executor, started: set[int]) -> Outcome:
        if task.interrupted:
            return TimedOut(task.timeout, killed=True, log=executor.log)
        innocent = executor.culprit is not None and task is not executor.culprit and not task.kind.rules.starts_once
        if innocent or task.seq not in started:
            return GivenBack()
        if executor.excess:
            held, limit = format_size(executor.excess), format_size(self._max_rss)
            return OutOfMemory(f"it held {held} of memory, more than max_rss, {limit}, and was killed", executor.log)
        return Died(how_it_ended(executor.status), executor.log)

    def _begin(self, executor: Executor) -> None:
        """Note the start of those tasks of executor that have a slot now."""
        if not executor.queued or executor.active >= executor.slots:
            return
        now, instant = self._clock.monotonic(), self._clock.now()
        while executor.queued and executor.active < executor.slots:
            task = executor.queued.popleft()
            task.started, task.began = now, instant
            executor.active += 1
            self.next_due = min(self.next_due, task.due, now + WEIGH if self._max_rss else task.due)
            self.on_start(task)

    def _lost(self, executor: Executor) -> None:
        """Its socket closed, or cannot be trusted: it is dead or dying. Its exit report tells how."""
        if not executor.gone:
            executor.gone = True
            self.version += 1
            executor.sock.close()
            self._kill(executor)

    def _exited(self, executor: Executor, status: int) -> None:
        """It has ended: settle what it had, and put another in its place."""
        executor.status = status
        # Its last words may still wait in the socket. Its end may not: a child that it forked can hold it open.
        while not executor.gone and self._heard(executor):
            pass
        self._lost(executor)
        del self.executors[executor.number]
        started, executor.log = executor.page.marked(), executor.page.log()
        executor.close()
        if executor.pid:  # else its birth was not told, and 0 would be our own group
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(executor.pid, signal.SIGKILL)  # what its jobs left behind
        self._fill()
        for task in executor.tasks.values():
            self._on_end(task, self._outcome_of_death(task, executor, started))

    def _revive_nursery(self) -> None:
        """The nursery died, and the kernel killed its children: begin anew. Raises KqError if it died of the import."""
        assert self._report is not None
        assert self._nursery is not None
        self._report.close()
        status = self._nursery.wait()
        if not self._imported:
            raise KqError(f"the process that imports {self._where} ended with status {status}")
        dead = list(self.executors.values())
        self._start_nursery()
        self._report.setblocking(False)
        for executor in dead:
            self._exited(executor, signal.SIGKILL if executor.status is None else executor.status)

    # Feeding.

    def rooms(self) -> list[Executor]:
        """Executors that can start a task now."""
        return [executor for executor in self.executors.values() if executor.open][: self._left()]

    def has_room(self, executor: Executor) -> bool:
        """Whether executor can start a task now."""
        return executor.open and self._left() > 0

    def _left(self) -> int:
        """How many more jobs may run; those in executors that are about to leave count, too."""
        return max(0, self.size - sum(executor.active for executor in self.executors.values()))

    def give(self, executor: Executor, tasks: list[Task]) -> None:
        """Let executor run tasks, in this order."""
        runs = []
        for task in tasks:
            executor.seq += 1
            task.seq = executor.seq
            executor.tasks[task.seq] = task
            executor.queued.append(task)
            delivery, head = task.delivery, task.head
            attempt = task.counters.attempts + 1
            runs.append(
                Run(
                    task.seq,
                    head.id,
                    head.type,
                    delivery.queue,
                    delivery.body,
                    attempt,
                    task.timeout,
                    head.degraded_by,
                    _circumstances(task) if self.observed else None,
                )
            )
        self._begin(executor)
        executor.claims.offer(run.seq for run in runs)
        self._send(executor, Order(runs, worker=self.worker))

    def isolate(self, executor: Executor, task: Task) -> None:
        """Let task run alone: in executor, or where that is shared in one of its own, which leaves after it."""
        if executor.slots > 1 and self._spawn():
            executor = self.executors[self._numbers]
            executor.leaving = True
        self.give(executor, [task])

    def take_back(self, executor: Executor) -> None:
        """Give back what it was given and has not begun."""
        tasks = [executor.tasks.pop(seq) for seq in sorted(executor.claims.take_back())]
        executor.active -= sum(task.started > 0 for task in tasks)
        executor.queued = deque(task for task in executor.queued if task.seq in executor.tasks)
        for task in tasks:
            self._on_end(task, GivenBack())

    def batch(self, task: Task, executor: Executor) -> int:
        """How many tasks like this one to give to executor at a time."""
        seconds = task.kind.seconds
        if seconds is None or task.counters.lost or task.suspect:
            return 1
        free = min(executor.slots - len(executor.tasks), self._left())
        return max(free, min(BATCH_LIMIT, int(BATCH_SECONDS / max(seconds, 1e-6))))

    def _send(self, executor: Executor, order: Order) -> None:
        data = frame(order)
        if not executor.unsent:
            try:
                sent = executor.sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return  # it died: reading its socket tells
            data = data[sent:]
        executor.unsent += data

    def unsent(self) -> list[Executor]:
        """Executors whose socket was full."""
        return [executor for executor in self.executors.values() if executor.unsent and not executor.gone]

    def flush(self, executor: Executor) -> None:
        """Send what its socket had no room for."""
        try:
            del executor.unsent[: executor.sock.send(executor.unsent)]
        except BlockingIOError:
            return
        except OSError:
            executor.unsent.clear()

    # Ending.

    def enforce(self) -> None:
        """Interrupt tasks that ran past their timeout; kill executors whose jobs ignored it or took too much memory."""
        with self._enforcing:
            now = self._clock.monotonic()
            self.next_due = self._weigh(now)
            for _, task in self.tasks():
                if task.started and not task.killed and task.due > now:
                    self.next_due = min(self.next_due, task.due)
            for executor, task in self.tasks():
                if task.started and not task.killed and task.due <= now:
                    if not self._goes_on(executor, task, now):
                        self._interrupt(executor, task)
                    if not task.killed:
                        self.next_due = min(self.next_due, task.due)

    def _goes_on(self, executor: Executor, task: Task, now: float) -> bool:
        """Whether task, whose time is over, has extended it."""
        if not task.interrupted and (written := executor.page.written().get(task.seq)) is not None:
            task.extra = written.more
        return not task.interrupted and task.due > now

    def _weigh(self, now: float) -> float:
        """Kill executors whose jobs have taken too much memory; returns when to look again."""
        if not self._max_rss:
            return float("inf")
        busy = [executor for executor in list(self.executors.values()) if executor.tasks]
        for executor in busy:
            held = rss(executor.pid)
            if held > self._max_rss:
                executor.excess = held
                self._kill(executor)
        return now + WEIGH if busy else float("inf")

    def cut_short(self, task: Task) -> None:
        """Let task end now as it would at its timeout: interrupted, then killed. May be repeated."""
        task.cut = min(task.cut, self._clock.monotonic())
        self.next_due = min(self.next_due, task.due)

    def _interrupt(self, executor: Executor, task: Task) -> None:
        if not executor.pid:
            return  # its birth was not reported yet
        if task.interrupted:
            task.killed = True
            self.kill(executor, task)
            return
        task.interrupted = True
        if self.kind == "process":
            executor.page.interrupt = task.seq
            with contextlib.suppress(ProcessLookupError):
                os.kill(executor.pid, signal.SIGUSR1)
        else:
            self._send(executor, Order(interrupt=task.seq))

    def _kill(self, executor: Executor) -> None:
        executor.doomed = True
        if executor.pid and executor.status is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(executor.pid, signal.SIGKILL)

    def kill(self, executor: Executor, culprit: Task) -> None:
        """End an executor at once because of one of its tasks; the others are not blamed for it."""
        executor.culprit = executor.culprit or culprit
        self._kill(executor)

    def dump(self) -> None:
        """Let every executor print the stacks of its threads to stderr."""
        for executor in self.executors.values():
            if executor.pid and executor.status is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(executor.pid, signal.SIGUSR2)

    def kill_all(self) -> None:
        """End every executor at once; replacements come when their exits are reported."""
        for executor in list(self.executors.values()):
            if executor.tasks:
                self._kill(executor)

    def _recycle(self, executor: Executor) -> None:
        """Let an executor that has run enough jobs, or has grown large, begin no more and leave after its last task."""
        enough = self._max_jobs and executor.finished >= self._max_jobs
        if not executor.leaving and (enough or (self._max_rss and rss(executor.pid) > RIPE * self._max_rss)):
            executor.leaving = True
            self.take_back(executor)
            self._fill()
        if executor.leaving and not executor.tasks:
            self._send(executor, Order(leave=True))

    def close(self) -> None:
        """End all executors and the nursery. Tasks that still run are lost to this pool: settle them before."""
        if self.observed:
            self._let_leave()
        for executor in self.executors.values():
            executor.leaving = True
            self._kill(executor)
            executor.close()
        self.executors.clear()
        if self._report is not None:
            self._report.close()
            self._report = None
        if self._nursery is not None:
            # It ends by itself now, when all that jobs left behind has ended.
            try:
                self._nursery.wait(NURSERY_ENDS_WITHIN)
            except subprocess.TimeoutExpired:
                self._nursery.kill()
                self._nursery.wait()
            self._nursery = None

    def _let_leave(self) -> None:
        """Give executors that are idle time to send what their observers have: they end when nobody speaks to them."""
        idle = [executor.pid for executor in self.executors.values() if executor.pid and not executor.tasks]
        for executor in self.executors.values():
            if not executor.tasks:
                executor.sock.close()
        until = self._clock.monotonic() + LAST_WORDS
        while any(map(_is_there, idle)) and self._clock.monotonic() < until:
            time.sleep(0.01)

    def tasks(self) -> list[tuple[Executor, Task]]:
        """All tasks that executors have."""
        executors = list(self.executors.values())
        return [(executor, task) for executor in executors for task in list(executor.tasks.values())]


def start_nursery(where: str, url: str, state: str, lapse: Lapse) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A process that imports the application at where, and the socket on which it speaks."""
    ours, theirs = socket.socketpair()
    nursery = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "kq.worker.nursery",
            str(theirs.fileno()),
            str(lapse.descriptor),
            where,
            str(os.getpid()),
        ],
        pass_fds=[theirs.fileno(), lapse.descriptor],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)},
        start_new_session=True,
    )
    theirs.close()
    # Neither as arguments, which every user of the host can read, nor in the environment, which all that jobs start
    # inherits: a URL may hold a password.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died; who reads its report will know
        ours.sendall(frame(Welcome(url, state)))
    return nursery, ours


def _circumstances(task: Task) -> Circumstances:
    head, counters = task.head, task.counters
    return Circumstances(
        travelling(task.delivery.headers),
        task.delivery.priority,
        counters.failed,
        counters.lost,
        counters.infra,
        head.retry_policy,
        task.falls_back,
    )


def _is_there(pid: int) -> bool:
    """Whether that child of the nursery has not ended, or nobody has noticed."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def outcome_of(ended: Ended, task: Task) -> Outcome:
    """What an executor's report means."""
    if ended.kind == DONE:
        return Done(ended.value, ended.staged)
    failure = Failure(ended.names, ended.message, ended.traceback)
    match ended.kind:
        case kind if kind == UNUSABLE:
            return Unusable(ended.message)
        case kind if kind == RETRY:
            return Asked(failure, ended.delay)
        case kind if kind == INTERRUPTED and task.interrupted:
            return TimedOut(task.timeout, killed=False, failure=failure)
    return Raised(failure)


def how_it_ended(status: int | None) -> str:
    """An exit status in words: "signal 9 (SIGKILL)" or "exit code 3"."""
    if status is None:
        return "unknown cause"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"signal {number} ({signal.Signals(number).name})"
    return f"exit code {os.WEXITSTATUS(status)}"
