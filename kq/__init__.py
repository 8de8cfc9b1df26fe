"""kq: jobs and workers under one contract, on whatever broker you have.

What is public is listed in `__all__`; everything else may change. Names are imported when
they are first used, so that `kq --version` costs no more than the interpreter.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kq.errors import BadJob, BadNetwork, BadStorage, Bury, ConfigError, KqError, Retry, SoftTimeout

__version__ = "0.1.0"

_HOME = {
    "BadJob": "kq.errors",
    "BadNetwork": "kq.errors",
    "BadStorage": "kq.errors",
    "Bury": "kq.errors",
    "ConfigError": "kq.errors",
    "KqError": "kq.errors",
    "Retry": "kq.errors",
    "SoftTimeout": "kq.errors",
}

__all__ = [
    "BadJob",
    "BadNetwork",
    "BadStorage",
    "Bury",
    "ConfigError",
    "KqError",
    "Retry",
    "SoftTimeout",
]


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'kq' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
