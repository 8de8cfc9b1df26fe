"""Writes docs/reference.md and the snapshot's schema from the code: public names, commands, settings, errors, traits.

Run it with `make reference`. A test compares both with what this makes.
"""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from textwrap import indent
from typing import Any

import click
import msgspec
from kombu.utils.imports import symbol_by_name
from msgspec.structs import fields

import kq
import kq.web
from kq.cli.explain import read
from kq.cli.failing import MEANING, exit_code_of
from kq.cli.frame import VERBS, Root
from kq.coming import Coming
from kq.control import (
    Act,
    Failure,
    Health,
    Heartbeat,
    JobInfo,
    QueueInfo,
    Repaired,
    RunningJob,
    WorkerInfo,
)
from kq.control.schema import WRITTEN
from kq.effects.context import CurrentJob
from kq.effects.ledger import Entry
from kq.effects.once import Once
from kq.errors import KqError, Steering, all_errors
from kq.handles.stream import Chunk
from kq.registry import Registry
from kq.values import config, setting
from kq.values.event import Event
from kq.values.failure import FailureClass
from kq.values.given import Loaded, variable
from kq.values.job import MOVES, Settings, State
from kq.values.message import Attempt
from kq.values.policy import ByError
from kq.values.snapshot import (
    SCHEMA,
    FailedRow,
    FailureRow,
    History,
    Point,
    QueueRow,
    RunningRow,
    Snapshot,
    Totals,
    WorkerRow,
)
from kq.values.unique import ByArguments
from kq_transports import SCHEMES
from kq_transports.engine import Traits

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "reference.md"
ERRORS = DOCS / "errors.md"
CLI = DOCS / "schema" / WRITTEN.name
SNAPSHOT = DOCS / "schema" / f"snapshot-{SCHEMA}.json"

#: The public names by what they are for; those of kq.errors have a table of their own.
GROUPS = {
    "Applications and jobs": (
        *(
            "kq.app",
            "kq.jobtype",
            "kq.values.job",
            "kq.values.unique",
            "kq.values.secret",
            "kq.handles.handle",
            "kq.effects.context",
        ),
    ),
    "Failures and retries": ("kq.values.failure", "kq.values.policy"),
    "Workers and control": ("kq.worker.program", "kq.control", "kq.control.sight"),
    "Looking on": ("kq.effects.observer",),
}
#: Classes whose objects only kq makes.
MADE = {kq.JobType, kq.Handle, kq.Execution}
#: What public functions return, and is not public by a name of its own.
RETURNED = (
    kq.mail.mailer,
    kq.mail.Attachment,
    kq.logging.Handler,
    kq.web.asgi_app,
    kq.web.User,
    kq.otel.trace,
    kq.otel.measure,
    kq.sentry.report,
    Settings,
    CurrentJob,
    Coming,
    Chunk,
    Event,
    Once,
    Entry,
    JobInfo,
    Failure,
    Repaired,
    Act,
    Attempt,
    QueueInfo,
    Heartbeat,
    Health,
    WorkerInfo,
    RunningJob,
    Snapshot,
    Totals,
    QueueRow,
    WorkerRow,
    RunningRow,
    FailureRow,
    FailedRow,
    History,
    Point,
    ByError,
)
#: Methods that one layer of kq offers to the next; they may change.
INTERNAL: dict[Any, set[str]] = {
    kq.App: {
        "broker",
        "connect",
        "envelope",
        "inspector",
        "made",
        "observers",
        "publisher",
        "publishing",
        "store",
        "submit_jobs",
    },
    kq.Unique: {"holds", "replaces"},
}
WIDTH = 100
HEAD = """# Reference

`make reference` writes this page from the code; how things go together is in the [guide](guide.md).

"""


def page() -> str:
    """The whole page."""
    parts = [("Python", python()), ("Errors", errors()), ("Command line", commands())]
    parts += [("Settings", settings()), ("Traits", traits())]
    text = HEAD + "\n".join(f"## {title}\n\n{content}" for title, content in parts)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows as Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(str(cell).replace('|', '&#124;') for cell in line)} |\n" for line in lines) + "\n"


# Python.


def python() -> str:
    """Every public name that is no error."""
    text = "What `import kq` has is public; everything else may change.\n\n"
    for title, modules in GROUPS.items():
        names = [name for name in kq.__all__ if home_of(name) in modules]
        ordered = sorted(names, key=lambda name: modules.index(home_of(name)))
        text += f"### {title}\n\n" + "".join(entry(f"kq.{name}", getattr(kq, name)) for name in ordered)
    text += "### What these return or hold\n\n"
    return text + "".join(entry(f"{value.__module__}.{value.__name__}", value) for value in RETURNED)


def home_of(name: str) -> str:
    """The module that a public name comes from."""
    value = getattr(kq, name)
    return str(getattr(value, "__module__", "kq.values.failure"))  # a mapping has no module


def entry(name: str, value: Any) -> str:
    """All that is to be said of one name."""
    head = f"#### `{name}`\n\n"
    if value is kq.FAILURES:
        return head + failures()
    if isinstance(value, type) and issubclass(value, StrEnum):
        return head + prose(value) + choices(value)
    if isinstance(value, ByArguments):
        return (
            head + f"```\n{name}{signature(inspect.signature(value.__call__), value.__call__)}\n```\n\n" + prose(value)
        )
    if inspect.isabstract(value) or value in MADE:
        return head + prose(value) + methods(value)
    return head + f"```\n{calls(value)}\n```\n\n" + prose(value) + methods(value)


def failures() -> str:
    """The public list of errors, by class."""
    rows = [
        (f"`{kind}`", ", ".join(f"`{name}`" for name, each in kq.FAILURES.items() if each == kind))
        for kind in typing.get_args(FailureClass)
    ]
    about = "Which error is of which class: the name nearest to its own counts. See [the guide](guide.md#failures)."
    return f"{about}\n\n" + table(["class", "errors"], rows)


def choices(kind: type[StrEnum]) -> str:
    """The members of an enumeration; of states also what may follow them."""
    if kind is not State:
        return ", ".join(f"`{each}`" for each in kind) + "\n\n"
    following = {state: ", ".join(f"`{each}`" for each in State if each in MOVES[state]) for state in State}
    return table(["state", "what may follow"], [(f"`{state}`", next or "-") for state, next in following.items()])


def prose(value: Any) -> str:
    """The docstring as Markdown."""
    text = inspect.getdoc(value) or ""
    return "`".join(part if code else part.replace("*", "\\*") for part, code in _code_or_not(text)) + "\n\n"


def _code_or_not(text: str) -> list[tuple[str, bool]]:
    return [(part, bool(number % 2)) for number, part in enumerate(text.split("`"))]


def methods(value: Any) -> str:
    """The public methods and properties that a class has and its public bases have not."""
    if not inspect.isclass(value):
        return ""
    parts = [each for each in value.__mro__ if each.__module__.startswith("kq.")]
    known = {each for base in parts[1:] if hasattr(kq, base.__name__) for each in vars(base)}
    text = ""
    for name in dict.fromkeys(each for part in reversed(parts) for each in vars(part) if not each.startswith("_")):
        member = inspect.getattr_static(value, name)
        function = getattr(member, "fget", None) or getattr(member, "func", None)  # property, cached_property
        documented = function or member
        if name in known or name in INTERNAL.get(value, ()) or not inspect.isfunction(documented):
            continue
        call = f".{name}" if function else calls(member).replace(f"{name}(", f".{name}(").replace("\n", "`, `")
        text += f"* `{call}`\n" + indent(prose(documented).rstrip(), "  ") + "\n"
    return text + "\n"


def calls(function: Any) -> str:
    """How to call it, each overload on a line of its own."""
    versions = typing.get_overloads(function) or [function]
    return "\n".join(f"{function.__name__}{signature(inspect.signature(each), each)}" for each in versions)


def signature(version: inspect.Signature, of: Any) -> str:
    """Parameters and what comes back, as they are written."""
    parameters = list(_parameters(version.parameters, getattr(of, "__annotations__", {})))
    returns = (
        "" if inspect.isclass(of) or version.return_annotation in ("None", None) else f" -> {version.return_annotation}"
    )
    text = f"({', '.join(parameters)}){returns}"
    if not inspect.isclass(of) or len(text) < WIDTH:
        return text
    return "(\n" + "".join(f"    {parameter},\n" for parameter in parameters) + f"){returns}"


def _parameters(parameters: Mapping[str, inspect.Parameter], written: Mapping[str, Any]) -> Iterator[str]:
    before: inspect.Parameter | None = None
    for parameter in parameters.values():
        if parameter.name == "self":
            continue
        if before is not None and before.kind is before.POSITIONAL_ONLY is not parameter.kind:
            yield "/"
        if parameter.kind is parameter.KEYWORD_ONLY and (before is None or before.kind is not before.KEYWORD_ONLY):
            yield "*"
        # msgspec evaluates annotations; people read what was written.
        annotation = written.get(parameter.name, parameter.annotation)
        if annotation == "Unpack[JobOptions]":
            if before is None or before.kind is not before.KEYWORD_ONLY:
                yield "*"
            said = inspect.signature(Registry.add).parameters.values()
            yield from (_parameter(each, each.annotation) for each in said if each.kind is each.KEYWORD_ONLY)
        else:
            yield _parameter(parameter, annotation)
        before = parameter
    if before is not None and before.kind is before.POSITIONAL_ONLY:
        yield "/"


def _parameter(parameter: inspect.Parameter, annotation: object) -> str:
    text = str(parameter.replace(annotation=parameter.empty, default=parameter.empty))  # with its stars
    if annotation is not parameter.empty:
        text += f": {annotation}"
    if parameter.default is not parameter.empty:
        value = repr(parameter.default)
        text += f" = {'…' if value.startswith('<') or len(value) > 40 else value}"
    return text


def first_sentence(value: Any) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(value) or "").partition("\n")[0]


# Errors.


def errors() -> str:
    """Every error that kq raises or is steered by, by its code."""
    kinds = [kind for kind in all_errors() if kind.__module__.startswith("kq.")]
    raised = [kind for kind in kinds if not issubclass(kind, Steering)]
    rows = [(kind.code, _class(kind), first_sentence(kind), _exit_code(kind)) for kind in raised]
    steering = [(kind.code, _class(kind), first_sentence(kind)) for kind in kinds if issubclass(kind, Steering)]
    return (
        "An error's text is one line with what is wrong and one with what to do; `.code` is its number here, and "
        "[errors.md](errors.md) or `kq explain CODE` says more. The command ends with the exit code.\n\n"
        + table(["code", "class", "", "exit code"], rows)
        + "A job raises these to say what shall become of it:\n\n"
        + table(["code", "class", ""], steering)
    )


ERRORS_HEAD = """# Errors

Each error that kq tells has a code. This is what `kq explain CODE` prints, without any network; `make reference` writes
it from the same source.

| family | about |
|---|---|
| KQ1xx | settings and the application |
| KQ2xx | jobs and messages |
| KQ3xx | the broker |
| KQ4xx | workers and leases |
| KQ5xx | control and the state store |
| KQ6xx | what kq refuses |
"""


def errors_page() -> str:
    """docs/errors.md: the pages of kq explain."""
    kinds = {kind.code: kind for kind in all_errors() if kind.__module__.startswith("kq.")}
    text = ERRORS_HEAD
    for page in read():
        kind = kinds.get(page.code)
        told = "" if kind is None or issubclass(kind, Steering) else f" The command ends with {_exit_code(kind)}."
        text += f"\n## {page.code}\n\n`{page.kind}`: {page.title}.{told}\n\n{page.text}\n"
    return text


def _class(kind: type[KqError]) -> str:
    public = kind.__name__ in kq.__all__
    bases = ", ".join(base.__name__ for base in kind.__bases__ if base is not Exception)
    return f"`{'kq' if public else kind.__module__}.{kind.__name__}`" + (f" ({bases})" if bases else "")


def _exit_code(kind: type[KqError]) -> int:
    return exit_code_of(kind.__new__(kind))


# The command line.


def commands() -> str:
    """Every verb with its options, and what the exit codes say."""
    root = click.Context(Root(), info_name="kq")
    text = "Global options may stand before or after the verb.\n\n" + options(root)
    for verb in VERBS:
        command = root.command.get_command(root, verb)  # type: ignore[attr-defined]
        text += "".join(described(each) for each in leaves(click.Context(command, root, verb)))
    rows = [(code, meaning) for code, meaning in MEANING.items()]
    return text + "### Exit codes\n\n" + table(["code", ""], rows)


def leaves(context: click.Context) -> Iterator[click.Context]:
    """A verb itself, or each verb of a group."""
    if not isinstance(context.command, click.Group):
        yield context
        return
    for name, command in context.command.commands.items():
        yield click.Context(command, context, name)


def described(context: click.Context) -> str:
    """One verb: how it is called, what it does, its options."""
    call = " ".join([context.command_path, *context.command.collect_usage_pieces(context)])
    about = inspect.cleandoc(context.command.help or "")
    return f"### `{context.command_path}`\n\n```\n{call}\n```\n\n{about}\n\n{options(context)}"


def options(context: click.Context) -> str:
    """The options of a verb; the global ones are those of `kq`."""
    records = [parameter.get_help_record(context) for parameter in context.command.get_params(context)]
    rows = [(f"`{names}`", about) for names, about in filter(None, records) if "--help" not in names]
    return table(["option", ""], rows) if rows else ""


# Settings.


def settings() -> str:
    """Every key of the config file."""
    meanings = dict(_meanings(config.Config))
    defaults = {key: value for key, value, _ in Loaded(config.Config(), {}, None).rows()}
    rows = [
        (f"`{key}`", _kind(config.SCHEMA[key]), f"`{defaults[key]}`", f"`{variable(key)}`", meanings[key])
        for key in config.SCHEMA
    ]
    return (
        "In `kq.yaml`, or in `[tool.kq]` of pyproject.toml; a dot stands for a group. `url_file` and `state_file` name "
        "files that hold the URL. Durations are written as `30s`, `5m`, `1h30m` or a number of seconds, sizes as "
        "`512MiB`.\n\n" + table(["key", "is", "default", "environment", ""], rows)
    )


def _meanings(kind: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    said = said_of(kind)
    for name, hint in typing.get_type_hints(kind).items():
        if f"{prefix}{name}" in config.SECTIONS:
            yield from _meanings(hint, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", said[name]


#: What people call a kind of setting.
KINDS = {
    int: "number",
    str: "text",
    setting.Seconds: "duration",
    setting.Size: "size",
    setting.Queues: "queues",
    setting.Conditions: "conditions",
    setting.Addresses: "addresses",
    setting.Names: "names",
    setting.Accepted: "types and queues",
    setting.Credentials: "who, with role and hash",
    setting.Webhook: "URL",
    bool: "true or false",
}


def _kind(hint: Any) -> str:
    for each in (hint, *typing.get_args(hint)):
        if isinstance(each, type) and each in KINDS:
            return KINDS[each]
        if typing.get_origin(each) is typing.Annotated:
            return KINDS[typing.get_args(each)[0]]
    return ", ".join(f"`{choice}`" for choice in typing.get_args(hint))


def said_of(kind: Any) -> dict[str, str]:
    """What a class' docstring says of each field: "name: text" or "name, other: text", up to the next one."""
    names = "|".join(typing.get_type_hints(kind))
    text = " ".join((inspect.getdoc(kind) or "").split())
    pieces = re.split(rf"(?:^|(?<=[.;] ))((?:{names})(?:, (?:{names}))*): ", text)
    return {
        name: said.strip() for each, said in zip(pieces[1::2], pieces[2::2], strict=True) for name in each.split(", ")
    }


# Traits.


def traits() -> str:
    """What each transport can do beyond the contract."""
    kinds: dict[str, Traits] = {scheme: symbol_by_name(where).traits for scheme, where in SCHEMES.items()}
    columns = {each.name: scheme for scheme, each in reversed(kinds.items())}
    names = [field.name for field in fields(Traits) if field.name != "name"]
    said = said_of(Traits)
    rows = [
        (f"`{name}`", *("yes" if getattr(kinds[scheme], name) else "no" for scheme in columns.values()), said[name])
        for name in names
    ]
    return "Where brokers differ by nature, kq asks a trait and never which broker it is.\n\n" + table(
        ["trait", *(f"`{scheme}`" for scheme in columns.values()), ""], rows
    )


# The snapshot.


def snapshot() -> str:
    """The JSON Schema of the snapshot, with what the docstrings say."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:kq:snapshot:{SCHEMA}"}
    return json.dumps({**head, **_cleaned(msgspec.json.schema(Snapshot))}, indent=2) + "\n"


def _cleaned(schema: Any) -> Any:
    """The schema with its descriptions unindented, as msgspec 0.23 does and those before it do not."""
    if isinstance(schema, dict):
        return {
            key: inspect.cleandoc(value) if key == "description" and isinstance(value, str) else _cleaned(value)
            for key, value in schema.items()
        }
    return [_cleaned(each) for each in schema] if isinstance(schema, list) else schema


if __name__ == "__main__":
    SNAPSHOT.write_text(snapshot())
    CLI.write_text(WRITTEN.read_text())
    PAGE.write_text(page())
    ERRORS.write_text(errors_page())
