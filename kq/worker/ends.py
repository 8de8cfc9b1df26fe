"""How executions ended: judged, written down in the state store, then told to the broker, many in one round trip.

Records are written before the broker is told, so that a crash between the two repeats the telling and never loses the
record (promise C2). What becomes of a job is decided by `outcome.verdict_after`.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from msgspec.structs import replace

from kq.broker import Session, Settlement
from kq.errors import BrokerError, BrokerFull, BrokerUnreachable, LeaseLost
from kq.handles.standing import NONE, Standing
from kq.state.store import StoreUnreachable, Write
from kq.units import format_duration
from kq.values.failure import Failure, names_of
from kq.values.outcome import Bury, Complete, FallBack, GiveBack, Outcome, Park, Retry, Verdict, verdict_after
from kq.values.record import lease_key
from kq.worker import journal
from kq.worker.doubts import Doubts
from kq.worker.gauge import SHORT
from kq.worker.ground import Ground
from kq.worker.late import LateWords
from kq.worker.meter import Meter
from kq.worker.scribe import Scribe
from kq.worker.strain import Strain
from kq.worker.task import Task
from kq.worker.troubles import Troubles
from kq.worker.voice import Voice

log = logging.getLogger("kq.worker")

End: TypeAlias = tuple[Task, Verdict]

#: Ends of jobs that took less than SHORT seconds are told together, with so many others at most, within HOLD seconds.
HOLD = 0.005
HOLD_LIMIT = 128
#: Seconds after which no further job is looked at in the ledger before the loop has been round: it has a lease to keep.
LOOKING = 0.1


class Ends:
    """Those of one worker that the broker has not been told yet."""

    def __init__(self, ground: Ground, meter: Meter, voice: Voice, chance: random.Random) -> None:
        self._ground = ground
        self._store, self._clock, self._skew = ground.store, ground.clock, ground.skew
        self._meter, self._voice = meter, voice
        self._chance = chance
        self._late = LateWords(ground.store)
        self._strain = Strain(ground.plan.unfit_after, ground.plan.unfit_within)
        #: Why this worker is to end itself; "" when it is not.
        self.unfit = ""
        self._standing: Standing = NONE
        self._ordered = False  # whether any order speaks of jobs
        self._waiting: list[End] = []
        self._released: list[Write] = []
        #: When they are to be told at the latest, monotonic.
        self.due = math.inf
        self.join("", "")

    def __len__(self) -> int:
        return len(self._waiting)

    def join(self, worker: str, code: str) -> None:
        """Write in the name of a worker that runs that version of the application."""
        self._worker = worker
        self._scribe = Scribe(worker, self._ground.host, self._ground.indexed, code)
        self._doubts = Doubts(self._store, worker, self._meter.doubted)
        alert = self._ground.plan.alert
        self._troubles = Troubles(worker, code, alert) if alert else None  # where nobody is told of them

    def heed(self, standing: Standing) -> None:
        """From now on these orders stand."""
        self._standing, self._ordered = standing, bool(standing)

    # What has ended.

    def judged(self, task: Task, outcome: Outcome) -> Verdict:
        """What becomes of task."""
        return verdict_after(outcome, task.counters, task.rules, self._chance)

    def add(self, task: Task, verdict: Verdict) -> None:
        """task has ended, or goes without having begun."""
        self.add_all([(task, verdict)])

    def add_all(self, ended: Iterable[End]) -> None:
        """The same of several."""
        now, instant = self._clock.monotonic(), self._skew.now()
        for task, verdict in ended:
            if self._ordered:
                verdict = self._standing.last_word(task.head.id, verdict)
            self._waiting.append((task, verdict))
            task.ran = now - task.started if task.started else None
            due = now + HOLD if _is_small(task, verdict) else now
            if due < self.due:
                self.due = due
            if not isinstance(verdict, FallBack):  # that is told when it is known what the job has begun
                self._note(task, verdict, now, instant)
            if not isinstance(verdict, Complete) and _is_of_bad_storage(verdict):
                self._bear(task)

    def add_unread(self, task: Task, outcome: Outcome) -> None:
        """task could not even be read: who found that out has logged it."""
        verdict = self.judged(task, outcome)
        self._waiting.append((task, verdict))
        self._meter.ended(task, verdict, self._skew.now())
        self.due = self._clock.monotonic()

    def add_late(self, task: Task, outcome: Outcome) -> None:
        """task ended here after others had come to speak for it."""
        self._late.add(task, self.judged(task, outcome), self._scribe, self._clock.now())

    def _note(self, task: Task, verdict: Verdict, now: float, instant: float) -> None:
        """Log and count how an execution ended, once. now: monotonic; instant: the same by the state store's clock."""
        journal.ended(task, verdict, now)
        self._meter.ended(task, verdict, instant)
        task.told = True

    def _bear(self, task: Task) -> None:
        """Bad storage ended a job here: this worker is unfit when that was one too many."""
        if self._strain.add(task.head.id, self._clock.monotonic()):
            within = format_duration(self._strain.within)
            self.unfit = f"bad storage ended {self._strain.most} jobs on {self._ground.host} within {within}"

    # Telling.

    @property
    def can_wait(self) -> bool:
        """Whether all are of short jobs, that others may join: so one round trip is about many."""
        return len(self._waiting) < HOLD_LIMIT and self._clock.monotonic() < self.due

    def settle(self, session: Session) -> list[Task]:
        """Write down and tell the broker what has ended; returns that. Raises LeaseLost.

        What has taken too long by now to be looked into is left for the next time. After another error it is all still
        to be told; what was told is not told twice.
        """
        number, now = self._resolve(session), self._clock.now()
        ended = self._waiting[:number]
        refused = self._write(ended, now)
        settlements = [
            # Another delivery speaks for what was refused: this one is a copy, to be taken away, or not ours any more.
            Settlement(task.delivery)
            if _is_plain(verdict) or position in refused
            else Settlement(task.delivery, self._scribe.follow_ups(task, verdict, now), isinstance(verdict, GiveBack))
            for position, (task, verdict) in enumerate(ended)
        ]
        late = session.settle(settlements)
        for settlement in late:
            log.warning("%s was settled by another worker; what this one says is refused", settlement.delivery.id)
        if self._troubles is not None:
            self._troubles.made(now)
        self._waiting = self._waiting[number:]
        self.due = self._clock.monotonic() if self._waiting else math.inf
        for position in sorted(refused):
            task, verdict = ended[position]
            log.warning(
                "%s %s ended here, but another worker owns it now or it had ended before", task.head.type, task.head.id
            )
            self._late.add(task, verdict, self._scribe, now)
        if self._voice.heard:
            for position, (task, verdict) in enumerate(ended):
                if position not in refused and settlements[position] not in late:
                    self._voice.ended(task, verdict, now)
        if any(settlement.publish for settlement in settlements):
            self._released += self._freed(ended, late)
        return [task for task, _ in ended]

    def forget_released(self) -> None:
        """Take what was staged, and is in the broker now, off the records of the jobs that staged it."""
        if self._released:
            writes, self._released = self._released, []
            self._store.write(writes)

    def tell_late(self) -> None:
        """Write down what was refused, or came too late: the worker is heard again."""
        self._late.tell()

    def lose(self) -> None:
        """The broker can't be told any more: write down which jobs have completed here, and forget all.

        Who gets them next finds that they have ended, and takes them away. The fence decides as always: when another
        worker has begun with one, or our lease is over in the state store too, nothing is written (promise C4).
        """
        now, told = self._clock.now(), list[Write]()
        for task, verdict in self._waiting:
            kept = isinstance(verdict, Complete) and task.kind.keep > 0
            if kept and not self._scribe.follow_ups(task, verdict, now):
                told += self._scribe.records(task, verdict, task.ended or now)
        if told:
            with contextlib.suppress(StoreUnreachable):
                self._store.write(told)
        for task, verdict in self._waiting:
            self._late.add(task, verdict, self._scribe, now)
        self.clear()

    def clear(self) -> None:
        """Forget all: what was held is delivered to others."""
        self._waiting.clear()
        self.due = math.inf

    def _resolve(self, session: Session) -> int:
        """See each verdict in the light of what its job has begun, and of whether there is room for what follows it.

        Returns how many of them were seen so: all, or the first ones.
        """
        waiting, room, until = self._waiting, False, self._clock.monotonic() + LOOKING
        for position, (task, verdict) in enumerate(waiting):
            if _is_plain(verdict) and not task.head.degraded_by:
                continue
            if self._doubts.concern(task, verdict):
                if position and self._clock.monotonic() >= until:
                    break
                verdict = self._doubts.resolve(task, verdict)
                waiting[position] = task, verdict
                if not task.told:
                    self._note(task, verdict, self._clock.monotonic(), self._skew.now())
            room = room or isinstance(verdict, FallBack) or (isinstance(verdict, Complete) and bool(verdict.staged))
        else:
            position = len(waiting)
        if room:
            _make_room(session, waiting, position)
        return position

    def _write(self, ended: Sequence[End], now: float) -> set[int]:
        """Write down what ended; returns the positions of those that another delivery speaks for. Raises LeaseLost."""
        writes: list[Write] = []
        owners: list[int] = []
        for position, (task, verdict) in enumerate(ended):
            # Told again after a lost answer, it is the same record: another one would be refused.
            task.ended = task.ended or now
            for write in self._scribe.records(task, verdict, task.ended, self._skew.behind):
                writes.append(write)
                owners.append(position)
            if self._ordered and not isinstance(verdict, Retry | FallBack | GiveBack | Park):
                spent = list(self._standing.spent(task.head.id))
                writes += spent
                owners += [position] * len(spent)
        troubles = self._troubles.writes(ended, now) if self._troubles is not None else []
        said = [*writes, *troubles]
        if self._ground.covers:  # to tell the broker waits for the disk, once for both
            said = [replace(write, durable=False) for write in said]
        made = self._store.write(said)[: len(writes)] if said else []
        fenced = [
            (owner, write) for owner, done, write in zip(owners, made, writes, strict=True) if not done and write.alive
        ]
        if fenced and self._store.get([lease_key(self._worker)]) == [None]:
            raise LeaseLost(f"the lease of {self._worker} is gone from the state store")
        # What has a condition of its own may have been made by an earlier settle whose end was not heard.
        return {owner for owner, write in fenced if write.must is None}

    def _freed(self, ended: Iterable[End], late: Iterable[Settlement]) -> list[Write]:
        refused = {settlement.delivery.place for settlement in late}
        return [
            write
            for task, verdict in ended
            if isinstance(verdict, Complete) and verdict.staged and task.delivery.place not in refused
            for write in self._scribe.released(task, verdict, task.ended)
        ]


def _make_room(session: Session, ended: list[End], number: int) -> None:
    """Declare the queues of what the first ones staged, or what runs instead, before an end is told that leads there.

    A queue that the broker refuses is not mended by waiting: who needs it has failed.
    """
    for position, (task, verdict) in enumerate(ended[:number]):
        if isinstance(verdict, Complete) and verdict.staged:
            what, queues = "the jobs that it staged", {envelope.queue for envelope in verdict.staged}
        elif isinstance(verdict, FallBack) and task.next is not None and task.next.queue:
            what, queues = f"{task.next.type}, which runs instead,", {task.next.queue}
        else:
            continue
        try:
            session.declare(queues)
        except (BrokerUnreachable, BrokerFull, LeaseLost):
            raise
        except BrokerError as error:
            failure = Failure(names_of(error), f"{what} can't be stored: {error.message}")
            ended[position] = task, Bury(failure, task.counters.plus("failed"), "raised")


def _is_of_bad_storage(verdict: Verdict) -> bool:
    """Not a lack of memory: it is the job's as often as the host's, and would take worker after worker."""
    if not isinstance(verdict, Retry | Bury | FallBack):
        return False
    return verdict.how == "bad storage" and "MemoryError" not in verdict.failure.names


def _is_small(task: Task, verdict: Verdict) -> bool:
    """Whether little is lost if this worker dies before it tells: the job was short, and nothing comes after it."""
    seconds = task.kind.seconds
    return _is_plain(verdict) and not task.suspect and seconds is not None and seconds < SHORT


def _is_plain(verdict: Verdict) -> bool:
    """Whether its job has completed, and nothing comes after it."""
    return isinstance(verdict, Complete) and not verdict.staged
