"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from kq.cli.failing import describe
from kq.errors import LOOK

Level: TypeAlias = Literal["ok", "warn", "fail"]
LEVELS = get_args(Level)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. fix: the next step, where there is one."""

    level: Level
    about: str
    message: str
    fix: str = ""


def failed(about: str, error: Exception) -> Finding:
    """An error that ended a check."""
    told = describe(error)
    message = f"{told['message']} ({told['code']})" if told["code"] else told["message"]
    more = f"kq explain {told['code']} says what may be the cause, and what to do."
    return Finding("fail", about, message, more if told["fix"] == LOOK else told["fix"])
