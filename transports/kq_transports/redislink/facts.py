"""How a Redis is set up, for who has to trust it with jobs."""

from __future__ import annotations

from kq_transports.engine import EngineError
from kq_transports.redislink.link import Link

UNKNOWN = "unknown"  # a managed Redis hides its configuration
SETTINGS = ("maxmemory", "maxmemory-policy", "appendonly", "appendfsync")


def inspect_server(link: Link) -> dict[str, str]:
    """product ("redis" or "valkey"), its version, the SETTINGS, auth ("yes" or "no"); else "unknown"."""
    told = _told(link)
    product = told.get("server_name", "redis")
    # A Valkey says which Redis it stands for, too.
    version = told.get(f"{product}_version") or told.get("redis_version", UNKNOWN)
    settings = {name: _setting(link, name) for name in SETTINGS}
    return {"product": product, "version": version, **settings, "auth": _auth(link)}


def _told(link: Link) -> dict[str, str]:
    """What it says of itself; nothing where this user may not ask."""
    try:
        lines = link.read(bytes.decode, link.ask("INFO", "server")).splitlines()
    except EngineError as error:
        if isinstance(error, ConnectionError):
            raise
        return {}
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _setting(link: Link, name: str) -> str:
    try:
        answer = link.ask("CONFIG", "GET", name)
    except EngineError as error:
        if isinstance(error, ConnectionError):
            raise
        return UNKNOWN
    return link.read(lambda found: str(found[1].decode()), answer) if answer else UNKNOWN


def _auth(link: Link) -> str:
    """Whether a stranger needs a password: who comes without one is the default user."""
    try:
        flags = link.read(lambda found: list(found[1]), link.ask("ACL", "GETUSER", "default"))
    except EngineError as error:
        if isinstance(error, ConnectionError):
            raise
        return "yes" if link.place.password else UNKNOWN
    return "no" if b"nopass" in flags and b"on" in flags else "yes"
