"""A state store with somebody between it and who asks it: the base of those that fail, or tell what is asked."""

from __future__ import annotations

from collections.abc import Sequence

from kq.state.store import Gathered, Store, Write


class Between(Store):
    """Does what store does. It has no riders, so that all that is written goes through write()."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        return self._store.get(keys)

    def write(self, writes: Sequence[Write]) -> list[bool]:
        return self._store.write(writes)

    def scan(self, prefix: str, limit: int = 1000) -> list[tuple[str, bytes]]:
        return self._store.scan(prefix, limit)

    def gather(self, prefixes: Sequence[str], limit: int = 1000) -> Gathered:
        return self._store.gather(prefixes, limit)

    def wait_any(self, keys: Sequence[str], timeout: float) -> dict[str, bytes]:
        return self._store.wait_any(keys, timeout)

    def now(self) -> float:
        return self._store.now()

    def close(self) -> None:
        self._store.close()
