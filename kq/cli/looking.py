"""Control over what a command line names. Apart from target.py, so that a submit need not import control."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kq.cli.target import any_broker
from kq.control import Control


@contextmanager
def looking() -> Iterator[Control]:
    """Control over what this command line names; everything is closed afterwards."""
    app = any_broker()
    try:
        with Control(app) as control:
            yield control
    finally:
        app.close()
