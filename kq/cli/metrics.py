"""`kq metrics`: the numbers of all queues and workers in Prometheus' text format."""

from __future__ import annotations

import click

from kq import __version__, metrics
from kq.cli.frame import verb
from kq.cli.target import looking


@verb("metrics")
def command() -> None:
    """Print the numbers of all queues and workers in Prometheus' text format.

    The same as /metrics of the worker that makes control's rounds tells, for who scrapes no worker.
    """
    with looking() as control:
        shot = control.snapshot()
    click.echo(metrics.text([metrics.of_build(__version__, shot.transport), *metrics.of_all(shot)]), nl=False)
