"""What runs instead: a job whose type gave up goes on as its next job type, and can be put back as it was. Pure.

It stays one job: the same id, priority, deadline and unique key, and one history. Its type, its queue, its arguments,
what an attempt may take and when it is repeated are those of the stage that it is at; its counters begin anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from kq.errors import MessageError
from kq.values.job import Counters, check_queue
from kq.values.message import First, Head, Stage, turned


@dataclass(frozen=True, slots=True)
class Form:
    """A job as it is stored."""

    head: Head
    body: bytes
    queue: str

    def next(self, stages: Sequence[Stage]) -> Form:
        """The job as the next of stages, its fallbacks in order."""
        head, number = self.head, self.head.degraded_by + 1
        stage = stages[number - 1]
        first = head.first or First(head.type, self.queue, head.timeout, head.retry_policy, head.fallback is None)
        head = replace(
            head.counting(Counters()),
            type=stage.type,
            timeout=stage.timeout,
            retry_policy=stage.retry_policy,
            degraded_by=number,
            fallback=tuple(stages),
            first=first,
        )
        return Form(head, turned(self.body, number - 1, number), stage.queue or self.queue)

    def put_back(self) -> Form:
        """The job as it was submitted, with its history."""
        first = self.head.first
        if first is None:
            return self
        head = replace(
            self.head,
            type=first.type,
            timeout=first.timeout,
            retry_policy=first.retry_policy,
            degraded_by=0,
            fallback=None if first.assumed else self.head.fallback,
            first=None,
        )
        return Form(head, turned(self.body, self.head.degraded_by, 0), first.queue or self.queue)


def check_queues(head: Head) -> None:
    """Raise MessageError for a queue that no broker can have: what is to be stored there would never be."""
    for stage in (head.first, *(head.fallback or ())):
        if stage is not None and stage.queue is not None:
            try:
                check_queue(stage.queue)
            except ValueError as error:
                raise MessageError(f"{stage.type} can't run: {error}") from error


def stages_of(head: Head, own: Sequence[Stage] = ()) -> Sequence[Stage]:
    """What may run instead of a job, in order. own: what its type says."""
    if head.fallback is not None:
        return head.fallback
    return () if head.degraded_by else own


def next_of(head: Head, own: Sequence[Stage] = ()) -> Stage | None:
    """What runs instead of a job when it gives up; None when nothing does."""
    stages = stages_of(head, own)
    return stages[head.degraded_by] if head.degraded_by < len(stages) else None
