"""`kq submit`: how one job is written on the command line. What that leads to is submitting.py's.

Nothing heavier than click is imported before the line is understood.
"""

from __future__ import annotations

import gc
import json
import sys
from typing import Any

import click

from kq.cli import offer
from kq.cli.frame import Duration, verb


@verb("submit")
@click.argument("type_name", metavar="TYPE", shell_complete=offer.TYPE)
@click.argument("arguments", metavar="[ARGS]...", nargs=-1)
@click.option("--kwargs", metavar="JSON", help="Named arguments, as a JSON object; - reads it from stdin.")
@click.option("--queue", metavar="NAME", help="Its queue, also for a type the app lacks.", shell_complete=offer.QUEUE)
@click.option("--priority", type=click.IntRange(0, 9), help="0 (low) to 9 (high).")
@click.option("--delay", type=Duration(), help="Run it later: 30, 5m, 1h30m.")
@click.option("--unique", metavar="KEY", help="While a job with this key waits or runs, submit no other.")
@click.option("--wait", is_flag=True, help="Wait for the result and print it.")
@click.option("--timeout", type=Duration(), help="With --wait: how long. [1h]")
def command(kwargs: str | None, **given: Any) -> None:
    """Submit a job of TYPE with ARGS, and print its id.

    TYPE is a job type's name; its last part will do where that is clear. Each of ARGS is JSON where it
    can be (5, true, [1, 2]) and else text; for a parameter that is annotated as str it is always text.
    """
    named = _object(kwargs)
    # What is imported now is not looked through for garbage four times (8 ms), as it would be with kq.cli's threshold.
    gc.set_threshold(100_000)
    # Here and not above: a line that is wrong, --help and completion cost no more than click.
    from kq.cli.submitting import Line, submit

    submit(Line(kwargs=named, **given))


def _object(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    if text == "-":
        text = sys.stdin.read()
    try:
        found = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"{text[:100]!r} is no JSON: {error}", param_hint="--kwargs") from error
    except RecursionError:
        raise click.BadParameter(f"{text[:20]}…: it is nested too deep", param_hint="--kwargs") from None
    if not isinstance(found, dict):
        raise click.BadParameter(f'{text[:100]} is no JSON object; write {{"width": 200}}', param_hint="--kwargs")
    return found
