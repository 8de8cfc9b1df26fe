"""Several submits that go out together, when the block that they are in ends."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from kq.values.job import Job


class Transaction:
    """The jobs that one transaction gathers, from every task and thread that it reaches, until it ends."""

    def __init__(self) -> None:
        self._jobs: list[Job[Any]] | None = []
        self._lock = threading.Lock()

    @property
    def open(self) -> bool:
        return self._jobs is not None

    def add(self, jobs: Sequence[Job[Any]]) -> bool:
        """Gather jobs; False when the transaction has ended."""
        with self._lock:
            if self._jobs is not None:
                self._jobs += jobs
            return self.open

    def end(self) -> list[Job[Any]]:
        """Gather no more; returns what there is."""
        with self._lock:
            jobs, self._jobs = self._jobs or [], None
            return jobs
