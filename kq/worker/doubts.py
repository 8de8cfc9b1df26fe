"""What a job has begun whose type gives up: no other type silently does a side effect that is in doubt (promise C13).

Asked only of jobs that another type runs instead of, of those that one completed, and of those that are buried because
they were killed: a human is asked about what they were at.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from msgspec.structs import replace

from kq.effects.ledger import Entry, Ledger
from kq.effects.once import told
from kq.errors import InDoubt
from kq.state.store import Store
from kq.values.failure import Failure, names_of
from kq.values.outcome import CUT_OFF, Bury, Complete, FallBack, Retry, Verdict
from kq.worker.task import Task

log = logging.getLogger("kq.worker")


class Doubts:
    """Looks into the ledger in the name of one worker. doubted: is told of each job that leaves a doubt there."""

    def __init__(self, store: Store, worker: str, doubted: Callable[[Task], None]) -> None:
        self._ledger = Ledger(store, patience=0.0)  # the loop asks again, and beats meanwhile
        self._worker = worker
        self._doubted = doubted

    @staticmethod
    def concern(task: Task, verdict: Verdict) -> bool:
        """Whether resolve() is to be asked what becomes of a job."""
        killed = isinstance(verdict, Bury) and verdict.how in CUT_OFF
        return killed or isinstance(verdict, FallBack) or task.head.degraded_by > 0

    def resolve(self, task: Task, verdict: Verdict) -> Verdict:
        """What becomes of a job, now that it is known what it has begun. May be repeated. Raises LeaseLost."""
        if isinstance(verdict, FallBack):
            return self._before(task, verdict)
        if isinstance(verdict, Bury) and verdict.how in CUT_OFF:
            return self._asked(task, verdict)
        if isinstance(verdict, Complete) and task.head.degraded_by:
            self._after(task)
        return verdict

    def _before(self, task: Task, verdict: FallBack) -> Verdict:
        """Another type runs instead, unless the job has done all it had to, or a human is to be asked."""
        for entry in self._found(task, verdict):
            if entry.stage == "done" and entry.whole and entry.type == task.head.type:
                return Complete(bytes(entry.outcome))
            if entry.stage == "doubt" and entry.checked and _may_start_again(task, verdict):
                return Retry(0.0, verdict.counters, verdict.failure, verdict.how)  # and its check is asked first
            if entry.stage == "doubt" and entry.on_doubt == "bury":
                return _question(entry, task, verdict)
        return verdict

    def _asked(self, task: Task, verdict: Bury) -> Bury:
        """It is buried, with the question where it left one."""
        found = list(self._found(task, verdict))  # all of it is left as it is
        asked = [entry for entry in found if entry.stage == "doubt" and entry.on_doubt in ("bury", "fallback")]
        return _question(asked[0], task, verdict) if asked else verdict

    def _found(self, task: Task, verdict: FallBack | Bury) -> Iterator[Entry]:
        """What is known of the effects that the job has begun, as far as they are still its own."""
        for begun in self._ledger.begun(task.head.id):
            entry = self._ledger.find(begun.key)
            if entry is not None and entry.job == task.head.id:
                yield self._left(entry, task, verdict) if entry.stage == "intended" else entry

    def _left(self, entry: Entry, task: Task, verdict: FallBack | Bury) -> Entry:
        """An effect that broke off, as it is left: in doubt, or taken for done where its type says so."""
        note = f"attempt {entry.attempt} on {entry.worker} {verdict.how} in the act"
        left = replace(entry, stage="doubt", note=note)
        if entry.on_doubt == "skip":
            left = replace(entry, stage="done", note=f"{note}, and skipped")
        if self._ledger.leave(entry, left, self._mine(entry)):
            self._doubted(task)
        else:
            log.warning("the effect %s is somebody else's by now", entry.key)
        return left

    def _after(self, task: Task) -> None:
        """Another type has answered: what was not done for that is not to be done silently later."""
        note = f"not done: {task.head.type} answered instead, fallback {task.head.degraded_by} of job {task.head.id}"
        for begun in self._ledger.begun(task.head.id):
            if begun.type != task.head.type and self._ledger.find(begun.key) is None:
                self._ledger.leave(None, replace(begun, stage="doubt", note=note), self._mine(begun))

    def _mine(self, entry: Entry) -> Entry:
        """In whose name it is written."""
        return replace(entry, worker=self._worker)


def _question(entry: Entry, task: Task, verdict: FallBack | Bury) -> Bury:
    failure = Failure(names_of(InDoubt()), told(entry, task.head.id), log=verdict.failure.log)
    return Bury(failure, verdict.counters, verdict.how)


def _may_start_again(task: Task, verdict: FallBack) -> bool:
    """Whether one more attempt may ask: not without end, where each of them is killed in the act."""
    return not task.rules.starts_once and verdict.counters.attempts < task.rules.max_lost
