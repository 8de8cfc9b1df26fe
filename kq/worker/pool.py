"""The executors of one supervisor: as many as there are to be, fed with jobs, replaced when they die or have grown old.

No broker and no policy here: a pool is given tasks and says how each execution ended.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Literal, TypeAlias

from kq.clock import Clock
from kq.errors import AppNotFound
from kq.values.outcome import GivenBack, Outcome
from kq.worker.child import Executor, how_it_ended, outcome_of
from kq.worker.cradle import IMPORTS_WITHIN, STILL_IMPORTS, Cradle, in_one_line
from kq.worker.lapse import Lapse
from kq.worker.limits import Limits, tasks_of
from kq.worker.slate import Written
from kq.worker.task import Kind, Task, kind_of
from kq.worker.trial import Trial
from kq.worker.want import LIVES, Want, must_have_files, too_few_files
from kq.worker.wire import Claims, Ended, Entry, Exited, Hello, Order, Page, Spawn, Spawned, Unborn

log = logging.getLogger("kq.worker")

PoolKind: TypeAlias = Literal["process", "thread", "async"]
#: Is told of executions that are over, or did not take place: those that were heard of together.
OnEnd: TypeAlias = Callable[[Sequence[tuple[Task, Outcome]]], None]

#: Jobs that last long are sent one by one; of short ones, so many seconds' worth at a time. One that lasts up to twice
#: as long is sent before the last one has ended: the wait for the supervisor would be a good part of it.
BATCH_SECONDS = 0.01
BATCH_LIMIT = 128
#: So many births are asked for at a time. With hundreds the sockets between supervisor and nursery fill, and each waits
#: for the other.
BIRTHS = 64
#: Seconds within which the nursery tells of a birth, or of an end: after that it is told to go on, in case somebody has
#: stopped it, and after as many again killed.
TELLS_WITHIN = 5.0
#: Seconds that idle executors have at the end to send what observers of the app have gathered.
LAST_WORDS = 3.0


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
        on_end: OnEnd,
        *,
        max_jobs: int = 0,
        max_rss: int = 0,
        relay: Callable[[], socket.socket] | None = None,
        debuggable: bool = False,
    ) -> None:
        self.kind = kind
        self.size = size  # how many jobs run at a time
        self._clock = clock
        self._on_end = on_end
        #: Called with tasks that begin, or have ended before anybody knew that they had.
        self.on_start: Callable[[Sequence[Task]], None] = lambda tasks: None
        self._relay = relay
        self._max_jobs = max_jobs
        self._processes = size if kind == "process" else 1
        self._slots = 1 if kind == "process" else size
        self._numbers = 0
        self.executors: dict[int, Executor] = {}
        self.limits = Limits(self.executors, clock, max_rss)
        self.kinds: dict[str, Kind] = {}
        self.entries: Sequence[Entry] = ()
        self.queues: list[str] = []
        #: Those of which one job runs at a time.
        self.singletons: set[str] = set()
        #: The name under which the supervisor holds its lease.
        self.worker = ""
        #: The version of the application, and whether anybody observes it.
        self.code, self.observed = "", False
        #: Until when executors may run, whether or not we live to see it.
        self.lapse = Lapse()
        self.cradle = Cradle(where, url, state, self.lapse, debuggable=debuggable)
        #: When the nursery has owed a word for too long; monotonic.
        self._overdue = math.inf
        self._owed: set[int] = set()  # of which executors
        self._silent = 0.0  # seconds
        self._want = Want(clock)
        self._imported = 0.0  # when the application was, monotonic
        self._begun = False  # whether all executors that there are to be were asked for once
        self.trial = Trial(self.cradle, clock, self._change)
        #: Changes whenever descriptors() does.
        self.version = 0

    # Births and deaths.

    def start(self) -> None:
        """Let the application be imported, and then executors be born.

        Raises ConfigError where too few files may be open. Whoever reads what the nursery says meets the KqError of an
        application that does not import.
        """
        try:
            self._new_nursery()
        except OSError as error:
            if error.errno == errno.EMFILE:
                raise too_few_files(error, self.size, 0, self._processes) from error
            self._lack(error)

    @property
    def due(self) -> float:
        """When attend() is to be called, monotonic; infinite while there is nothing to wait for."""
        return min(self._overdue, self._want.due, self.trial.due)

    def attend(self) -> None:
        """Do what it is time to: ask again for what the system did not give, look after who has told nothing."""
        now = self._clock.monotonic()
        if now >= self._want.due:
            self._ask_again()
        if now >= self._overdue:
            self._rouse()
        if now >= self.trial.due:
            self.trial.attend()

    def read_report(self) -> None:
        """Take in what the nursery says."""
        try:
            reports = self.cradle.hear()
        except EOFError:
            self._revive_nursery()
            return
        for each in reports:
            match each:
                case Hello() as hello:
                    self._greeted(hello)
                case Spawned(number, pid):
                    if number in self.executors:
                        self._born(self.executors[number], pid)
                    self._fill()
                    self._look_for_want()
                case Unborn(number, why):
                    self._lack(OSError(why, os.strerror(why)))
                    if number in self.executors:
                        self._exited(self.executors[number], 0)
                case Exited(pid, status):
                    for executor in [each for each in self.executors.values() if each.pid == pid]:
                        self._exited(executor, status)
        self._await()

    def _born(self, executor: Executor, pid: int) -> None:
        executor.pid, executor.born = pid, self._clock.monotonic()
        if executor.doomed:
            executor.kill()
        if not executor.gone:
            self._owed.discard(executor.number)
        if self._want.sickly:
            self._want.watch(executor.born + LIVES)
        else:
            executor.doubtful = False

    def _owes(self, executor: Executor) -> None:
        """The nursery is to tell of its birth, or of its end."""
        self._owed.add(executor.number)
        if math.isinf(self._overdue):
            self._await()

    def _await(self) -> None:
        """From now on the nursery has all its time again for what it owes."""
        self._silent = 0.0
        if self.cradle.descriptor is not None and not self.cradle.imported:
            self._overdue = self._clock.monotonic() + STILL_IMPORTS
        else:
            self._overdue = self._clock.monotonic() + TELLS_WITHIN if self._owed else math.inf

    def _rouse(self) -> None:
        """The nursery is overdue: let it go on, more than once where it has long; if that does not help end it.

        Nobody is to blame then for what the executors die of, for they die with it.
        """
        soon, late = (TELLS_WITHIN, 2 * TELLS_WITHIN) if self.cradle.imported else (STILL_IMPORTS, IMPORTS_WITHIN)
        first, self._silent = not self._silent, self._silent + soon
        if first:
            what = f"of {len(self._owed)} executors" if self.cradle.imported else "of the application, which it imports"
            log.warning(
                "the nursery has told nothing for %g s %s: it is told to go on, in case it was stopped", soon, what
            )
        if self._silent < late:
            self._overdue += soon
            self.cradle.rouse()
            return
        then = "what its executors run runs again" if self.cradle.imported else "the application is not imported"
        log.error("the nursery has told nothing for %g s: it is killed, and %s", late, then)
        for executor in self.executors.values():
            executor.spared = True
        self._overdue = math.inf
        self.cradle.kill()

    def _lack(self, error: OSError) -> None:
        """The system has no room for another executor: go on with those that there are, and ask again later."""
        self._want.lack(error, self._alive, self._processes)

    @property
    def _alive(self) -> int:
        """How many executors are there, and may be given jobs. From any thread."""
        return sum(each.pid > 0 and not (each.gone or each.doubtful) for each in list(self.executors.values()))

    @property
    def missing(self) -> str:
        """Why there is nobody to run a job; "" while there is somebody, or soon will be. From any thread."""
        if self._alive:
            return ""
        return self._want.why or ("" if self.cradle.imported else "the application is imported anew")

    def _ask_again(self) -> None:
        """Ask for what was lacking: a nursery, or executors."""
        self._want.ask()
        now = self._clock.monotonic()
        for executor in self.executors.values():
            if executor.pid and now >= executor.born + LIVES:
                executor.doubtful = False
        if self.cradle.descriptor is None:
            self._begin_anew()
        self._fill()
        self._look_for_want()

    def _look_for_want(self) -> None:
        """Nothing is lacking any more when all executors that there are to be were born, and live."""
        there = all(executor.pid and not executor.doubtful for executor in self.executors.values())
        if self._want and self._missing <= 0 and there:
            self._want.end(self._processes)

    def _greeted(self, hello: Hello) -> None:
        """The application is imported; raises KqError when it does not import."""
        if hello.error:
            error = AppNotFound(in_one_line(hello.error))
            error.add_note(hello.error.partition("\n")[2])
            raise error
        self.cradle.imported = True
        self._imported = self._clock.monotonic()
        self.kinds = {entry.name: kind_of(entry, self.kinds.get(entry.name)) for entry in hello.entries}
        self.code, self.observed = hello.code, hello.observed
        self.entries = hello.entries
        self.queues = sorted({entry.queue for entry in hello.entries})
        self.singletons = {entry.queue for entry in hello.entries if entry.singleton}
        self._fill()
        self._look_for_want()

    def resize(self, size: int) -> None:
        """Run so many jobs at a time from now on. What runs goes on, and counts; executors leave after their last job.

        Where jobs share an executor another one takes its place. Raises ConfigError where this process may not have as
        many files open as that takes; then nothing changes.
        """
        processes = size if self.kind == "process" else 1
        must_have_files(processes)
        staying = sorted((each for each in self.executors.values() if not each.leaving), key=lambda each: each.active)
        self.size, self._processes, self._slots = size, processes, 1 if self.kind == "process" else size
        for executor in staying[: max(0, len(staying) - size)] if self.kind == "process" else staying:
            executor.leaving = True
            self.take_back(executor)
            self._recycle(executor)
        self._fill()

    def _fill(self) -> None:
        """Have as many executors as there are to be, or ask for some; each birth that is told asks for more.

        Raises ConfigError when there were never as many, and this process may not have so many files open.
        """
        missing = self._missing
        unborn = sum(not executor.pid or executor.doubtful for executor in self.executors.values())
        births = max(1, self._alive) if self._want.sickly else BIRTHS  # where they die at once, few are tried
        rest = max(0, missing - births + unborn)  # to be asked for later
        try:
            while self.cradle.imported and missing > rest and not self._want.waits and self._spawn():
                missing -= 1
        except OSError as error:
            if error.errno == errno.EMFILE and not self._begun:
                raise too_few_files(error, self.size, len(self.executors), self._processes) from error
            self._lack(error)
        self._begun = self._begun or missing <= 0

    @property
    def _missing(self) -> int:
        """How many executors are still to be asked for."""
        return self._processes - sum(not executor.leaving for executor in self.executors.values())

    def _spawn(self, *, apart: bool = False) -> bool:
        """Ask for one more executor; False when there is no nursery to ask. Raises OSError where there is no room.

        apart: it is to take nobody with it, whatever its job does to its parent.
        """
        self._numbers += 1
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            sock, far = socket.socketpair()
            ours.enter_context(sock)
            given = [theirs.enter_context(far).fileno()]
            page = Page(self._slots)
            ours.callback(page.close)
            claims = Claims(self._slots + BATCH_LIMIT)
            ours.callback(claims.close)
            given += [page.descriptor, claims.reader]
            if self._relay is not None:
                given.append(theirs.enter_context(self._relay()).fileno())
            spawn = Spawn(self._numbers, self.kind, self._slots, self._relay is not None, apart)
            if not self.cradle.ask(spawn, given):
                return False  # read_report() starts another
            ours.pop_all()
        executor = Executor(self._numbers, sock, page, claims, self._slots, self.kind == "process", apart)
        sock.setblocking(False)
        executor.on_readable = partial(self._heard, executor)
        executor.doubtful = bool(self._want)
        self.version += 1
        self.executors[executor.number] = executor
        self._owes(executor)
        return True

    def _exited(self, executor: Executor, status: int) -> None:
        """It has ended: settle what it had, and put another in its place."""
        executor.status = status
        # Its last words may still wait in the socket. Its end may not: a child that it forked can hold it open.
        while not executor.gone and self._heard(executor):
            pass
        self._lost(executor)
        self._owed.discard(executor.number)
        del self.executors[executor.number]
        if executor.could_not_live and self._clock.monotonic() < executor.born + LIVES:
            self._want.lose("an executor", how_it_ended(status), self._alive, self._processes)
        ends = executor.bury()
        self._fill()
        self._on_end(list(ends.items()))

    def _lost(self, executor: Executor) -> None:
        """Its socket closed, or cannot be trusted: it is dead or dying. Its exit report tells how."""
        if not executor.gone:
            executor.gone, executor.fell = True, not executor.doomed
            self.version += 1
            executor.sock.close()
            executor.kill()
            self._owes(executor)

    def _revive_nursery(self) -> None:
        """The nursery died, and all executors with it. Raises KqError if it died of the import.

        Those in whose way another process stood have not killed it, where anybody ran who could.
        """
        dead = list(self.executors.values())
        if any(executor.begun for executor in dead if not executor.apart):
            for executor in dead:
                executor.spared |= executor.apart
        for executor in dead:
            executor.doomed, executor.fell = True, False  # it has not died of itself
        self.version += 1
        at_once = self.cradle.imported and self._clock.monotonic() < self._imported + LIVES
        status = self.cradle.bury()
        if at_once and not any(executor.begun for executor in dead):
            self._want.lose("the nursery", f"status {status}", 0, self._processes)
        else:
            self._begin_anew()
        for executor in dead:
            self._exited(executor, signal.SIGKILL if executor.status is None else executor.status)
        self._await()

    def _begin_anew(self) -> None:
        """Begin with another one, now or when the system has room for it."""
        try:
            self._new_nursery()
        except OSError as error:
            self._lack(error)

    def _new_nursery(self) -> None:
        """Begin with another one. Raises OSError where the system has no room for it."""
        self.cradle.start()
        self.version += 1
        self._await()

    # Reading.

    def descriptors(self) -> Mapping[int, Callable[[], object]]:
        """What to watch for reading, and what to call then."""
        found: dict[int, Callable[[], object]] = {}
        if self.cradle.descriptor is not None:
            found[self.cradle.descriptor] = self.read_report
        if self.trial.descriptor is not None:
            found[self.trial.descriptor] = self.trial.hear
        for executor in self.executors.values():
            if not executor.gone:
                found[executor.sock.fileno()] = executor.on_readable
        return found

    def _heard(self, executor: Executor) -> bool:
        """Take in what executor says; False when it says nothing now."""
        try:
            ends = executor.hear()
        except EOFError:
            self._lost(executor)
            return False
        if ends:
            self._ended(executor, ends)
        return ends is not None

    def _ended(self, executor: Executor, ends: Iterable[Ended]) -> None:
        """Take in ends that came together; those that others had to await begin now."""
        now, instant = self._clock.monotonic(), self._clock.now()
        begun: list[Task] = []
        over: list[tuple[Task, Outcome]] = []
        for ended in ends:
            task, fresh = executor.ended(ended, now, instant)
            if task is not None:
                over.append((task, outcome_of(ended, task)))
                if fresh:
                    begun.append(task)
        if begun:
            self.on_start(begun)
        self._on_end(over)
        self._begin(executor)
        self._recycle(executor)

    def _change(self) -> None:
        self.version += 1

    def written(self) -> Iterator[tuple[Executor, Task, Written]]:
        """Each job that runs, and what it has written on its slate."""
        for executor in list(self.executors.values()):
            yield from ((executor, task, written) for task, written in executor.written())

    # Feeding.

    def rooms(self) -> list[Executor]:
        """Executors that can start a task now."""
        return [executor for executor in self.executors.values() if executor.open][: self._left()]

    def busy(self) -> list[Executor]:
        """Executors that can't start a task before one of theirs ends."""
        return [
            executor
            for executor in self.executors.values()
            if executor.full and not (executor.leaving or executor.gone)
        ]

    @property
    def is_ahead(self) -> bool:
        """Whether executors have tasks that have not begun."""
        return any(executor.ahead for executor in self.executors.values())

    def has_room(self, executor: Executor) -> bool:
        """Whether executor can start a task now."""
        return executor.open and self._left() > 0

    def room(self, executor: Executor, queue: str, limit: int) -> int:
        """How many jobs of queue, of which so many may run at a time in all, executor may be given now."""
        left, beside = limit, False
        for each in self.executors.values():
            number = sum(task.delivery.queue == queue for task in each.tasks.values())
            left -= min(number, each.slots)
            beside = beside or (number > 0 and each is not executor)
        if left <= 0:
            return 0
        # What it is given beyond that waits in it, unless it may run fewer than so many because others run some.
        return left if beside and executor.slots > 1 else BATCH_LIMIT

    def _left(self) -> int:
        """How many more jobs may run; those in executors that are about to leave count, too."""
        return max(0, self.size - sum(executor.active for executor in self.executors.values()))

    @property
    def room_left(self) -> int:
        """How many tasks could start now."""
        slots = sum(executor.slots - len(executor.tasks) for executor in self.executors.values() if executor.open)
        return min(slots, self._left())

    def give(self, executor: Executor, tasks: list[Task], limit: int = 0) -> None:
        """Let executor run tasks, in this order. limit: so many of their queue run at a time; 0: all."""
        executor.give(tasks, limit)
        self._begin(executor)
        executor.run(tasks, self.worker, observed=self.observed)

    def isolate(self, executor: Executor, task: Task, limit: int) -> None:
        """Let task run alone, in an executor of its own, which leaves after it.

        In executor where there is none to be had: the nursery has just died, there is no room, or they die at once.
        """
        try:
            if not (self._want.waits or self._want.sickly) and self._spawn(apart=True):
                executor = self.executors[self._numbers]
                executor.leaving = True
        except OSError as error:
            self._lack(error)
        self.give(executor, [task], limit)

    def take_back(self, executor: Executor) -> None:
        """Give back what it was given and has not begun."""
        self._on_end([(task, GivenBack()) for task in executor.take_back()])

    def batch(self, task: Task, executor: Executor) -> int:
        """How many tasks like this one to give to executor at a time; none that would wait there long."""
        seconds, full = task.kind.seconds, executor.full
        if seconds is None or task.poison or task.suspect:
            return 0 if full else 1
        worth = round(BATCH_SECONDS * executor.slots / max(seconds, 1e-6))
        rest = self._rest(executor)
        if full:
            return max(0, min(self._ahead(executor), rest)) if worth else 0
        return max(min(executor.slots - len(executor.tasks), self._left()), min(BATCH_LIMIT, worth, rest))

    def _rest(self, executor: Executor) -> int:
        """How many more jobs an executor may be given before it is replaced; those of a free slot are given anyway."""
        return self._max_jobs - executor.finished - len(executor.tasks) if self._max_jobs else BATCH_LIMIT

    def _ahead(self, executor: Executor) -> int:
        """How many more tasks to give to an executor that is full, so that it need not wait for us when one ends."""
        now, ends = self._clock.monotonic(), 0.0
        for task in executor.tasks.values():
            seconds = task.kind.seconds
            # Nobody knows when one ends that takes longer than its like.
            if task.started and seconds is not None and now - task.started < seconds + BATCH_SECONDS:
                ends += 1 / max(seconds, 1e-6)
        most = min(BATCH_LIMIT, round(BATCH_SECONDS * ends))
        return most - executor.ahead if 2 * executor.ahead <= most else 0

    def _begin(self, executor: Executor) -> None:
        """Note the start of those tasks of executor that have a slot now."""
        if not executor.queued or executor.active >= executor.slots:
            return
        begun = executor.begins(self._clock.monotonic(), self._clock.now())
        self.limits.begun(begun)
        self.on_start(begun)

    def unsent(self) -> list[Executor]:
        """Executors whose socket was full, or their claims."""
        return [each for each in self.executors.values() if (each.unsent or each.held) and not each.gone]

    def tasks(self) -> list[tuple[Executor, Task]]:
        """All tasks that executors have."""
        return tasks_of(self.executors)

    def dump(self) -> None:
        """Log what runs where, and let every executor print its stacks."""
        now = self._clock.monotonic()
        for executor, task in self.tasks():
            state = f"running for {now - task.started:.1f} s" if task.started else "waiting"
            log.warning("executor %s: %s %s %s", executor.pid, task.head.type, task.head.id, state)
        for executor in self.executors.values():
            executor.dump()

    # Ending.

    def kill_stuck(self) -> None:
        """Kill the executor whose job has run longest."""
        started = [(executor, task) for executor, task in self.tasks() if task.started]
        if started:
            executor, task = min(started, key=lambda each: each[1].started)
            executor.kill(task)

    def kill_all(self) -> None:
        """End every executor at once; replacements come when their exits are reported."""
        for executor in list(self.executors.values()):
            if executor.tasks:
                if not executor.pid:
                    executor.withhold()  # it will be born before it can be killed, and finds nothing to begin
                executor.kill()

    def _recycle(self, executor: Executor) -> None:
        """Let an executor that has run enough jobs, or has grown large, begin no more and leave after its last task."""
        enough = self._max_jobs and executor.finished >= self._max_jobs
        if not executor.leaving and (enough or self.limits.is_ripe(executor)):
            executor.leaving = True
            self.take_back(executor)
            self._fill()
        if executor.leaving and not executor.tasks:
            executor.send(Order(leave=True))

    def close(self) -> None:
        """End all executors and the nursery. Tasks that still run are lost to this pool: settle them before."""
        self.trial.close()
        if self.observed:
            self._let_leave()
        for executor in self.executors.values():
            executor.leaving = True
            executor.kill()
            executor.close()
        self.executors.clear()
        self.cradle.close()

    def _let_leave(self) -> None:
        """Give executors that are idle time to send what their observers have: they end when nobody speaks to them."""
        idle = [executor.pid for executor in self.executors.values() if executor.pid and not executor.tasks]
        for executor in self.executors.values():
            if not executor.tasks:
                executor.sock.close()
        until = self._clock.monotonic() + LAST_WORDS
        while any(map(_is_there, idle)) and self._clock.monotonic() < until:
            time.sleep(0.01)


def _is_there(pid: int) -> bool:
    """Whether that child of the nursery has not ended, or nobody has noticed."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
