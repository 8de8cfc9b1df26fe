"""The frame round the verbs: global options on either side of a verb, lazy loading, and one place where errors end.

Nothing heavier than click is imported here: `kq --version` and `kq --help` answer at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click

from kq import __version__
from kq.cli.failing import DONE, INTERRUPTED, USAGE, exit_code_of, report
from kq.cli.near import did_you_mean
from kq.plain import is_utf8, printable
from kq.stated import stated
from kq.units import parse_duration


@dataclass(slots=True)
class Flags:
    """The global options, as far as they were given. watching: the verb looks again and again."""

    app: str | None = None
    url: str | None = None
    config: str | None = None
    json: bool = False
    no_color: bool = False
    verbose: int = 0
    watching: bool = False


ABOUT = """Jobs and workers with one contract on memory, SQLite, Redis and RabbitMQ.

Global options may stand before or after the verb. What a code like KQ302 means is told by kq explain KQ302.
"""

#: Verb, what it does, for --help. The module of the same name in kq.cli has `command`.
VERBS = {
    "demo": "See jobs run, fail, hang and be killed, in a few seconds.",
    "init": "Write a first application: jobs.py, kq.yaml and a test.",
    "doctor": "Check settings, broker, application and workers.",
    "worker": "Execute jobs.",
    "dev": "Run all that is needed while code is written; new code as it is saved.",
    "control": "Retire dead workers, tell of overdue jobs.",
    "web": "Serve the web page and its API.",
    "submit": "Submit a job.",
    "jobs": "List jobs, and look at one.",
    "status": "Show queues, workers and failures at one look.",
    "monitor": "Watch queues, workers and failures, and act on them.",
    "events": "Show what happens, as it happens.",
    "logs": "Show what jobs and programs log, as they log it.",
    "queues": "List queues.",
    "effects": "List side effects, and let one happen again.",
    "workers": "List workers: alive, late or dead.",
    "bench": "Measure this broker from this host.",
    "health": "Ask a worker whether it takes jobs.",
    "metrics": "Print numbers in Prometheus' text format.",
    "explain": "Say what an error's code means, and what to do.",
    "completion": "Let the shell complete verbs, options and names.",
}


def remember(context: click.Context, option: click.Parameter, value: Any) -> None:
    """Note a global option, wherever it stood."""
    if value:
        setattr(context.find_root().ensure_object(Flags), str(option.name), value)
    if option.name == "no_color":
        context.find_root().color = wants_color(bool(value) or context.find_root().ensure_object(Flags).no_color)


def global_options(hidden: bool) -> list[click.Parameter]:
    """Fresh global options. hidden: not shown in --help."""

    def option(*names: str, help: str, **more: Any) -> click.Option:
        return click.Option(names, help=help, hidden=hidden, expose_value=False, callback=remember, **more)

    return [
        option("-A", "--app", metavar="MODULE:APP", help="The application. [KQ_APP; app: in kq.yaml]"),
        option("--url", metavar="URL", help="The broker. [KQ_URL; url: in kq.yaml; else sqlite:///kq.db]"),
        option("--config", metavar="FILE", help="The config file. [KQ_CONFIG; else kq.yaml, or [tool.kq]]"),
        option("--json", is_flag=True, help="Print JSON, errors too."),
        option("--no-color", is_flag=True, help="Print no colours. [NO_COLOR]"),
        option("-v", "--verbose", count=True, help="Say more; tracebacks too."),
    ]


def wants_color(refused: bool) -> bool | None:
    """False: never, True: always, None: on a terminal (no-color.org, force-color.org)."""
    if refused or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return True if os.environ.get("FORCE_COLOR") else None


class Verb(click.Command):
    """A verb that takes the global options too, and returns its exit code or None, or what is to be called after it."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.params += global_options(hidden=True)
        self.epilog = self.epilog or "Global options: kq --help"


class Nouns(click.Group):
    """A group of verbs that says what was probably meant."""

    command_class = Verb

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.params += global_options(hidden=True)

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """`kq jobs --state buried` is `kq jobs ls --state buried`."""
        try:
            return super().parse_args(context, list(args))
        except click.NoSuchOption:
            if self.get_command(context, "ls") is None:
                raise
            return super().parse_args(context, ["ls", *args])

    def invoke(self, context: click.Context) -> Any:
        """`kq jobs` is `kq jobs ls`."""
        result = super().invoke(context)
        usual = self.get_command(context, "ls")
        return context.invoke(usual) if usual is not None and context.invoked_subcommand is None else result

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = arguments[0]
        if not name.startswith("-") and self.get_command(context, name) is None:
            known = self.list_commands(context)
            hint = did_you_mean(name, known) or f"There are {', '.join(known)}."
            raise click.UsageError(f"there is no verb {name!r}. {hint}", context)
        return super().resolve_command(context, arguments)


class Root(Nouns):
    """`kq` itself: knows its verbs without importing them."""

    def __init__(self) -> None:
        super().__init__("kq", help=ABOUT, context_settings={"help_option_names": ["-h", "--help"]})
        self.params = global_options(hidden=False)
        self.params.append(
            click.Option(
                ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_tell_version, help="Print it."
            )
        )

    def list_commands(self, context: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        command: click.Command = import_module(f"kq.cli.{name}").command
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


def _tell_version(context: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        as_json = context.ensure_object(Flags).json
        click.echo(json.dumps(stated({"version": __version__})) if as_json else f"kq {__version__}")
        context.exit()


class Duration(click.ParamType[float]):
    """`5m`, `1h30m`, 30."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def verb(name: str, **more: Any) -> Callable[[Callable[..., Any]], Verb]:
    """Make a verb of a function: the decorator under its options."""
    return click.command(name, cls=Verb, **more)


def noun(name: str, **more: Any) -> Callable[[Callable[..., Any]], Nouns]:
    """Make a group of verbs of a function that does nothing."""
    return click.group(name, cls=Nouns, invoke_without_command=True, **more)


def flags() -> Flags:
    """The global options of the command that runs."""
    return click.get_current_context().find_root().ensure_object(Flags)


def same_options() -> tuple[str, ...]:
    """The global options of this command line, for another one."""
    said = flags()
    pairs = {"--app": said.app, "--url": said.url, "--config": said.config}
    switches = {"--json": said.json, "--no-color": said.no_color}
    words = [word for name, value in pairs.items() if value for word in (name, value)]
    return (*words, *(name for name, given in switches.items() if given))


def warn(message: str, hint: str = "") -> None:
    """Tell on stderr what is no error, but may be one of the human's. hint: what was probably meant."""
    if flags().json:
        told = {"message": message, **({"fix": hint} if hint else {})}
        click.echo(json.dumps(stated({"warning": told})), err=True)
    else:
        click.secho(printable(f"{message}. {hint}".rstrip()), err=True, fg="yellow")


def run(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line; returns the exit code. Errors are reported on stderr."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    seen = Flags(json="--json" in arguments)
    try:
        for number, argument in enumerate(arguments, 1):
            if not is_utf8(argument):  # it is not shown: it may hold a password
                raise click.UsageError(f"argument {number} is not UTF-8; write it in UTF-8")
        code = Root().main(arguments, "kq", standalone_mode=False, obj=seen)
    except click.exceptions.NoArgsIsHelpError as help:
        click.echo(help.format_message(), err=True)
        return USAGE
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except Exception as error:
        report(error, as_json=seen.json, verbose=seen.verbose > 0, color=wants_color(seen.no_color))
        return exit_code_of(error)
    if callable(code):
        code = code()
    return code if isinstance(code, int) else DONE
