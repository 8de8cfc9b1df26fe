"""`kq monitor`: the same as `kq status`, again and again."""

from __future__ import annotations

from functools import partial

import click

from kq.cli import status
from kq.cli.condition import FAIL_IF, Condition
from kq.cli.frame import Duration, verb
from kq.cli.watch import EVERY, look_again


@verb("monitor")
@click.option("--once", is_flag=True, help="Look once, and end.")
@click.option("--every", type=Duration(), default=EVERY, metavar="2s", help="How often. [2s]")
@FAIL_IF
def command(once: bool, every: float, conditions: tuple[Condition, ...]) -> int | None:
    """Watch queues, workers and failures until ctrl-C; with --json a line each."""
    look = partial(status.look, conditions)
    if once:
        return look()
    look_again(look, every)
    return None
