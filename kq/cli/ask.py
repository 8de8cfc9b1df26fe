"""Asking before something is destroyed."""

from __future__ import annotations

import sys

import click

from kq.cli.failing import Refused

YES = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


def sure(deed: str, yes: bool) -> None:
    """Ask whether deed ("delete 3 jobs") is meant; end the command when it is not.

    yes: it was said already. Raises Refused where nobody can be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise Refused(f"kq does not {deed} without being told that it is meant", fix="Say --yes.")
    confirm(deed)


def confirm(deed: str) -> None:
    """Ask whether deed is meant; end the command when it is not."""
    click.confirm(f"{deed[0].upper()}{deed[1:]}?", abort=True, err=True)
