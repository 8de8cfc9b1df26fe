"""Conditions on a snapshot, as people write them: `oldest>60s`, `mail:ready>=1000`, `burials>10/m`, `workers<2`.

Scripts ask for them with --fail-if, and people are told of them by alerts.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from kq.snapshot import DURATIONS, QueueRow, Snapshot, Totals
from kq.units import parse_duration, parse_rate

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}
_FORM = re.compile(r"(?:(?P<queue>\S+):)?(?P<name>\w+)\s*(?P<sign>>=|<=|>|<|=)\s*(?P<value>\S+)")
#: How many queues are in a bad state, how many workers are not well, and how many programs make control's rounds.
COUNTS = ("paused", "unserved", "growing", "late", "dead", "control")
#: Numbers that are so many a second.
RATES = ("came", "ended", "failed", "burials")


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
        return bool(self.met(shot))

    def met(self, shot: Snapshot) -> bool | None:
        """Whether it is so; None when nobody knows."""
        found = self._found(shot)
        return None if found is None else self._is(found)

    def queues(self, shot: Snapshot) -> list[QueueRow]:
        """The queues for which it is so: the one that it is about, or those that make it so of all together."""
        if self.name in COUNTS:
            return [row for row in shot.queues if row.state == self.name]
        rows = [row for row in shot.queues if self.queue in ("", row.name)]
        numbers = [(row, getattr(row, self.name, None)) for row in rows]
        return [row for row, number in numbers if number is not None and self._is(number)]

    def _is(self, number: float) -> bool:
        return _COMPARE[self.sign](float(number), self.value)

    def _found(self, shot: Snapshot) -> float | None:
        if self.queue:
            row = next((row for row in shot.queues if row.name == self.queue), QueueRow(name=self.queue))
            return _number(row, self.name)
        if self.name == "control":
            return None if shot.store else float(bool(shot.control))
        if self.name in COUNTS:
            states: list[str] = [*(row.state for row in shot.queues), *(row.state for row in shot.workers)]
            return None if shot.broker or shot.store else states.count(self.name)
        return _number(shot.totals, self.name)


def parse_condition(text: str) -> Condition:
    """The condition that text is. Raises ValueError, which says what would be one."""
    form = _FORM.fullmatch(text.strip())
    if form is None:
        raise ValueError(f"{text!r} is no condition; write for example 'oldest>60s' or 'mail:ready>1000'")
    queue, name = form["queue"] or "", form["name"]
    names = _numbers(QueueRow) if queue else (*_numbers(Totals), *COUNTS)
    if name not in names:
        raise ValueError(f"there is no {name!r} {'of a queue' if queue else 'of all'}; use {', '.join(names)}")
    return Condition(text, queue, name, form["sign"], _value(name, form["value"]))


def _value(name: str, text: str) -> float:
    if name in DURATIONS:
        return parse_duration(text)
    return parse_rate(text) if name in RATES and "/" in text else float(text)


def _number(row: msgspec.Struct, name: str) -> float | None:
    found: float | None = getattr(row, name)
    return found


def _numbers(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """The fields of kind that are numbers."""
    numeric = {"int", "float", "int | None", "float | None"}
    return tuple(field for field, hint in kind.__annotations__.items() if hint in numeric)
