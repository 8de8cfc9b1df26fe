"""`kq submit`: one job from the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, get_type_hints

import click

from kq.app import App
from kq.cli import offer
from kq.cli.failing import BadArguments
from kq.cli.frame import Duration, flags, verb
from kq.cli.near import did_you_mean
from kq.cli.show import print_json
from kq.cli.target import any_app, settings
from kq.clock import new_id
from kq.job import Job, Settings
from kq.jobtype import JobType


@verb("submit")
@click.argument("type_name", metavar="TYPE", shell_complete=offer.TYPE)
@click.argument("arguments", metavar="[ARGS]...", nargs=-1)
@click.option("--kwargs", metavar="JSON", help="Named arguments, as a JSON object; - reads it from stdin.")
@click.option(
    "--queue",
    metavar="NAME",
    help="Its queue; with this also a job type that the app does not know.",
    shell_complete=offer.QUEUE,
)
@click.option("--priority", type=click.IntRange(0, 9), help="0 (low) to 9 (high).")
@click.option("--delay", type=Duration(), help="Run it later: 30, 5m, 1h30m.")
@click.option("--unique", metavar="KEY", help="While a job with this key waits or runs, submit no other.")
@click.option("--wait", is_flag=True, help="Wait for the result and print it.")
@click.option("--timeout", type=Duration(), help="With --wait: how long. [1h]")
def command(
    type_name: str,
    arguments: tuple[str, ...],
    kwargs: str | None,
    queue: str | None,
    priority: int | None,
    delay: float | None,
    unique: str | None,
    wait: bool,
    timeout: float | None,
) -> None:
    """Submit a job of TYPE with ARGS, and print its id.

    TYPE is a job type's name; its last part will do where that is clear. Each of ARGS is JSON where it
    can be (5, true, [1, 2]) and else text; for a parameter that is annotated as str it is always text.
    """
    app = any_app(settings())
    job_type = find_type(app, type_name, must=queue is None)
    args, named = _values(arguments, job_type), _object(kwargs)
    try:
        said = Settings(queue=queue, priority=priority, delay=delay, unique=unique)
    except ValueError as error:
        raise click.UsageError(str(error), click.get_current_context()) from error
    try:
        job = _job(app, job_type, type_name, args, named, said)
        handle = app.submit(job)
    except TypeError as error:
        raise BadArguments(
            str(error), fix=f"kq submit takes the arguments of {type_name} in order, or --kwargs."
        ) from error
    finally_told = {"id": handle.id, "type": job.type, "queue": handle.queue}
    try:
        if wait:
            _tell_result(handle.result(timeout), finally_told)
        elif flags().json:
            print_json(finally_told)
        else:
            click.echo(handle.id)
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
    return [text if position in hints else _value(text) for position, text in enumerate(arguments)]


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


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=str)
    except ValueError:
        return text


def _object(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    if text == "-":
        text = sys.stdin.read()
    try:
        found = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"{text[:100]!r} is no JSON: {error}", param_hint="--kwargs") from error
    if not isinstance(found, dict):
        raise click.BadParameter(f'{text[:100]} is no JSON object; write {{"width": 200}}', param_hint="--kwargs")
    return found


def _job(
    app: App, job_type: JobType[..., Any] | None, name: str, args: list[Any], kwargs: dict[str, Any], said: Settings
) -> Job[Any]:
    if job_type is None:
        return Job(new_id(), name, tuple(args), kwargs, said.over(app.defaults))
    options = {field: getattr(said, field) for field in ("queue", "priority", "delay", "unique")}
    return job_type.options(**options).job(*args, **kwargs)


def _tell_result(result: Any, job: dict[str, Any]) -> None:
    if flags().json:
        print_json({**job, "state": "completed", "result": result})
    else:
        click.echo(result if isinstance(result, str) else json.dumps(result, ensure_ascii=False))
