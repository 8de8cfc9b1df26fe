"""The cost card: the table in docs/performance.md."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
COLUMNS = ["operation", "grows with", "redis", "sqlite", "rabbitmq"]
#: By how much the bytes may differ: ids and times have not always as many digits.
TOLERANCE = 0.25


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """Written "asks + work, size B" and, where the state store is another one, "; asks + work"."""

    asks: int
    work: int
    size: int = 0
    store: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        size = f", {self.size} B" if self.size else ""
        store = f"; {self.store[0]} + {self.store[1]}" if any(self.store) else ""
        return f"{self.asks} + {self.work}{size}{store}"

    @classmethod
    def read(cls, text: str) -> Self:
        found = re.fullmatch(r"(\d+) \+ (\d+)(?:, (\d+) B)?(?:; (\d+) \+ (\d+))?", text)
        assert found, f"{text!r} is no cost"
        asks, work, size, *store = (int(each or 0) for each in found.groups())
        return cls(asks, work, size, (store[0], store[1]))

    @classmethod
    def of(cls, cells: Sequence[Cell], choose: Callable[[Iterable[int]], int]) -> Self:
        """What choose chooses of each figure."""
        asks, work, size = (choose(getattr(cell, name) for cell in cells) for name in ("asks", "work", "size"))
        return cls(asks, work, size, (choose(cell.store[0] for cell in cells), choose(cell.store[1] for cell in cells)))

    def keeps(self, promised: Cell, *, at_most: bool = False) -> bool:
        """Whether this is what was promised; at_most: or less, but not so much that the promise is worth nothing."""
        mine, said = (self.asks, self.work, *self.store), (promised.asks, promised.work, *promised.store)
        if at_most:
            return all(said // 4 <= mine <= said for mine, said in zip(mine, said, strict=True))
        return mine == said and abs(self.size - promised.size) <= TOLERANCE * promised.size


class Card:
    """The table as it stands in the page."""

    def __init__(self) -> None:
        self._lines = PAGE.read_text().splitlines()
        self._start = self._lines.index("| " + " | ".join(COLUMNS) + " |") + 2

    def _rows(self) -> dict[str, int]:
        rows: dict[str, int] = {}
        for number in range(self._start, len(self._lines)):
            if not self._lines[number].startswith("|"):
                break
            rows[self._cells(number)[0]] = number
        return rows

    def _cells(self, number: int) -> list[str]:
        return [cell.strip() for cell in self._lines[number].strip("|").split("|")]

    def names(self) -> list[str]:
        """The operations, in their order."""
        return list(self._rows())

    def cell(self, broker: str, operation: str) -> Cell:
        return Cell.read(self._cells(self._rows()[operation])[COLUMNS.index(broker)])

    def write(self, broker: str, measured: Mapping[str, Cell]) -> None:
        """Put what was measured into its column."""
        for name, cell in measured.items():
            number = self._rows()[name]
            cells = self._cells(number)
            cells[COLUMNS.index(broker)] = str(cell)
            self._lines[number] = "| " + " | ".join(cells) + " |"
        PAGE.write_text("\n".join(self._lines) + "\n")
