"""The diary: what jobs really did, written down outside of every broker.

A promise is judged by it: a broker that loses a job, or runs it twice, can't be asked about that. One line of
JSON for each event, appended in one write, so that a process that is killed leaves whole lines.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from kq.conformance.contract.waiting import DEADLINE, eventually
from kq.handles.handle import Handle

R = TypeVar("R")

#: The environment variable that tells jobs where their diary is.
VARIABLE = "KQ_CONTRACT_DIARY"


@dataclass(frozen=True, slots=True)
class Entry:
    """One event of a job. what: "start" or "end". at: seconds since the epoch; pid: the executor's."""

    id: str
    what: str
    word: str
    attempt: int
    pid: int
    at: float


def write(id: str, what: str, word: str, attempt: int) -> None:
    """Note an event in the diary that the environment names."""
    line = json.dumps([id, what, word, attempt, os.getpid(), time.time()]) + "\n"
    file = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


class Diary:
    """A diary as the test reads it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: list[Entry] = []
        self._bytes = 0  # of the file, that were read
        path.touch()

    def entries(self, what: str | None = None, ids: Iterable[str] | None = None) -> list[Entry]:
        """Events in the order in which they were written; all, or those of one kind and of some jobs."""
        wanted = None if ids is None else set(ids)
        self._read_on()
        return [
            entry
            for entry in self._read
            if (what is None or entry.what == what) and (wanted is None or entry.id in wanted)
        ]

    def _read_on(self) -> None:
        """Read what was written since the last look: a long run looks often."""
        with self._path.open("rb") as lines:
            lines.seek(self._bytes)
            found = lines.read()
        whole = found[: found.rfind(b"\n") + 1]  # who writes may be in the middle of a line
        self._read += [Entry(*json.loads(line)) for line in whole.splitlines()]
        self._bytes += len(whole)

    def starts(self, *ids: str) -> list[Entry]:
        """The starts of jobs; of all without ids."""
        return self.entries("start", ids or None)

    def begun(self, job: Handle[R], within: float = DEADLINE) -> Handle[R]:
        """A job that was submitted, once it runs. within: seconds that it has to begin."""
        eventually(lambda: self.starts(job.id), f"job {job.id} runs", within)
        return job

    def ends(self, *ids: str) -> list[Entry]:
        """The ends of jobs; of all without ids."""
        return self.entries("end", ids or None)

    def twice(self) -> int:
        """How many jobs ran to their good end more than once."""
        return sum(count > 1 for count in Counter(end.id for end in self.ends()).values())
