"""The supervisor: one loop between the broker and the executors. It runs no user code.

What it decides comes from `outcome.verdict_after`; what it carries out goes through `broker.Session` (its
lease) and `pool.Pool` (its executors). Records about an end are written to the state store before the
broker is told, so that a crash between the two repeats the telling and never loses the record (promise C2).
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import random
import socket
from collections import deque
from collections.abc import Callable, Iterable, Set

from kq.broker import Broker, Delivery, Session
from kq.clock import RANDOM, SYSTEM, Clock, new_id
from kq.errors import BrokerError, BrokerUnreachable, LeaseLost, WorkerUnfit
from kq.outcome import (
    Died,
    GiveBack,
    GivenBack,
    Outcome,
)
from kq.record import answer_key, lease_key
from kq.standing import NONE, Standing, read
from kq.state.store import Store, StoreUnreachable, Write
from kq.tally import Tally
from kq.units import format_duration
from kq.worker import journal
from kq.worker.ears import NOBODY, Ears
from kq.worker.ends import HOLD_LIMIT, Ends
from kq.worker.ground import Ground
from kq.worker.guard import Guard
from kq.worker.line import Line
from kq.worker.lobby import Lobby
from kq.worker.meter import Meter
from kq.worker.plan import Plan
from kq.worker.pool import Pool
from kq.worker.portrait import Portrait
from kq.worker.skew import Skew
from kq.worker.task import Task
from kq.worker.voice import Voice

log = logging.getLogger("kq.worker")

#: Seconds that the answer to a nudge is kept for who asked.
ANSWER_KEEP = 10.0
#: How far ahead of its executors a worker takes jobs: so many seconds' worth, and at most so many jobs.
AHEAD_SECONDS = 0.05
AHEAD_LIMIT = 2 * HOLD_LIMIT
#: Seconds after which a worker that has no room, but jobs in line, listens to the broker again.
DEAF = 0.02
#: Seconds that a job which was taken ahead waits here at most, if it can run elsewhere.
PATIENCE = 1.0
#: Seconds before the end of the lease at which executors are killed, so that none outlives it; of a short lease,
#: a part of it, so that there is time for a second beat when the first is late.
MARGIN = 1.0
MARGIN_PART = 0.25


class Supervisor:
    """Takes jobs while it has room, gives them to executors, settles what they say."""

    def __init__(
        self,
        plan: Plan,
        broker: Broker,
        store: Store,
        make_pool: Callable[[Callable[[Task, Outcome], None]], Pool],
        *,
        clock: Clock = SYSTEM,
        chance: random.Random = RANDOM,
    ) -> None:
        self.plan = plan
        self.pool = make_pool(self._ended)
        self.pool.on_start = self._began
        #: Called when the application is imported and the executors are born.
        self.on_ready: Callable[[], None] | None = None
        #: Called whenever the broker took us in and jobs may come.
        self.on_connect: Callable[[], None] | None = None
        #: Called every so many seconds by the loop, to show that it goes round.
        self.on_pulse: Callable[[], None] | None = None
        self.pulse_every = math.inf
        #: For who looks from another thread: when the loop last came round, monotonic.
        self.ticked: float | None = None
        self._next_pulse = 0.0
        self._broker = broker
        self._store = store
        self._clock = clock
        self._chance = chance
        self._queues: dict[str, int] = dict(plan.queues)
        self._singletons: Set[str] = frozenset()  # those of which one job runs at a time, everywhere
        self._session: Session | None = None
        self._host = socket.gethostname()
        self._given_up: Session | None = None  # by the guard, which killed what ran under it
        self._name = ""
        self._skew = Skew(clock, store)
        ground = Ground(plan, self._host, store, clock, self._skew, broker.traits.indexed)
        self._voice = Voice(broker, self.pool, self._skew)
        self._meter = Meter()
        self._portrait = Portrait(ground, self.pool, self._meter)
        self._ends = Ends(ground, self._meter, self._voice, chance)
        self._line = Line(plan.slots)
        self._lobby = Lobby(ground, self.pool, self._line, self._ends)
        self._unfit = ""  # why this worker ends itself
        self._held: dict[str, int] = {}
        self._limits: dict[str, int] = {}
        self._pace: dict[str, float] = {}
        self._stuck: set[str] = set()  # queues of which nothing is taken until a job of theirs has ended
        self._next_beat = 0.0
        self._next_try = 0.0
        self._next_look = 0.0
        self._failures = 0
        self._welcome = False  # whether the broker ever took us in
        self._drain_now = False
        self._watched: tuple[int, float | None] | None = None
        self._margin = 0.0  # seconds before the end of the lease at which nothing runs any more
        self._stop_by: float | None = None
        self._ears = Ears(self.pool)
        self._wishes: deque[Callable[[], None]] = deque()
        self._standing: Standing = NONE
        self._nudges: set[str] = set()
        self._guard = Guard(clock, self._act_in_time)

    # What others may ask, from any thread or signal handler.

    def ask(self, wish: Callable[[], None]) -> None:
        """Let the loop call wish soon."""
        self._wishes.append(wish)
        self.wake()

    def wake(self) -> None:
        self._ears.wake()

    @property
    def unready(self) -> str:
        """Why it takes no jobs now; "" when it does. From any thread."""
        session = self._session
        if self._stop_by is not None:
            return "it ends"
        if self.ticked is None:
            return "it imports its application"
        if session is None:
            return "it is not connected to the broker"
        late = self._clock.monotonic() >= session.safe_until - self._margin
        return "the broker does not answer, and the lease is about to end" if late else ""

    @property
    def tally(self) -> Tally | None:
        """What was counted by the last beat. From any thread."""
        return self._portrait.tally

    @property
    def busy(self) -> str:
        """How much of it is at work, for people. From any thread."""
        return f"{sum(task.started > 0 for _, task in self.pool.tasks())} of {self.plan.slots} jobs"

    @property
    def wakeup(self) -> int:
        """A descriptor to write a byte to: for signal.set_wakeup_fd."""
        return self._ears.wakeup

    def stop(self) -> None:
        """Finish what runs within the grace, give back the rest, end. A second time: at once."""
        now, running = self._clock.monotonic(), len(self.pool.tasks())
        if self._stop_by is None:
            self._stop_by = now + self.plan.grace
            log.info("told to end: %s running, up to %s for them", running, format_duration(self.plan.grace))
            self._voice.say("stopping")
        else:
            self._stop_by = now
            log.warning("told to end at once: %s running, given back", running)
        self._next_beat = now  # so that others see it

    def dump(self) -> None:
        """Log what runs where, and let every executor print its stacks."""
        now = self._clock.monotonic()
        for executor, task in self.pool.tasks():
            state = f"running for {now - task.started:.1f} s" if task.started else "waiting"
            log.warning("executor %s: %s %s %s", executor.pid, task.head.type, task.head.id, state)
        for executor in self.pool.executors.values():
            executor.dump()

    def kill_stuck(self) -> None:
        """Kill the executor whose job has run longest."""
        started = [(executor, task) for executor, task in self.pool.tasks() if task.started]
        if started:
            executor, task = min(started, key=lambda each: each[1].started)
            executor.kill(task)

    # The loop.

    def run(self) -> None:
        """Work until stopped. Raises WorkerUnfit when it ended itself."""
        self.pool.start()
        if not self._queues:
            self._queues = dict.fromkeys(self.pool.queues, self.plan.slots)
        self._singletons = self.pool.singletons & self._queues.keys()
        self._queues.update(dict.fromkeys(self._singletons, 1))
        self._broker.singletons |= self.pool.singletons
        self._line.limits = self._queues
        if self.on_ready is not None:
            self.on_ready()
        self._guard.start()
        try:
            while not self._over():
                self.tick()
        finally:
            self._end()
        if self._unfit:
            raise WorkerUnfit(self._unfit, fix="Look at its disk and memory: df -h, free -h.")

    def close(self) -> None:
        """Let go of what a run needs, also where it did not take place. May be repeated."""
        self._ears.close()

    def _over(self) -> bool:
        return self._stop_by is not None and not self.pool.tasks() and not self._ends and not self._lobby.undecided

    def tick(self) -> None:
        """One round: wait for something, then do all that it leads to."""
        self._wait(self._until())
        self._stop_if_unfit()
        self._guard.moment = self._latest()
        while self._wishes:
            self._wishes.popleft()()
        now = self.ticked = self._clock.monotonic()
        if self.on_pulse is not None and now >= self._next_pulse:
            self._next_pulse = now + self.pulse_every
            self.on_pulse()
        try:
            self._keep_session(now)
            if self._session is not None and self._is_over(self._session):
                raise LeaseLost("the broker was not heard for as long as the lease")
            taken = self._take()
            self._keep_session(self._clock.monotonic())  # where each answer takes long, a round takes many of them
            self._let_go(now)
            self._settle()
            self._sit_down_again()
            self._count_starts()
            if taken:
                self._recovered()
        except LeaseLost as error:
            self._lose(error)
        except (BrokerError, StoreUnreachable) as error:
            self._hindered(error)
        self._wind_down(now)
        self._lobby.give_out()
        if now >= self.pool.limits.next_due:
            self.pool.limits.enforce()
        self._voice.tick(now)

    def _is_over(self, session: Session) -> bool:
        """Whether its lease is about to end, or was when the guard acted on it: a beat after that is too late."""
        return session is self._given_up or self._clock.monotonic() >= session.safe_until - self._margin

    def _latest(self) -> float:
        """When a job is to be interrupted or killed, or all of them because the lease ends."""
        lease = float("inf") if self._session is None else self._session.safe_until - self._margin
        return min(lease, self.pool.limits.next_due)

    def _act_in_time(self, now: float) -> None:
        """The guard's part, while the loop waits for an answer: no job outlives its limit or our lease."""
        self.pool.limits.enforce()
        session = self._session
        if session is not None and now >= session.safe_until - self._margin:
            self._given_up = session
            for _, task in self.pool.tasks():
                task.abandoned = True
            self.pool.kill_all()

    def _until(self) -> float:
        """Seconds to wait at most."""
        now = self._clock.monotonic()
        moments: list[float] = [self.pool.limits.next_due]
        if self.on_pulse is not None:
            moments.append(self._next_pulse)
        if self._session is None:
            moments.append(self._next_try)
        else:
            moments += [self._next_beat, self._session.safe_until - self._margin]
            if self._ends:
                moments.append(max(self._next_try, self._ends.due))
            if self._lobby.about_to_start or self._nudges:
                moments.append(max(self._next_try, now))
            if self._waits():
                moments.append(self._next_look)
            moments.append(self._voice.due)
            if self._drain_now:
                moments.append(max(self._next_try, now))
            elif self._watched is not None and self._watched[1] is not None:
                moments.append(self._watched[1])
        if self._stop_by is not None:
            moments.append(self._stop_by)
        if self.pool.unsent():
            moments.append(now + 0.005)
        return max(0.0, min(moments) - now)

    def _wait(self, seconds: float) -> None:
        # What was said to the broker since the last watch() may have closed the descriptor; then a drain is due anyway.
        listening = self._watched is not None and not self._drain_now
        broker = self._watched[0] if self._watched is not None and listening else NOBODY
        self._drain_now = self._ears.wait(seconds, broker) or self._drain_now

    # The session: connecting, beating, losing.

    def _keep_session(self, now: float) -> None:
        if self._session is None:
            if now >= self._next_try and self._stop_by is None:
                self._connect()
        elif now >= self._next_beat:
            self._beat(self._session)
        elif self._nudges and now >= self._next_try:
            self._answer(self._session)

    def _connect(self) -> None:
        standing = read(self._store)
        if self._name in standing.retired:  # and that is why its lease was lost
            self._retire(standing)
            return
        self._name = f"{self._host}-{os.getpid()}-{new_id()[-8:]}"
        self.pool.worker = self._name
        self._voice.join(self._name)
        self._portrait.join(self._name)
        self._ends.join(self._name, self.pool.code)
        self._lobby.join(self._name)
        self._held = dict.fromkeys(self._queues, 0)
        self._limits = dict(self._queues)
        self._stuck.clear()
        session = Session(
            self._broker,
            self._name,
            self.plan.lease,
            self._limits,
            self._arrive,
            closed=standing.queues,
            nudged=self._nudges.add,
        )
        self._session = session
        try:
            self._beat(session)
        except BaseException:
            self._session = None
            session.close()
            raise
        if self._failures:
            log.warning("connected to %s again", self._broker.address.redacted)
        self._failures = 0
        self._welcome = True
        if self.on_connect is not None:
            self.on_connect()
        self._drain_now = True

    def _beat(self, session: Session) -> None:
        """Renew the lease, first at the broker: the fence in the state store must not outlast it (promise C4)."""
        began = self._clock.monotonic()
        session.beat()
        self._margin = min(MARGIN, session.span * MARGIN_PART)
        if not self.pool.lapse.extend(session.safe_until - self._margin / 2, self._clock):
            raise LeaseLost("this worker was not awake when its lease was about to end")
        self._ends.tell_late()
        self._tell(Write(lease_key(self._name), b"1", session.span * 0.9))
        self._next_beat = began + session.span / 3
        self._drain_now = True
        self._obey(session, read(self._store))

    def _tell(self, *writes: Write) -> None:
        """Make writes, and describe this worker as it is now."""
        now, seats = self._skew.measure(), [] if self._session is None else self._session.seats
        about = self._portrait.writes(now, self._queues, seats, stopping=self._stop_by is not None)
        self._store.write([*writes, *about])

    # Standing orders.

    def _answer(self, session: Session) -> None:
        """Somebody wants the orders to be read now, and to know that they were (promise C15)."""
        self._obey(session, read(self._store))
        self._tell(*(Write(answer_key(token, self._name), b"1", ANSWER_KEEP) for token in self._nudges))
        self._nudges.clear()

    def _obey(self, session: Session, standing: Standing) -> None:
        """Do what is ordered: to queues, to those in line, and to those that run."""
        self._standing = standing
        self._ends.heed(standing)
        self._voice.heed(standing.hears("events"), "ready" if self._stop_by is None else "stopping")
        self._retire(standing)
        for queue in self._queues:
            self._open_or_close(session, queue)
        self._drain_now = True  # a queue that was closed may have jobs
        self._lobby.heed(standing)
        for _, task in self.pool.tasks():
            order = standing.revoked.get(task.head.id)
            if order is not None and order.interrupt:
                self.pool.limits.cut_short(task)

    def _open_or_close(self, session: Session, queue: str) -> None:
        """Take jobs from queue, or do not."""
        if self._stop_by is not None or queue in self._standing.queues or queue in self._stuck:
            session.stop(queue)
        else:
            session.resume(queue)

    def _retire(self, standing: Standing) -> None:
        order = standing.retired.get(self._name)
        if order is not None and self._stop_by is None:
            log.warning("%s is retired %s", self._name, order)
            self.stop()

    def _lose(self, error: LeaseLost) -> None:
        """All that was delivered to us belongs to others: kill what runs, forget what waits, begin anew."""
        session, self._session = self._session, None
        self._ears.wait(0.0, NOBODY)  # what executors have said already counts
        log.warning("%s; %s running jobs are stopped here and run elsewhere", error.message, len(self.pool.tasks()))
        for _, task in self.pool.tasks():
            task.abandoned = True
        self.pool.kill_all()
        self.pool.lapse.moment = math.inf
        self._ends.lose()
        self._lobby.clear()
        self._watched = None
        if session is not None:
            session.close()
        self._next_try = self._clock.monotonic() + self._backoff()

    def _hindered(self, error: Exception) -> None:
        """The broker or the store did not answer: try again while the lease lasts.

        Raises error when it was refused from the first moment on: a wrong password is not mended by waiting.
        """
        if not self._welcome and not isinstance(error, BrokerUnreachable | StoreUnreachable):
            raise error
        if self._failures == 0:
            log.warning("%s; trying again", str(error).splitlines()[0])
        self._next_try = self._clock.monotonic() + self._backoff()
        self._next_beat = max(self._next_beat, self._next_try)
        self._watched, self._drain_now = None, True
        session = self._session
        if session is not None and not session.connected:
            self._lose(LeaseLost("the connection to the broker was lost, and the lease with it"))

    def _recovered(self) -> None:
        """All that was asked of the broker and the store in this round was answered."""
        if self._failures:
            log.warning("%s answers again", self._broker.address.redacted)
        self._failures = 0

    def _backoff(self) -> float:
        self._failures += 1
        # Several times within a lease: the next beat waits as long.
        return min(2.0, self.plan.lease / 8, 0.05 * 2.0 ** min(self._failures, 10)) * self._chance.uniform(0.5, 1.0)

    # Taking jobs in.

    def _take(self) -> bool:
        """Take in what is there; False when it is not the time to."""
        session = self._session
        if session is None or (not self._drain_now and not self._is_due()):
            return False
        if self._clock.monotonic() < self._next_try and self._failures:
            return False
        self._drain_now = False
        if self._stop_by is None:
            for _ in range(16):
                more = session.drain()
                self._lobby.begin()  # what came begins while the broker is asked for more, or to wake us
                if not more or not self._has_room():
                    break
            else:
                self._drain_now = True
            self._lobby.admit()
            self._drain_now = self._drain_now or self._lobby.undecided
        elif session.drain():
            self._drain_now = True
        if not self._drain_now:
            self._watch(session)
        return True

    def _watch(self, session: Session) -> None:
        """Let the broker wake us, unless jobs that are here will do so first and there is no room for others.

        To ask a broker for that, and to take it back at the next reserve, can cost as much as the reserve itself.
        """
        now = self._clock.monotonic()
        if self._line and not self._has_room() and not self._is_due():
            self._watched = NOBODY, now + DEAF
            return
        descriptor, due = session.watch()
        self._ears.renew()
        self._watched = descriptor, None if due is None else self._clock.monotonic() + due

    def _has_room(self) -> bool:
        return any(self._held[queue] < limit for queue, limit in self._limits.items())

    def _is_due(self) -> bool:
        return (
            self._watched is not None and self._watched[1] is not None and self._clock.monotonic() >= self._watched[1]
        )

    def _arrive(self, delivery: Delivery) -> None:
        self._held[delivery.queue] += 1
        self._lobby.arrive(delivery)

    def _count_starts(self) -> None:
        self._lobby.count_starts()
        self._drain_now = self._drain_now or self._lobby.undecided

    # Settling.

    def _ended(self, task: Task, outcome: Outcome) -> None:
        """An execution is over, or did not take place."""
        if task.started:
            self._line.left(task.delivery.queue)
        if task.abandoned or self._clock.monotonic() >= self.pool.lapse.moment:
            self._ends.add_late(task, outcome)
            return
        if isinstance(outcome, GivenBack) and self._stop_by is None:
            # Its executor died before it started: it is still ours, and first in line.
            task.started = 0.0
            task.interrupted = task.killed = False
            self._lobby.line_up(task)
            return
        if isinstance(outcome, GivenBack | Died) and task.recalled:
            started = isinstance(outcome, Died)
            outcome = Died("stopped with its worker") if started and task.kind.rules.starts_once else GivenBack()
        self._ends.add(task, self._ends.judged(task, outcome))

    def _began(self, task: Task) -> None:
        """An executor begins with task."""
        journal.started(task)
        self._meter.started(task, task.began + self._skew.behind)
        self._voice.started(task)

    def _stop_if_unfit(self) -> None:
        """End this worker when bad storage ended one job too many."""
        if self._ends.unfit and self._stop_by is None:
            self._unfit = self._ends.unfit
            log.error("%s: this worker ends itself", self._unfit)
            self.stop()

    def _settle(self) -> None:
        """Write down and tell the broker how executions ended."""
        session = self._session
        if session is None or not self._ends or (self._clock.monotonic() < self._next_try and self._failures):
            return
        # Not when an executor may be without a job meanwhile: those in line are there to be given out.
        if self._line and self._ends.can_wait:
            return
        settled = self._ends.settle(session)
        full = any(self._held[queue] >= limit for queue, limit in self._limits.items())
        for task in settled:
            queue = task.delivery.queue
            self._held[queue] -= 1
            if task.kind.seconds is not None:
                pace = self._pace.get(queue, task.kind.seconds)
                self._pace[queue] = pace + 0.2 * (task.kind.seconds - pace)
        self._look_ahead(session, {task.delivery.queue for task in settled})
        self._recovered()
        if full:
            self._drain_now = True  # there is room where there was none
        elif not self._drain_now:
            self._watch(session)  # as before: nothing can have come that does not wake us
        self._ends.forget_released()

    def _look_ahead(self, session: Session, queues: Iterable[str]) -> None:
        """Take short jobs in advance, so that executors need not wait for the broker; long ones never."""
        if self._stop_by is not None:
            return
        for queue in queues:
            if queue in self._singletons:
                continue
            seconds = self._pace.get(queue)
            slots = self._queues[queue]
            ahead = 0 if seconds is None else min(AHEAD_LIMIT, int(slots * AHEAD_SECONDS / max(seconds, 1e-6)))
            # Powers of two, so that the limit changes seldom.
            limit = slots + (1 << ahead.bit_length() >> 1 if ahead else 0)
            if limit != self._limits[queue]:
                session.prefetch(queue, limit)
                self._limits[queue] = limit
            if queue in self._stuck and self._jobs_of(queue) < slots:
                self._stuck.discard(queue)
                self._open_or_close(session, queue)

    def _waits(self) -> bool:
        """Whether jobs are here that have not begun."""
        return bool(self._line) or any(executor.queued for executor in self.pool.executors.values())

    def _jobs_of(self, queue: str) -> int:
        """How many jobs of queue run or wait here."""
        tasks = [*self._line, *(task for _, task in self.pool.tasks())]
        return sum(task.delivery.queue == queue for task in tasks)

    def _let_go(self, now: float) -> None:
        """Give back jobs that were taken ahead because jobs were short, and now wait behind a long one."""
        session = self._session
        if session is None or self._stop_by is not None or now < self._next_look or not self._waits():
            return
        self._next_look = now + PATIENCE / 2
        for executor in self.pool.executors.values():
            if executor.queued and now - executor.queued[0].since >= PATIENCE:
                self.pool.take_back(executor)
        for queue, slots in self._queues.items():
            waiting = [task for task in self._line if task.delivery.queue == queue and now - task.since >= PATIENCE]
            # The one job of a singleton queue waits for other queues' jobs: another worker may have room for it.
            ahead = len(waiting) if queue in self._singletons else min(len(waiting), self._jobs_of(queue) - slots)
            if ahead <= 0:
                continue
            self._stuck.add(queue)
            self._open_or_close(session, queue)
            self._pace[queue] = PATIENCE
            for task in waiting[-ahead:]:
                self._line.remove(task)
                self._ends.add(task, GiveBack())

    def _sit_down_again(self) -> None:
        """Take jobs again from the singleton queues that were left to others because nothing had room here."""
        left = self._stuck & self._singletons
        if left and self._session is not None and not self._line and self.pool.rooms():
            self._stuck -= left
            for queue in left:
                self._open_or_close(self._session, queue)

    # Ending.

    def _wind_down(self, now: float) -> None:
        """When a stop was asked for: take nothing new, give back what waits, and when the grace is over what runs."""
        if self._stop_by is None:
            return
        if self._limits:
            self._limits = {}
            if self._session is not None:
                with contextlib.suppress(BrokerError):
                    for queue in self._queues:
                        self._session.stop(queue)
        if self._session is None:
            self._ends.clear()  # nobody to tell: what we held is delivered to others
        for executor in self.pool.executors.values():
            if executor.queued:
                self.pool.take_back(executor)
        for task in self._lobby.clear():
            self._ends.add(task, GiveBack())
        if now >= self._stop_by:
            self._stop_by = now + 5.0
            for _, task in self.pool.tasks():
                task.recalled = True
            self.pool.kill_all()

    def _end(self) -> None:
        session, self._session = self._session, None
        self.pool.kill_all()  # what an error left running must not run beside its repetition elsewhere
        if session is not None:
            session.close()
            with contextlib.suppress(StoreUnreachable):
                self._store.write([Write(lease_key(self._name), None), *self._portrait.last(self._skew.measure())])
        self._voice.say("ended")
        self._voice.close()
        self._guard.stop()
        self.pool.close()
        self._ears.close()
