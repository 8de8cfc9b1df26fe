"""Which jobs a command line means: options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from kq.cli import offer
from kq.cli.frame import Duration
from kq.control import Where

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = [
    click.option("--queue", metavar="NAME", help="Only jobs of this queue.", shell_complete=offer.QUEUE),
    click.option("--type", "job_type", metavar="NAME", help="Only of this type: its name, its last part, a pattern."),
    click.option("--error", metavar="NAME", help="Only ended by this exception, named likewise."),
    click.option("--place", metavar="FILE:FUNCTION", help="Only failed at this place, as kq jobs ls --group tells it."),
    click.option("--search", metavar="TEXT", help="Only jobs with this text in their id, arguments or error."),
    click.option("--older", type=Duration(), metavar="5m", help="Only jobs buried, or submitted, longer ago."),
]


def choosing(function: F) -> F:
    """Give a verb the options by which jobs are chosen; where() reads them."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def where(job_type: str | None, error: str | None, place: str | None, search: str | None, older: float | None) -> Where:
    """What those options say; the queue is said apart."""
    return Where(job_type or "", error or "", search or "", older or 0.0, place or "")
