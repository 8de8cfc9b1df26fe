"""Counts what becomes of jobs here, in memory (kq.values.tally). Asked at each start and end, it does little."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from kq.values import tally
from kq.values.failure import Failure, group_of
from kq.values.outcome import Bury, Complete, Drop, Expire, FallBack, Retry, Revoke, Verdict
from kq.values.policy import retries_of
from kq.values.redaction import one_line, redacted_beginning
from kq.values.tally import EFFECTS, MINUTE, Failed, Group, Tally, Wait, Work
from kq.worker.task import Task

#: So many groups of failures, and so many of the latest failures, are remembered.
GROUPS, LATEST = 50, 20
#: Characters of an error.
ERROR_LIMIT = 300
#: Parts of the last minute: whenever one begins, the oldest goes.
PARTS = 12


K = TypeVar("K", bound=tuple[object, ...])
V = TypeVar("V")


class Kept(dict[K, V]):
    """Things by what they are made of; one that is asked for and is not there is made."""

    def __init__(self, make: Callable[..., V]) -> None:
        self._make = make

    def __missing__(self, key: K) -> V:
        made = self[key] = self._make(*key)
        return made


class Meter:
    """The tally of one supervisor. Not thread-safe: its loop owns it."""

    def __init__(self) -> None:
        #: How often the broker answered again; see Tally.
        self.reconnects = 0
        self._work = Kept[tuple[str, str], Work](Work)
        self._waits = Kept[tuple[str, int], Wait](Wait)
        self._marks: deque[tuple[float, dict[tuple[str, str], Work]]] = deque()
        self._groups: dict[tuple[str, str, str, str], Group] = {}
        self._latest: deque[Failed] = deque(maxlen=LATEST)
        self._returning: dict[str, Counter[float]] = {}

    def started(self, tasks: Iterable[Task], behind: float) -> None:
        """tasks have begun. behind: seconds by which our clock is behind the one by which jobs are said to be ready."""
        for task in tasks:
            work = self._work[task.delivery.queue, task.kind.name]
            work.started += 1
            ready = task.head.due or task.head.submitted_at
            if ready:
                waited = max(0.0, task.began + behind - ready)
                work.waited.add(waited)
                self._waits[task.delivery.queue, task.delivery.priority].waited.add(waited)

    def ended(self, task: Task, verdict: Verdict, now: float) -> None:
        """task has ended with verdict, now."""
        work = self._work[task.delivery.queue, task.kind.name]
        if task.effects is not None:
            _add(work, task.effects)
        match verdict:
            case Complete():
                work.completed += 1
                work.degraded += task.head.degraded_by > 0
            case Retry(delay=delay, failure=failure):
                work.failed += 1
                work.retried += 1
                self._failed(task, failure, now, now + delay)
                self._returns(task.delivery.queue, now, delay)
            case FallBack(failure=failure):
                work.failed += 1
                work.fell += 1
                self._failed(task, failure, now, now)
            case Bury(failure=failure, how=how):
                work.failed += how is not None
                work.buried += 1
                self._failed(task, failure, now, None)
            case Revoke():
                work.revoked += 1
            case Expire():
                work.expired += 1
            case Drop():
                work.dropped += 1
                return
            case _:
                return
        if task.ran is not None:
            work.ran.add(task.ran)
        if task.cpu is not None:
            work.cpu += task.cpu

    def doubted(self, task: Task) -> None:
        """task was killed in the middle of a side effect."""
        self._work[task.delivery.queue, task.kind.name].unknown += 1

    def tally(self, worker: str, began: float, now: float) -> Tally:
        """All of it as it is now. began: when this one began to count; both by the store's clock."""
        self._mark(began, now)
        at, before = self._marks[0]
        return Tally(
            worker=worker,
            at=now,
            began=began,
            work=list(self._work.values()),
            recent=tally.since(self._work.values(), before),
            span=now - at,
            groups=list(self._groups.values()),
            latest=list(self._latest),
            returning={queue: left for queue, due in self._returning.items() if (left := _left(due, now))},
            reconnects=self.reconnects,
            waits=list(self._waits.values()),
        )

    @property
    def sums(self) -> tuple[int, int]:
        """How many jobs were completed here, and how many attempts failed."""
        work = self._work.values()
        return sum(each.completed for each in work), sum(each.failed for each in work)

    def _mark(self, began: float, now: float) -> None:
        """Remember how it was, so that what happened in the last minute is known."""
        if not self._marks:
            self._marks.append((began, {}))
        if now - self._marks[-1][0] >= MINUTE / PARTS:
            self._marks.append((now, {key: work.copy() for key, work in self._work.items()}))
        while now - self._marks[0][0] > MINUTE and len(self._marks) > 2:  # beats may be further apart than that
            self._marks.popleft()

    def _failed(self, task: Task, failure: Failure, now: float, again: float | None) -> None:
        queue, error = task.delivery.queue, redacted_beginning(one_line(failure), ERROR_LIMIT)
        key = queue, task.head.type, *group_of(error, failure.traceback)
        group = self._groups.pop(key, None) or Group(*key)
        group.message, group.last, group.job = error, now, task.head.id
        group.number += 1
        self._groups[key] = group  # the latest is the last
        if len(self._groups) > GROUPS:
            del self._groups[next(iter(self._groups))]
        attempt = task.counters.attempts + 1
        most = attempt if again is None else _most(task)
        self._latest.append(Failed(now, task.head.id, task.head.type, queue, attempt, error, again, most))

    def _returns(self, queue: str, now: float, delay: float) -> None:
        """Note that a job waits for its retry. The later that is, the coarser: a number for each job would be many."""
        grain = 1.0 if delay < 60 else 60.0 if delay < 3600 else 3600.0
        due = self._returning.setdefault(queue, Counter())
        due[(now + delay) // grain * grain] += 1


def _add(work: Work, effects: Mapping[str, int]) -> None:
    for name in EFFECTS:
        setattr(work, name, getattr(work, name) + effects.get(name, 0))


def _most(task: Task) -> int:
    """How many attempts a job has at most, if all that are to come fail by its own doing; 0 where that is not known."""
    retries = retries_of(task.rules.retry_policy)
    return 0 if retries is None else task.counters.attempts - task.counters.failed + 1 + retries


def _left(due: Counter[float], now: float) -> list[tuple[float, int]]:
    """What is to come. The rest is forgotten."""
    for moment in [moment for moment in due if moment <= now]:
        del due[moment]
    return sorted(due.items())
