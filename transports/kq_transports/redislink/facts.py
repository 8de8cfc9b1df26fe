"""How a Redis is set up, for who has to trust it with jobs."""

from __future__ import annotations

from kq_transports.engine import EngineError
from kq_transports.redislink.link import Link

UNKNOWN = "unknown"  # a managed Redis hides its configuration
SETTINGS = ("maxmemory", "maxmemory-policy", "appendonly", "appendfsync")


def inspect_server(link: Link) -> dict[str, str]:
    """version, maxmemory, maxmemory-policy, appendonly, appendfsync, auth ("yes" or "no"); else "unknown"."""
    version = _told(link, "redis_version", "INFO", "server")
    settings = {name: _setting(link, name) for name in SETTINGS}
    return {"version": version, **settings, "auth": _auth(link)}


def _told(link: Link, field: str, *command: str) -> str:
    """The field of an INFO."""
    lines = bytes(link.ask(*command)).decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line).get(field, UNKNOWN)


def _setting(link: Link, name: str) -> str:
    try:
        answer = link.ask("CONFIG", "GET", name)
    except EngineError as error:
        if isinstance(error, ConnectionError):
            raise
        return UNKNOWN
    return answer[1].decode() if answer else UNKNOWN


def _auth(link: Link) -> str:
    """Whether a stranger needs a password: who comes without one is the default user."""
    try:
        flags = link.ask("ACL", "GETUSER", "default")[1]
    except EngineError as error:
        if isinstance(error, ConnectionError):
            raise
        return "yes" if link.place.password else UNKNOWN
    return "no" if b"nopass" in flags and b"on" in flags else "yes"
