"""Which function measures which rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from benchmarks.place import Place

#: Measures some rows once: yields the name of each, and its value.
Measure: TypeAlias = Callable[[Place], Iterator[tuple[str, float]]]


@dataclass(frozen=True, slots=True)
class Measured:
    """A measure, the rows that it is for, and how many runs of it make a median at most."""

    measure: Measure
    rows: tuple[str, ...]
    runs: int


MEASURES: list[Measured] = []


def measures(*rows: str, runs: int = 100) -> Callable[[Measure], Measure]:
    """Let the function measure these rows."""

    def add(measure: Measure) -> Measure:
        MEASURES.append(Measured(measure, rows, runs))
        return measure

    return add
