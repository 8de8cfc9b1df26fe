"""Which job types a worker runs from which queues, and to which queues a message may lead it.

A message says for itself which type runs, which types run instead when that gives up, and where. Whoever may write to
one queue could make the worker run any type from there, and publish to any other queue. So a message is followed as far
as the application declares it, the operator allows it (`worker.accept`), or its sender could have asked for the same by
another message to the same queue.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase

from kq.errors import MessageError
from kq.values.fallback import check_queues
from kq.values.message import Head
from kq.worker.wire import Entry

_NOT_SO = "which the application does not declare and the setting worker.accept does not allow"


class Routes:
    """What an application declares of its job types, and what the settings of a worker allow besides.

    named: queues that the operator named for this worker; one of them that no type declares is for all types, and so is
    one that the worker was set to take jobs from later.
    accepted: pairs TYPE@QUEUE, in which * stands for anything.
    """

    def __init__(self, entries: Sequence[Entry], named: Collection[str], accepted: Iterable[str]) -> None:
        self.entries = entries
        self._fallbacks = {entry.name: entry.fallback for entry in entries}
        #: The queues that a type is declared for: its own, and those of the types that it runs instead of.
        self._queues: dict[str, set[str]] = {entry.name: {entry.queue} for entry in entries}
        for entry in entries:
            at = entry.queue
            for stage in entry.fallback:
                at = stage.queue or at
                self._queues.get(stage.type, set()).add(at)
        self._declared = {entry.queue for entry in entries}
        self._open = set(named) - self._declared
        self._accepted = [each.rpartition("@") for each in accepted]

    def check(self, head: Head, queue: str) -> None:
        """Raise MessageError for a message that asks for more than it may, or for a type that is not known.

        queue: where it was taken from, so one that the worker is to take jobs from.
        """
        if queue not in self._declared:
            self._open.add(queue)
        declared = self._queues.get(head.type)
        if declared is None:
            instead = f", which is to run instead of {head.first.type!r}" if head.first else ""
            raise MessageError(f"this worker does not know the job type {head.type!r}{instead}")
        if queue not in declared and not self._runs(head.type, queue):
            raise MessageError(f"the job type {head.type!r} is in queue {queue!r}, {_NOT_SO}")
        if head.first is not None or head.fallback is not None:
            check_queues(head)
            self._check_way(head, queue)

    def _check_way(self, head: Head, queue: str) -> None:
        began = head.first.type if head.first else head.type
        if head.first and head.first.queue not in (None, queue):
            origin = head.first.queue or queue
            if not (self._follows(began, head.type, origin, queue) and self._runs(began, origin)):
                raise MessageError(f"it says that it began as {began!r} in queue {origin!r}, {_NOT_SO}")
        before = queue
        for stage in (head.fallback or ())[head.degraded_by :]:
            at = stage.queue or before
            same = at == queue and (stage.type not in self._queues or self._runs(stage.type, queue))
            if not same and not self._follows(began, stage.type, before, at):
                raise MessageError(f"its fallback is {stage.type!r} in queue {at!r}, {_NOT_SO}")
            before = at

    def _follows(self, type: str, other: str, before: str, queue: str) -> bool:
        """Whether other may run in queue instead of type. before: the queue that the job was in."""
        declared = self._fallbacks.get(type, ())
        return any(each.type == other and (each.queue or before) == queue for each in declared) or self._accepts(
            other, queue
        )

    def _runs(self, type: str, queue: str) -> bool:
        """Whether type may run from queue."""
        return queue in self._queues.get(type, ()) or queue in self._open or self._accepts(type, queue)

    def _accepts(self, type: str, queue: str) -> bool:
        return any(fnmatchcase(type, types) and fnmatchcase(queue, queues) for types, _, queues in self._accepted)
