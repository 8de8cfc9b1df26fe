"""How much bad storage a worker bears before it takes itself out of commission."""

from __future__ import annotations

from collections import OrderedDict


class Strain:
    """Counts the jobs that bad storage ended here.

    most: so many different jobs within so many seconds are too many; 0: never. Different ones, so that a single job
    that fills every disk, or every memory, does not take worker after worker with it.
    """

    def __init__(self, most: int, within: float) -> None:
        self.most = most
        self.within = within
        self._jobs: OrderedDict[str, float] = OrderedDict()

    def add(self, job: str, now: float) -> bool:
        """Note that job met with bad storage now, in monotonic seconds; True when it is too much."""
        self._jobs[job] = now
        self._jobs.move_to_end(job)
        while now - next(iter(self._jobs.values())) > self.within:
            self._jobs.popitem(last=False)
        return 0 < self.most <= len(self._jobs)
