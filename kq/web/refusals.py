"""Refused sign-ins, tokens and acts: the first is told at once, those that follow in one line a minute."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

#: Seconds between two lines about one source, and sources that have lines of their own at a time.
SECONDS, SOURCES = 60.0, 20

What = TypeVar("What")


@dataclass(slots=True)
class _Window(Generic[What]):
    latest: What
    more: int = 0


class Refusals(Generic[What]):
    """Counts refusals by source and passes them to `tell`, as the latest one and how many others came before it.

    Sources beyond SOURCES at a time count as one. It runs in an event loop.
    """

    def __init__(self, tell: Callable[[What, int], None]) -> None:
        self._tell = tell
        self._windows: dict[str, _Window[What]] = {}

    def note(self, source: str, what: What) -> None:
        """Note one refusal. source: the user or the group of addresses that it came from."""
        if source not in self._windows and len(self._windows) >= SOURCES:
            source = ""
        window = self._windows.get(source)
        if window is None:
            self._tell(what, 0)
            self._begin(source, what)
        else:
            window.latest, window.more = what, window.more + 1

    def _begin(self, source: str, what: What) -> None:
        self._windows[source] = _Window(what)
        asyncio.get_running_loop().call_later(SECONDS, self._end, source)

    def _end(self, source: str) -> None:
        window = self._windows.pop(source)
        if window.more:
            self._tell(window.latest, window.more - 1)
            self._begin(source, window.latest)
