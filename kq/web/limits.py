"""Limits on connections and requests, so that one address leaves room for the others and for health checks."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

#: Connections that wait for their client: of one address, and open connections in all.
WAITING, OPEN = 64, 500
#: Requests that are answered at a time, in all and for one address.
REQUESTS, REQUESTS_OF_ONE = 200, 100


class Connection(Protocol):
    """A connection as `crowding` sees it.

    address: the client's group, see `group_of`. since: when the connection was made or its last request began.
    waits: whether it is the client's turn: to send a request or the rest of one, or to read the answer.
    """

    @property
    def address(self) -> str: ...
    @property
    def since(self) -> float: ...
    @property
    def waits(self) -> bool: ...


C = TypeVar("C", bound=Connection)


def crowding(connections: Iterable[C], newest: C, shared: Callable[[str], bool]) -> C | None:
    """Return the connection to end because `newest` is one too many; None while there is room.

    The one that has waited for its client longest goes, so a client that sends its request at once is always served.
    shared: whether an address stands for many clients, as that of a proxy does; it has only the limit for all.
    """
    waiting = [each for each in connections if each.waits]
    own = [each for each in waiting if each.address == newest.address]
    if len(own) > WAITING and not shared(newest.address):
        return min(own, key=lambda each: each.since)
    if len(list(connections)) <= OPEN or not waiting:
        return None
    (most, _), *_ = Counter(each.address for each in waiting).most_common(1)
    return min((each for each in waiting if each.address == most), key=lambda each: each.since)


class Limited:
    """An ASGI application that answers 503 to requests beyond the limits. Requests for `free` are always answered."""

    def __init__(self, app: ASGIApp, free: str) -> None:
        self._app, self._free = app, free
        self._busy = Counter[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == self._free:
            await self._app(scope, receive, send)
            return
        address = group_of(scope["client"][0] if scope.get("client") else "")
        if self._busy.total() >= REQUESTS or self._busy[address] >= REQUESTS_OF_ONE:
            answer = PlainTextResponse("too many requests at a time; try again\n", 503, {"Retry-After": "1"})
            await answer(scope, receive, send)
            return
        self._busy[address] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._busy[address] -= 1
            if not self._busy[address]:
                del self._busy[address]


def group_of(address: str) -> str:
    """Return the address, or its /64 network where it is IPv6: one client usually has all addresses of a /64."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, 64), strict=False))


def is_among(address: str, listed: Iterable[str]) -> bool:
    """Whether a group of addresses is among those listed: addresses, networks, or * for all."""

    def fits(entry: str) -> bool:
        try:
            return ipaddress.ip_network(address).overlaps(ipaddress.ip_network(entry, strict=False))
        except (ValueError, TypeError):
            return entry in ("*", address)

    return any(map(fits, listed))
