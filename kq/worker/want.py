"""What a worker wants: executors for which the system has no room (files, processes, memory), or that die at once.

They are asked for again, and meanwhile work goes on.
"""

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
#: Seconds; an executor that dies sooner, and has begun nothing, could not live.
LIVES = 1.0
#: What to do about it, by the system's number of what is lacking.
FIXES = {
    errno.EMFILE: "raise the limit of open files (ulimit -n, LimitNOFILE= in a systemd unit)",
    errno.ENFILE: "raise the host's limit of open files (sysctl fs.file-max)",
    errno.EAGAIN: "raise the limit of processes (ulimit -u, TasksMax= in a systemd unit)",
    errno.ENOMEM: "give it more memory, or let it run fewer jobs at once (-c)",
}
#: What is said of the system, and what to do about executors that die at once.
NO_ROOM = "the system has no room for another executor"
LOOK = "look at what the application does in a process that is forked, and at the host's memory (dmesg)"


class Want:
    """Why executors are missing, and when to ask for them again."""

    def __init__(self, clock: Clock) -> None:
        self._pauses = Backoff(math.inf, clock, RANDOM)
        #: When to ask again, monotonic; infinite while nothing is to be asked for.
        self.due = math.inf
        #: Why some are missing, for people; "" while none is. From any thread.
        self.why = ""
        self._said: set[str] = set()  # in the log
        #: Whether those that were born could not live: the next ones are to show that they can.
        self.sickly = False

    def __bool__(self) -> bool:
        """Whether something was lacking the last time."""
        return bool(self._pauses)

    @property
    def waits(self) -> bool:
        """Whether it is too early to ask."""
        return self._pauses.waits

    def lack(self, error: OSError, there: int, wanted: int) -> None:
        """There was no room. there, wanted: how many executors there are, and are to be; said the first time."""
        fix = FIXES.get(error.errno or 0, "let it run fewer (-c)")
        self._miss(NO_ROOM, error.strerror or str(error), there, wanted, fix)

    def lose(self, who: str, how: str, there: int, wanted: int) -> None:
        """One was born, and died of itself before it began anything. who, how: what died, and of what."""
        self.sickly = True
        self._miss(f"{who} dies as soon as it is born", how, there, wanted, LOOK)

    def _miss(self, what: str, why: str, there: int, wanted: int, fix: str) -> None:
        if self.waits:
            return
        self.why = f"{what} ({why})"
        if what not in self._said:
            self._said.add(what)
            log.error("%s: %s of %s work on, and it is asked again; %s", self.why, there, wanted, fix)
        self._pauses.fail()
        self.due = self._pauses.until

    def ask(self) -> None:
        """It is asked for; lack(), lose(), watch() or end() may follow."""
        self.due = self._pauses.until if self.waits else math.inf

    def watch(self, until: float) -> None:
        """One was born, and is to live until then, monotonic."""
        self.due = min(self.due, until)

    def end(self, there: int) -> None:
        """Nothing is lacking any more."""
        if self:
            what = "the system has room again" if NO_ROOM in self._said else "executors live again"
            log.warning("%s: there are all %s executors", what, there)
        self._pauses.end()
        self._said.clear()
        self.due, self.why, self.sickly = math.inf, "", False


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
