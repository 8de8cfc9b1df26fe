"""How a command ends when it can't do what was asked: one or two lines on stderr, and an exit code that scripts know.

The numbers from 64 on are those of BSD's sysexits.h.
"""

from __future__ import annotations

import errno
import json
import shutil
import sys
import traceback

import click

from kq.errors import (
    LOOK,
    BadArguments,
    BrokerError,
    Busy,
    ConfigError,
    Forbidden,
    JobError,
    KqError,
    LeaseLost,
    MessageError,
    NotDone,
    NotFound,
    NotRepaired,
    NotStarted,
    NotUnique,
    ResultTimeout,
    SoftTimeout,
    WorkerUnfit,
)
from kq.plain import folded, printable, printable_lines
from kq.stated import stated

DONE, NO, USAGE, DATA, UNAVAILABLE, BUG, LATE, REFUSED, CONFIG, INTERRUPTED = 0, 1, 2, 65, 69, 70, 75, 77, 78, 130

#: What each exit code says.
MEANING = {
    DONE: "done",
    NO: "the answer is no: doctor found something broken, the job failed, is not there, not unique, or not repaired",
    USAGE: "wrong usage",
    DATA: "arguments or data that can't be used",
    UNAVAILABLE: "the broker is not available",
    BUG: "a bug in kq, or an error without a code of its own",
    NotStarted.exit_code: "a program could not begin: it had no thread, or what imports its application was killed",
    WorkerUnfit.exit_code: "a worker ended itself because bad storage ended too many jobs on its host",
    LATE: "the time to wait was over, or it can't be done now",
    REFUSED: "kq refuses, as it would destroy something, or as you may not",
    CONFIG: "wrong settings, or no such application",
    INTERRUPTED: "interrupted by ctrl-C",
}


#: What to do where a process is out of files.
MORE_FILES = "Raise the limit (ulimit -n, LimitNOFILE= in a systemd unit); kq doctor says how many a worker needs."


class Refused(KqError):
    """kq won't do it, because it would destroy something."""

    code = "KQ601"


class Late(KqError):
    """Something that kq waited for did not come about in time."""

    code = "KQ504"


def exit_code_of(error: BaseException) -> int:
    """The exit code that tells what kind of error this is."""
    table: list[tuple[type[BaseException], int]] = [
        (click.ClickException, USAGE),
        (ResultTimeout, LATE),
        (Late, LATE),
        (JobError, NO),
        (ConfigError, CONFIG),
        (MessageError, DATA),
        (BadArguments, DATA),
        (NotFound, NO),
        (NotRepaired, NO),
        (Refused, REFUSED),
        (LeaseLost, UNAVAILABLE),
        (WorkerUnfit, WorkerUnfit.exit_code),
        (NotStarted, NotStarted.exit_code),
        (BrokerError, UNAVAILABLE),
        (ConnectionError, UNAVAILABLE),
        (NotUnique, NO),
        (NotDone, LATE),
        (SoftTimeout, LATE),
        (Busy, LATE),
        (Forbidden, REFUSED),
    ]
    usual = CONFIG if _is_out_of_files(error) else BUG
    return next((code for kind, code in table if isinstance(error, kind)), usual)


def _is_out_of_files(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EMFILE


def report(error: Exception, *, as_json: bool, verbose: bool, color: bool | None) -> None:
    """Tell error on stderr. verbose: with its traceback."""
    told = describe(error)
    if as_json:
        error_told = {name: value for name, value in told.items() if value}
        click.echo(json.dumps(stated({"error": error_told})), err=True)
        return
    if verbose:
        click.echo(printable_lines("".join(traceback.format_exception(error))), err=True)
    code = click.style(told["code"] or "kq:", fg="red", bold=True)
    message = _folded(f"{told['code'] or 'kq:'} {printable(told['message'])}")
    click.echo(f"{code}{message.removeprefix(told['code'] or 'kq:')}", err=True, color=color)
    for line in (*told["notes"].splitlines(), *told["fix"].splitlines()):
        click.echo(f"  {_folded(printable(line))}", err=True, color=color)


def _folded(text: str) -> str:
    """text as it fits on the terminal that it goes to."""
    return folded(text, shutil.get_terminal_size().columns, 2) if sys.stderr.isatty() else text


def describe(error: Exception) -> dict[str, str]:
    """An error as data: code, message, fix, notes; "" where there is none."""
    code, message, fix = _told(error)
    return {"code": code, "message": message, "fix": fix, "notes": "\n".join(getattr(error, "__notes__", ()))}


def _told(error: Exception) -> tuple[str, str, str]:
    if isinstance(error, KqError):
        return error.code, error.message, error.fix
    if isinstance(error, click.UsageError):
        return "", error.format_message(), f"Try: {error.ctx.command_path if error.ctx else 'kq'} --help"
    if isinstance(error, click.ClickException):
        return "", error.format_message(), ""
    if isinstance(error, ConnectionError):
        return "KQ501", str(error), LOOK
    if _is_out_of_files(error):
        return "KQ101", f"this process may not have as many files open as it needs: {error}", MORE_FILES
    message = f"this is a bug in kq: {type(error).__name__}: {error}"
    return "KQ001", message, "Run it with -v for the traceback, and please report it."
