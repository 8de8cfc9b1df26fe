"""A page of the docs from a run of the tests that bring about faults: what was lost, run twice, and how long it took.

Import pytest_configure into the conftest.py beside the tests, and run them with KQ_FAULTS_PAGE=docs/faults.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from kq.conformance.contract.figures import ACCOUNT, BROKER, FAULT
from kq.conformance.contract.page import Page, gather

#: Fault: its name, and what kq does about it.
FAULTS = {
    "F1": """kill -9: Of whole workers, supervisors and executors, again and again. Nothing is lost or stuck; what was
cut off runs again when the lease is over, at once when only its executor died. Twice runs what a kill hits between a
job's end and its being written down. That is one transaction of the state store, which comes before all else in a
worker's round and waits for no disk: on SQLite half a millisecond from when the supervisor hears of the end (median,
though twenty programs wanted two processors), where it was twelve when it waited for the disk. Executors die with their
supervisor. The rest is waiting for processors, also for those on which to die: a kill on a busy machine takes some
milliseconds. Rate times that: with one millisecond ten kills of workers with two slots hit less than one job of 30 ms;
several where each kill is followed by a birth that takes the processors, as here. Effects with `once=` are not
repeated.""",
    "F2": """zombie: A worker sleeps past its lease and comes back. What it held runs elsewhere, what it says is
refused, what it still runs is stopped, and what it had fetched ahead never starts.""",
    "F3": """broker restart: In good order and by kill -9. Workers never exit and go on by themselves; submits wait as
long as `submit_timeout` says, and then raise an error that says whether the job was stored. Twice runs
what ended in the very moment when the connection broke, before the worker heard of it.""",
    "F4": """bad network: Connections that are closed, reset, swallowed, slow or half-open under a busy worker. Where an
answer takes two seconds a job starts late, and no lease of the usual length is lost.""",
    "F4i": "half-open and idle: A worker that waits for jobs finds out by its heartbeat that nobody hears it.",
    "F5": """producer cut off: Killed, or its connection reset, in the midst of a submit. What was acknowledged is
stored once; what was not is stored at most once for each cut.""",
    "F6": """poison: A job that kills its process is buried after three of them, with how they ended, and disturbs
nobody: what others wait longer for it is measured against the same jobs without it.""",
    "F7": "hung: A job past its limit is interrupted, then killed with all that it started, and disturbs nobody.",
    "F8": "long job: A job of many leases starts once, on RabbitMQ also beyond its consumer timeout.",
    "F9": """malformed: What can't be read is kept whole among the buried, with the reason, and stops neither worker
nor queue. A body beyond 16 MiB is refused where it is published; one beyond kq's own limit of 1 MiB is handed over
whole by the broker, and passes through the worker's memory.""",
    "F10": """signals: TERM, twice, to the whole group: what runs ends or is handed back, the next worker has it within
a second, and no process stays.""",
    "F11": """no room: The disk, Redis' memory or RabbitMQ is full for longer than a lease. Submits say so in time;
workers finish what is there and go on by themselves.""",
    "F12": "wrong clocks: Workers two hours ahead and behind keep leases and delays, which are by the broker's clock.",
    "F13": """churn: Connections that come and go leave nothing behind in a worker, and those of a thousand clients that
do nothing slow no submit.""",
    "F14": """priority under backlog: What matters more starts next, however much waits or was fetched ahead. Priority
is strict: nothing grows more important by waiting.""",
}

HEAD = """\
# Faults, survived

What became of acknowledged jobs while workers, brokers and networks failed: real workers, real brokers, and between
them a network of our own that misbehaves on command. The first table sums up the others: **jobs lost / run to their
end twice / seconds until work went on**, at worst. *Kept* means that its tests passed and have no such figures, a
dash that the fault can't happen there: a broker in a file has no network, one in memory no other process;
signals and hung jobs are the worker's affair, whatever the broker. [The contract](contract.md) says what is promised.

Leases of two to five seconds, to keep the run short. Measured with Python {python} on {cores} cores that other
programs were busy on. `make faults` writes this page anew.
"""


def pytest_configure(config: pytest.Config) -> None:
    gather(config, "KQ_FAULTS_PAGE", FaultPage)


@dataclass(eq=False)  # pytest keeps plugins in sets
class FaultPage(Page):
    """Gathers reports and writes the page at the end. accounts: by fault and broker."""

    about: ClassVar[str] = FAULT
    subjects: ClassVar[Mapping[str, str]] = FAULTS
    head: ClassVar[str] = HEAD

    accounts: dict[str, dict[str, list[tuple[int, float | None]]]] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        super().pytest_runtest_logreport(report)
        fault, broker = (str(dict(report.user_properties).get(name, "")) for name in (FAULT, BROKER))
        if fault and report.when == "call":
            here = self.accounts.setdefault(fault, {}).setdefault(broker, [])
            here += [account for name, account in report.user_properties if name == ACCOUNT]  # type: ignore[misc]

    def lines(self) -> Iterator[str]:
        head, *rest = super().lines()
        yield head
        yield from self.table({f"{fault} {FAULTS[fault].partition(':')[0]}": self._sums(fault) for fault in FAULTS})
        yield from rest

    def _sums(self, fault: str) -> dict[str, str]:
        """What became of jobs under a fault, by broker."""
        return {broker: self._sum(fault, broker) for broker in self.brokers}

    def _sum(self, fault: str, broker: str) -> str:
        if any(row.get(broker) == "**broken**" for row in self.cells.get(fault, {}).values()):
            return "**broken**"
        accounts = self.accounts.get(fault, {}).get(broker, [])
        if not accounts:
            asked = any(row.get(broker, "–") != "–" for row in self.cells.get(fault, {}).values())
            return "kept" if asked else "–"
        waits = [back for _, back in accounts if back is not None]
        last = f"{max(waits):.1f} s" if waits else "–"
        return f"0 / {sum(twice for twice, _ in accounts)} / {last}"
