"""`kq monitor`: everything at one look, again and again, and the hand that reaches in.

`scene` is what is known and `state` what somebody does at it, both values; `press` makes another state of a key, and
`board` a picture of both. `source` looks at the broker, `terminal` has screen and keys, `session` lets them meet.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TextIO

import click
from rich.color import ColorSystem

from kq.cli import status
from kq.cli.condition import FAIL_IF
from kq.cli.frame import Duration, flags, run, same_options, verb, wants_color
from kq.cli.looking import looking
from kq.cli.monitor.session import Hands, Said, Session, nothing_else_writes
from kq.cli.monitor.source import Live, Replay, Source
from kq.cli.monitor.state import PAUSES, Ui
from kq.cli.monitor.terminal import Terminal
from kq.cli.target import settings
from kq.cli.watch import EVERY, look_again
from kq.control import Control
from kq.control.commands import Words
from kq.errors import BadArguments
from kq.values.condition import Condition
from kq.values.snapshot import Snapshot

#: Seconds between two looks of the screen when nobody says.
SCREEN_EVERY = 1.0


@verb("monitor")
@click.option("--once", is_flag=True, help="Look once, and end.")
@click.option("--every", type=Duration(), metavar="1s", help="How often. [1s; 2s where there is no terminal]")
@FAIL_IF
@click.option("--read-only/--no-read-only", default=None, help="Only look. [as protected: in kq.yaml says; no]")
@click.option("--ascii", is_flag=True, help="Draw with ASCII only. [where the locale is not UTF-8]")
@click.option(
    "--record", type=click.Path(dir_okay=False, path_type=Path), help="Write each snapshot to FILE, a line each."
)
@click.option("--replay", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Show what FILE recorded.")
def command(
    once: bool,
    every: float | None,
    conditions: tuple[Condition, ...],
    read_only: bool | None,
    ascii: bool,
    record: Path | None,
    replay: Path | None,
) -> int | None:
    """Watch queues, workers and failures, and act on them; ? tells the keys. With --json a line for each look.

    Without a terminal, or with --once, it is what `kq status` prints.
    """
    if once and replay is not None:
        status.show(Replay(replay).latest)
        return None
    look = partial(status.look, conditions)
    if once:
        return look()
    if flags().json or not (sys.stdout.isatty() and sys.stdin.isatty()) or os.environ.get("TERM") == "dumb":
        if record is not None or replay is not None:
            raise BadArguments("--record and --replay need a terminal", fix="kq monitor --json writes the same lines.")
        look_again(look, every or EVERY)
        return None
    _watch(every or SCREEN_EVERY, conditions, read_only, ascii, record, replay)
    return None


def _watch(
    every: float,
    conditions: tuple[Condition, ...],
    read_only: bool | None,
    ascii: bool,
    record: Path | None,
    replay: Path | None,
) -> None:
    """Take the terminal, until somebody quits."""
    loaded = settings()
    protected = loaded.config.protected if read_only is None else read_only
    ui = Ui(every=max(every, PAUSES[0]), read_only=protected or replay is not None)
    color = None if wants_color(flags().no_color) is False else ColorSystem.STANDARD
    with ExitStack() as stack:
        file = stack.enter_context(record.open("ab", buffering=0)) if record is not None else None
        source: Source = (
            Replay(replay)
            if replay is not None
            else Live(_looking(), _app_name(loaded.config.app), partial(_met, conditions), file)
        )
        stack.enter_context(nothing_else_writes())
        terminal = stack.enter_context(Terminal(sys.stdin.fileno(), sys.stdout.fileno(), color))
        hands = Hands(partial(_quietly, same_options()), partial(_openly, same_options(), sys.stdin))
        Session(terminal, source, hands, ui, ascii=ascii or not has_unicode(os.environ)).run()


def _app_name(where: str | None) -> str:
    return (where or "").partition(":")[0].partition(".")[0]


def _met(conditions: tuple[Condition, ...], shot: Snapshot) -> tuple[str, ...]:
    return tuple(condition.text for condition in conditions if condition.holds(shot))


def _looking() -> Callable[[], AbstractContextManager[Control]]:
    """Control over what this command line names, for another thread to open."""
    context = click.get_current_context()

    @contextmanager
    def there() -> Iterator[Control]:
        with context.scope(cleanup=False), looking() as control:
            yield control

    return there


def _quietly(options: Words, words: Words) -> Said:
    """Carry out a command line of kq in this process; nobody can be asked."""
    printed, usual = io.StringIO(), sys.stdin
    sys.stdin = io.StringIO()
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            code = run([*options, *words])
    finally:
        sys.stdin = usual
    return Said(printed.getvalue(), good=code == 0)


def _openly(options: Words, keyboard: TextIO, words: Words) -> None:
    """Carry out a command line of kq on the terminal, and let people read what it says."""
    subprocess.run([sys.executable, "-m", "kq", *options, *words], check=False)
    click.echo("\nEnter goes back to the monitor. ", nl=False)
    keyboard.readline()


def has_unicode(environ: Mapping[str, str]) -> bool:
    """Whether the locale says that the terminal knows UTF-8."""
    locale = next(filter(None, (environ.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG"))), "utf-8")
    return "utf8" in locale.lower().replace("-", "")
