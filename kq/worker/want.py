"""What the system does not give a worker: files, processes, memory. It is asked again, and meanwhile work goes on."""

from __future__ import annotations

import errno
import logging
import math
import resource

from kq.clock import RANDOM, Clock
from kq.errors import ConfigError
from kq.worker.backoff import Backoff

log = logging.getLogger("kq.worker")

#: Files that are open for each executor, and for all else.
FILES, SPARE = 5, 64
#: What to do about it, by the system's number of what is lacking.
FIXES = {
    errno.EMFILE: "raise the limit of open files (ulimit -n, LimitNOFILE= in a systemd unit)",
    errno.ENFILE: "raise the host's limit of open files (sysctl fs.file-max)",
    errno.EAGAIN: "raise the limit of processes (ulimit -u, TasksMax= in a systemd unit)",
    errno.ENOMEM: "give it more memory, or let it run fewer jobs at once (-c)",
}


class Want:
    """Whether there is room for executors that are missing, and when to ask for it again."""

    def __init__(self, clock: Clock) -> None:
        self._pauses = Backoff(math.inf, clock, RANDOM)
        #: When to ask again, monotonic; infinite while nothing is to be asked for.
        self.due = math.inf

    def __bool__(self) -> bool:
        """Whether something was lacking the last time."""
        return bool(self._pauses)

    @property
    def waits(self) -> bool:
        """Whether it is too early to ask."""
        return self._pauses.waits

    def lack(self, error: OSError, there: int, wanted: int) -> None:
        """There was no room. there, wanted: how many executors there are, and are to be; said the first time."""
        if self.waits:
            return
        if not self:
            what = "the system has no room for another executor (%s): %s of %s work on, and it is asked again; %s"
            log.error(what, error.strerror, there, wanted, FIXES.get(error.errno or 0, "let it run fewer (-c)"))
        self._pauses.fail()
        self.due = self._pauses.until

    def ask(self) -> None:
        """It is asked for; lack() or end() may follow."""
        self.due = math.inf

    def end(self, there: int) -> None:
        """Nothing is lacking any more."""
        if self:
            log.warning("the system has room again: there are all %s executors", there)
        self._pauses.end()
        self.due = math.inf


def must_have_files(processes: int) -> None:
    """Raise ConfigError where this process may not have as many files open as so many executors take."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and processes * FILES + SPARE > most:
        what = f"{processes} executors take {processes * FILES} open files, and this process may have {most}"
        raise ConfigError(what, fix="Raise the limit (ulimit -n, LimitNOFILE= in a systemd unit).")


def too_few_files(error: OSError, jobs: int, there: int, processes: int) -> ConfigError:
    """What error means to who starts a worker for so many jobs at once, of whose executors so many are there."""
    what = f"a worker for {jobs} jobs at once has room for {there} executors here: {error.strerror}"
    limit = f"raise the limit to {processes * FILES + SPARE} (ulimit -n, LimitNOFILE= in a systemd unit)"
    return ConfigError(what, fix=f"Let it run fewer (-c), or {limit}.")
