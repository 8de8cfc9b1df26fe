"""Writes docs/kombu-transports.md: KombuSuite on kq's transports and on Kombu's own, side by side.

Run it with `python -m tests.transports.report`; it takes some minutes, as what never comes is waited for.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import pytest

from kq_transports.conformance.kombu import KombuSuite

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "kombu-transports.md"
MODULES = {
    "kq-memory": "test_memory_kombu.py::TestMemoryTransport",
    "kq-sqlite": "test_sqlite_kombu.py::TestSqliteTransport",
    "kq-redis": "test_redis_kombu.py::TestRedisTransport",
    "kq-amqp": "test_amqp_kombu.py::TestAmqpTransport",
    "memory": "kombus_own.py::TestMemory",
    "sqla+sqlite": "kombus_own.py::TestSqlalchemy",
    "redis": "kombus_own.py::TestRedis",
    "amqp": "kombus_own.py::TestAmqp",
}
SIGNS = {"passed": "✓", "failed": "**✗**", "skipped": "–"}

HEAD = """# Kombu's transports under kq's suite

kq asks a broker for what AMQP promises, through Kombu's own API. `KombuSuite` (in
`kq_transports.conformance.kombu`) says it as tests. Here is what they find on kq's transports (`kq-…`) and
on those that come with Kombu {kombu}, with py-amqp {amqp} and redis-py {redis}.

✓ passed, **✗** failed, – does not apply: the transport's traits say so (memory is of one process; RabbitMQ
knows no ids). Kombu's own are set up as a careful user would: confirms on RabbitMQ, a visibility timeout of one
second on Redis. Several of kq's wishes, such as a delay or `connection.manager.browse`, are no part of
Kombu's promise; a ✗ there is a fact about what one can build on it, not a bug. Where a message is
lost, it is. `make transport-report` writes this page.

"""


@dataclass
class Results:
    """What became of each test on each transport. A pytest plugin."""

    seen: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        where, name = report.nodeid.rsplit("::", 1)
        test, transport = name.partition("[")[0], _transport(where)
        if report.outcome == "passed" and report.when != "call":
            return
        worst = max(self.seen[transport].get(test, ""), report.outcome, key=["", "passed", "skipped", "failed"].index)
        self.seen[transport][test] = worst


def _transport(where: str) -> str:
    return next(name for name, module in MODULES.items() if where.endswith(module))


def sections() -> list[tuple[str, list[str]]]:
    """Each part of the suite: what it is about, and its tests."""
    parts = [part for part in KombuSuite.__mro__ if any(name.startswith("test_") for name in vars(part))]
    return [((part.__doc__ or "").splitlines()[0], [n for n in vars(part) if n.startswith("test_")]) for part in parts]


def page(results: Results) -> str:
    """The whole page."""
    transports = [name for name in MODULES if results.seen[name]]
    lines = [_row(["", *(f"`{name}`" for name in transports)]), _row(["---", *([":-:"] * len(transports))])]
    for about, tests in sections():
        lines.append(_row([f"**{about.rstrip('.')}**", *([""] * len(transports))]))
        for test in tests:
            outcomes = [SIGNS.get(results.seen[name].get(test, ""), "") for name in transports]
            lines.append(_row([_sentence(test), *outcomes]))
    lines.append(_row(["**passed**", *(_score(results.seen[name]) for name in transports)]))
    versions = {name: version(name) for name in ("kombu", "amqp", "redis")}
    return HEAD.format(**versions) + "\n".join(lines) + "\n"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _score(outcomes: dict[str, str]) -> str:
    asked = [outcome for outcome in outcomes.values() if outcome != "skipped"]
    return f"{asked.count('passed')} of {len(asked)}"


def _sentence(test: str) -> str:
    return re.sub("_", " ", test.removeprefix("test_"))


def main() -> None:
    """Run the suite everywhere and write the page."""
    results = Results()
    modules = [str(HERE / module) for module in MODULES.values() if (HERE / module.partition("::")[0]).exists()]
    # Kombu's own transports warn of much; here only the outcome counts.
    options = ["-q", "--no-header", "--tb=no", "-p", "no:warnings", "-o", "filterwarnings=default", "--timeout", "40"]
    pytest.main([*options, "-n", "2", "--dist", "loadscope", *sys.argv[1:], *modules], plugins=[results])
    PAGE.write_text(page(results))


if __name__ == "__main__":
    main()
