"""`kq metrics`: the numbers of all queues and workers in Prometheus' text format."""

from __future__ import annotations

import click

from kq import __version__
from kq.cli.frame import flags, verb
from kq.cli.looking import looking
from kq.cli.show import print_json
from kq.control import schema
from kq.values import metrics


@verb("metrics")
def command() -> None:
    """Print the numbers of all queues and workers in Prometheus' text format.

    The same as /metrics of the worker that makes control's rounds tells, for who scrapes no worker.
    """
    with looking() as control:
        shot = control.snapshot()
    told = [metrics.of_build(__version__, shot.transport), *metrics.of_all(shot, control.answers)]
    if flags().json:
        print_json({"metrics": list(map(schema.metric, told))})
    else:
        click.echo(metrics.text(told), nl=False)
