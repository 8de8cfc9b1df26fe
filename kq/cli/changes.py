"""What changes in a folder of code: told by the system where watchfiles is installed, else found by looking.

Watched are the Python files in and below the folder, but for those of environments, caches and hidden folders, and the
config file.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Set
from pathlib import Path

from kq.thread import begin

#: Folders that hold nobody's own code.
PASSED = {"__pycache__", "node_modules", "site-packages", "venv", "env"}
#: Seconds between two looks at all files, at least; and how many times as long as a look takes.
LOOK, PACE = 0.5, 20


def watch(folder: Path, config: Path | None, told: Callable[[Collection[str]], None]) -> None:
    """Call told from a thread of its own, for as long as this process lives, with the names of what has changed."""

    def run() -> None:
        for changed in changes(folder, config):
            told(sorted(os.path.relpath(path, folder) for path in changed))

    begin(threading.Thread(target=run, name="kq-changes", daemon=True))


def changes(folder: Path, config: Path | None) -> Iterator[Set[Path]]:
    """What has changed, each time that something has; never ends."""
    try:
        from watchfiles import watch as system  # the extra "dev"
    except ImportError:
        yield from looked(folder, config)
        return
    folders = {folder, *([config.parent] if config else [])}
    wanted = lambda change, path: counts(Path(path), folder, config)  # noqa: E731 (what watchfiles asks for)
    for seen in system(*folders, watch_filter=wanted, debounce=400, step=100, raise_interrupt=False):
        yield {Path(path) for _, path in seen}


def counts(path: Path, folder: Path, config: Path | None) -> bool:
    """Whether a change of path means something."""
    if path == config:
        return True
    if path.suffix != ".py" or not path.is_relative_to(folder):
        return False
    return not any(_is_passed(part) for part in path.relative_to(folder).parts[:-1])


def _is_passed(name: str) -> bool:
    return name.startswith(".") or name in PASSED


def looked(folder: Path, config: Path | None) -> Iterator[Set[Path]]:
    """changes(), by looking at all files again and again."""
    before = _times(folder, config)
    while True:
        began = time.monotonic()
        now = _times(folder, config)
        took = time.monotonic() - began
        changed = {path for path in before.keys() | now.keys() if before.get(path) != now.get(path)}
        before = now
        if changed:
            yield changed
        time.sleep(max(LOOK, PACE * took))


def _times(folder: Path, config: Path | None) -> dict[Path, int]:
    """When each file that counts was written."""
    found = list(_files(folder)) + ([config] if config else [])
    times = {}
    for path in found:
        try:
            times[path] = path.stat().st_mtime_ns
        except OSError:  # it has gone since
            continue
    return times


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _is_passed(name)]
        yield from (Path(place, name) for name in names if name.endswith(".py"))
