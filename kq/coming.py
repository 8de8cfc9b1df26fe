"""What comes one by one from a source that waits: for `for`, and for `async for`, which lets others go on meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Generator
from types import TracebackType
from typing import Generic, TypeVar

from kq.aside import aside

T = TypeVar("T")


class Coming(Generic[T]):
    """An iterator of both kinds. It ends with its source; close it, or use it as a context manager, to end it before.

    source: yields None now and then while nothing comes, so that a task that is cancelled is free soon.
    """

    def __init__(self, source: Generator[T | None, None, None]) -> None:
        self._source = source
        self._turn = threading.Lock()  # a thread may still be at it when its task was cancelled

    def __iter__(self) -> Coming[T]:
        return self

    def __next__(self) -> T:
        while True:
            with self._turn:
                found = next(self._source)
            if found is not None:
                return found

    def __aiter__(self) -> Coming[T]:
        return self

    async def __anext__(self) -> T:
        while True:
            found, over = await aside(self._next)
            if over:
                raise StopAsyncIteration
            if found is not None:
                return found

    def _next(self) -> tuple[T | None, bool]:
        """What comes, and whether that was all."""
        with self._turn:
            try:
                return next(self._source), False
            except StopIteration:
                return None, True

    def close(self) -> None:
        """End it, and let go of what it holds."""
        with self._turn:
            self._source.close()

    async def aclose(self) -> None:
        """close(), without blocking the event loop."""
        await aside(self.close)

    def __enter__(self) -> Coming[T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Coming[T]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()
