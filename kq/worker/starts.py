"""Start records: who may speak for a job that may run elsewhere too, and how often it was started and never ended.

Only suspects are recorded: what was delivered before, what was submitted twice, and all that comes from a broker that
does not know its messages by id. See docs/decisions/0002-starts-are-recorded-for-suspects-only.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from kq.state.store import Store, Write
from kq.values.job import Counters
from kq.values.message import Envelope
from kq.values.record import Record, Start, decode_record, decode_start, encode, job_key, start_key
from kq.worker.task import Task

#: Seconds that start records are kept when nobody removes them.
START_KEEP = 7 * 86400.0


@dataclass(slots=True)
class Admitted:
    """What became of suspects.

    ready: they may run here. copies: their jobs run or ended elsewhere, and what those had staged that nobody may have
    released. lost: they took enough workers down with them. unclear: somebody else recorded meanwhile, or our words
    were not heard; look again.
    """

    ready: list[Task] = field(default_factory=list)
    copies: list[tuple[Task, tuple[Envelope, ...]]] = field(default_factory=list)
    lost: list[Task] = field(default_factory=list)
    unclear: list[Task] = field(default_factory=list)


class Starts:
    """The start records that one worker makes. indexed: whether the broker knows its messages by id."""

    def __init__(self, store: Store, worker: str, indexed: bool) -> None:
        self._store = store
        self._worker = worker
        self._indexed = indexed

    def admit(self, tasks: Sequence[Task]) -> Admitted:
        """Record that this worker speaks for tasks.

        Whoever is recorded last may speak for the job (promise C4). A job that started here and there
        and never ended counts as lost with each worker (promise C7). A second copy of a message, which a broker
        that does not index its messages may hold, is recognised here (promise C1).
        """
        starts = self._store.get([key_of(task) for task in tasks])
        records = self._store.get([job_key(task.head.id) for task in tasks])
        admitted, writes = Admitted(), list[Write]()
        for task, start, found in zip(tasks, starts, records, strict=True):
            record = decode_record(found)
            holder = f"{self._worker}/{task.delivery.queue}/{task.delivery.tag}"
            last = decode_start(start)
            if last is not None and last.holder == holder:
                # Our own words: the answer to them was lost, and this is the second time that we say them.
                task.counted = last.starts > task.starts
            elif self._is_copy(task, last, record):
                admitted.copies.append((task, () if record is None else record.staged))
                continue
            elif last is not None and self._is_lost(task, last):
                # It ends here without another start, so in the name of the last one (promise C4).
                task.holder, task.starts = last.holder, last.starts
                task.counters = _with_lost(task, last.starts - 1)
                admitted.lost.append(task)
                continue
            task.holder, task.starts = holder, 0 if last is None else last.starts
            task.counters = _with_lost(task, task.starts - task.counted)
            mine = encode(Start(task.holder, task.starts))
            writes.append(Write(key_of(task), mine, START_KEEP, must=(key_of(task), start)))
            admitted.ready.append(task)
        self._carry_out(writes, admitted)
        return admitted

    def count(self, tasks: Sequence[Task]) -> Admitted:
        """Record that tasks, which were admitted, start now."""
        counted, writes = Admitted(ready=list(tasks)), list[Write]()
        for task in tasks:
            before, after = encode(Start(task.holder, task.starts)), encode(Start(task.holder, task.starts + 1))
            writes.append(Write(key_of(task), after, START_KEEP, must=(key_of(task), before)))
        self._carry_out(writes, counted)
        for task in counted.ready:
            task.starts, task.counted = task.starts + 1, True
        return counted

    def _carry_out(self, writes: Sequence[Write], admitted: Admitted) -> None:
        """Make writes, one for each ready task; those that are refused make their tasks unclear."""
        made = self._store.write(writes) if writes else []
        tasks = admitted.ready
        admitted.ready = [task for task, done in zip(tasks, made, strict=True) if done]
        admitted.unclear = [task for task, done in zip(tasks, made, strict=True) if not done]

    def _is_copy(self, task: Task, last: Start | None, record: Record | None) -> bool:
        if record is not None and record.is_over:
            return True
        if last is None or self._indexed:
            return False
        # What this worker holds it has not given back, else the record were gone: so this is another message.
        return not task.delivery.redelivered or last.holder.startswith(f"{self._worker}/")

    @staticmethod
    def _is_lost(task: Task, last: Start) -> bool:
        if not task.delivery.redelivered or not last.starts:
            return False
        rules = task.kind.rules
        return rules.starts_once or task.head.lost + last.starts >= rules.max_lost


def _with_lost(task: Task, starts: int) -> Counters:
    """The counters of task, with so many starts that ended with their worker, and that nobody told the end of."""
    return replace(task.head.counters, lost=task.head.lost + starts)


def key_of(task: Task) -> str:
    """The key of a job's start record: one for each message of it, so for each submit, retry, fallback or repair."""
    head = task.head
    if not task.kind.name:
        # How often it was tried before is not to be believed of what can't be used; its end is the first that is told.
        return start_key(f"{head.id}.unusable")
    repaired = f".{head.repaired}" if head.repaired else ""
    stage = f"+{head.degraded_by}" if head.degraded_by else ""
    return start_key(f"{head.id}.{head.counters.attempts}{repaired}{stage}")
