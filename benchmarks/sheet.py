"""Figures by broker and row, their medians, and the table that is made of them."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from benchmarks.rows import Row


@dataclass(slots=True)
class Sheet:
    """Figures of one broker by row; each a list with one value per run."""

    name: str
    rows: dict[str, list[float]] = field(default_factory=dict)

    def note(self, row: str, value: float) -> None:
        self.rows.setdefault(row, []).append(value)

    def median(self, row: str) -> float | None:
        values = self.rows.get(row)
        return statistics.median(values) if values else None

    def cell(self, row: Row) -> str:
        """The row's median, its ratio to the loop by hand, and what it was to reach where it does not."""
        value, hand = self.median(row.name), self.median(row.base)
        if value is None:
            return "–"
        ratio = value / hand if hand else None
        text = row.form.format(value * row.unit) + (f" ({ratio:.1f} ×)" if ratio else "")
        aim = self._missed(row, value * row.unit, ratio)
        return f"**{text}**, not {aim}" if aim else text

    def _missed(self, row: Row, value: float, ratio: float | None) -> str:
        aim, times = row.aims.get(self.name), row.times.get(self.name)
        if ratio is not None and times is not None and ratio > times:
            return f"{times} ×"
        if aim is None or (value <= aim if row.most else value >= aim):
            return ""
        return row.form.format(aim)


def table(sheets: list[Sheet], rows: list[Row]) -> str:
    """The figures as a Markdown table; without rows that nobody measured."""
    lines = ["| | " + " | ".join(sheet.name for sheet in sheets) + " |", "|---|" + "---|" * len(sheets)]
    for row in rows:
        cells = [sheet.cell(row) for sheet in sheets]
        if any(cell != "–" for cell in cells):
            lines.append(f"| {row.text} | {' | '.join(cells)} |")
    return "\n".join(lines)
