"""Kinds of settings: how people write them, what that means, and how it is shown."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, TypeAlias
from urllib.parse import urlsplit

import msgspec

from kq.credential import Credential, understood
from kq.mailurl import ADDRESS
from kq.units import format_duration, format_size, parse_duration, parse_size
from kq.url import redact

AtLeastOne: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]


class Seconds(float):
    """A duration; `5m` or 300 in config, and a plain float once that is read."""


class Size(int):
    """Bytes; `128MiB` in config."""


class Queues(dict[str, int]):
    """Names of queues and how many jobs of each a worker may run at once; 0: as many as it runs in all.

    In config a mapping, a list of names, or text like `images:4,mail`; who names no limit gets 0, and nobody writes it.
    """


class Addresses(tuple[str, ...]):
    """Mail addresses; in config a list of them, or text like `ops@example.org, ann@example.org`."""


class Names(tuple[str, ...]):
    """Names of hosts, addresses, or arguments; in config a list of them, or text like `a,b`."""


class Accepted(tuple[str, ...]):
    """Job types and queues, TYPE@QUEUE; in config a list of them, or text like `resize@bulk,*@tenant-*`."""


class Conditions(tuple[str, ...]):
    """Conditions on what is seen of queues and workers; in config a list of them, or text like `oldest>15m,dead>0`."""


class Credentials(dict[str, Credential]):
    """Who may do what, by name. In config a mapping of names to `ROLE HASH`, or text like `ann=edit scrypt$…,bo=…`."""


class Webhook(str):
    """A URL to post to. All of it but the host is a secret."""


def shown(value: object) -> str:
    """A setting's value for people, without secrets."""
    match value:
        case None:
            return "-"
        case float():
            return format_duration(value)
        case Size():
            return format_size(value)
        case Addresses() | Names() | Accepted() | Conditions():
            return ", ".join(value) or "-"
        case Credentials():
            return ", ".join(f"{name}: {each.role} ***" for name, each in value.items()) or "-"
        case Webhook():
            return f"{urlsplit(value).scheme}://{urlsplit(value).hostname}/***"
        case Queues():
            return ", ".join(f"{name}: {limit}" if limit else name for name, limit in value.items()) or "-"
        case _:
            return redact(str(value))


def read(kind: type, value: object) -> object:
    """What somebody wrote, as that kind of setting (msgspec's dec_hook). Raises ValueError when it is none."""
    if kind in _READ:
        return _READ[kind](value)
    if isinstance(value, str | int | float):
        if kind is Seconds:
            return Seconds(parse_duration(value))
        if kind is Size and not isinstance(value, float):
            return Size(parse_size(value))
    raise ValueError(f"{value!r} is no {kind.__name__.lower()}")


def _read_addresses(value: object) -> Addresses:
    each = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
    addresses = Addresses(str(address).strip() for address in each)
    wrong = [address for address in addresses if not re.match(ADDRESS, address)]
    if wrong or not addresses:
        raise ValueError(f"{wrong[0] if wrong else value!r} is no address; write ops@example.org, or a list of them")
    return addresses


def _read_webhook(value: object) -> Webhook:
    split = urlsplit(value) if isinstance(value, str) else urlsplit("")
    if split.scheme not in ("http", "https") or not split.hostname:
        raise ValueError("it is no URL to post to; write https://example.org/…")
    return Webhook(value)


def _read_names(value: object) -> Names:
    each = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [""]
    names = Names(str(name).strip() for name in each)
    if not all(names):
        raise ValueError(f"{value!r} names nothing; write a, or [a, b]")
    return names


def _read_accepted(value: object) -> Accepted:
    each = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [""]
    accepted = Accepted(str(pair).strip() for pair in each)
    for pair in accepted:
        if not all(pair.rpartition("@")):
            raise ValueError(f"{pair!r} names no job type and queue; write resize@bulk, or a list of such")
    return accepted


def _read_conditions(value: object) -> Conditions:
    # Here and not above: who sets none does not pay for all that a snapshot is made of.
    from kq.values.condition import parse_condition

    each = value.split(",") if isinstance(value, str) else value
    if not isinstance(each, list):
        raise ValueError(f"{value!r} is no condition; write oldest>15m, or a list of them")
    return Conditions(parse_condition(str(text)).text.strip() for text in each if each != [""])


def _read_credentials(value: object) -> Credentials:
    """They are no secrets in the open, but not for logs either: no error repeats a hash."""
    if isinstance(value, str):
        pairs = [pair.partition("=")[::2] for pair in value.split(",")]
    elif isinstance(value, dict):
        pairs = list(value.items())
    else:
        pairs = []
    found = Credentials()
    for name, text in pairs:
        try:
            found[str(name).strip()] = understood(str(text))
        except ValueError as error:
            raise ValueError(f"what is said of {str(name).strip()!r} can't be used: {error}") from None
    if not all(found) or not found:
        raise ValueError("it names nobody; write {ann: edit scrypt$…}")
    return found


def _read_queues(value: object) -> Queues:
    if isinstance(value, str):
        pairs = [name.partition(":")[::2] for name in value.split(",")]
    elif isinstance(value, list):
        pairs = [(name, "") for name in value]
    elif isinstance(value, dict):
        pairs = list(value.items())
    else:
        pairs = []
    try:
        limits = {str(name).strip(): None if limit in ("", None) else int(limit) for name, limit in pairs}
    except (TypeError, ValueError):
        limits = {}
    none = [name for name, limit in limits.items() if limit is not None and limit < 1]
    if none:
        raise ValueError(f"queue {none[0]!r} has the limit {limits[none[0]]}; write 1 or more, or only its name")
    if not all(limits) or not limits:
        raise ValueError(f"{value!r} names no queues; write mail, or [mail, images], or {{mail: 1, images: 4}}")
    return Queues({name: limit or 0 for name, limit in limits.items()})


_READ: dict[type, Callable[[object], object]] = {
    Queues: _read_queues,
    Addresses: _read_addresses,
    Webhook: _read_webhook,
    Conditions: _read_conditions,
    Names: _read_names,
    Accepted: _read_accepted,
    Credentials: _read_credentials,
}
