"""`kq control`: the control program by itself, for those whose workers do not make its rounds."""

from __future__ import annotations

import logging

import click

from kq.cli.frame import verb
from kq.cli.lines import LOG_FORMAT, start_logging
from kq.cli.target import any_app, settings
from kq.control.program import run

log = logging.getLogger("kq.control")


@verb("control")
@click.option("--health", metavar="HOST:PORT", help="Answer /livez, /readyz and /metrics there. [nowhere]")
@LOG_FORMAT
def command(health: str | None, format: str | None) -> None:
    """Retire dead workers, tell of jobs that run long and finish what others began, until TERM or INT.

    Workers do this too, one of all, unless they were started with --no-control. Several may run: one acts, the others
    take over when it ends. Jobs run without any.
    """
    loaded = settings()
    start_logging(format)
    app = any_app(loaded)
    log.info("control: ready at %s", app.address.redacted)
    run(app, health)
