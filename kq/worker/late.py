"""Late words: what a worker still had to say of jobs that others spoke for by then (promise C4).

They change nothing. Kept beside a job's record, they tell that it ran twice, and whether it came to the same.
"""

from __future__ import annotations

from kq.state.store import Store, Write
from kq.values.outcome import Bury, Complete, FallBack, Retry, Verdict
from kq.values.record import Late, decode_record, digest, encode, job_key, late_key
from kq.worker.scribe import Scribe
from kq.worker.task import Task

#: So many are remembered until the worker is heard again.
LIMIT = 1000


class LateWords:
    """Gathers late words while nobody listens, and writes them down afterwards."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._words: dict[str, tuple[Late, float]] = {}

    def add(self, task: Task, verdict: Verdict, scribe: Scribe, now: float) -> None:
        """Note that the word of scribe's worker about a task was refused, or came too late to be said."""
        if task.kind.keep <= 0 or len(self._words) >= LIMIT:
            return
        match verdict:
            case Complete(value):
                late = Late(scribe.attempt(task, "completed", "", now), digest(value))
            case (
                Retry(failure=failure, how=how)
                | FallBack(failure=failure, how=how)
                | Bury(failure=failure, how=str(how))
            ):
                late = Late(scribe.attempt(task, how, str(failure), now))
            case _:
                return
        self._words[task.head.id] = late, task.kind.keep

    def tell(self) -> None:
        """Write down what has gathered; not where the word was heard after all, before its answer was lost."""
        if not self._words:
            return
        records = self._store.get([job_key(job) for job in self._words])
        writes = [
            Write(late_key(job), encode(late), keep)
            for (job, (late, keep)), record in zip(self._words.items(), records, strict=True)
            if (told := decode_record(record)) is None or told.worker != late.attempt.worker
        ]
        if writes:
            self._store.write(writes)
        self._words.clear()
