"""Broker URLs: what people write, and what Kombu and the state store are given.

    memory://name
    sqlite:///kq.db                  relative to the working directory, or to the config file that names it
    sqlite:////var/lib/kq.db
    redis://:password@host:6379/0    rediss:// for TLS, unix:///run/redis.sock?db=0
    amqp://user:password@host:5672/vhost?queue_type=quorum       amqps:// for TLS

Other schemes come with packages of their own, which name their transports by entry points.
Several, separated by ";", are one broker with fail-over. The query string holds the transport's options: Kombu
can't read it, so it is taken off. A ";" inside a password is written %3B, as is usual for URLs.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import string
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import TypeAlias
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from kq.errors import ConfigError, MissingDriver
from kq.secret_names import is_secret
from kq.units import parse_duration

Option: TypeAlias = str | int | float | bool

DEFAULT = "sqlite:///kq.db"


@dataclass(frozen=True, slots=True)
class _Scheme:
    """kombu: the scheme of its transport; driver: the package it needs, and extra what brings it.

    keeps_state: the broker can be the state store too. transport: where its class is, if it is not ours.
    """

    kombu: str
    example: str
    driver: str = ""
    extra: str = ""
    keeps_state: bool = True
    transport: str = ""


_SCHEMES = {
    "memory": _Scheme("kq-memory", "memory://tests"),
    "sqlite": _Scheme("kq-sqlite", "sqlite:///kq.db"),
    "redis": _Scheme("kq-redis", "redis://localhost:6379/0", "redis", "redis"),
    "rediss": _Scheme("kq-rediss", "rediss://host:6380/0", "redis", "redis"),
    "unix": _Scheme("kq-redis", "unix:///run/redis/redis.sock?db=0", "redis", "redis"),
    "amqp": _Scheme("kq-amqp", "amqp://guest:guest@localhost:5672//", "amqp", "rabbitmq", keeps_state=False),
    "amqps": _Scheme("kq-amqps", "amqps://user:password@host:5671//", "amqp", "rabbitmq", keeps_state=False),
}
#: The group of entry points by which other packages name their transports: the scheme, and `module:Class`.
TRANSPORTS = "kq.transports"
#: What people write who come from elsewhere.
_NEARLY = {
    "rabbitmq": "amqp",
    "pyamqp": "amqp",
    "valkey": "redis",
    "valkeys": "rediss",
    "redis+socket": "unix",
    "sqlite3": "sqlite",
    "sqla+sqlite": "sqlite",
    "file": "sqlite",
    "mem": "memory",
}
_DURATIONS = frozenset({"timeout", "lease"})
#: Options that say something of a connection's jobs and nothing of the place.
_OF_TRANSPORTS = frozenset({"timeout", "lease", "name", "max_message_size"})

#: What is between blanks and quotes; and each name and value of a query. A text is read once, whatever stands in it.
_WORD = re.compile(r"[^\s'\"]++")
_IN_QUERY = re.compile(r"[?&;]([\w.-]++)=[^&;#\s'\"]*")
_OF_SCHEMES = string.ascii_letters + string.digits + "_+.-"


# Between the URLs of a list; and what a URL begins with, also when a character of that was forgotten.
_NEXT = re.compile(r";(?=[a-zA-Z][\w+.-]*://)")
_BEGINNING = re.compile(r"\s*(?:[a-zA-Z][\w+.-]*:?/+)?")


@dataclass(frozen=True, slots=True)
class Address:
    """A broker's URL, understood.

    url: as it was written. kombu: for `kombu.Connection`. options: for its transport_options.
    transports: what Kombu must know to connect there, where the transport is another package's: scheme and class.
    state, state_options: the state store that goes with this broker unless `state:` names another.
    keeps_state: the broker is its own state store, and one server.
    """

    url: str
    kombu: str
    options: dict[str, Option] = field(default_factory=dict)
    state: str = ""
    state_options: dict[str, Option] = field(default_factory=dict)
    keeps_state: bool = False
    transports: dict[str, str] = field(default_factory=dict)

    @property
    def state_stays_here(self) -> bool:
        """Whether state lies beside the broker, in a file that other hosts do not see."""
        return self.state.startswith("sqlite:") and not self.url.startswith("sqlite:")

    @property
    def local(self) -> bool:
        """Whether all of it is on this host, by its name: a file, a socket, a loopback address."""
        return all(part.hostname is None or is_loopback(part.hostname) for part in _parts(self.url))

    @property
    def server(self) -> tuple[str | None, int | None]:
        """The host and the port of the first server, as far as the URL names them."""
        first = _parts(self.url)[0]
        return first.hostname, first.port

    @property
    def redacted(self) -> str:
        """The URL without secrets, for people."""
        return redact_url(self.url)


def parse(url: str, state: str | None = None) -> Address:
    """The address that url means. state: the URL of another state store, or None for the one that goes with it.

    Raises ConfigError, whose text holds no secret, for what is no URL of a broker, and
    MissingDriver when the package that it needs is not installed.
    """
    parts = _parts(url)
    scheme = _known(parts[0].scheme)
    transports = {scheme.kombu: scheme.transport} if scheme.transport else {}
    address = Address(url.strip(), _all_for_kombu(parts, url), _all_options(parts, url), transports=transports)
    if state is None and not scheme.keeps_state:
        return replace(address, state=_state_file(parts[0]))
    keeper = parts if state is None else _parts(state)
    if not _known(keeper[0].scheme).keeps_state:
        raise ConfigError(
            f"state {redact_url(str(state))!r} can keep no state", fix="Name a Redis server or an SQLite file."
        )
    _all_for_kombu(keeper, state or url)  # only to refuse what is wrong in it
    # Of several servers the state is kept by the first: facts on two would contradict each other.
    first = keeper[0]
    options = {} if first.scheme == "unix" else _options(first, state or url)
    for name in _OF_TRANSPORTS & options.keys():
        del options[name]
    alone = state is None and len(parts) == 1
    return replace(address, state=_bare(first), state_options=options, keeps_state=alone)


def _parts(url: str) -> list[SplitResult]:
    """The URLs in url, of one kind, whose driver is there."""
    parts = [_split(part, url) for part in _NEXT.split(url.strip()) if part]
    if not parts:
        raise ConfigError("the broker URL is empty", fix=f"Write for example {DEFAULT} or redis://localhost:6379/0.")
    name = parts[0].scheme
    scheme = _known(name)
    if any(part.scheme != name for part in parts):
        raise _wrong(url, "a fail-over list names different kinds of broker", "Use one scheme for all of them.")
    if len(parts) > 1 and not (scheme.driver or scheme.transport):
        raise _wrong(url, f"{name}:// is one place and can't fail over", "Name one.")
    if scheme.driver and find_spec(scheme.driver) is None:
        raise MissingDriver(
            f"{name}:// needs the Python package {scheme.driver}, which is not installed",
            fix=f"pip install 'kq-jobs[{scheme.extra}]'",
        )
    return parts


@cache
def _scheme(name: str) -> _Scheme | None:
    """One of ours, or of another package; None when nobody has it."""
    if name in _SCHEMES:
        return _SCHEMES[name]
    from importlib.metadata import entry_points  # reads what each installed package says: 10 ms that ours need not wait

    for entry in entry_points(group=TRANSPORTS, name=name):
        return _Scheme(f"kq-{name}", f"{name}://localhost", keeps_state=False, transport=entry.value)
    return None


def _known(name: str) -> _Scheme:
    """The same of one that is there."""
    scheme = _scheme(name)
    assert scheme is not None
    return scheme


def redact(text: str) -> str:
    """text, which may be or contain URLs, with *** for every password and token."""
    if "@" in text and "://" in text:
        text = _WORD.sub(lambda word: ";".join(map(_without_password, _NEXT.split(word[0]))), text)
    return _IN_QUERY.sub(_without_value, text)


def _without_value(found: re.Match[str]) -> str:
    return f"{found[0][: found.end(1) - found.start() + 1]}***" if is_secret(found[1]) else found[0]


def _without_password(url: str) -> str:
    # Up to the last "@", so that an "@", "/" or ";" that should have been percent-encoded gives nothing away.
    before, at, place = url.rpartition("@")
    beginning, mark, user = before.partition("://")
    if not (at and mark):
        return url
    scheme = beginning[len(beginning.rstrip(_OF_SCHEMES)) :]
    return f"{beginning}{mark}{_veiled(scheme, user)}@{place}"


def redact_url(url: str) -> str:
    """url, or a list of them, without secrets. Also what is none: all before its last @ may be one."""
    return redact(";".join(map(_without_user, _NEXT.split(url))))


def _without_user(url: str) -> str:
    before, at, place = url.rpartition("@")
    beginning = _BEGINNING.match(before)
    assert beginning is not None  # it may be empty
    return f"{beginning[0]}{_veiled(beginning[0], before[beginning.end() :])}@{place}" if at else url


def _veiled(beginning: str, user: str) -> str:
    """What stands before the @ of a URL that begins so, without its password."""
    name, colon, _ = user.partition(":")
    if colon:
        return f"{name}:***"
    # Redis has passwords without users, and is often given one where the user would stand.
    return "***" if user and beginning.strip().lower().startswith(("redi", "unix", "valkey")) else user


def split_url(url: str) -> SplitResult:
    """url in its parts. Raises ValueError for what is none, in words that repeat nothing of it: it may hold a password.

    A URL is UTF-8, also where it is percent-encoded; what isn't would name another place, or have another password.
    White space has no place before the host (RFC 3986), and what cuts secrets out of texts takes it for an end.
    """
    try:
        unquote(url, errors="strict").encode()
    except UnicodeError:
        raise ValueError("it is not UTF-8; write it in UTF-8 (é is %C3%A9)") from None
    try:
        split = urlsplit(url)
    except ValueError:
        raise ValueError("its host is none") from None
    try:
        split.port  # noqa: B018 - checked when read
    except ValueError:
        raise ValueError("its port is no number from 0 to 65535") from None
    if "@" in split.netloc and re.search(r"\s", url.rpartition("@")[0]):
        raise ValueError("there is white space in its user or password")
    return split


def anchored(url: str, folder: str | PurePath) -> str:
    """url with a relative SQLite path made absolute, seen from folder."""
    if not url.startswith("sqlite:///") or url.startswith("sqlite:////"):
        return url
    path, question, query = url.removeprefix("sqlite:///").partition("?")
    if not path:
        return url
    return f"{_file_url(PurePath(folder) / unquote(path))}{question}{query}"


def _file_url(path: PurePath) -> str:
    """The URL of the SQLite file at path. Raises ConfigError where the path is not UTF-8."""
    try:
        return f"sqlite:///{quote(str(path))}"
    except UnicodeEncodeError:
        raise ConfigError(f"the path {str(path)!r} is not UTF-8", fix="Use a folder with another name.") from None


def _split(part: str, url: str) -> SplitResult:
    part = part.strip()
    scheme, colon, _ = part.partition("://")
    if not colon:
        raise _wrong(
            url, f"{redact_url(part)!r} has no scheme", f"Write for example {DEFAULT} or redis://localhost:6379/0."
        )
    if _scheme(scheme.lower()) is None:
        raise _unknown(scheme, url)
    try:
        return split_url(part)
    except ValueError as error:
        fix = "Percent-encode / ? # @ : ; [ ] and white space in user and password."
        raise _wrong(url, str(error), fix) from None


def _unknown(scheme: str, url: str) -> ConfigError:
    nearest = _NEARLY.get(scheme.lower()) or next(iter(difflib.get_close_matches(scheme.lower(), _SCHEMES, n=1)), None)
    if nearest:
        fix = f"Did you mean {nearest}://? For example {_SCHEMES[nearest].example}"
    else:
        fix = f"kq speaks {', '.join(f'{name}://' for name in _SCHEMES)}; others when their package is installed."
    return _wrong(url, f"no broker has the scheme {scheme}://", fix)


def _wrong(url: str, what: str, fix: str) -> ConfigError:
    return ConfigError(f"broker URL {redact_url(url)!r}: {what}", fix=fix)


def _all_options(parts: Iterable[SplitResult], url: str) -> dict[str, Option]:
    return {name: value for part in parts for name, value in _options(part, url).items()}


def _options(part: SplitResult, url: str) -> dict[str, Option]:
    try:
        pairs = parse_qsl(part.query, strict_parsing=True) if part.query else []
        options = {name: parse_duration(value) if name in _DURATIONS else _typed(value) for name, value in pairs}
    except ValueError as error:
        raise _wrong(
            url, f"its options are wrong: {redact(f'?{error}')[1:]}", "Write ?name=value&other=value."
        ) from None
    if part.scheme == "unix":
        options["socket"] = unquote(part.path)
        options.pop("db", None)
    return options


def _typed(value: str) -> Option:
    """value as a number or a boolean where it looks like one."""
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def _all_for_kombu(parts: Iterable[SplitResult], url: str) -> str:
    return ";".join(_for_kombu(part, url) for part in parts)


def _for_kombu(part: SplitResult, url: str) -> str:
    """The URL of one broker as Kombu reads it: our scheme, no query, nothing that Kombu takes for a list."""
    scheme = _known(part.scheme).kombu
    where = part.netloc.replace(";", "%3B")
    path = unquote(part.path)
    match part.scheme:
        case "memory":
            if path.strip("/"):
                raise _wrong(url, "a memory broker has a name and no path", "Write for example memory://tests")
            return f"{scheme}://{where or 'default'}"
        case "sqlite":
            return f"{scheme}:///{quote(_file(part, url))}"
        case "unix":
            if part.netloc or path in ("", "/"):
                raise _wrong(url, "it names no socket file", f"Write for example {_SCHEMES['unix'].example}")
            return f"{scheme}:///{_database(dict(parse_qsl(part.query)).get('db', '0'), url)}"
        case "redis" | "rediss":
            return f"{scheme}://{where or 'localhost'}/{_database(path.strip('/') or '0', url)}"
        case "amqp" | "amqps":
            return f"{scheme}://{where or 'localhost'}/{quote(path.removeprefix('/') or '/', safe='')}"
        case _:
            return f"{scheme}://{where}{quote(path)}"


def _database(number: str, url: str) -> str:
    if not number.isdecimal():
        raise _wrong(
            url, f"a Redis database is a number, not {number!r}", f"Write for example {_SCHEMES['redis'].example}"
        )
    return number


def _file(part: SplitResult, url: str) -> str:
    if part.netloc:
        raise _wrong(
            url,
            f"{part.netloc!r} stands where a host would",
            f"Write three slashes: sqlite:///{part.netloc}{part.path}",
        )
    path = unquote(part.path).removeprefix("/")
    if not path or path.endswith("/"):
        raise _wrong(url, "it names no file", f"Write for example {DEFAULT}")
    if path == ":memory:":
        raise _wrong(url, "each connection would have a broker of its own", "Write memory://name.")
    return path


def _bare(part: SplitResult) -> str:
    """The URL without its options; the database of a Redis socket is one of its options and stays."""
    database = dict(parse_qsl(part.query)).get("db") if part.scheme == "unix" else None
    query = f"?db={database}" if database else ""
    return f"{part.scheme}://{part.netloc}{part.path}{query}"


def _state_file(broker: SplitResult) -> str:
    """Where state goes that the broker can't keep: an SQLite file of this user on this host, one for each vhost."""
    host, path = broker.hostname or "localhost", unquote(broker.path).strip("/") or "default"
    ours = broker.scheme in _SCHEMES
    place = f"{host}-{broker.port or 5672}-{path}" if ours else f"{broker.scheme}-{host}-{broker.port or ''}-{path}"
    name = re.sub(r"[^\w.-]", "_", place)
    return _file_url(state_folder() / f"{name}.db")


def state_folder() -> Path:
    """Where kq keeps what it knows of this user on this host; it may not exist."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "kq"


def is_loopback(host: str) -> bool:
    """Whether what is said to host stays on this host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_and_port(address: str) -> tuple[str, int]:
    """Those of HOST:PORT, [::1]:PORT or :PORT, to listen at. Raises ConfigError for anything else."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"{address!r} is no address to listen at", fix="Write HOST:PORT, such as 127.0.0.1:8090.")
    return host.removeprefix("[").removesuffix("]"), int(port)
