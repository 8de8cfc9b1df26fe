"""Kicking with care: so many in a second, or a few first and the rest when those have ended well.

For command line and API alike. Nothing here asks a human.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from kq.control.effects import Answer, Effects
from kq.control.repair import Repaired
from kq.control.sight import JobInfo
from kq.errors import NotRepaired
from kq.units import format_duration
from kq.values.job import State

#: Seconds between two kicks at a rate, at least: more often, several are kicked at once.
BEAT = 0.1
#: Seconds between two looks whether nobody waits for it any more.
LOOK = 0.5


class Kicking:
    """Kicks, and remembers what became of it.

    answer, outcome: as for Control.answer(). over: it ends early when this is set. stopped: why it ended early; late:
    because those that went first did not end in time. left: how many were not tried then.
    """

    def __init__(
        self,
        control: Effects,
        *,
        reason: str = "",
        by: str = "",
        answer: Answer | None = None,
        outcome: Any = None,
        over: threading.Event | None = None,
    ) -> None:
        self._control = control
        self._reason, self._by = reason, by
        self._answer, self._outcome = answer, outcome
        self._over = over or threading.Event()
        self.done: list[Repaired] = []
        self.stopped = ""
        self.late = False
        self.left = 0

    def run(
        self,
        jobs: Sequence[JobInfo],
        *,
        rate: float | None = None,
        first: int | None = None,
        stop_on_same_failure: bool = False,
        patience: float = 300.0,
    ) -> None:
        """Kick jobs, which lie buried, in their order.

        rate: so many a second. first: so many, and the rest when they have ended, within patience seconds.
        stop_on_same_failure: not if one of the first failed as before.
        """
        canaries, rest = jobs[: first or 0], jobs[first or 0 :]
        if canaries:
            self._kick(canaries)
            self.stopped = self._why_not(canaries, patience, stop=stop_on_same_failure)
        for batch in self._paced(rest, rate) if not self.stopped else ():
            self._kick(batch)
        self.left = len(jobs) - len(self.done)
        if self.left and not self.stopped:
            self.stopped = "nobody waits for it any more"

    @property
    def kicked(self) -> list[str]:
        return [each.job.id for each in self.done if not each.refused]

    @property
    def refused(self) -> dict[str, str]:
        """Why, by job."""
        return {each.job.id: each.refused for each in self.done if each.refused}

    def _kick(self, jobs: Sequence[JobInfo]) -> None:
        answer = self._answer
        if answer is not None:
            self.done += [Repaired(job, self._answered(job, answer)) for job in jobs]
        elif jobs:
            self.done += self._control.kick(ids=[job.id for job in jobs], reason=self._reason, by=self._by)

    def _answered(self, job: JobInfo, answer: Answer) -> str:
        """Answer a job's question and kick it; returns why that was refused, if it was."""
        try:
            self._control.answer(job.id, answer, self._outcome, reason=self._reason, by=self._by)
        except NotRepaired as error:
            return error.message
        return ""

    def _why_not(self, canaries: Sequence[JobInfo], patience: float, *, stop: bool) -> str:
        """Wait for the end of those that were kicked first; why the rest is not to follow, "" when it may."""
        until = time.monotonic() + patience
        for job in canaries:
            ended = self._ended(job.id, until)
            if ended is None:
                self.late = not self._over.is_set()
                return f"{job.id} has not ended within {format_duration(patience)}" if self.late else ""
            if stop and ended.state is State.BURIED and ended.failure == job.failure:
                return f"{job.id} failed as before: {ended.error}"
        return ""

    def _ended(self, id: str, until: float) -> JobInfo | None:
        """The job as soon as it has ended; None when time is up, or nobody waits for it any more."""
        while True:
            left = max(0.0, until - time.monotonic())
            found = self._control.wait(id, min(left, LOOK))
            if found is not None or left <= LOOK or self._over.is_set():
                return found

    def _paced(self, jobs: Sequence[JobInfo], pace: float | None) -> Iterator[Sequence[JobInfo]]:
        """jobs in batches, so many a second; all of them at once where nobody says."""
        if self._over.is_set():
            return
        if pace is None:
            yield jobs
            return
        size = max(1, int(pace * BEAT))
        due = time.monotonic()
        for begin in range(0, len(jobs), size):
            if self._over.wait(max(0.0, due - time.monotonic())):
                return
            yield jobs[begin : begin + size]
            due += size / pace
