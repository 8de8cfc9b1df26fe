"""Control over what a command line names. Apart from target.py, so that a submit need not import control."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kq.app import App
from kq.cli.target import any_broker
from kq.control import Control


@contextmanager
def looking(app: App | None = None) -> Iterator[Control]:
    """Control over app, by default what this command line names; everything is closed afterwards."""
    app = app or any_broker()
    try:
        with Control(app) as control:
            yield control
    finally:
        app.close()
