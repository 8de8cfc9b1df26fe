"""Where a Redis is, and how to get in."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from redis import Connection, SSLConnection, UnixDomainSocketConnection
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from kq_transports.tcp import connected

# A connection tells its name, whose answer says that somebody is there before anything is asked that may change
# something; not redis-py's version, which costs another answer, and to parse a file that says it at each connection.
try:
    from redis import DriverInfo
except ImportError:  # an older redis-py
    _UNVERSIONED: dict[str, Any] = {"lib_version": None}
else:
    _UNVERSIONED = {"driver_info": DriverInfo(lib_version=None)}

_OPTIONS = ("host", "port", "db", "username", "password", "socket")


@dataclass(frozen=True, slots=True)
class Place:
    """A Redis server, and what redis-py's connection wants to know of it.

    socket: the path of a UNIX socket; instead of host and port.
    tls: None for none, else redis-py's ssl_… options, such as ssl_ca_certs.
    connect_timeout: seconds to get in; None: as long as any other answer may take.
    """

    host: str = "localhost"
    port: int = 6379
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    socket: str = ""
    tls: Mapping[str, Any] | None = None
    connect_timeout: float | None = None

    @classmethod
    def of(cls, url: str, **more: object) -> Place:
        """The place that a URL names: redis://, rediss:// or unix://.

        more: options beyond those in the URL's query string. Raises ValueError for what can't be.
        """
        options = cast("dict[str, Any]", parse_url(url)) | more
        kind = options.pop("connection_class", None)
        options["socket"] = options.pop("path", options.pop("socket", ""))
        known = {name: options.pop(name) for name in _OPTIONS if name in options}
        wrong = [name for name in options if kind is not SSLConnection or not name.startswith("ssl_")]
        if wrong:
            raise ValueError(f"a Redis at {url.partition('://')[0]}:// has no option {', '.join(sorted(wrong))}")
        return cls(**known, tls=options if kind is SSLConnection else None)

    def __str__(self) -> str:
        """For people, without the password."""
        return self.socket or f"{self.host}:{self.port}"

    def connection(self, timeout: float) -> Connection:
        """A connection that is not open yet, each of whose waits ends after timeout seconds."""
        common: dict[str, Any] = {
            "db": self.db,
            "username": self.username,
            "password": self.password,
            "socket_timeout": timeout,
            "socket_connect_timeout": self.connect_timeout or timeout,
            "protocol": 2,
            # Its parser, which is in a cycle with itself, has a buffer; a Wire has its own, and a Bell hears few words.
            "socket_read_size": 1024,
            # Each layer above knows better what may be repeated.
            "retry": Retry(NoBackoff(), 0),
            **_UNVERSIONED,
        }
        if self.socket:
            # redis-py leaves an abstract property in it that it never uses.
            return cast(Connection, UnixDomainSocketConnection(path=self.socket, **common))  # type: ignore[abstract]
        if self.tls is not None:
            return _Tls(host=self.host, port=self.port, **self.tls, **common)
        return _Tcp(host=self.host, port=self.port, **common)  # type: ignore[no-untyped-call]


class _Tcp(Connection):
    """redis-py's connection, with a name look-up that ends in time."""

    def _connect(self) -> socket.socket:
        sock = connected(self.host, self.port, time.monotonic() + (self.socket_connect_timeout or 0.0))
        for option, value in self.socket_keepalive_options.items():
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        sock.settimeout(self.socket_timeout)
        return sock


class _Tls(SSLConnection, _Tcp):
    """The same under TLS."""
