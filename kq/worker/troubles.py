"""Counts, for people, what jobs were buried for; see kq.handles.trouble."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from msgspec.structs import replace

from kq.errors import MessageError
from kq.handles.trouble import AGAIN, Count, Trouble, case_write, count_write, trouble_of
from kq.state.store import Write
from kq.values.message import decode_body
from kq.values.outcome import Bury, Verdict
from kq.values.record import lease_key
from kq.values.redaction import one_line, redacted_text, shown_call
from kq.worker.task import Task

#: A worker tells apart so many groups; further ones are one.
GROUPS = 200
_OTHERS = Trouble("many types", "failures of further kinds")


class Troubles:
    """What one worker has buried, by group. own: the job type that tells of it, of which it tells nothing.

    What is told twice is counted once: writes() says the sums that hold when these ends are written down, and made()
    that they were.
    """

    def __init__(self, worker: str, code: str, own: str) -> None:
        self._worker = worker
        self._code = code
        self._own = own
        self._counts: Counter[str] = Counter()
        self._cases: dict[str, float] = {}  # when each was written down
        self._next: Counter[str] = Counter()
        self._fresh: set[str] = set()

    def writes(self, finished: Iterable[tuple[Task, Verdict]], now: float) -> list[Write]:
        """What is to be written down of these ends."""
        self._next, self._fresh = Counter(), set()
        alive, writes = lease_key(self._worker), list[Write]()
        for task, verdict in finished:
            if not isinstance(verdict, Bury) or task.head.type == self._own:
                continue
            trouble = trouble_of(task.head.type, str(verdict.failure), verdict.failure.traceback)
            if trouble.id not in self._cases and len(self._cases) >= GROUPS:
                trouble = _OTHERS
            if trouble.id not in self._fresh and now - self._cases.get(trouble.id, 0.0) > AGAIN:
                self._fresh.add(trouble.id)
                writes.append(case_write(self._told(trouble, task, now), alive))
            self._next[trouble.id] += 1
        sums = {id: self._counts[id] + number for id, number in self._next.items()}
        return writes + [count_write(id, self._worker, Count(sum, now), alive) for id, sum in sums.items()]

    def made(self, now: float) -> None:
        """The last writes() were made, and the broker was told."""
        self._counts += self._next
        self._cases |= dict.fromkeys(self._fresh, now)
        self._next, self._fresh = Counter(), set()

    def _told(self, trouble: Trouble, task: Task, now: float) -> Trouble:
        """trouble, with all that is known of this case."""
        try:
            call = shown_call(task.head.type, task.kind.parameters, *decode_body(task.delivery.body))
        except MessageError as error:
            call = redacted_text(one_line(error))
        return replace(
            trouble,
            queue=task.delivery.queue,
            job=task.head.id,
            call=call,
            at=now,
            worker=self._worker,
            code=self._code,
        )
