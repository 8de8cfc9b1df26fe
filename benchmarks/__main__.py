"""`python -m benchmarks [--only ROW] [--on BROKER] [--write]`: measure and print, or renew the docs.

CPU is that of our processes (producer, or the whole tree of a worker), not of the broker's server.
Medians over the runs. A ratio is to the loop by hand in the same run: figures of two machines differ, ratios less.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
import time
from pathlib import Path

import psutil

# Each of these adds its measures to MEASURES.
from benchmarks import backlog, capacity, drains, latency, standing, submits  # noqa: F401
from benchmarks.measure import MEASURES, Measured
from benchmarks.place import BROKERS, Place, clear, opened
from benchmarks.rows import ROWS, Row
from benchmarks.sheet import Sheet, table

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
MARK = "<!-- figures -->"


def main() -> None:
    wish = parser().parse_args()
    # What is installed has its bytecode; to compile it at each start of a worker would be measured too.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if wish.list:
        print("\n".join(f"{row.name:18} {row.text}" for row in ROWS))
        return
    if wish.short:
        wish.jobs, wish.runs = min(wish.jobs, 3_000), 1
    rows = chosen(wish.only, wish.short)
    names, end, sheets = wish.on or BROKERS, time.monotonic() + wish.minutes * 60, []
    for left, name in zip(range(len(names), 0, -1), names, strict=True):
        now = time.monotonic()
        sheets.append(measured(name, rows, wish, until=now + (end - now) / left))
    text = table(sheets, rows)
    print(text)
    if wish.write:
        write(text, wish)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", metavar="ROW", choices=[row.name for row in ROWS])
    parser.add_argument("--on", action="append", choices=BROKERS)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--backlog", type=int, default=1_000_000)
    parser.add_argument(
        "--minutes", type=float, default=21.0, help="begin nothing later: medians are of fewer runs then"
    )
    parser.add_argument("--short", action="store_true", help="one run of the first rows with 3 000 jobs, for CI")
    parser.add_argument("--write", action="store_true", help=f"renew {PAGE.name}")
    parser.add_argument("--list", action="store_true", help="the names of the rows")
    return parser


def chosen(names: list[str] | None, short: bool) -> list[Row]:
    """The rows that are wanted, with those that they are compared with."""
    wanted = {row.name for row in ROWS if row.short or not short} & set(names or [row.name for row in ROWS])
    wanted |= {row.base for row in ROWS if row.name in wanted}
    return [row for row in ROWS if row.name in wanted]


def measured(name: str, rows: list[Row], wish: argparse.Namespace, until: float) -> Sheet:
    """Figures of one broker. What is begun before until (monotonic) is finished."""
    sheet, wanted = Sheet(name), {row.name for row in rows}
    # What is measured once leaves most behind.
    measures = sorted((each for each in MEASURES if wanted & set(each.rows)), key=lambda each: -each.runs)
    for run in range(wish.runs):
        if time.monotonic() > until:
            break
        try:
            with opened(name, wish.jobs, wish.backlog) as place:
                for each in measures:
                    if run < each.runs and time.monotonic() < until:
                        note(sheet, each, place)
        except Exception as error:  # a broker that did not start in time; the other runs are worth having
            print(f"  {name}: run {run + 1} failed: {error!r}", file=sys.stderr)
    return sheet


def note(sheet: Sheet, each: Measured, place: Place) -> None:
    """Make one measurement, and leave the queue empty."""
    began = time.monotonic()
    try:
        for row, value in each.measure(place):
            sheet.note(row, value)
        clear()
    except Exception as error:  # the other rows are worth having
        print(f"  {sheet.name}: {each.measure.__name__} failed: {error!r}", file=sys.stderr)
    print(f"  {sheet.name}: {each.measure.__name__} {time.monotonic() - began:.1f} s", file=sys.stderr)


def write(text: str, wish: argparse.Namespace) -> None:
    """Put the table into the page, with what it was measured on."""
    machine = f"{platform.machine()}, {psutil.cpu_count()} cores, Python {platform.python_version()}"
    runs = f"{wish.jobs:,} jobs, medians of up to {wish.runs} runs, a backlog of {wish.backlog:,}"
    head = PAGE.read_text().split(MARK)[0]
    PAGE.write_text(f"{head}{MARK}\n\n{datetime.date.today()}; {machine}; {runs}.\n\n{text}\n")


if __name__ == "__main__":
    main()
