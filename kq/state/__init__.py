"""The state store: small facts that must outlive a process. Opened by URL, used through Store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kq.state.store import Store, StoreUnreachable, Write

__all__ = ["Store", "StoreUnreachable", "Write", "open_store"]


def open_store(
    url: str, *, timeout: float = 5.0, make_folder: bool = False, look: bool = False, **options: object
) -> Store:
    """The store that url names.

    url: memory://name, sqlite:///jobs.db (relative), sqlite:////var/lib/jobs.db (absolute),
        redis://…, rediss://… or unix://…
    timeout: seconds that one verb may take before StoreUnreachable.
    look: for one who reads: an SQLite file is neither created nor written to before the first write.
    make_folder: create the folder of an SQLite file when it is missing.
    options: what the store takes beyond that, such as clock= for memory.
    Raises ValueError for a scheme that there is no store for, or an option that it does not have.
    """
    scheme = urlsplit(url).scheme
    opener = _opener(scheme)
    if make_folder and scheme == "sqlite":
        Path(_path(url)).parent.mkdir(parents=True, exist_ok=True)
    if look and scheme == "sqlite":
        options["look"] = True
    store: Store = opener(url, timeout=timeout, **options)
    return store


def preload(url: str) -> None:
    """Import what the store at url needs, and open nothing. Raises ValueError for an unknown scheme."""
    _opener(urlsplit(url).scheme)


def _opener(scheme: str) -> Callable[..., Store]:
    find = _OPENERS.get(scheme)
    if find is None:
        known = ", ".join(f"{name}://" for name in _OPENERS)
        raise ValueError(f"there is no state store for {scheme or 'a URL without a scheme'}; known: {known}")
    return find()


def _memory() -> Callable[..., Store]:
    from kq.state.memory import MemoryStore

    def opened(url: str, **options: object) -> Store:
        _only({"timeout", "clock"}, options)
        return MemoryStore(_rest(url), **options)  # type: ignore[arg-type]

    return opened


def _sqlite() -> Callable[..., Store]:
    from kq.state.sqlite import SqliteStore

    def opened(url: str, **options: object) -> Store:
        _only({"timeout", "synchronous", "shared", "look"}, options)
        return SqliteStore(_path(url), **options)  # type: ignore[arg-type]

    return opened


def _redis() -> Callable[..., Store]:
    from kq.state.redis import RedisStore

    return RedisStore


def _only(known: set[str], options: Mapping[str, object]) -> None:
    unknown = sorted(options.keys() - known)
    if unknown:
        raise ValueError(f"it has no option {', '.join(unknown)}")


def _rest(url: str) -> str:
    """What follows the two slashes: the name of a memory store, or a slash and the path of a file."""
    return url.partition("://")[2]


def _path(url: str) -> str:
    return unquote(_rest(url).removeprefix("/"))


# Functions, so that a driver is imported only when its store is wanted.
_OPENERS: dict[str, Callable[[], Callable[..., Store]]] = {
    "memory": _memory,
    "sqlite": _sqlite,
    "redis": _redis,
    "rediss": _redis,
    "unix": _redis,
}
