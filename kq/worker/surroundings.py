"""What a process has besides its memory and a job may change for those that come after it: it is put back.

Not so variables of the environment, the locale and all that modules hold: nobody knows which of that is meant to stay.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal

#: Those with which who comes next would fail for no fault of his own.
_LIMITS = (
    *(resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE),
    resource.RLIMIT_CORE,  # one that is raised would let a later job leave a core file
)


class Surroundings:
    """As they are when this is made, in the main thread of a process that runs one job after the other."""

    def __init__(self) -> None:
        self._folder = _folder()
        self._mask = os.umask(0o77)
        os.umask(self._mask)
        self._limits = _limits()
        self._wakes = signal.getsignal(signal.SIGCONT)

    def restore(self) -> bool:
        """Put them back: the folder, the mode of new files, limits, what it does when it was frozen, and no alarm.

        False where that can't be, as with a limit that was lowered for good.
        """
        os.umask(self._mask)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGCONT, self._wakes)
        if _folder() != self._folder:
            with contextlib.suppress(OSError):  # it is gone, for all that run here
                os.chdir(self._folder)
        try:
            for number, limit, before in zip(_LIMITS, _limits(), self._limits, strict=True):
                if limit != before:
                    resource.setrlimit(number, before)
        except (OSError, ValueError):
            return False
        return True


def _folder() -> str:
    """Where this process is; "" where there is no such folder any more."""
    with contextlib.suppress(OSError):
        return os.getcwd()
    return ""


def _limits() -> list[tuple[int, int]]:
    return [resource.getrlimit(number) for number in _LIMITS]
