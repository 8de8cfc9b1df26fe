"""What the shell offers for an argument that is begun.

The names are found by known.py, which is imported when somebody presses the tab key and not before.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module

import click
from click.shell_completion import CompletionItem

from kq.plain import printable, visible

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def offering(kind: str) -> Completer:
    """What completes a parameter by the names that known.py finds of a kind."""

    def complete(context: click.Context, option: click.Parameter, begun: str) -> list[CompletionItem]:
        quiet = io.StringIO()
        try:
            with context.scope(cleanup=False), redirect_stdout(quiet), redirect_stderr(quiet):
                known = import_module("kq.cli.known")
                found = dict(getattr(known, kind)())
        except Exception:  # whatever is wrong, a shell that completes is not the place to tell
            return []
        fitting = [
            CompletionItem(name, help=printable(about))
            for name, about in found.items()
            if name.startswith(begun) and visible(name)  # another can't be typed
        ]
        return fitting[: known.MOST]

    return complete


QUEUE, TYPE, JOB, BURIED, WORKER, EFFECT = map(offering, ("queues", "types", "jobs", "buried", "workers", "effects"))
