"""Whether something came, went or changed its name in a folder, at the price of one look at the folder itself.

Not at what is written there: since Linux 6.13 a file that was looked at gets another time with the next write, which
goes to the disk with it (multigrain timestamps): 20 µs for each.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

#: Nanoseconds within which two changes may have the same time: some ticks of the kernel's clock, and two seconds where
#: a file system counts in those.
TICKS, SECONDS = 100_000_000, 3_000_000_000


def real(name: str) -> Path:
    """The whole path of the file of that name, not of a link to it: SQLite has its log beside the file.

    Not where the link leads to nothing: who laid it there would choose which file is made.
    """
    path = Path(name).absolute()
    return path.resolve() if path.is_symlink() and path.exists() else path


class Folder:
    """The folder at path, of which changes are asked for."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._looked: tuple[int, int] | None = None
        self._known: tuple[int, int] | None = None

    def has_changed(self) -> bool:
        """Whether something in it may have changed since all was seen to be well."""
        try:
            status = os.stat(self._path)
        except OSError:
            self._looked = None
            return True
        # Its ctime: anybody can set the other one back.
        self._looked = status.st_ino, status.st_ctime_ns
        return self._looked != self._known

    def is_well(self) -> None:
        """What is in it was looked at since the last has_changed(), and all is well."""
        looked = self._looked
        if looked is not None:
            age = TICKS if looked[1] % 1_000_000_000 else SECONDS
            self._known = looked if time.time_ns() - looked[1] > age else None
