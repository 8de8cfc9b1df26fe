"""Conditions on a snapshot, as people write them: `oldest>60s`, `mail:ready>=1000`, `burials>10/m`, `workers<2`.

Scripts ask for them with --fail-if, and people are told of them by alerts.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from kq.units import parse_duration, parse_rate
from kq.values.snapshot import DURATIONS, QueueRow, Snapshot, Totals

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}
_BEGIN = r"\s*(?:(?P<queue>\S+):)?(?P<name>\w+)\s*"
_FORM = re.compile(_BEGIN + r"(?P<sign>>=|<=|>|<|=)\s*(?P<value>.*\S)\s*", re.DOTALL)
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
    """The condition that text is. Raises ValueError, which says where it is none, and what would be one."""
    form = _FORM.fullmatch(text)
    if form is None:
        raise ValueError(f"{_missing(text)}; write for example 'oldest>60s' or 'mail:ready>1000'")
    queue, name = form["queue"] or "", form["name"]
    names = _numbers(QueueRow) if queue else (*_numbers(Totals), *COUNTS)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(names)}."
        of = f"of queue {queue!r}" if queue else "of all queues"
        raise ValueError(f"{_at(text, form.start('name'))} {name!r} is no number {of}. {hint}")
    try:
        value = _value(name, form["value"])
    except ValueError as error:
        raise ValueError(f"{_at(text, form.start('value'))} {error}") from None
    return Condition(text, queue, name, form["sign"], value)


def _at(text: str, place: int) -> str:
    return f"{text!r} is no condition: at character {place + 1}"


def _missing(text: str) -> str:
    """What is missing, and where."""
    begun = re.match(_BEGIN + r"(?P<sign>[<>]=?|=)?\s*", text)
    if begun is None:
        return f"{_at(text, 0)} the name of a number is missing"
    return f"{_at(text, begun.end())} {'a number is' if begun['sign'] else 'one of > < >= <= = is'} missing"


def _value(name: str, text: str) -> float:
    if name in DURATIONS:
        return parse_duration(text)
    if name in RATES and "/" in text:
        return parse_rate(text)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is no number; write for example {name}>1000")
    return number


def _number(row: msgspec.Struct, name: str) -> float | None:
    found: float | None = getattr(row, name)
    return found


def _numbers(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """The fields of kind that are numbers."""
    numeric = {"int", "float", "int | None", "float | None"}
    return tuple(field for field, hint in kind.__annotations__.items() if hint in numeric)
