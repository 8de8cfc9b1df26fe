"""The supervisor: one loop between the broker and the executors. It runs no user code.

It puts its parts together: a lease at the broker, the intake of jobs, the lobby where they wait, a pool of executors,
and the ends that are still to be told; and it is asked, from outside, to stop, to show what runs, to obey orders.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import os
import random
import socket
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from kq.broker import Broker, Delivery, Session
from kq.clock import RANDOM, SYSTEM, Clock, new_id
from kq.errors import BrokerError, BrokerUnreachable, ConfigError, LeaseLost, WorkerUnfit
from kq.events import Herald, Memory
from kq.handles.standing import EXECUTORS, NONE, ORDER_KEEP, Kind, Order, Standing, order_key, read
from kq.state.store import Store, StoreUnreachable, Write
from kq.units import format_duration
from kq.values.outcome import Died, GiveBack, GivenBack, Outcome
from kq.values.record import answer_key, encode
from kq.values.stack import stack_key
from kq.values.tally import Tally
from kq.worker import journal
from kq.worker.backoff import Backoff
from kq.worker.ears import NOBODY, Ears
from kq.worker.ends import End, Ends
from kq.worker.ground import Ground
from kq.worker.guard import Guard
from kq.worker.intake import Intake
from kq.worker.lease import Lease
from kq.worker.line import Line
from kq.worker.lobby import Lobby
from kq.worker.meter import Meter
from kq.worker.plan import Plan
from kq.worker.pool import OnEnd, Pool
from kq.worker.portrait import Portrait
from kq.worker.skew import Skew
from kq.worker.stacks import Stacks
from kq.worker.task import Task
from kq.worker.voice import Voice

log = logging.getLogger("kq.worker")

#: Seconds; a round that takes longer is none in which answers take long, and keeps no lease.
LONGEST_ROUND = 180.0
#: Seconds that the answer to a nudge, or to a question, is kept for who asked.
ANSWER_KEEP = 10.0


class Supervisor:
    """Takes jobs while it has room, gives them to executors, settles what they say."""

    def __init__(
        self,
        plan: Plan,
        broker: Broker,
        store: Store,
        make_pool: Callable[[OnEnd], Pool],
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
        #: What somebody ordered about its size and its queues. It outlasts the lease, and HUP.
        self.order = Order()
        #: For who looks from another thread: when the loop last came round, monotonic.
        self.ticked: float | None = None
        self._broker, self._store, self._clock = broker, store, clock
        self._host = socket.gethostname()
        self._name = ""
        self._skew = Skew(clock, store)
        ground = Ground(plan, self._host, store, clock, self._skew, broker.traits.indexed, broker.carries)
        memory = Herald(partial(Memory, store, plan.remember, plan.most)) if plan.remember else None
        self._voice = Voice(broker, self.pool, self._skew, memory)
        self._meter = Meter()
        self._portrait = Portrait(ground, self.pool, self._meter)
        self._stacks = Stacks(self.pool, clock)
        self._ends = Ends(ground, self._meter, self._voice, chance)
        self._line = Line(plan.slots)
        self._lobby = Lobby(ground, self.pool, self._line, self._ends)
        self._ears = Ears(self.pool)
        self._intake = Intake(plan.queues, self.pool, self._line, self._ears, clock)
        self._backoff = Backoff(plan.lease, clock, chance)
        self._guard = Guard(plan.lease, clock, self._act_in_time, self._renewal, self._renew)
        self._lease: Lease | None = None
        self._joining: Session | None = None  # one that is about to consume, which is no Lease yet
        self._keep_from = math.inf  # when that is to be beaten
        self._round: float | None = None  # when the loop's round began; None while it waits for something to do
        self._welcome = False  # whether the broker ever took us in
        self._next_pulse = 0.0
        self._stop_by: float | None = None
        self._unfit = ""  # why this worker ends itself
        self._wishes: deque[Callable[[], None]] = deque()
        self._nudges: set[str] = set()

    # What others may ask, from any thread or signal handler.

    def ask(self, wish: Callable[[], None]) -> None:
        """Let the loop call wish soon."""
        self._wishes.append(wish)
        self._ears.wake()

    @property
    def unready(self) -> str:
        """Why it takes no jobs now; "" when it does. From any thread."""
        lease = self._lease
        if self._stop_by is not None:
            return "it ends"
        if self.ticked is None:
            return "it imports its application"
        if lease is None:
            return "it is not connected to the broker"
        if self._clock.monotonic() >= lease.until:
            return "the broker does not answer, and the lease is about to end"
        missing = self.pool.missing
        return f"it has no executor: {missing}" if missing else ""

    @property
    def tally(self) -> Tally | None:
        """What was counted by the last beat. From any thread."""
        return self._portrait.tally

    @property
    def busy(self) -> str:
        """How much of it is at work, for people. From any thread."""
        return f"{sum(task.started > 0 for _, task in self.pool.tasks())} of {self.pool.size} jobs"

    @property
    def wakeup(self) -> int:
        """A descriptor to write a byte to: for signal.set_wakeup_fd."""
        return self._ears.wakeup

    def stop(self) -> None:
        """Finish what runs within the grace, give back the rest, end. A second time: at once. To be asked for."""
        now, running = self._clock.monotonic(), len(self.pool.tasks())
        if self._stop_by is None:
            self._stop_by = now + self.plan.grace
            log.info("told to end: %s running, up to %s for them", running, format_duration(self.plan.grace))
            self._intake.end()
            self._voice.say("stopping")
        else:
            self._stop_by = now
            log.warning("told to end at once: %s running, given back", running)
        if self._lease is not None:
            self._lease.next_beat = now  # so that others see it

    # The loop.

    def run(self) -> None:
        """Work until stopped. Raises WorkerUnfit when it ended itself, KqError when the application does not import."""
        try:
            self.pool.start()
            while not self.pool.cradle.imported and self._stop_by is None:
                self._await_import()
            if self._stop_by is None:
                self._begin()
            while not self._over():
                self.tick()
        finally:
            self._end()
        if self._unfit:
            raise WorkerUnfit(self._unfit, fix="Look at its disk and memory: df -h, free -h.")

    def close(self) -> None:
        """Let go of what wakes it: run() is over, or did not take place, and no signal is to be heard any more."""
        self._ears.close()

    def _await_import(self) -> None:
        """Nothing can be done yet but what somebody asks."""
        self._ears.wait(min(LONGEST_ROUND, max(0.0, self.pool.due - self._clock.monotonic())), NOBODY)
        self.heed()
        if self._clock.monotonic() >= self.pool.due:
            self.pool.attend()

    def _begin(self) -> None:
        """The application is imported: its queues are known."""
        self._intake.begin()
        self._broker.singletons |= self.pool.singletons
        self._arrange(self.order)
        if self.on_ready is not None:
            self.on_ready()
        self._guard.start()

    def heed(self) -> None:
        """Do what was asked for. The loop does it; who has ended it may, for what came too late."""
        while self._wishes:
            self._wishes.popleft()()

    def tick(self) -> None:
        """One round: wait for something, then do all that it leads to."""
        self._round = None
        if self._ears.wait(self._until(), self._intake.descriptor):
            self._intake.drain_now = True
        self._guard.moment = self._latest()
        self._stop_if_unfit()
        self.heed()
        now = self.ticked = self._round = self._clock.monotonic()
        if self.on_pulse is not None and now >= self._next_pulse:
            self._next_pulse = now + self.pulse_every
            self.on_pulse()
        if now >= self.pool.due:
            self.pool.attend()
        try:
            self._talk(now)
        except LeaseLost as error:
            self._lose(error)
        except (BrokerError, StoreUnreachable) as error:
            self._hindered(error)
        self._wind_down(now)
        if self._lease is not None and not self._lease.is_over:  # a beat that failed may be how its end shows first
            self._lobby.give_out()
        if now >= self.pool.limits.next_due:
            self.pool.limits.enforce()
        self._voice.tick(now)

    def _talk(self, now: float) -> None:
        """All that is asked of the broker and the state store in one round."""
        self._keep_lease(now)
        lease = self._lease
        if lease is None:
            return
        if lease.is_over:
            raise LeaseLost("the broker was not heard for as long as the lease")
        if self._stop_by is None:
            self._lobby.begin()
        if not self._starves:
            self._settle(lease)  # before others are waited for: until it is told a job that has ended may be run again
        taken = self._take()
        self._keep_lease(self._clock.monotonic())  # where each answer takes long, a round takes many of them
        for task in self._intake.let_go(now):
            self._ends.add(task, GiveBack())
        self._settle(lease)
        self._lobby.count_starts()
        if self._stop_by is None:
            self._lobby.begin()
        if not (self._lobby.undecided or self._lobby.about_to_start):
            self._intake.take_turns()
        self._look_again()
        self._tell_stacks()
        if taken:
            self._recovered()

    @property
    def _starves(self) -> bool:
        """Whether an executor has nothing to do, and the broker may have something."""
        return self._intake.has_room and not self._line and bool(self.pool.rooms())

    def _until(self) -> float:
        """Seconds to wait at most."""
        now, lease, next_try = self._clock.monotonic(), self._lease, self._backoff.until
        moments = [self.pool.limits.next_due, self.pool.due]
        if self.on_pulse is not None:
            moments.append(self._next_pulse)
        if lease is None:
            moments.append(next_try)
        else:
            moments += [lease.next_beat, lease.until, self._intake.next_look, self._voice.due, self._stacks.due]
            moments.append(max(next_try, self._intake.due))
            if self._ends:
                moments.append(max(next_try, self._ends.due))
            if self._lobby.about_to_start or self._nudges:
                moments.append(max(next_try, now))
        if self._stop_by is not None:
            moments.append(self._stop_by)
        if self.pool.unsent():
            moments.append(now + 0.005)
        return max(0.0, min(moments) - now)

    def _latest(self) -> float:
        """When a job is to be interrupted or killed, or all of them because the lease ends."""
        lease = math.inf if self._lease is None else self._lease.until
        return min(lease, self.pool.limits.next_due)

    def _act_in_time(self, now: float) -> None:
        """The guard's part, while the loop waits for an answer: no job outlives its limit or our lease."""
        self.pool.limits.enforce()
        lease = self._lease
        if lease is not None and now >= lease.until:
            lease.given_up = True
            self._abandon()

    def _renewal(self) -> float:
        """When the lease is to be renewed beside the loop; infinite unless that is in a round, and may be in time."""
        began, lease = self._round, self._lease
        if began is None or self._clock.monotonic() > began + LONGEST_ROUND:
            return math.inf
        if lease is not None:
            return lease.renewal
        return self._keep_from if self._joining is not None else math.inf

    def _renew(self) -> None:
        """The guard's part, while the loop waits for answers: each may take long, and none may cost the lease.

        What goes wrong the loop meets itself, and knows what to do about it.
        """
        lease, session, now = self._lease, self._joining, self._clock.monotonic()
        try:
            if lease is not None:
                lease.renew(lambda key: self._store.write([key]))
            elif session is not None:
                session.beat()
                self._keep_from = now + session.span / 3
        except (BrokerError, StoreUnreachable):
            return
        finally:
            # A beat reads what has come, of which nobody else would be told.
            self.ask(self._intake.forget)

    def _abandon(self) -> None:
        """What runs here belongs to others."""
        for _, task in self.pool.tasks():
            task.abandoned = True
        self.pool.kill_all()

    # The lease: connecting, beating, losing.

    def _keep_lease(self, now: float) -> None:
        if self._lease is None:
            if now >= self._backoff.until and self._stop_by is None:
                self._connect()
        elif now >= self._lease.next_beat:
            self._beat(self._lease)
        elif self._nudges and now >= self._backoff.until:
            self._answer()

    def _connect(self) -> None:
        standing = self._standing()
        self._skew.measure()
        if self._name in standing.retired:  # and that is why its lease was lost
            self._retire(standing)
            return
        before, self._name = self._name, f"{self._host}-{os.getpid()}-{new_id()[-8:]}"
        self._take_along(before)
        self.pool.worker = self._name
        self._voice.join(self._name)
        self._portrait.join(self._name)
        self._ends.join(self._name, self.pool.code)
        self._lobby.join(self._name)
        try:
            session = Session(
                self._broker,
                self._name,
                self.plan.lease,
                self._intake.anew(),
                self._arrive,
                closed=standing.queues,
                nudged=self._nudges.add,
                begun=self._join,
            )
        finally:
            self._joining = None
        self._lease = Lease(session, self.pool.lapse, self._clock)
        self._intake.join(session)
        try:
            self._beat(self._lease)
        except BaseException:
            self._lease = None
            self._intake.leave()
            session.close()
            raise
        if self._backoff:
            log.warning("connected to %s again", self._broker.address.redacted)
            # What is left of the last connection holds on to itself, and nobody would look for it for hours.
            gc.collect()
            self._meter.reconnects += self._welcome
        self._backoff.end()
        self._welcome = True
        if self.on_connect is not None:
            self.on_connect()

    def _join(self, session: Session) -> None:
        """From now on session is to be beaten, however long it takes until it consumes."""
        self._keep_from = self._clock.monotonic() + self.plan.lease / 6
        self._joining = session

    def _beat(self, lease: Lease) -> None:
        lease.beat(self._tell)
        self._ends.tell_late()
        self._obey(self._standing())
        self._skew.measure()

    def _tell(self, *writes: Write) -> None:
        """Make writes, and describe this worker as it is now."""
        now, seats = self._skew.now(), [] if self._lease is None else self._lease.session.seats
        waiting, stopping = self._lobby.waiting, self._stop_by is not None
        about = self._portrait.writes(now, self._intake.served, seats, waiting, stopping=stopping)
        self._store.write([*writes, *about])
        self._portrait.told()

    def _lose(self, error: LeaseLost) -> None:
        """All that was delivered to us belongs to others: kill what runs, forget what waits, begin anew."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.given_up = True
        self._ears.wait(0.0, NOBODY)  # what executors have said already counts
        log.warning("%s; %s running jobs are stopped here and run elsewhere", error.message, len(self.pool.tasks()))
        self._abandon()
        self.pool.lapse.moment = math.inf
        self._ends.lose()
        self._lobby.clear()
        self._intake.leave()
        if lease is not None:
            lease.session.close()
        self._backoff.fail()

    def _hindered(self, error: Exception) -> None:
        """The broker or the store did not answer: try again while the lease lasts.

        Raises error when it was refused from the first moment on: a wrong password is not mended by waiting.
        """
        if not self._welcome and not isinstance(error, BrokerUnreachable | StoreUnreachable):
            raise error
        if not self._backoff:
            log.warning("%s; trying again", str(error).splitlines()[0])
        self._backoff.fail()
        self._intake.forget()
        lease = self._lease
        if lease is None:
            return
        lease.next_beat = max(lease.next_beat, self._backoff.until)
        if not lease.session.connected:
            self._lose(LeaseLost("the connection to the broker was lost, and the lease with it"))

    def _recovered(self) -> None:
        """All that was asked of the broker and the store in this round was answered."""
        if self._backoff:
            log.warning("%s answers again", self._broker.address.redacted)
            self._meter.reconnects += 1
        self._backoff.end()

    # Standing orders.

    def _answer(self) -> None:
        """Somebody wants the orders to be read now, and to know that they were (promise C15)."""
        self._obey(self._standing())
        if self.plan.remote_control:
            self._tell(*(Write(answer_key(token, self._name), b"1", ANSWER_KEEP) for token in self._nudges))
        self._nudges.clear()

    def _standing(self) -> Standing:
        """The orders that stand, unless this worker obeys none."""
        return read(self._store) if self.plan.remote_control else NONE

    def _obey(self, standing: Standing) -> None:
        """Do what is ordered: to queues, to those in line, and to those that run."""
        state = "ready" if self._stop_by is None else "stopping"
        self._voice.heed(standing.hears("events"), standing.followed, state)
        self._retire(standing)
        self._set(standing)
        standing = standing.closed_by(self._intake.dropped)
        self._ends.heed(standing)
        self._intake.heed(standing.queues)
        self._lobby.heed(standing)
        self._stacks.heed(standing.looked_at(self._name))
        for _, task in self.pool.tasks():
            order = standing.revoked.get(task.head.id)
            if order is not None and order.interrupt:
                self.pool.limits.cut_short(task)

    def _tell_stacks(self) -> None:
        """Tell who asked where jobs are."""
        if told := self._stacks.look():
            self._store.write([Write(stack_key(token), encode(stack), ANSWER_KEEP) for token, stack in told])

    def _set(self, standing: Standing) -> None:
        """Be as large, and take what queues, as somebody ordered."""
        order = standing.sizes.get(self._name)
        if order is not None and order != self.order and self._stop_by is None:
            self.order = order
            self._arrange(order)
            queues = ", ".join(self._intake.served)
            log.warning("%s is set %s: %s jobs at a time, of %s", self._name, order, self.pool.size, queues)

    def _arrange(self, order: Order) -> None:
        if order == Order():
            return
        slots = order.slots or self.plan.slots
        if self.pool.kind == "process" and slots > EXECUTORS:
            log.error(
                "it stays as large as it is: it has a process for each job, and %s are more than %s", slots, EXECUTORS
            )
        else:
            try:
                self.pool.resize(slots)
            except ConfigError as error:
                log.error("it stays as large as it is: %s", error)
        self._line.slots = self.pool.size
        self._intake.arrange(self.pool.size, order.more, order.less)

    def _take_along(self, before: str) -> None:
        """What was ordered of a worker that had that name stands for this one."""
        if self.order != Order():
            mine = Write(order_key(Kind.SET, self._name), encode(self.order), ORDER_KEEP)
            self._store.write([mine, Write(order_key(Kind.SET, before), None)])

    def _retire(self, standing: Standing) -> None:
        order = standing.retired.get(self._name)
        if order is not None and self._stop_by is None:
            log.warning("%s is retired %s", self._name, order)
            self.stop()

    # Jobs, on their way through.

    def _take(self) -> bool:
        """Take in what is there; False when it is not the time to."""
        if not self._intake.is_due or self._backoff.waits:
            return False
        self._intake.drain(self._lobby.begin)  # what came begins while the broker is asked for more, or to wake us
        if self._stop_by is None:
            self._lobby.admit()
            self._look_again()
        if not self._intake.drain_now:
            self._intake.watch()
        return True

    def _look_again(self) -> None:
        """Do not wait for anything while nobody knows of some jobs that are here whether they may start."""
        if self._lobby.undecided:
            self._intake.drain_now = True

    def _arrive(self, delivery: Delivery) -> None:
        self._intake.came(delivery.queue)
        self._lobby.arrive(delivery)

    def _began(self, tasks: Sequence[Task]) -> None:
        """Executors begin with tasks."""
        journal.started(tasks)
        self._meter.started(tasks, self._skew.behind)
        self._voice.started(tasks)

    def _ended(self, ends: Sequence[tuple[Task, Outcome]]) -> None:
        """Executions are over, or did not take place."""
        lapsed = self._clock.monotonic() >= self.pool.lapse.moment
        judged: list[End] = []
        for task, outcome in ends:
            if task.abandoned or lapsed:
                self._ends.add_late(task, outcome)
            elif isinstance(outcome, GivenBack) and self._stop_by is None:
                # Its executor died before it started: it is still ours, and first in line.
                task.started = 0.0
                task.interrupted = task.killed = False
                self._lobby.line_up(task)
            else:
                judged.append((task, self._ends.judged(task, _recalled(task, outcome))))
        self._ends.add_all(judged)

    def _settle(self, lease: Lease) -> None:
        """Write down and tell the broker how executions ended."""
        if not self._ends or self._backoff.waits:
            return
        # Not when an executor may be without a job meanwhile.
        if self._intake.waits and self._ends.can_wait:
            return
        self._intake.settled(self._ends.settle(lease.session))
        self._recovered()
        self._ends.forget_released()

    # Ending.

    def _stop_if_unfit(self) -> None:
        """End this worker when bad storage ended one job too many."""
        if self._ends.unfit and self._stop_by is None:
            self._unfit = self._ends.unfit
            log.error("%s: this worker ends itself", self._unfit)
            self.stop()

    def _wind_down(self, now: float) -> None:
        """When a stop was asked for: take nothing new, give back what waits, and when the grace is over what runs."""
        if self._stop_by is None:
            return
        self._intake.close()
        if self._lease is None:
            self._ends.clear()  # nobody to tell: what we held is delivered to others
        for executor in self.pool.executors.values():
            if executor.behind:
                self.pool.take_back(executor)
        for task in self._lobby.clear():
            self._ends.add(task, GiveBack())
        if now >= self._stop_by:
            self._stop_by = now + 5.0
            for _, task in self.pool.tasks():
                task.recalled = True
            self.pool.kill_all()

    def _over(self) -> bool:
        return self._stop_by is not None and not self.pool.tasks() and not self._ends and not self._lobby.undecided

    def _end(self) -> None:
        lease, self._lease, self._round = self._lease, None, None
        self.pool.kill_all()  # what an error left running must not run beside its repetition elsewhere
        if lease is not None:
            key = lease.close()
            with contextlib.suppress(StoreUnreachable):
                self._store.write([key, *self._portrait.last(self._skew.measure())])
        self._voice.say("ended")
        self._voice.close()
        self._guard.stop()
        self.pool.close()


def _recalled(task: Task, outcome: Outcome) -> Outcome:
    """outcome, as it counts where task was stopped because its worker ends."""
    if not task.recalled or not isinstance(outcome, GivenBack | Died):
        return outcome
    started = isinstance(outcome, Died)
    return Died("stopped with its worker") if started and task.kind.rules.starts_once else GivenBack()
