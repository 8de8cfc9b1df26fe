"""`kq dev`: all programs that an application needs while it is written, with new code as it is saved."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec

import click

from kq.cli.frame import same_options, verb
from kq.cli.lines import LOG_FORMAT, start_logging
from kq.cli.target import settings
from kq.cli.worker import reloading
from kq.errors import AppNotFound

#: The programs, as command lines of kq. Each obeys the descriptor that `--orders` names (see kq.worker.processes).
#: The worker makes control's rounds too.
PROGRAMS: Sequence[Sequence[str]] = (("worker", "--grace", "5s"), ("web",))
#: What only the extra `web` brings.
NEEDED = ("starlette", "jinja2", "uvicorn")


@verb("dev")
@LOG_FORMAT
def command(format: str | None) -> int:
    """Run a worker that makes control's rounds too, and the web page, anew whenever code or config is saved.

    New code that does not import is told, and the old goes on. Ctrl-C once: finish what runs, within 5 s; twice: at
    once. How the worker runs is said in kq.yaml.
    """
    loaded = settings()
    start_logging(format)
    if loaded.config.app is None:
        raise AppNotFound("no application is named", fix="Write -A module:app; kq init writes a first one.")
    click.echo("kq dev: ctrl-C ends it when what runs is done, a second one at once", err=True)
    more = () if format is None else ("--log-format", format)
    return reloading([[*same_options(), "-v", *program, *more] for program in _programs()], loaded.file)


def _programs() -> Sequence[Sequence[str]]:
    """Those that can run here."""
    with suppress(ModuleNotFoundError):
        if all(find_spec(name) for name in NEEDED):
            return PROGRAMS
    click.echo("kq dev: the web page needs  pip install 'kq-jobs[web]'", err=True)
    return [program for program in PROGRAMS if program[0] != "web"]
