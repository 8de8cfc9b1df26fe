"""The rows of the table: what each is called, how it is written, and what it is to reach."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.place import BROKERS


@dataclass(frozen=True, slots=True)
class Row:
    """One line. unit: what its values are multiplied by. base: the row of the loop by hand, for a ratio.

    aims: what it is to reach on each broker, in the table's unit; times: the same as a multiple of base.
    most: whether less is better.
    """

    name: str
    text: str
    unit: float = 1e6
    form: str = "{:.0f}"
    base: str = ""
    aims: dict[str, float] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    most: bool = True
    short: bool = False


def on(*aims: float | None) -> dict[str, float]:
    """Aims by broker: one for all, or memory, sqlite, redis, rabbitmq."""
    each = aims * len(BROKERS) if len(aims) == 1 else aims
    return {name: aim for name, aim in zip(BROKERS, each, strict=True) if aim is not None}


MS, PERCENT, MIB, PLAIN = 1e3, 100.0, 1 / 2**20, 1.0

ROWS = [
    Row("hand-one", "by hand: submit one by one, CPU µs", short=True),
    Row("hand-bulk", "by hand: submit in bulk, CPU µs a job", form="{:.1f}", short=True),
    Row("hand-drain", "by hand: drain, CPU µs a job", form="{:.1f}", short=True),
    Row(
        "submit-one",
        "submit one by one, CPU µs",
        base="hand-one",
        aims=on(40, None, 60, None),
        times={"sqlite": 1.3, "rabbitmq": 1.3},
        short=True,
    ),
    Row("submit-bulk", "submit in bulk, CPU µs a job", base="hand-bulk", aims=on(15, 15, 15, 60), short=True),
    Row("drain-thread", "drain, thread pool, CPU µs a job", base="hand-drain", aims=on(40, 60, 50, 100), short=True),
    Row("rate-thread", "drain, thread pool, jobs/s", PLAIN, "{:,.0f}", aims=on(None, None, 20e3, 9e3), most=False),
    Row("drain-process", "drain, process pool, CPU µs a job", base="hand-drain", aims=on(70, 90, 90, 140), short=True),
    Row("rate-process", "drain, process pool, jobs/s", PLAIN, "{:,.0f}"),
    Row("drain-async", "drain, async pool, CPU µs a job", base="hand-drain", aims=on(40, 60, 50, 100), short=True),
    Row("rate-async", "drain, async pool, jobs/s", PLAIN, "{:,.0f}"),
    Row("drain-async-plain", "drain, async pool, plain functions, CPU µs a job", base="hand-drain"),
    Row("results", "results stored and fetched, added CPU µs a job", aims=on(10, 25, 25, 40)),
    Row("hand-stored", "by hand: a message stored and known to be, p50 ms", MS, "{:.2f}"),
    Row("start-p50", "start at an idle worker, process pool, p50 ms", MS, "{:.2f}", aims=on(0.6, 1.2, 1.2, 2)),
    Row("start-p99", "start at an idle worker, process pool, p99 ms", MS, "{:.2f}", aims=on(2, 4, 3.5, 5)),
    Row("result-p50", "submit to result, p50 ms", MS, "{:.2f}", aims=on(1, 2, 2, 3)),
    Row("at-once-p50", "10 000 due at once, late beyond a drain, p50 ms", MS, "{:.0f}", aims=on(20)),
    Row("at-once-p99", "10 000 due at once, late beyond a drain, p99 ms", MS, "{:.0f}", aims=on(100)),
    Row("in-row-p50", "due at 200/s, late, p50 ms", MS, "{:.1f}", aims=on(2, 5, 5, 20)),
    Row("in-row-p99", "due at 200/s, late, p99 ms", MS, "{:.1f}", aims=on(10, 20, 20, 100)),
    Row("early", "of those, too early", PLAIN, "{:.0f}", aims=on(0)),
    Row("backlog-one", "with a backlog: submit one by one, added %", PERCENT, aims=on(20)),
    Row("backlog-bulk", "with a backlog: submit in bulk, added %", PERCENT, aims=on(20)),
    Row("backlog-drain", "with a backlog: drain, added %", PERCENT, aims=on(20)),
    Row("bytes", "server memory, bytes a waiting job", PLAIN, aims=on(None, None, 300, None)),
    Row("naps-thread", "2 000 × 10 ms of sleep, 50 threads, % of the ideal", PERCENT, aims=on(90), most=False),
    Row("naps-async", "2 000 × 10 ms of sleep, 50 coroutines, % of the ideal", PERCENT, aims=on(90), most=False),
    Row("spins", "10 ms of CPU, process pool, % of bare processes", PERCENT, aims=on(95), most=False),
    Row("spins-served", "of the cores' time then, with the broker's server, %", PERCENT),
    Row("processes", "1 → 2 --processes, jobs of 10 ms of CPU, ×", PLAIN, "{:.2f}", aims=on(1.8), most=False),
    Row("processes-served", "of the cores' time with two, with the broker's server, %", PERCENT),
    Row("limits", "a limit on the queue: drain, added %", PERCENT, aims=on(10)),
    Row("priorities", "nine priorities: drain, added %", PERCENT, aims=on(10)),
    Row("unique-one", "a unique key: submit one by one, added %", PERCENT, aims=on(10)),
    Row("unique-bulk", "unique keys: submit in bulk, added %", PERCENT, aims=on(10)),
    Row("idle-pss", "idle worker, 10 executors, MiB PSS", MIB, aims=on(None, 80, 80, 80)),
    Row("idle-pss-thread", "idle worker, 10 threads, MiB PSS", MIB, aims=on(None, 35, 35, 35)),
    Row("idle-cpu", "idle worker, 10 executors, % of a core", PERCENT, "{:.2f}", aims=on(0.5)),
    Row("first-job", "start of kq worker to its first job, s", PLAIN, "{:.2f}", aims=on(0.4)),
    Row("reload", "SIGHUP to the first job of the new code, s", PLAIN, "{:.2f}"),
    Row("import", "import kq, CPU ms", MS, aims=on(120)),
]
