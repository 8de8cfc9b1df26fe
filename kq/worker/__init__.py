"""Workers: programs that execute jobs. A supervisor with executors under it; see docs/architecture.md.

What is public here is imported when it is first used: the nursery, and the executors that it forks, need none of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kq.worker.program import Worker

__all__ = ["Worker"]


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module("kq.worker.program"), name)
    return value
