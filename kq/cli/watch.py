"""`-w`: a verb that looks does so again and again, on one screen, or as a line of JSON each time."""

from __future__ import annotations

import functools
import io
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from typing import Any, TypeVar

import click

from kq.cli.failing import describe, report
from kq.cli.frame import Duration, flags, wants_color
from kq.clock import SYSTEM
from kq.errors import BrokerError
from kq.plain import cut, printable
from kq.units import format_duration, format_time

F = TypeVar("F", bound=Callable[..., Any])

#: Seconds between two looks when nobody says.
EVERY = 2.0
#: Writes over the screen instead of clearing it first, which would flicker.
HOME, END_OF_LINE, END_OF_SCREEN, CLEAR = "\x1b[H", "\x1b[K\n", "\x1b[J", "\x1b[2J"


def watching(function: F) -> F:
    """Give a verb that looks `-w` and `--every`: the decorator right under the verb's own."""

    @click.option("-w", "--watch", is_flag=True, help="Look again and again, until ctrl-C; with --json a line each.")
    @click.option("--every", type=Duration(), default=EVERY, metavar="2s", help="With -w: how often. [2s]")
    @functools.wraps(function)
    def again(watch: bool = False, every: float = EVERY, **given: Any) -> Any:
        look = functools.partial(function, **given)
        return look_again(look, every) if watch else look()

    return again  # type: ignore[return-value]


def look_again(look: Callable[[], object], every: float) -> None:
    """Look until the human has seen enough. A broker that does not answer is told, and asked again."""
    every = max(every, 0.1)
    flags().watching = True
    screen = not flags().json and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    if screen:
        click.echo(CLEAR, nl=False, color=True)
    while True:
        began = time.monotonic()
        if screen:
            _paint(_seen(look), every)
        else:
            _print(look)
        time.sleep(max(0.0, began + every - time.monotonic()))


def _print(look: Callable[[], object]) -> None:
    try:
        look()
    except (BrokerError, ConnectionError) as error:
        report(error, as_json=flags().json, verbose=False, color=wants_color(flags().no_color))
    if not flags().json:
        click.echo()


class _Screen(io.StringIO):
    """What is printed into it is made for a terminal."""

    def isatty(self) -> bool:
        return True


def _seen(look: Callable[[], object]) -> list[str]:
    with redirect_stdout(_Screen()) as screen:
        try:
            look()
        except (BrokerError, ConnectionError) as error:
            told = describe(error)
            return [
                click.style(printable(f"{told['code']} {told['message']}"), fg="red"),
                "  " + printable(told["fix"]),
            ]
    return screen.getvalue().splitlines()


def _paint(lines: Iterable[str], every: float) -> None:
    size = shutil.get_terminal_size()
    when = f"{format_time(SYSTEM.now())}, every {format_duration(every)}: {click.get_current_context().command_path}"
    shown = [cut(when, size.columns), "", *lines][: size.lines - 1]
    text = HOME + "".join(line + END_OF_LINE for line in shown) + END_OF_SCREEN
    # The colours were decided when the lines were made; moving the cursor is no colour.
    click.echo(text, nl=False, color=True)
