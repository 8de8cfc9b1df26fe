"""A job as a text that a human edits, in $EDITOR or by --set."""

from __future__ import annotations

import copy
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from kq.cli.literal import literal
from kq.control import JobInfo
from kq.errors import BadArguments
from kq.plain import printable, printable_json
from kq.units import parse_duration
from kq.values.message import encode_body
from kq.values.redaction import restored
from kq.values.secret import without_marked

#: What of a job may be edited.
PARTS = ("args", "kwargs", "priority", "delay")


def of(job: JobInfo) -> dict[str, Any]:
    """The parts of job that may be edited, without its delay."""
    return {"args": job.args, "kwargs": job.kwargs, "priority": job.priority}


def changed(document: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """document after --set args.0=8, kwargs.name=x, kwargs.options.width=3, priority=9, delay=5m.

    A value is JSON where it can be, else text. Raises click.BadParameter.
    """
    document = copy.deepcopy(document)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise click.BadParameter(f"{setting!r} has no value; write {setting}=VALUE", param_hint="--set")
        _set(document, path, text)
    return document


def _set(document: dict[str, Any], path: str, text: str) -> None:
    first = path.partition(".")[0]
    if first not in PARTS:
        raise click.BadParameter(f"{path!r} can't be edited; {', '.join(PARTS)} can", param_hint="--set")
    if first == "delay":
        document["delay"] = parse_duration(text)
        return
    inner: Any = document
    for name in path.split(".")[:-1]:
        inner = _part(inner, name, path)
    last = path.rpartition(".")[2]
    if isinstance(inner, list):
        number = _position(inner, last, path)
        inner[number : number + 1] = [literal(text, "--set")]
    elif isinstance(inner, dict):
        inner[last] = literal(text, "--set")
    else:
        raise click.BadParameter(f"{path!r}: there is nothing inside {json.dumps(inner)}", param_hint="--set")


def _part(inner: Any, name: str, path: str) -> Any:
    if isinstance(inner, dict) and name in inner:
        return inner[name]
    if isinstance(inner, list) and _position(inner, name, path) < len(inner):
        return inner[int(name)]
    raise click.BadParameter(f"{path!r}: there is no {name}", param_hint="--set")


def _position(values: list[Any], name: str, path: str) -> int:
    if not name.isdecimal() or int(name) > len(values):
        raise click.BadParameter(f"{path!r}: {name} is no position; there are {len(values)}", param_hint="--set")
    return int(name)


def edited(job: JobInfo, check: Callable[[dict[str, Any]], object]) -> dict[str, Any] | None:
    """What a human made of job in an editor; None when he left it as it was.

    check: raises TypeError for what does not fit; that, and what is no JSON, is offered again with the reason on top.
    Raises BadArguments when it comes back as it was offered.
    """
    text = _text(job)
    with tempfile.TemporaryDirectory(prefix="kq-") as folder:
        path = Path(folder) / f"job-{job.id[:40].replace(os.sep, '_')}.json"
        path.touch(mode=0o600)
        while True:
            path.write_text(text)
            _open(path)
            said = path.read_text()
            body = _uncommented(said)
            if not body.strip() or body == _uncommented(_text(job)):
                return None
            try:
                return _checked(_whole(_parsed(body), job), check)
            except (ValueError, TypeError) as error:
                if said == text:
                    raise BadArguments(str(error), fix="The job is as it was.") from error
                text = f"# {printable(str(error))}\n" + _without_reason(said)


def _text(job: JobInfo) -> str:
    facts = [f"{job.type} {job.id}, {job.state.value} in {job.queue}", *([job.error] if job.error else [])]
    facts.append("Its type stays as it is. Leave this as it is, or empty, and so stays the job.")
    head = "".join(f"# {printable(fact)}\n" for fact in facts)
    return head + printable_json(json.dumps(without_marked(of(job)), indent=2, ensure_ascii=False)) + "\n"


def _uncommented(text: str) -> str:
    # Emptied and not taken out, so that the numbers of the lines are those that the human sees.
    return "".join("\n" if line.startswith("#") else line for line in text.splitlines(keepends=True))


def _without_reason(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("# line"))


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}: {error.msg}") from None
    except RecursionError:
        raise ValueError("line 1: it is nested too deep") from None
    if not isinstance(found, dict) or not isinstance(found.get("args", []), list):
        raise ValueError('line 1: it must be an object with "args": [...], "kwargs": {...}, "priority": 0 to 9')
    if unknown := found.keys() - set(PARTS):
        raise ValueError(f"line 1: {', '.join(sorted(unknown))} can't be edited; {', '.join(PARTS)} can")
    if not isinstance(found.get("kwargs", {}), dict) or not isinstance(found.get("priority", 0), int):
        raise ValueError('line 1: "kwargs" must be an object and "priority" a number')
    return found


def _whole(document: dict[str, Any], job: JobInfo) -> dict[str, Any]:
    """document with the secrets of job that it shows as ***."""
    whole = of(job)
    shown = without_marked(whole)
    return {part: restored(value, shown.get(part), whole.get(part)) for part, value in document.items()}


def _checked(document: dict[str, Any], check: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    try:
        encode_body(document.get("args", []), document.get("kwargs", {}))
        check(document)
    except TypeError as error:
        raise TypeError(f"line 1: {error}") from error
    return document


def _open(path: Path) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        done = subprocess.run([*shlex.split(editor), str(path)], check=False)
    except OSError as error:
        raise BadArguments(f"the editor {editor!r} does not start: {error}", fix="Set EDITOR, or say --set.") from error
    if done.returncode:
        raise BadArguments(f"the editor {editor!r} ended with exit code {done.returncode}", fix="The job is as it was.")


def has_editor() -> bool:
    """Whether a human can be asked."""
    return bool(os.environ.get("VISUAL") or os.environ.get("EDITOR") or sys.stdin.isatty())
