"""Blocking work for who must not block an event loop.

asyncio is imported when that happens, so for somebody who has it already: it takes as long as a tenth of kq.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


async def aside(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """work(*args, **kwargs), done by another thread."""
    import asyncio

    return await asyncio.to_thread(work, *args, **kwargs)
