"""What `kq submit` does when its command line is understood."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, get_type_hints

import click
import msgspec

from kq.app import App
from kq.cli.frame import flags
from kq.cli.literal import literal
from kq.cli.near import did_you_mean
from kq.cli.show import print_json
from kq.cli.target import any_app, settings
from kq.errors import BadArguments
from kq.jobtype import JobType
from kq.plain import printable, printable_lines
from kq.values.job import Settings
from kq.values.secret import without_marked


class Line(msgspec.Struct, frozen=True):
    """What a command line asks for. wait: for the result, for timeout seconds."""

    type_name: str
    arguments: tuple[str, ...]
    kwargs: dict[str, Any]
    queue: str | None
    priority: int | None
    delay: float | None
    unique: str | None
    wait: bool
    timeout: float | None


def submit(line: Line) -> None:
    """Submit the job that line asks for, and print its id or, when it waits, its result."""
    app = any_app(settings())
    job_type = find_type(app, line.type_name, must=line.queue is None)
    args = _values(line.arguments, job_type)
    try:
        said = Settings(queue=line.queue, priority=line.priority, delay=line.delay, unique=line.unique)
    except ValueError as error:
        raise click.UsageError(str(error), click.get_current_context()) from error
    try:
        job = app.made(line.type_name if job_type is None else job_type.name, args, line.kwargs, said)
        handle = app.submit(job)
    except TypeError as error:
        fix = f"kq submit takes the arguments of {line.type_name} in order, or --kwargs."
        raise BadArguments(str(error), fix=fix) from error
    told = {"id": handle.id, "type": job.type, "queue": handle.queue}
    try:
        if line.wait:
            _tell_result(handle.result(line.timeout), told)
        elif flags().json:
            print_json(told)
        else:
            click.echo(printable(handle.id))
    finally:
        app.close()


def find_type(app: App, name: str, *, must: bool) -> JobType[..., Any] | None:
    """The app's job type of that name or that ends in it. must: refuse one that a non-empty app does not know."""
    found = [known for known in app.jobs if known == name] or [
        known for known in app.jobs if known.endswith(f".{name}")
    ]
    if len(found) == 1:
        return app.jobs[found[0]]
    if len(found) > 1:
        raise click.UsageError(f"{name!r} may be any of {', '.join(found)}", click.get_current_context())
    if app.jobs and must:
        known = [*app.jobs, *(known.rpartition(".")[2] for known in app.jobs)]
        hint = did_you_mean(name, known) or f"It has {', '.join(sorted(app.jobs))}."
        raise click.UsageError(f"app {app.name!r} has no job type {name!r}. {hint}", click.get_current_context())
    return None


def _values(arguments: Sequence[str], job_type: JobType[..., Any] | None) -> list[Any]:
    hints = list(_texts(job_type))
    return [text if position in hints else literal(text, "ARGS") for position, text in enumerate(arguments)]


def _texts(job_type: JobType[..., Any] | None) -> list[int]:
    """Positions of the parameters that are annotated as str."""
    if job_type is None:
        return []
    try:
        hints = get_type_hints(job_type.function)
    except Exception:  # a name that exists for type checkers only
        return []
    names = [name for name in hints if name != "return"]
    code = job_type.function.__code__
    order = code.co_varnames[: code.co_argcount]
    return [order.index(name) for name in names if name in order and hints[name] is str]


def _tell_result(result: Any, job: dict[str, Any]) -> None:
    if flags().json:
        print_json({**job, "state": "completed", "result": result})
    else:
        text = result if isinstance(result, str) else json.dumps(without_marked(result), ensure_ascii=False)
        click.echo(printable_lines(text) if sys.stdout.isatty() else text)  # a program gets it as it is
