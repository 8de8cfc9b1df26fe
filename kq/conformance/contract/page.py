"""A page of the docs from a run of ContractSuite: what is promised, and what was measured on which broker.

Import pytest_configure into the conftest.py beside the tests, and run them with KQ_CONTRACT_PAGE=docs/contract.md;
with KQ_CONTRACT_PAGE=- the figures are told at the end of the run instead.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest

from kq.conformance.contract.figures import BROKER, FIGURE, PROMISE

#: Promise: its name, and what it says.
PROMISES = {
    "C1": """kept: When `submit()` returns, the broker has stored the job. When it raises, it says whether it was
stored, and the same job submitted again is stored once. It never takes longer than `submit_timeout`.""",
    "C2": "at least once: A job leaves the broker only after its outcome is recorded: no kill -9 loses one.",
    "C3": """lease: While its worker's heart beats, a job is never delivered to another, however long it runs. When
the beats stop it is delivered again when the lease is over; within a second when only its executor died.""",
    "C4": "fencing: What a worker says about a delivery after its lease is gone is refused.",
    "C5": "priority: Strict among a queue's ready jobs, equals in order; a job that is given back keeps its place.",
    "C6": "delay: Never early, late by at most 100 ms at p99; kept in the broker, from a millisecond to a year.",
    "C7": "counts: Attempts count starts; causes of failure are counted apart, and the innocent is not blamed.",
    "C8": "retry: By policy, with the same id and the whole history.",
    "C9": """bury: What was buried stays until a human edits, kicks, completes or deletes it; two of them, a worker or a
crash at the same moment make neither two of it nor none.""",
    "C10": """revoke: A waiting or delayed job that is revoked never starts; a running one is interrupted, then killed,
when asked, and does not run again. Known to workers that join later.""",
    "C11": """unique: While a job with a unique key waits or runs, submitting another returns the one that is there, or
replaces, delays or follows it, as its jobs say; no lock outlives its job.""",
    "C12": """singleton: At most one job of a singleton queue runs at a time, over all workers and hosts, whatever is
killed, frozen or cut off. The next worker takes over at once after a good end, else when the lease is over.""",
    "C13": "once: A side effect that was recorded as done is not done again; in doubt a human is asked.",
    "C14": "result: A result or an error is waited for without polling, until its time to live is over.",
    "C15": "broadcast: An order reaches each live worker within a second, and stands until it is lifted.",
    "C16": "atomic: A group is stored whole or not at all; an end and what follows from it are one step.",
    "C17": "quiet: An idle worker uses under 1 % of a core; a job starts there within 5 ms, and waits for no busy one.",
    "C18": "outage: The broker may vanish: workers go on by themselves when it is back, and nothing is lost.",
    "C19": "hygiene: What can't be used is buried with the reason, neither dropped nor fatal.",
    "C20": "bounded: Costs and memory grow neither with the backlog (20 %) nor with time.",
}

HEAD = """\
# The contract, measured

What kq promises on every broker, and what a run of its suite measured. Each line is a test that ran with real
workers on a real broker; *kept* means that it passed and has no figure, a dash that it does not apply: a broker
within one process (memory) has no other process to kill, and no network. Leases of two and three seconds, to keep
the run short. Measured with Python {python} on {cores} cores that other tests were busy on.
`make contract` writes this page anew.
"""


def pytest_configure(config: pytest.Config) -> None:
    gather(config, "KQ_CONTRACT_PAGE", Page)


def gather(config: pytest.Config, variable: str, make: Callable[[str], Page]) -> None:
    """Let a page gather what a run measures, when an environment variable says where it is to be written.

    In a run over several processes, the one that gathers the reports does it.
    """
    path = os.environ.get(variable)
    asked = config.pluginmanager.has_plugin(variable)  # by another folder of tests
    if path and not asked and not hasattr(config, "workerinput"):
        config.pluginmanager.register(make(path), variable)


@dataclass(eq=False)  # pytest keeps plugins in sets
class Page:
    """Gathers reports and writes the page at the end. cells: by subject, test and broker."""

    #: Which property of a test says what it is about, what there is, and the first lines of the page.
    about: ClassVar[str] = PROMISE
    subjects: ClassVar[Mapping[str, str]] = PROMISES
    head: ClassVar[str] = HEAD

    path: str
    cells: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    brokers: list[str] = field(default_factory=list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties = report.user_properties
        subject = str(dict(properties).get(self.about, ""))
        if not subject or (report.when != "call" and not report.failed):
            return
        broker = str(dict(properties)[BROKER])
        if broker not in self.brokers:
            self.brokers.append(broker)
        figures = "; ".join(str(value) for name, value in properties if name == FIGURE)
        cell = "**broken**" if report.failed else "–" if report.skipped else figures or "kept"
        row = self.cells.setdefault(subject, {}).setdefault(sentence(report.nodeid), {})
        if row.get(broker) != "**broken**":
            row[broker] = cell

    def pytest_sessionfinish(self) -> None:
        if self.path != "-":
            Path(self.path).write_text("\n".join(self.lines()))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.path == "-":
            for rows in self.cells.values():
                for test, row in rows.items():
                    for broker, cell in row.items():
                        terminalreporter.write_line(f"{broker}: {test}: {cell}")

    def lines(self) -> Iterator[str]:
        """The page."""
        yield self.head.format(python=platform.python_version(), cores=os.cpu_count())
        for subject, text in self.subjects.items():
            name, _, words = text.partition(": ")
            yield f"## {subject} {name}\n\n{words}\n"
            yield from self.table(dict(sorted(self.cells.get(subject, {}).items())))

    def table(self, rows: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
        """A table with a column for each broker. rows: by name, and then by broker."""
        brokers = sorted(self.brokers)
        yield f"| | {' | '.join(brokers)} |"
        yield "|---" * (len(brokers) + 1) + "|"
        for name, row in rows.items():
            yield f"| {name} | {' | '.join(row.get(broker, '–') for broker in brokers)} |"
        yield ""


def sentence(node: str) -> str:
    """A test's name as the sentence that it is, without the group that pytest-xdist adds to it."""
    name, _, parameters = node.rpartition("::")[2].partition("[")
    words = name.partition("@")[0].removeprefix("test_").replace("_", " ")
    return f"{words} ({parameters.rpartition(']')[0]})" if parameters else words
