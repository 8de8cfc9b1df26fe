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
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args, get_origin

import msgspec

from kq.errors import ConfigError
from kq.mailurl import ADDRESS, parse_mail_url
from kq.plain import is_utf8
from kq.secret_names import HIDDEN
from kq.units import format_duration
from kq.url import DEFAULT, anchored, redact, redact_url
from kq.values import configfile
from kq.values.config import SCHEMA, SECRET, SECTIONS, SPANS, Config, fields_of
from kq.values.setting import Conditions, Credentials, Seconds, read, shown

Environ: TypeAlias = Mapping[str, str]
#: Settings that hold hashes of passwords, and are none for a job to read.
_HASHES = ("web.users", "web.tokens")


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
    environ = _whole_environ() if environ is None else environ
    folder = folder or Path.cwd()
    path = configfile.find(file or environ.get("KQ_CONFIG"), folder)
    given: dict[str, Given] = {}
    for one in [*_from_file(path, environ), *_from_environ(environ, folder), *_from_flags(flags or {})]:
        given[one.key] = one
    values = {key: _understood(one) for key, one in given.items()}
    return Loaded(_built(Config, "", values), {key: one.origin for key, one in given.items()}, path)


#: Variables whose secrets withhold_secrets() took out of this process' environment: what stands there now, and before.
_withheld: dict[str, tuple[str | None, str]] = {}


def withhold_secrets() -> None:
    """Take the passwords in kq's variables out of os.environ, which all that jobs start inherits.

    A URL stays there with *** for its password, so that a program that needs it fails instead of using the default.
    load() still finds all of them in this process and in those that it forks.
    """
    for key in (*SECRET, *_HASHES):
        name = variable(key)
        if name not in os.environ or name in _withheld:
            continue
        value = os.environ[name]
        if key in _HASHES:
            del os.environ[name]
        else:
            os.environ[name] = HIDDEN if key == "alerts.webhook" else redact_url(value)
        _withheld[name] = os.environ.get(name), value


def _whole_environ() -> Environ:
    """This process' environment, and what was taken out of it, unless somebody has set that anew."""
    known = {name: value for name, (left, value) in _withheld.items() if os.environ.get(name) == left}
    return {**os.environ, **known} if known else os.environ


def secret_variables(environ: Environ) -> list[str]:
    """Names of kq's variables in environ that hold a password."""
    names = {variable(key): key for key in SECRET if environ.get(variable(key))}
    return [
        name for name, key in names.items() if key == "alerts.webhook" or redact_url(environ[name]) != environ[name]
    ]


def misspelt(environ: Environ) -> dict[str, str]:
    """Names in environ that look like a setting of kq but are none, and what was probably meant."""
    names = (
        {variable(key): key for key in SCHEMA} | {f"{variable(key)}_FILE": key for key in SECRET} | {"KQ_CONFIG": ""}
    )
    strange = (name for name in environ if name.startswith("KQ_") and name not in names)
    near = {name: difflib.get_close_matches(name, names, n=1, cutoff=0.8) for name in strange}
    return {name: matches[0] for name, matches in near.items() if matches}


def _at(config: msgspec.Struct, key: str) -> object:
    value: object = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _built(kind: type[msgspec.Struct], prefix: str, values: Mapping[str, object]) -> Any:
    fields: dict[str, object] = {}
    for name, hint in fields_of(kind).items():
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
    if isinstance(one.value, str) and not is_utf8(one.value):
        raise ConfigError(f"{one.key} in {one.origin} is not UTF-8", fix="Write it in UTF-8.")
    # Text from the environment or a flag may stand for a number; in a file a number is written as one.
    loose = one.origin.startswith(("KQ_", "--"))
    try:
        value = msgspec.convert(one.value, hint, strict=not loose, dec_hook=read)
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
    return float(value) if hint is Seconds else value


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
