"""One executor as its supervisor sees it: what it was given, what it says, and how it is made to end.

It is a child process that may die at any time, by itself or because it is killed; no wait for it, and no error.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import isfinite

import msgspec

from kq.effects.context import STAGED_SIZE
from kq.values.failure import Failure
from kq.values.job import HIGHEST, LOWEST
from kq.values.message import travelling
from kq.values.outcome import Asked, Died, Done, GivenBack, Outcome, OutOfMemory, Raised, TimedOut, Unusable
from kq.values.record import RESULT_LIMIT
from kq.worker.gates import Gates
from kq.worker.slate import NOTHING, Written
from kq.worker.task import Task
from kq.worker.wire import (
    BESET,
    DONE,
    INTERRUPTED,
    OFFERED,
    RETRY,
    SPAN,
    UNUSABLE,
    Circumstances,
    Claims,
    Ended,
    Frames,
    Order,
    Page,
    Run,
    come,
    frame,
)

log = logging.getLogger("kq.worker")

_check_json = msgspec.json.Decoder(msgspec.Raw).decode
_decode_ended = msgspec.msgpack.Decoder(Ended).decode

#: Bytes of the longest frame that an executor sends: a result with what was staged, or an error with its traceback.
FRAME_LIMIT = RESULT_LIMIT + STAGED_SIZE + 256 * 1024


@dataclass(slots=True, eq=False)
class Executor:
    """One child process. signalled: a signal interrupts its job; else it is told which of them to interrupt.

    tasks: by seq, all that it was given; active: how many of them have a slot; queued: those that get the next ones.
    """

    number: int
    sock: socket.socket
    page: Page
    claims: Claims
    slots: int
    signalled: bool
    apart: bool = False  # whoever dies of it, the nursery does not
    doubtful: bool = False  # it may not be born, or die at once: it is given nothing before it has shown that it lives
    pid: int = 0
    born: float = 0.0  # when its birth was told, monotonic
    seq: int = 0
    finished: int = 0
    tasks: dict[int, Task] = field(default_factory=dict)
    active: int = 0
    queued: deque[Task] = field(default_factory=deque)
    limits: dict[str, int] = field(default_factory=dict)  # of queues: how many of their jobs it runs at a time
    gates: Gates[Task] = field(default_factory=Gates)  # with those that wait for a job of their queue to end
    frames: Frames = field(default_factory=partial(Frames, FRAME_LIMIT))
    unsent: bytearray = field(default_factory=bytearray)
    held: deque[Order] = field(default_factory=deque)  # for whose claims there is no room yet
    leaving: bool = False
    gone: bool = False  # its socket closed
    fell: bool = False  # and nobody here had killed it
    status: int | None = None  # its exit was reported
    culprit: Task | None = None  # for whose sake it was killed
    spared: bool = False  # it died of something that none of its jobs has done
    log: str = ""  # its last lines, when it has died
    doomed: bool = False  # to be killed as soon as its birth is reported
    withheld: set[int] = field(default_factory=set)  # of its tasks, those that it can begin no more
    excess: str = ""  # how much memory it held, when it was killed for that
    on_readable: Callable[[], object] = field(default=lambda: None)

    @property
    def open(self) -> bool:
        """Whether it can start one more task."""
        return len(self.tasks) < self.slots and not (self.leaving or self.gone or self.doubtful)

    @property
    def full(self) -> bool:
        """Whether each of its slots has a task."""
        return self.active >= self.slots

    @property
    def ahead(self) -> int:
        """How many of its tasks have no slot yet."""
        return len(self.tasks) - self.active

    # What it is given.

    def give(self, tasks: Sequence[Task], limit: int = 0) -> None:
        """Note that it is to run tasks, in this order; run() says so. limit: of their queue, or 0."""
        if limit and self.slots > 1:
            self.limits[tasks[0].delivery.queue] = limit
        for task in tasks:
            self.seq += 1
            task.seq = self.seq
            self.tasks[task.seq] = task
            if self.gates.enter(task, task.delivery.queue, self.limits.get(task.delivery.queue, 0)):
                self.queued.append(task)

    def run(self, tasks: Sequence[Task], worker: str, *, observed: bool) -> None:
        """Let it run tasks, which it was given. worker: whose they are; observed: by somebody who asks for more."""
        runs = [_run(task, self.limits.get(task.delivery.queue, 0), observed=observed) for task in tasks]
        self.held += [Order(runs[at : at + OFFERED], worker=worker) for at in range(0, len(runs), OFFERED)]
        self._send_held()

    def _send_held(self) -> None:
        """Send jobs as far as there is room for their claims, without which it begins none."""
        while self.held and self.claims.offer([run.seq for run in self.held[0].run]):
            self.send(self.held.popleft())

    def begins(self, now: float, instant: float) -> list[Task]:
        """Those tasks that have a slot now, which begin. now, instant: the same moment, monotonic and as an instant."""
        begun = [self.queued.popleft() for _ in range(min(len(self.queued), self.slots - self.active))]
        for task in begun:
            task.started, task.began = now, instant
        self.active += len(begun)
        return begun

    @property
    def begun(self) -> list[Task]:
        """Those of its tasks that have done something, or may have."""
        marked = self.page.marked()
        return [task for task in self.tasks.values() if task.seq in marked]

    @property
    def could_not_live(self) -> bool:
        """Whether it died of itself, and has done nothing before; one that was told to leave has not died."""
        return self.fell and not (self.spared or self.finished or self.begun) and (bool(self.tasks) or not self.leaving)

    @property
    def behind(self) -> Task | None:
        """The first of its tasks that has no slot yet."""
        return next((task for task in self.tasks.values() if not task.started), None)

    def take_back(self) -> list[Task]:
        """What it was given and has not begun, and now will not."""
        tasks = [self.tasks.pop(seq) for seq in sorted(self._unclaimed())]
        queued = {task.seq for task in self.queued}
        self.queued = deque(task for task in self.queued if task.seq in self.tasks)
        for task in tasks:
            if task.started or task.seq in queued:
                self._leaves(task)
        return tasks

    def _unclaimed(self) -> set[int]:
        """The seqs of those that it has not begun, and now will not."""
        unsent = {run.seq for order in self.held for run in order.run}
        self.held.clear()
        return unsent | self.claims.take_back()

    def _leaves(self, task: Task) -> None:
        """It has ended, or will not begin: its slot is free, and another of its queue may follow."""
        self.active -= task.started > 0
        if not self.limits:
            return
        queue = task.delivery.queue
        while (following := self.gates.leave(queue, self.limits.get(queue, 0))) is not None:
            if following.seq in self.tasks:  # else it was taken back
                self.queued.append(following)
                return

    def send(self, order: Order) -> None:
        data = frame(order)
        if not self.unsent:
            try:
                sent = self.sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return  # it died: reading its socket tells
            data = data[sent:]
        self.unsent += data

    def flush(self) -> None:
        """Send what its socket, or its claims, had no room for."""
        try:
            del self.unsent[: self.sock.send(self.unsent)]
        except BlockingIOError:
            return
        except OSError:
            self.unsent.clear()
        self._send_held()

    # What it says.

    def hear(self) -> list[Ended] | None:
        """What it tells of ends; None when it says nothing now. Raises EOFError when it never will again."""
        if (data := come(self.sock)) is None:
            return None
        if not data:
            raise EOFError
        try:
            return [_sound(_decode_ended(each)) for each in self.frames.feed(data)]
        except (msgspec.DecodeError, ValueError) as error:
            # A job wrote into its executor's socket: nothing that comes from there can be trusted any more.
            raise EOFError from error

    def ended(self, ended: Ended, now: float, instant: float) -> tuple[Task | None, bool]:
        """The task that ended tells of, which it has no more; None when it was taken away before.

        And whether nobody knew that it had begun: since the last word others have ended before it, or it has begun
        before others that were given first. now, instant: the same moment, monotonic and as an instant.
        """
        task = self.tasks.pop(ended.seq, None)
        if task is None:
            return None, False
        self.finished += 1
        fresh = not task.started
        if fresh:
            self._take_off(task)
            task.started, task.began = now - ended.took, instant - ended.took
            self.active += 1
        self._leaves(task)
        task.kind.took(ended.took)
        task.log, task.effects = ended.log, ended.effects
        task.took, task.cpu, task.rss = ended.took, ended.cpu, ended.rss
        return task, fresh

    def _take_off(self, task: Task) -> None:
        """It stands no more among those that get the next slot."""
        if self.queued and self.queued[0] is task:
            self.queued.popleft()
        else:
            with contextlib.suppress(ValueError):
                self.queued.remove(task)

    def written(self) -> Iterator[tuple[Task, Written]]:
        """Each job that runs there, and what it has written on its slate."""
        written = self.page.written() if self.tasks else {}
        return ((task, written.get(task.seq, NOTHING)) for task in self.tasks.values() if task.started)

    # How it ends.

    def interrupt(self, task: Task) -> None:
        """Let one of its tasks end: softly; the second time by killing it."""
        if not self.pid:
            return  # its birth was not reported yet
        if task.interrupted:
            task.killed = True
            self.kill(task)
            return
        task.interrupted = True
        if self.signalled:
            self.page.interrupt = task.seq
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGUSR1)
        else:
            self.send(Order(interrupt=task.seq))

    def kill(self, culprit: Task | None = None) -> None:
        """End it at once, and all that its jobs started. culprit: for whose sake; the others are not blamed for it."""
        self.culprit = self.culprit or culprit
        self.doomed = True
        if self.pid and self.status is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def dump(self) -> None:
        """Let it print the stacks of its threads to stderr."""
        self.signal(signal.SIGUSR2)

    def signal(self, number: int) -> None:
        """Send it a signal, if it lives."""
        if self.pid and self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def withhold(self) -> None:
        """Let it begin none of its tasks any more, which stay with it."""
        self.withheld |= self._unclaimed()

    def bury(self) -> dict[Task, Outcome]:
        """Let go of what it had, now that it has ended; returns what became of its tasks."""
        started, self.log = self.page.marked(), self.page.log()
        self.withhold()
        self.close()
        if self.pid:  # else its birth was not told, and 0 would be our own group
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)  # what its jobs left behind
        return {task: self._outcome(task, started) for task in self.tasks.values()}

    def _outcome(self, task: Task, started: set[int]) -> Outcome:
        """What its death means for one of its tasks. started: the seqs of those that had begun."""
        if task.interrupted:
            return TimedOut(task.timeout, killed=True, log=self.log)
        innocent = self.spared or self.culprit not in (None, task)
        # What is to start once may have, as soon as it was claimed: its end was not told yet, its slot is another's.
        may_repeat = task.seq in self.withheld if task.kind.rules.starts_once else task.seq not in started or innocent
        if may_repeat:
            return GivenBack()
        if self.excess:
            return OutOfMemory(self.excess, self.log)
        return Died(how_it_ended(self.status), self.log)

    def close(self) -> None:
        self.sock.close()
        self.page.close()
        self.claims.close()


def _sound(ended: Ended) -> Ended:
    """The same. Raises ValueError for a result, or a submit, that no executor tells."""
    if ended.kind == DONE:
        _check_json(ended.value)
    for each in ended.staged:
        fits = LOWEST <= each.priority <= HIGHEST and 0 <= each.delay <= SPAN and _travels(each.headers)
        if not (each.id and each.queue and _is_short(each.id) and _is_short(each.queue) and fits):
            raise ValueError("it has a submit that can't be made")
    return ended


def _travels(value: object) -> bool:
    """Whether every broker has a form for a header."""
    match value:
        case str() | bool() | None:
            return True
        case int():
            return -(2**63) <= value < 2**63
        case float():
            return isfinite(value)
        case dict():
            return all(isinstance(name, str) and _is_short(name) and _travels(each) for name, each in value.items())
        case list():
            return all(map(_travels, value))
    return False


def _is_short(name: str) -> bool:
    """Whether it has at most 255 bytes, which a character of UTF-8 has four of at most."""
    return len(name) < 64 or len(name.encode()) < 256


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
        case kind if kind == BESET and not task.kind.rules.starts_once:
            log.warning("%s %s runs again: %s", task.head.type, task.head.id, ended.message)
            return GivenBack()
        case kind if kind == INTERRUPTED and task.interrupted:
            return TimedOut(task.timeout, killed=False, failure=failure)
    return Raised(failure)


def how_it_ended(status: int | None) -> str:
    """An exit status in words: "signal 9 (SIGKILL)" or "exit code 3"."""
    if status is None:
        return "unknown cause"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name if number in set(signal.Signals) else "one of SIGRTMIN to SIGRTMAX"
        return f"signal {number} ({name})"
    return f"exit code {os.WEXITSTATUS(status)}"


def _run(task: Task, limit: int, *, observed: bool) -> Run:
    delivery, head = task.delivery, task.head
    return Run(
        task.seq,
        head.id,
        head.type,
        delivery.queue,
        delivery.body,
        task.counters.attempts + 1,
        task.timeout,
        head.degraded_by,
        limit,
        _circumstances(task) if observed else None,
    )


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
