"""The state store in a Redis: the broker's own, or another one that several hosts share.

A fact is a string key that expires by itself. write() is one Lua script. Who waits for a key
subscribes to its name first and looks then, so no write can slip through between.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.resources import files

import msgspec

from kq.state.store import Gathered, Store, StoreUnreachable, Write, there
from kq_transports.engine import EngineError
from kq_transports.redislink import Link, Passenger, Place, Reply, Script


def _lua(*names: str) -> str:
    return "\n".join(files("kq.state").joinpath(f"redis_{name}.lua").read_text() for name in names)


# Not to be repeated when its answer was lost: a compare and set would refuse its own success.
_WRITE = Script(_lua("facts", "write"), repeatable=False)
_GATHER = Script(_lua("gather"))
_RIDE = _lua("facts", "ride")
_VALUE = "kq:state:"
_FAMILY = "kq:family:"
_PAGE = 1000
_SCANNING = 60.0  # seconds that all pages of one scan may take


class RedisStore(Store):
    """Facts in the Redis at url: redis://, rediss:// or unix://.

    Each call uses an idle connection or opens one; a store that was made before a fork opens its
    own ones in the child. options: redis-py's, such as ssl_ca_certs. Raises ValueError for a wrong URL.
    """

    def __init__(self, url: str, *, timeout: float = 5.0, **options: object) -> None:
        self.timeout = timeout
        self._place = Place.of(url, **options)
        self._pid = os.getpid()
        self._idle: deque[Link] = deque()
        self._closed = False

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        if not keys:
            return []
        with self._link() as link:
            return link.read(partial(_values, len(keys)), link.ask("MGET", *(_VALUE + key for key in keys)))

    def write(self, writes: Sequence[Write]) -> list[bool]:
        if not writes:
            return []
        with self._link() as link:
            return link.read(lambda reply: [bool(made) for made in reply], link.run(_WRITE, _told(writes)))

    def rider(self, writes: Sequence[Write]) -> Passenger:
        return Passenger(_RIDE, _told(writes))

    def scan(self, prefix: str, limit: int = 1000) -> list[tuple[str, bytes]]:
        with self._link() as link:
            keys = sorted(_keys(link, prefix))
        found: list[tuple[str, bytes]] = []
        while keys and len(found) < limit:
            page, keys = keys[:_PAGE], keys[_PAGE:]
            found += ((key, value) for key, value in zip(page, self.get(page), strict=True) if value is not None)
        return found[:limit]

    def gather(self, prefixes: Sequence[str], limit: int = 1000) -> Gathered:
        with self._link() as link:
            return link.read(_gathered, link.run(_GATHER, limit, *prefixes))

    def wait_any(self, keys: Sequence[str], timeout: float) -> dict[str, bytes]:
        until = time.monotonic() + timeout
        found = there(keys, self.get(keys))
        while not found and time.monotonic() < until:
            with self._link() as link:
                found = self._wait_subscribed(link, keys, until)
        return found

    def now(self) -> float:
        with self._link() as link:
            return link.read(_instant, link.ask("TIME"))

    def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _wait_subscribed(self, link: Link, keys: Sequence[str], until: float) -> dict[str, bytes]:
        """Those of keys that are there, as soon as one is; nothing when the time is over or the connection broke."""
        link.subscribe([_VALUE + key for key in keys])
        clean = False
        try:
            while not (found := there(keys, self.get(keys))) and time.monotonic() < until:
                if not link.listen(until - time.monotonic()):
                    break
            link.unsubscribe(len(keys))
            clean = True
        except (EngineError, StoreUnreachable):
            return {}  # asked again on another connection; when there is none that one says so
        finally:
            if not clean:
                link.close()
        return found

    @contextmanager
    def _link(self) -> Iterator[Link]:
        """A connection for this thread alone; what goes wrong on it becomes the store's error."""
        if os.getpid() != self._pid:
            self._pid, self._idle = os.getpid(), deque()
        if self._closed:
            raise StoreUnreachable(f"the state store at {self._place} was closed")
        try:
            link = self._idle.pop()
        except IndexError:
            link = Link(self._place, self.timeout)
        try:
            yield link
        except EngineError as error:
            raise StoreUnreachable(str(error)) from error
        finally:
            self._put_back(link)

    def _put_back(self, link: Link) -> None:
        if self._closed:
            link.close()
        else:
            self._idle.append(link)


def _told(writes: Sequence[Write]) -> bytes:
    """Writes in the words of the script, which explains them: one argument, for many cost more than what they say."""
    return _pack(
        [
            (
                write.key,
                _text(write.value),
                write.keep,
                write.alive,
                None if write.unless is None else (write.unless[0], _text(write.unless[1])),
                None if write.must is None else (write.must[0], _text(write.must[1])),
                *(() if write.replaces is None and not write.adds else (write.adds, _text(write.replaces))),
            )
            for write in writes
        ]
    )


def _text(value: bytes | None) -> str | msgspec.Raw | None:
    """Any bytes as what MessagePack calls text, for a Redis can't read what it calls binary."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return msgspec.Raw(b"\xdb" + len(value).to_bytes(4, "big") + value)


_pack = msgspec.msgpack.Encoder().encode


def _keys(link: Link, prefix: str) -> set[str]:
    """Keys that start with prefix, some perhaps expired by now."""
    family, colon, _ = prefix.partition(":")
    if colon:
        members = [key for page in _pages(link, "ZSCAN", _FAMILY + family) for key in page[::2]]
    else:
        pattern = re.sub(r"([*?\[\]\\^-])", r"\\\1", _VALUE + prefix) + "*"
        names = [name for page in _pages(link, "SCAN", match=pattern) for name in page]
        members = [name.removeprefix(_VALUE.encode()) for name in names]
    return {key for key in (member.decode(errors="replace") for member in members) if key.startswith(prefix)}


def _pages(link: Link, *command: str, match: str = "*") -> Iterator[list[bytes]]:
    """What one of the SCAN commands finds, page by page, so that a large set delays nobody."""
    cursor, until = b"0", time.monotonic() + _SCANNING
    while True:
        last, (cursor, page) = cursor, link.read(_page, link.ask(*command, cursor, "MATCH", match, "COUNT", _PAGE))
        yield page
        if cursor == b"0":
            return
        if cursor == last or time.monotonic() > until:
            raise link.senseless(f"a scan goes on for ever, now at {cursor[:20]!r}")


def _page(reply: Reply) -> tuple[bytes, list[bytes]]:
    cursor, page = reply
    return bytes(memoryview(cursor)), [bytes(memoryview(each)) for each in page]


def _values(count: int, reply: Reply) -> list[bytes | None]:
    values = [None if value is None else bytes(memoryview(value)) for value in reply]
    if len(values) != count:
        raise ValueError(f"{len(values)} values for {count} keys")
    return values


def _instant(reply: Reply) -> float:
    seconds, microseconds = reply
    return int(seconds) + int(microseconds) / 1_000_000


def _gathered(reply: Reply) -> Gathered:
    seconds, microseconds, *found = reply
    facts = tuple({key.decode(): value for key, value in zip(*[iter(each)] * 2, strict=True)} for each in found)
    return Gathered(seconds + microseconds / 1_000_000, facts)
