"""Settings: what may be set, where it is found, and which of several values counts.

A value on the command line counts before one in the environment (KQ_URL, KQ_WORKER_GRACE), that before one
in the config file, that before the default; where each came from is remembered. One file is read, the
first that is there: --config, KQ_CONFIG, then kq.yaml or [tool.kq] of pyproject.toml in the working directory or
a directory above it, up to the root of its repository.

Text in a file may hold ${NAME} or ${NAME:-default} from the environment. A secret may lie in a file of its own:
`url_file: /run/secrets/kq_url`. A relative path, sqlite:///kq.db too, is seen from the file that names it.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec

from kq.credential import Credential, understood
from kq.errors import ConfigError
from kq.mailurl import ADDRESS, MAIL, parse_mail_url
from kq.units import format_duration, format_size, parse_duration, parse_size
from kq.url import DEFAULT, anchored, redact
from kq.values import configfile

Environ: TypeAlias = Mapping[str, str]
AtLeastOne: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]


class Seconds(float):
    """A duration; `5m` or 300 in config."""


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


class Conditions(tuple[str, ...]):
    """Conditions on what is seen of queues and workers; in config a list of them, or text like `oldest>15m,dead>0`."""


class Credentials(dict[str, Credential]):
    """Who may do what, by name. In config a mapping of names to `ROLE HASH`, or text like `ann=edit scrypt$…,bo=…`."""


class Webhook(str):
    """A URL to post to. All of it but the host is a secret."""


#: The least and the most that some durations may be, in seconds: clocks and brokers can't wait for everything.
SPANS = {"lease.length": (1.0, 86400.0), "submit_timeout": (0.001, 86400.0)}


class Lease(msgspec.Struct, frozen=True):
    """length: seconds of silence after which a worker is taken for dead and its jobs go to others; 1 s to a day."""

    length: Seconds = Seconds(15)


class Worker(msgspec.Struct, frozen=True):
    """How `kq worker` runs.

    queues: what it takes jobs from, and how many of each at once; none named: the queues of the app's job types.
    pool: what its executors are made of. concurrency: jobs at once, None for one per CPU, 10 threads or 100 coroutines.
    processes: supervisors, each with executors of its own. grace: seconds that running jobs are given when it is told
    to end.
    max_jobs: an executor that ran so many jobs is replaced. max_rss: one that holds four fifths of
    so many bytes is too, and one that passes them while jobs run is killed.
    unfit_after: when bad storage ended so many different jobs here, the worker ends with exit code 74; 0: never.
    unfit_within: the time within which they are counted.
    control: whether it makes control's rounds, unless another does.
    health: HOST:PORT where it answers /livez, /readyz and /metrics over HTTP; nowhere by default.
    """

    queues: Queues = msgspec.field(default_factory=Queues)
    pool: Literal["process", "thread", "async"] = "process"
    concurrency: AtLeastOne | None = None
    processes: AtLeastOne = 1
    grace: Seconds = Seconds(30)
    max_jobs: AtLeastOne | None = None
    max_rss: Size | None = None
    unfit_after: Annotated[int, msgspec.Meta(ge=0)] = 3
    unfit_within: Seconds = Seconds(60)
    control: bool = True
    health: str | None = None


class PublishRetryPolicy(msgspec.Struct, frozen=True):
    """How a submit that the broker did not take is repeated: Kombu's retry_policy, within submit_timeout.

    max_retries: how often at most. interval_start: seconds before the first time. interval_step: seconds by which each
    further wait is longer. interval_max: seconds that the longest wait takes.
    """

    max_retries: Annotated[int, msgspec.Meta(ge=0)] = 50
    interval_start: Seconds = Seconds(0.05)
    interval_step: Seconds = Seconds(0.2)
    interval_max: Seconds = Seconds(1)


class Results(msgspec.Struct, frozen=True):
    """keep: seconds that results are kept; 0 keeps none."""

    keep: Seconds = Seconds(3600)


class Events(msgspec.Struct, frozen=True):
    """What is remembered of events for `kq events --since 10m`.

    keep: seconds that each is; 0: none, and then none is made while nobody listens. most: so many of each worker.
    """

    keep: Seconds = Seconds(0)
    most: AtLeastOne = 10_000


class Streams(msgspec.Struct, frozen=True):
    """How much is kept of what one attempt of a job emits. most: so many chunks; size: so many bytes of them."""

    most: AtLeastOne = 10_000
    size: Size = Size(2**20)


class Alerts(msgspec.Struct, frozen=True):
    """Who is told of what a human must look at, and how often.

    mail: addresses; their server is that of `mail`. sender: whom these mails come from, kq@ this host by default.
    webhook: a URL that JSON is posted to. command: what is started, with the text as its input.
    at_most_every: the time between two digests. most_an_hour: alerts in all; what is too much is in the next digest.
    rules: conditions as kq status --fail-if has them, of which people are told, and again when they are over; none with
    []. after: the time that one must be so, or over.
    """

    mail: Addresses | None = None
    sender: str | None = None
    webhook: Webhook | None = None
    command: str | None = None
    at_most_every: Seconds = Seconds(600)
    most_an_hour: Annotated[int, msgspec.Meta(ge=2)] = 12
    rules: Conditions = Conditions(("oldest>15m", "burials>30/m", "unserved>0", "control<1"))
    after: Seconds = Seconds(120)

    @property
    def wanted(self) -> bool:
        """Whether anybody is to be told."""
        return bool(self.mail or self.webhook or self.command)


class Web(msgspec.Struct, frozen=True):
    """The web page, `kq web`.

    listen: HOST:PORT. users: who may sign in, `NAME: ROLE HASH`; kq web --hash-password makes a hash. tokens: the same
    for programs that use the API; kq web --new-token makes one. hosts: the names by which browsers reach it, where that
    is not this host's own address. proxies: addresses of proxies whose X-Forwarded-For and -Proto are believed.
    certificate, key: files (PEM); with them it speaks HTTPS. hide: names of arguments whose values are not shown,
    beside those that kq knows; * stands for anything. traces: where traces are looked at, a URL in which {trace} stands
    for the id of one.
    """

    listen: str = "127.0.0.1:8520"
    users: Credentials = msgspec.field(default_factory=Credentials)
    tokens: Credentials = msgspec.field(default_factory=Credentials)
    hosts: Names = Names()
    proxies: Names = Names()
    certificate: str | None = None
    key: str | None = None
    hide: Names = Names()
    traces: str | None = None


class Config(msgspec.Struct, frozen=True):
    """Every setting. url: the broker. state: where results are kept, the broker itself where it can. app: module:name.

    mail: the server for mailers that name none, or file:///folder, or log: for a dry run.
    submit_timeout: seconds that one submit may take in all.
    protected: `kq monitor` and `kq web` only look, the monitor unless it is told otherwise; for what must not be
    changed by mistake.
    """

    url: str = DEFAULT
    state: str | None = None
    app: str | None = None
    mail: str = MAIL
    submit_timeout: Seconds = Seconds(5)
    protected: bool = False
    lease: Lease = Lease()
    worker: Worker = msgspec.field(default_factory=Worker)
    publish_retry_policy: PublishRetryPolicy = PublishRetryPolicy()
    results: Results = Results()
    streams: Streams = Streams()
    events: Events = Events()
    alerts: Alerts = Alerts()
    web: Web = msgspec.field(default_factory=Web)


class Given(msgspec.Struct, frozen=True):
    """A value that somebody wrote, before it is understood. key: dotted. origin: for people."""

    key: str
    value: object
    origin: str


class Loaded(msgspec.Struct, frozen=True):
    """Settings as they count, with the origin of each. file: the config file that was read, if any."""

    config: Config
    origins: Mapping[str, str]
    file: Path | None

    def rows(self) -> list[tuple[str, str, str]]:
        """Key, value and origin of every setting, for people: no secrets, units written out."""
        return [(key, shown(_at(self.config, key)), self.origins.get(key, "default")) for key in SCHEMA]


def load(
    flags: Mapping[str, object] | None = None,
    *,
    file: str | Path | None = None,
    environ: Environ | None = None,
    folder: Path | None = None,
) -> Loaded:
    """The settings that count in folder (the working directory).

    flags: values from the command line by dotted key; None means not given. file: from --config.
    Raises ConfigError for an unknown key, a value that does not fit, or a file that can't be read.
    """
    environ = os.environ if environ is None else environ
    folder = folder or Path.cwd()
    path = configfile.find(file or environ.get("KQ_CONFIG"), folder)
    given: dict[str, Given] = {}
    for one in [*_from_file(path, environ), *_from_environ(environ, folder), *_from_flags(flags or {})]:
        given[one.key] = one
    values = {key: _understood(one) for key, one in given.items()}
    return Loaded(_built(Config, "", values), {key: one.origin for key, one in given.items()}, path)


def misspelt(environ: Environ) -> dict[str, str]:
    """Names in environ that look like a setting of kq but are none, and what was probably meant."""
    names = (
        {variable(key): key for key in SCHEMA} | {f"{variable(key)}_FILE": key for key in SECRET} | {"KQ_CONFIG": ""}
    )
    strange = (name for name in environ if name.startswith("KQ_") and name not in names)
    near = {name: difflib.get_close_matches(name, names, n=1, cutoff=0.8) for name in strange}
    return {name: matches[0] for name, matches in near.items() if matches}


def shown(value: object) -> str:
    """A setting's value for people, without secrets."""
    match value:
        case None:
            return "-"
        case Seconds():
            return format_duration(value)
        case Size():
            return format_size(value)
        case Addresses() | Names() | Conditions():
            return ", ".join(value) or "-"
        case Credentials():
            return ", ".join(f"{name}: {each.role} ***" for name, each in value.items()) or "-"
        case Webhook():
            return f"{urlsplit(value).scheme}://{urlsplit(value).hostname}/***"
        case Queues():
            return ", ".join(f"{name}: {limit}" if limit else name for name, limit in value.items()) or "-"
        case _:
            return redact(str(value))


# Which keys there are.


@cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Its fields and their types, which are text until they are looked up."""
    return get_type_hints(kind, include_extras=True)


def _keys(kind: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, hint in _fields(kind).items():
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            yield from _keys(hint, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", hint


#: Dotted key and type of every setting.
SCHEMA: dict[str, Any] = dict(_keys(Config))
SECTIONS = {key.rpartition(".")[0] for key in SCHEMA if "." in key}
#: Keys whose value may lie in a file of its own, named by key_file.
SECRET = ("url", "state", "mail", "alerts.webhook")


def _at(config: msgspec.Struct, key: str) -> object:
    value: object = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _built(kind: type[msgspec.Struct], prefix: str, values: Mapping[str, object]) -> Any:
    fields: dict[str, object] = {}
    for name, hint in _fields(kind).items():
        key = f"{prefix}{name}"
        if key in SECTIONS:
            fields[name] = _built(hint, f"{key}.", values)
        elif key in values:
            fields[name] = values[key]
    return kind(**fields)


# Where values are found.


def _from_file(path: Path | None, environ: Environ) -> list[Given]:
    if path is None:
        return []
    file = configfile.read(path)
    if file.tree is None:
        return []
    if not isinstance(file.tree, dict):
        raise ConfigError(f"config file {path} holds no settings", fix=f"Write lines like  url: {DEFAULT}")
    found = _flat(file.tree, file.place)
    filled = [Given(one.key, _filled(one, one.value, environ), one.origin) for one in found]
    return _with_secrets(filled, path.parent)


def _flat(tree: Mapping[Any, object], origin: Callable[[str], str], prefix: str = "") -> Iterator[Given]:
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if key in SECTIONS and isinstance(value, dict):
            yield from _flat(value, origin, f"{key}.")
        elif key in SECTIONS:
            inside = ", ".join(each for each in SCHEMA if each.startswith(f"{key}."))
            raise ConfigError(f"{key} in {origin(key)} is {value!r}, but it is a group", fix=f"In it are {inside}.")
        elif key not in SCHEMA and key.removesuffix("_file") not in SECRET:
            raise _unknown(key, origin(key))
        elif value is not None:
            yield Given(key, value, origin(key))


def _unknown(key: str, origin: str) -> ConfigError:
    known = [*SCHEMA, *SECTIONS, *(f"{each}_file" for each in SECRET)]
    near = difflib.get_close_matches(key, known, n=1) or [each for each in known if each.endswith(f".{key}")]
    fix = f"Did you mean {near[0]}?" if near else f"There are {', '.join(SCHEMA)}."
    return ConfigError(f"{key} in {origin} is no setting", fix=fix)


def _filled(one: Given, value: object, environ: Environ) -> object:
    """value with each ${NAME} in its text replaced from environ."""
    if isinstance(value, dict):
        return {key: _filled(one, each, environ) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(one, each, environ) for each in value]
    if not isinstance(value, str):
        return value

    def fill(found: re.Match[str]) -> str:
        text = environ.get(found[1], found[2])
        if text is None:
            raise ConfigError(
                f"{one.key} in {one.origin} needs the environment variable {found[1]}, which is not set",
                fix=f"Set it, or write ${{{found[1]}:-a default}}.",
            )
        return text

    return re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", fill, value)


def _from_environ(environ: Environ, folder: Path) -> list[Given]:
    keys = [*SCHEMA, *(f"{key}_file" for key in SECRET)]
    # An empty variable is as good as none: that is how a shell or a compose file takes one away.
    found = [Given(key, environ[variable(key)], variable(key)) for key in keys if environ.get(variable(key))]
    return _with_secrets(found, folder)


def variable(key: str) -> str:
    """The environment variable of a setting."""
    return "KQ_" + key.upper().replace(".", "_")


def _from_flags(flags: Mapping[str, object]) -> list[Given]:
    return [
        Given(key, value, f"--{key.rpartition('.')[2].replace('_', '-')}")
        for key, value in flags.items()
        if value is not None
    ]


def _with_secrets(found: list[Given], folder: Path) -> list[Given]:
    """found with url_file replaced by the url in that file; relative paths seen from folder."""
    made: list[Given] = []
    for one in found:
        key = one.key.removesuffix("_file")
        if key not in SECRET:
            made.append(one)
        elif one.key == key:
            value = anchored(one.value, folder) if isinstance(one.value, str) else one.value
            made.append(Given(key, value, one.origin))
        elif any(other.key == key for other in found):
            raise ConfigError(f"{key} and {one.key} are both set in {one.origin}", fix="Keep one of them.")
        else:
            made.append(_secret(key, one, folder))
    return made


def _secret(key: str, one: Given, folder: Path) -> Given:
    path = folder / str(one.value)
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{one.key} in {one.origin} can't be read: {error}") from error
    return Given(key, anchored(text, folder), f"{one.origin}, {path}")


# What values mean.


def _understood(one: Given) -> object:
    hint = SCHEMA[one.key]
    # Text from the environment or a flag may stand for a number; in a file a number is written as one.
    loose = one.origin.startswith(("KQ_", "--"))
    try:
        value = msgspec.convert(one.value, hint, strict=not loose, dec_hook=_read)
    except msgspec.ValidationError as error:
        raise _wrong(one, hint, error) from error
    if one.key == "mail":
        parse_mail_url(str(value))
    if one.key == "alerts.sender" and not re.match(ADDRESS, str(value)):
        raise ConfigError(f"{one.key} in {one.origin} is {value!r}, no address", fix="Write kq@example.org.")
    if one.key == "alerts.command":
        _check_command(one)
    if one.key in SPANS and not SPANS[one.key][0] <= value <= SPANS[one.key][1]:
        least, most = SPANS[one.key]
        what = f"{one.key} in {one.origin} is {shown(value)}, which is too {'short' if value < least else 'long'}"
        raise ConfigError(what, fix=f"Write {format_duration(least)} to {format_duration(most)}.")
    return value


def _check_command(one: Given) -> None:
    """Raise ConfigError unless it is one that can be started."""
    try:
        words = shlex.split(str(one.value))
    except ValueError:
        what = f"{one.key} in {one.origin} has a quote that does not end, or ends with a backslash"
        raise ConfigError(what, fix="Mend that, or name a script of yours.") from None
    if not words:
        raise ConfigError(f"{one.key} in {one.origin} names no program", fix="Write the path of one.")


def _wrong(one: Given, hint: Any, error: Exception) -> ConfigError:
    value = redact(repr(one.value))
    if get_origin(hint) is Literal:
        return ConfigError(f"{one.key} in {one.origin} is {value}", fix=f"Write one of {', '.join(get_args(hint))}.")
    # Where a hash belongs somebody may have written a password.
    told = "; write" in str(error) or hint in (Conditions, Credentials)
    return ConfigError(f"{one.key} in {one.origin}: {redact(str(error))}", fix="" if told else f"It is {value}.")


def _read(kind: type, value: object) -> object:
    """A duration, a size or queues, as people write them (msgspec's dec_hook)."""
    if kind is Queues:
        return _read_queues(value)
    if kind is Addresses:
        return _read_addresses(value)
    if kind is Webhook:
        return _read_webhook(value)
    if kind is Conditions:
        return _read_conditions(value)
    if kind is Names:
        return _read_names(value)
    if kind is Credentials:
        return _read_credentials(value)
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
