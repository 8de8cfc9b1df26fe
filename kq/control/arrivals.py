"""How many jobs came to each queue, made out of how many are there and how many have left it. Pure.

Who submits counts nothing and tells nobody, for a submit is to cost no more. What comes and is taken out by hand
between two steps, or comes while nobody makes control's rounds, is not seen.
"""

from __future__ import annotations

from collections.abc import Mapping

#: After so many steps workers have told of all that left: what is missing still was taken out by hand.
STEPS = 3


class Arrivals:
    """Counts from one step to the next. The first step finds out what is there, and counts nothing."""

    def __init__(self) -> None:
        self._jobs: Mapping[str, int] | None = None
        #: By queue, how many were missing in the last steps, less those that workers have told of since.
        self._missing: dict[str, list[int]] = {}

    def count(self, before: Mapping[str, int], jobs: Mapping[str, int], left: Mapping[str, int]) -> dict[str, int]:
        """How many came to each queue in all. before: up to the last step.

        jobs: how many each queue has, buried ones apart. left: how many left it for good since the last step, as far as
        workers have told, which they do with their beats: a while after the jobs are gone.
        """
        known, self._jobs = self._jobs, jobs
        self._missing = {name: missing for name, missing in self._missing.items() if name in jobs}
        came = dict.fromkeys(jobs, 0)
        if known is not None:
            for name in jobs:
                told = left.get(name, 0)
                came[name] = self._came(name, jobs[name] - known.get(name, 0) + told, told)
        return {name: before.get(name, 0) + number for name, number in came.items()}

    def _came(self, name: str, more: int, told: int) -> int:
        """How many came if so many more are there or have left; less than none where some are gone and untold."""
        earlier = self._missing.pop(name, [])
        missing = (earlier[-1] if earlier else 0) - more
        earlier = [number - told for number in earlier]
        if len(earlier) == STEPS - 1:
            taken = max(0, earlier.pop(0))
            missing -= taken
            earlier = [number - taken for number in earlier]
        if missing > 0 or any(number > 0 for number in earlier):
            self._missing[name] = [*earlier, max(0, missing)]
        return max(0, -missing)
