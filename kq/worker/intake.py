"""What is taken from the broker: how many jobs of each queue, when it is asked for them, and what goes back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set

from kq.broker import Session
from kq.clock import Clock
from kq.errors import BrokerError
from kq.worker.ears import NOBODY, Ears
from kq.worker.ends import HOLD_LIMIT
from kq.worker.line import Line
from kq.worker.pool import Pool
from kq.worker.task import Task

#: How far ahead of its executors a worker takes jobs: so many seconds' worth, and at most so many jobs.
AHEAD_SECONDS = 0.05
AHEAD_LIMIT = 2 * HOLD_LIMIT
#: So many times the broker is asked for jobs before something else has its turn.
DRAINS = 16
#: Seconds after which a worker that has no room, but jobs in line, listens to the broker again.
DEAF = 0.02
#: Seconds that a job which was taken ahead waits here at most, if it can run elsewhere.
PATIENCE = 1.0


class Intake:
    """That of one worker. Jobs that take long are taken when there is a slot for them; short ones ahead of that."""

    def __init__(self, queues: Mapping[str, int], pool: Pool, line: Line, ears: Ears, clock: Clock) -> None:
        #: The queues, and how many jobs of each may run at a time.
        self.queues: dict[str, int] = dict(queues)
        #: Whether the broker is to be asked at once.
        self.drain_now = False
        #: Those of them from which nothing is taken any more: somebody ordered it.
        self.dropped: Set[str] = frozenset()
        # The queues, and how many jobs run at a time, while nobody orders otherwise.
        self._usual: tuple[Mapping[str, int], int] = ({}, 0)
        self._singletons: Set[str] = frozenset()  # those of which one job runs at a time, everywhere
        self._pool, self._line, self._ears = pool, line, ears
        self._clock = clock
        self._session: Session | None = None
        self._paused: Collection[str] = ()
        self._ending = False
        self._held: dict[str, int] = {}
        self._limits: dict[str, int] = {}
        self._pace: dict[str, float] = {}  # seconds that a job of each queue takes, a moving mean
        #: Queues that are left to others, in the order of their turns.
        self._left: dict[str, None] = {}
        #: Whether there was no room for what came: then queues are taken from in turn, one after another.
        self._in_turn = False
        self._watched: tuple[int, float | None] | None = None
        self._next_look = 0.0

    # From one session to the next.

    def begin(self) -> None:
        """The application is known: see what queues there are."""
        if not self.queues:
            self.queues = dict.fromkeys(self._pool.queues, self._pool.size)
        self._singletons = self._pool.singletons & self.queues.keys()
        self.queues.update(dict.fromkeys(self._singletons, 1))
        self._line.limits = self.queues
        self._usual = dict(self.queues), self._pool.size

    def arrange(self, slots: int, more: Mapping[str, int], less: Collection[str]) -> None:
        """Take jobs from these queues besides, and from those no more; run so many at a time in all. heed() follows."""
        usual, size = self._usual
        wanted = {queue: slots if limit >= size else min(limit, slots) for queue, limit in usual.items()}
        wanted |= {queue: min(limit or slots, slots) for queue, limit in more.items()}
        wanted = {queue: limit for queue, limit in wanted.items() if queue in more or queue not in less}
        self._singletons = self._pool.singletons & wanted.keys()
        wanted |= dict.fromkeys(self._singletons, 1)
        self.dropped = self.queues.keys() - wanted.keys()
        self.queues.update(wanted)
        if self._session is not None:
            for queue, limit in wanted.items():
                self._held.setdefault(queue, 0)
                self._limits[queue] = limit
                self._session.prefetch(queue, limit)

    @property
    def served(self) -> dict[str, int]:
        """The queues that jobs are taken from, and how many of each may run at a time."""
        return {queue: limit for queue, limit in self.queues.items() if queue not in self.dropped}

    def anew(self) -> Mapping[str, int]:
        """Nothing is held; returns how many jobs of each queue a new session may deliver before one is settled."""
        self.queues = self._line.limits = self.served
        self.dropped = frozenset()
        self._held = dict.fromkeys(self.queues, 0)
        self._limits = dict(self.queues)
        self._left.clear()
        self._in_turn = False
        return self._limits

    def join(self, session: Session) -> None:
        """Take jobs by way of session from now on."""
        self._session = session
        self.drain_now = True

    def leave(self) -> None:
        """The session is over."""
        self._session = self._watched = None

    def forget(self) -> None:
        """The broker did not answer: nobody knows what it would have woken us for."""
        self._watched, self.drain_now = None, True

    def heed(self, paused: Collection[str]) -> None:
        """Take jobs from all queues but these."""
        self._paused = paused
        for queue in self.queues:
            self._open_or_close(queue)
        self.drain_now = True  # a queue that was closed may have jobs

    def end(self) -> None:
        """Take no more ahead, and open no queue; close() follows."""
        self._ending = True

    def close(self) -> None:
        """Take nothing more. May be repeated."""
        if self._limits:
            self._limits = {}
            if self._session is not None:
                with contextlib.suppress(BrokerError):
                    for queue in self.queues:
                        self._session.stop(queue)

    # Taking.

    @property
    def descriptor(self) -> int:
        """What of the broker to listen to; NOBODY when it is asked at once, or would wake us for nothing.

        What was said to it since the last watch() may have closed the descriptor; then it is asked at once.
        """
        return NOBODY if self._watched is None or self.drain_now else self._watched[0]

    @property
    def due(self) -> float:
        """When to ask the broker although it does not call, monotonic."""
        if self.drain_now:
            return 0.0
        return float("inf") if self._watched is None or self._watched[1] is None else self._watched[1]

    @property
    def is_due(self) -> bool:
        """Whether it is time to ask the broker."""
        return self.drain_now or self._clock.monotonic() >= self.due

    def came(self, queue: str) -> None:
        """A job of queue was delivered."""
        self._held[queue] += 1

    def drain(self, begin: Callable[[], None]) -> None:
        """Let the broker deliver what it has, while there is room. begin: lets what came begin meanwhile."""
        assert self._session is not None
        self.drain_now = False
        if self._ending:
            self.drain_now = self._session.drain()
            return
        for _ in range(DRAINS):
            more = self._session.drain()
            begin()
            if not more or not self.has_room:
                return
        self.drain_now = True

    def watch(self) -> None:
        """Let the broker wake us, unless jobs that are here will do so first and there is no room for others.

        To ask a broker for that, and to take it back at the next reserve, can cost as much as the reserve itself.
        """
        assert self._session is not None
        if self.waits and not self.has_room and not self.is_due:
            self._watched = NOBODY, self._clock.monotonic() + DEAF
            return
        descriptor, due = self._session.watch()
        self._ears.renew()
        self._watched = descriptor, None if due is None else self._clock.monotonic() + due

    def settled(self, tasks: Iterable[Task]) -> None:
        """The broker was told that tasks have ended: there is room for others."""
        full = any(self._held[queue] >= limit for queue, limit in self._limits.items())
        queues: set[str] = set()
        for task in tasks:
            queue, seconds = task.delivery.queue, task.kind.seconds
            queues.add(queue)
            self._held[queue] -= 1
            if seconds is not None:
                pace = self._pace.get(queue, seconds)
                self._pace[queue] = pace + 0.2 * (seconds - pace)
        self._look_ahead(queues)
        if full:
            self.drain_now = True  # there is room where there was none
        elif not self.drain_now:
            self.watch()  # as before: nothing can have come that does not wake us

    @property
    def has_room(self) -> bool:
        """Whether the broker may deliver more."""
        return any(self._held[queue] < limit for queue, limit in self._limits.items())

    def _look_ahead(self, queues: Iterable[str]) -> None:
        """Take short jobs in advance, so that executors need not wait for the broker; long ones never."""
        if not (self._ending or self._in_turn):
            for queue in queues:
                self._allow(queue, self.queues[queue] + self._ahead(queue))

    def _ahead(self, queue: str) -> int:
        """How many jobs of queue to take in advance."""
        seconds = self._pace.get(queue)
        if seconds is None or queue in self._singletons:
            return 0
        ahead = min(AHEAD_LIMIT, int(self.queues[queue] * AHEAD_SECONDS / max(seconds, 1e-6)))
        # Powers of two, so that the limit changes seldom.
        return 1 << ahead.bit_length() >> 1 if ahead else 0

    def _allow(self, queue: str, limit: int) -> None:
        """Let so many jobs of queue be here at a time."""
        if self._session is not None and limit != self._limits[queue]:
            self._session.prefetch(queue, limit)
            self._limits[queue] = limit

    def _open_or_close(self, queue: str) -> None:
        """Take jobs from queue, or do not."""
        if self._session is None:
            return
        if self._ending or queue in self._paused or queue in self._left:
            self._session.stop(queue)
        else:
            self._session.resume(queue, self._limits.get(queue, 1))

    # Giving back.

    @property
    def next_look(self) -> float:
        """When to look for jobs that wait too long, monotonic; infinite when none waits."""
        return self._next_look if self.waits else float("inf")

    def let_go(self, now: float) -> Sequence[Task]:
        """What is to go back because it waits for long ones to end: others of its queue, or of any where all is full.

        Another worker may be idle. What executors were given comes back to the line first.
        """
        if self._session is None or self._ending or now < self._next_look or not self.waits:
            return ()
        self._next_look = now + PATIENCE / 2
        for executor in self._pool.executors.values():
            if (behind := executor.behind) is not None and now - behind.since >= PATIENCE:
                self._pool.take_back(executor)
        going, full = list[Task](), not self._pool.room_left
        for queue, slots in self.queues.items():
            waiting = [task for task in self._line if task.delivery.queue == queue and now - task.since >= PATIENCE]
            excess = len(waiting) if full else min(len(waiting), self._jobs_of(queue) - slots)
            if excess > 0:
                self._leave(queue)
                going += waiting[-excess:]
        if going and full:
            self._in_turn = True
            for queue in self.queues:  # one that was not left would have each slot that is free before the others
                self._leave(queue)
        for task in going:
            self._line.remove(task)
        return going

    def _leave(self, queue: str) -> None:
        """Take nothing of queue until it is its turn."""
        if queue not in self._left:
            self._left[queue] = None
            self._open_or_close(queue)

    def take_turns(self) -> None:
        """Take jobs again from a queue that was left to others, one queue at a time.

        One that was left because of its own jobs: when one of them has ended. One for which there was no room: when
        there is some, and no more jobs than that: they would be given back time and again.
        """
        if self._session is None or self._ending or not (self._left or self._in_turn):
            return
        room = self._pool.room_left
        if self._in_turn and not room:
            if self._left:
                for queue in [queue for queue, held in self._held.items() if held]:
                    self._leave(queue)  # it had its turn
            return
        if self._in_turn and self._line:
            return
        following = next((queue for queue in self._left if self._held[queue] < self.queues[queue]), None)
        if following is not None:
            if self._in_turn:
                most = min(self.queues[following], self._held[following] + room)
                self._allow(following, most + self._ahead(following))
            del self._left[following]
            self._open_or_close(following)
            self.drain_now = True
        elif self._in_turn:  # there are no more jobs than there is room for
            self._in_turn = False
            self._look_ahead(self.queues)
            self.drain_now = True

    @property
    def waits(self) -> bool:
        """Whether jobs are here that have not begun."""
        return bool(self._line) or self._pool.is_ahead

    def _jobs_of(self, queue: str) -> int:
        """How many jobs of queue run or wait here."""
        tasks = [*self._line, *(task for _, task in self._pool.tasks())]
        return sum(task.delivery.queue == queue for task in tasks)
