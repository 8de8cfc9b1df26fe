"""Conditions that a script sets: `oldest>60s`, `mail:ready>=1000`, `workers<2`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import click
import msgspec

from kq.snapshot import DURATIONS, QueueRow, Snapshot, Totals
from kq.units import parse_duration

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}
_FORM = re.compile(r"(?:(?P<queue>\S+):)?(?P<name>\w+)\s*(?P<sign>>=|<=|>|<|=)\s*(?P<value>\S+)")
#: How many queues are in a bad state, and how many workers are not well.
COUNTS = ("paused", "unserved", "growing", "late", "dead")


@dataclass(frozen=True, slots=True)
class Condition:
    """queue: "" for all of them together. What nobody knows meets no condition."""

    text: str
    queue: str
    name: str
    sign: str
    value: float

    def holds(self, shot: Snapshot) -> bool:
        """Whether it is so at the moment of the snapshot."""
        found = self._found(shot)
        return found is not None and _COMPARE[self.sign](float(found), self.value)

    def _found(self, shot: Snapshot) -> float | None:
        if self.queue:
            row = next((row for row in shot.queues if row.name == self.queue), QueueRow(name=self.queue))
            return _number(row, self.name)
        if self.name in COUNTS:
            states: list[str] = [*(row.state for row in shot.queues), *(row.state for row in shot.workers)]
            return states.count(self.name)
        return _number(shot.totals, self.name)


class ConditionType(click.ParamType["Condition"]):
    """`oldest>60s`."""

    name = "condition"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Condition:
        if isinstance(value, Condition):
            return value
        form = _FORM.fullmatch(value.strip())
        if form is None:
            self.fail(f"{value!r} is no condition; write for example 'oldest>60s' or 'mail:ready>1000'", param, ctx)
        queue, name = form["queue"] or "", form["name"]
        names = _numbers(QueueRow) if queue else (*_numbers(Totals), *COUNTS)
        if name not in names:
            self.fail(f"there is no {name!r} {'of a queue' if queue else 'of all'}; use {', '.join(names)}", param, ctx)
        try:
            number = parse_duration(form["value"]) if name in DURATIONS else float(form["value"])
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return Condition(value, queue, name, form["sign"], number)


def _number(row: msgspec.Struct, name: str) -> float | None:
    found: float | None = getattr(row, name)
    return found


def _numbers(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """The fields of kind that are numbers."""
    numeric = {"int", "float", "int | None", "float | None"}
    return tuple(field for field, hint in kind.__annotations__.items() if hint in numeric)


#: The option of verbs that look: exit code 1 when a condition is met.
FAIL_IF = click.option(
    "--fail-if",
    "conditions",
    type=ConditionType(),
    multiple=True,
    metavar="CONDITION",
    help="Exit with 1 if this is so: 'oldest>60s', 'mail:ready>1000', 'unserved>0'. May be repeated.",
)
