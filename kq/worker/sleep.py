"""Sleep that ends in time, for a supervisor and for coroutines.

epoll counts in whole milliseconds, rounded up: who sleeps on it for 10 ms sleeps for 10 to 11. Select does not, and an
epoll has a descriptor itself.
"""

from __future__ import annotations

import asyncio
import select
import selectors
from typing import TYPE_CHECKING

#: select() takes descriptors below this one.
MOST = 1024

if TYPE_CHECKING:
    Default = selectors.EpollSelector
else:
    Default = selectors.DefaultSelector


class Selector(Default):
    """The system's own, which waits as long as it is told."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout > 0 and (descriptor := self.fileno()) < MOST:
            select.select([descriptor], [], [], timeout)
            timeout = 0
        return super().select(timeout)


def new_selector() -> selectors.BaseSelector:
    """One of these; where the system has no descriptor for it, one that needs none, and sleeps a little longer."""
    try:
        return Selector()
    except OSError:
        return selectors.PollSelector()


def new_loop() -> asyncio.AbstractEventLoop:
    """An event loop whose timers are in time; where the application has loops of another kind, one of these."""
    loop = asyncio.new_event_loop()
    if type(loop) is not asyncio.SelectorEventLoop:
        return loop
    loop.close()
    return asyncio.SelectorEventLoop(Selector())
