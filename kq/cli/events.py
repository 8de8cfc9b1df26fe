"""`kq events`: what happens, as it happens."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import click

from kq.cli import offer
from kq.cli.doubt import doubt_queue, doubt_type
from kq.cli.failing import report
from kq.cli.frame import Duration, flags, verb, wants_color
from kq.cli.looking import looking
from kq.clock import SYSTEM
from kq.control import Control, schema
from kq.control.sight import is_named
from kq.errors import BrokerError
from kq.handles.standing import Hearing
from kq.plain import printable, printable_json
from kq.state.store import StoreUnreachable
from kq.units import counted, format_duration, format_time, parse_duration
from kq.values.event import Event


class Since(click.ParamType[float]):
    """An instant: seconds since the epoch, a time of today or yesterday (02:30), or how long ago (10m)."""

    name = "since"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> float:
        now = SYSTEM.now()
        if re.fullmatch(r"\d{9,}(\.\d+)?", value):  # the `at` of an event
            return float(value)
        if found := re.fullmatch(r"(\d\d):(\d\d)(?::(\d\d))?", value):
            hour, minute, second = (int(each or 0) for each in found.groups())
            today = datetime.fromtimestamp(now)
            if hour < 24 and minute < 60 and second < 60:
                at = today.replace(hour=hour, minute=minute, second=second, microsecond=0).timestamp()
                return at if at <= now else at - 86400.0
        try:
            return now - parse_duration(value)
        except ValueError:
            self.fail(f"{value!r} is no time; write 10m, 02:30, or the `at` of an event", param, context)


@verb("events")
@click.option("-f", "--follow", is_flag=True, help="Until ctrl-C; without --since that is so in any case.")
@click.option("--since", type=Since(), metavar="10m|02:30", help="What is remembered since; it ends there unless -f.")
@click.option("--job", metavar="ID", default="", help="Only of this job.")
@click.option("--queue", default="", shell_complete=offer.QUEUE, help="Only of this queue.")
@click.option("--type", default="", shell_complete=offer.TYPE, help="Only of this job type; may have *.")
@click.option("--for", "seconds", type=Duration(), metavar="10s", help="End after so long.")
@click.option("--record", type=click.Path(dir_okay=False, path_type=Path), help="Write them to FILE too, a line each.")
def command(
    follow: bool,
    since: float | None,
    job: str,
    queue: str,
    type: str,
    seconds: float | None,
    record: Path | None,
) -> None:
    """Show what happens to jobs and workers, as it happens; with --json a line each."""
    if since is not None:
        _tell_past(since, job, queue, type, record)
    if since is None or follow or seconds is not None:
        tell("events", job, queue, type, seconds, record, as_text)


def _tell_past(since: float, job: str, queue: str, type: str, record: Path | None) -> None:
    """Print what is remembered."""
    with looking() as control, ExitStack() as stack:
        file = stack.enter_context(record.open("ab", buffering=0)) if record is not None else None
        _doubt(control, queue, type)
        events = control.past(since, job=job, queue=queue, type=type)
        for event in events:
            _print(event, file, as_text)
        if not events:
            click.echo(_nothing(control, since, job, queue, type), err=True)


def _nothing(control: Control, since: float, job: str, queue: str, type: str) -> str:
    """Why no event is told."""
    if (job or queue or type) and (others := len(control.past(since))):
        return f"Of that nothing is remembered since then, but {counted(others, 'other event')}."
    return "Nothing is remembered since then. Workers remember events with events: {keep: 1h}."


def tell(
    what: Hearing,
    job: str,
    queue: str,
    type: str,
    seconds: float | None,
    record: Path | None,
    text: Callable[[Event], str],
) -> None:
    """Listen, and print what is heard."""
    over = threading.Event()
    with looking() as control, ExitStack() as stack:
        file = stack.enter_context(record.open("ab", buffering=0)) if record is not None else None
        if seconds is not None:
            timer = threading.Timer(seconds, over.set)
            timer.daemon = True
            timer.start()
        with suppress(BrokerError, StoreUnreachable):  # one that does not answer is told as often as it is asked
            _doubt(control, queue, type)
        for event in control.events(job=job, queue=queue, type=type, what=what, over=over, on_outage=_say):
            _print(event, file, text)


def _doubt(control: Control, queue: str, type: str) -> None:
    """Say on stderr which of them nobody knows."""
    doubt_queue(control, queue)
    doubt_type(control, type, is_named)


def _print(event: Event, file: IO[bytes] | None, text: Callable[[Event], str]) -> None:
    line = json.dumps(schema.event(event), ensure_ascii=False, separators=(",", ":"))
    if file is not None:
        file.write(f"{line}\n".encode())
    click.echo(printable_json(line) if flags().json else printable(text(event)))


def as_text(event: Event) -> str:
    """One line for people."""
    about = f"{event.type} {event.job} ({event.queue}{f', attempt {event.attempt}' if event.attempt else ''})"
    told = [format_time(event.at), event.event, about if event.job else event.worker]
    if event.seconds is not None:
        told.append(f"after {format_duration(event.seconds)}")
    if event.event == "progress":
        told.append(f"{number(event.n)} of {event.of:g}" if event.of else number(event.n))
    if event.event == "lost":
        told.append(f"{number(event.n)} events were not told, as there were too many")
    if event.message:
        told.append(event.message)
    if event.next is not None and event.next > event.at:
        told.append(f"again in {format_duration(round(event.next - event.at, 3))}" if event.error else "delayed")
    if event.worker and event.job:
        told.append(f"on {event.worker}")
    return "  ".join(told)


def number(n: float | None) -> str:
    """n for people, also where the event that should tell it does not: it may be a stranger's."""
    return "?" if n is None else f"{n:g}"


def _say(error: Any) -> None:
    report(error, as_json=flags().json, verbose=False, color=wants_color(flags().no_color))
