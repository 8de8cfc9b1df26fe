"""What the monitor may see: a shop whose mail server has a bad day, at a fixed moment."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from kq.cli.monitor.scene import Book, JobRow, Page, Scene
from kq.values.snapshot import (
    FailedRow,
    FailureRow,
    HeldRow,
    History,
    Paused,
    Point,
    Progress,
    QueueRow,
    RunningRow,
    SingletonRow,
    Snapshot,
    Totals,
    WorkerRow,
)

AT = 1_780_000_062.0


def points(values: Callable[[int], tuple[float, float, float | None]]) -> tuple[Point, ...]:
    """Ten minutes; values: jobs that ended a second, that failed, and seconds that they waited."""
    found = [(AT - 10 * (59 - number), values(number)) for number in range(60)]
    return tuple(
        Point(at=at, came=30.0, ended=out, failed=bad, wait_p95=wait, jobs=9) for at, (out, bad, wait) in found
    )


GROWS = points(lambda n: (22 + 4 * math.sin(n / 5), 0.2 * (n % 7), 0.2 + max(0, n - 20) ** 1.6 / 25))
LEVEL = points(lambda n: (8 + math.sin(n / 2), 0.0, 0.3 + 0.2 * math.sin(n)))

HELD = HeldRow(worker="app-1-9f3c", queue="default", jobs=2, seconds=12.3)
QUEUES = (
    QueueRow(
        name="default",
        ready=1706,
        delayed=12,
        retrying=9,
        running=6,
        held=8,
        held_by=(HELD,),
        oldest=48.0,
        wait_p50=30.0,
        wait_p95=41.0,
        run_p50=0.2,
        run_p95=1.1,
        came=31.0,
        ended=22.4,
        failed=1.2,
        state="growing",
        workers=2,
        slots=8,
    ),
    QueueRow(
        name="imports",
        ready=212,
        oldest=372.0,
        came=2.0,
        ended=0.0,
        failed=0.0,
        state="paused",
        paused=Paused(what="imports", at=AT - 372, by="ana@ops-2", reason="the bank is closed"),
        workers=2,
        slots=8,
    ),
    QueueRow(
        name="mail",
        ready=4,
        delayed=30,
        retrying=8,
        running=1,
        buried=3,
        oldest=0.4,
        wait_p95=0.5,
        came=8.2,
        ended=8.2,
        failed=0.9,
        drain=0.0,
        state="busy",
        workers=1,
        slots=1,
        singleton=True,
        holder="mailer-4c1e",
    ),
    QueueRow(name="reports", running=1, oldest=0.0, wait_p95=0.01, came=0.1, ended=0.1, failed=0.0, drain=0.0),
)


def running(
    id: str, type: str, queue: str, seconds: float, progress: Progress | None = None, **arguments: object
) -> RunningRow:
    return RunningRow(
        id=id,
        type=type,
        queue=queue,
        seconds=seconds,
        limit=60.0,
        executor=7,
        progress=progress,
        arguments=arguments,
    )


WORKERS = (
    WorkerRow(
        name="app-1-9f3c",
        host="app-1",
        pid=2211,
        state="alive",
        beat_age=0.4,
        lease=15.0,
        lease_left=14.6,
        started=AT - 90_000,
        code="1.4.0",
        pool="process",
        slots=4,
        queues={"default": 4, "imports": 4, "reports": 4},
        executors=(2220, 2221, 2222, 2223),
        rss=142 << 20,
        cpu=0.97,
        ok=88_102,
        failed=12,
        held=(HELD,),
        running=(
            running(
                "019e6f1a01",
                "shop.render",
                "default",
                19.8,
                Progress(n=7, of=10, text="page 7", at=AT - 1),
                doc="report.pdf",
            ),
            *(running(f"019e6f1a0{number}", "shop.resize", "default", 9.0 - number) for number in range(2, 5)),
        ),
    ),
    WorkerRow(
        name="app-2-1d20",
        host="app-2",
        pid=1908,
        state="alive",
        beat_age=0.9,
        lease=15.0,
        lease_left=14.1,
        started=AT - 90_000,
        code="1.3.9",
        pool="process",
        slots=4,
        queues={"default": 4, "imports": 4, "reports": 4},
        executors=(1910,),
        rss=120 << 20,
        cpu=0.41,
        ok=80_411,
        failed=9,
        running=(
            running("019e6f1b01", "shop.add", "default", 0.1, a=1, b=2),
            running("019e6f1b02", "shop.report", "reports", 0.05),
        ),
    ),
    WorkerRow(
        name="app-3-77aa",
        host="app-3",
        pid=77,
        state="dead",
        beat_age=41.0,
        lease=15.0,
        lease_left=0.0,
        started=AT - 3000,
        retired=AT - 20,
        code="1.4.0",
        pool="process",
        slots=4,
        queues={"default": 4},
        ok=12_090,
        failed=4,
        running=(running("019e6f1c01", "shop.resize", "default", 44.0),),
    ),
    WorkerRow(
        name="mailer-4c1e",
        host="app-1",
        pid=2213,
        state="late",
        beat_age=9.1,
        lease=15.0,
        lease_left=5.9,
        started=AT - 80_000,
        code="1.4.0",
        pool="thread",
        slots=2,
        queues={"mail": 1},
        rss=88 << 20,
        cpu=0.03,
        ok=40_222,
        failed=131,
        singletons=("mail",),
        running=(running("019e6f1d01", "shop.send_email", "mail", 9.4),),
    ),
)

GREYLISTED, NO_USER = "SMTPServerDisconnected: 451 greylisted", "SMTPRecipientsRefused: 550 no such user"
NO_CUSTOMER = "ValueError: invoice 1042 has no customer"


def failed(id: str, ago: float, type: str, queue: str, attempt: int, error: str, again: float | None) -> FailedRow:
    due, of = (None, attempt) if again is None else (AT + again, 5)
    return FailedRow(
        at=AT - ago, id=id, type=type, queue=queue, attempt=attempt, error=error, worker="w", next=due, of=of
    )


SHOT = Snapshot(
    at=AT,
    url="redis://cache-1:6379/0",
    transport="redis",
    round_trip=0.0004,
    control="app-1-9f3c",
    totals=Totals(
        ready=1922,
        delayed=42,
        retrying=17,
        running=8,
        buried=3,
        workers=3,
        known=4,
        slots=10,
        came=41.3,
        ended=30.7,
        failed=2.1,
        oldest=372.0,
        wait_p95=12.4,
    ),
    queues=QUEUES,
    workers=WORKERS,
    failures=(
        FailureRow(
            type="shop.send_email",
            queue="mail",
            exception="smtplib.SMTPServerDisconnected",
            place="mail.py:send",
            message=GREYLISTED,
            failed=131,
            buried=0,
            last=AT - 2,
            job="019e6f2a01",
        ),
        FailureRow(
            type="shop.bill",
            queue="default",
            exception="ValueError",
            place="billing.py:bill",
            message=NO_CUSTOMER,
            failed=1,
            buried=1,
            last=AT - 14,
            job="019e6f2b01",
        ),
    ),
    recent=(
        failed("019e6f2a01", 2, "shop.send_email", "mail", 2, GREYLISTED, 8.0),
        failed("019e6f2b01", 14, "shop.bill", "default", 1, NO_CUSTOMER, None),
        failed("019e6f2c01", 31, "shop.send_email", "mail", 5, NO_USER, None),
        failed("019e6f2a01", 32, "shop.send_email", "mail", 1, GREYLISTED, -2.0),
    ),
    singletons=(SingletonRow(queue="mail", holder="mailer-4c1e", lease_left=5.9),),
    history=History(total=GROWS, queues={"default": GROWS, "mail": LEVEL, "reports": LEVEL}),
)
SCENE = Scene(now=AT + 1, shot=SHOT, age=1.0, app="shop")

BURIED = JobRow("019e6f2b01", "shop.bill", "default", "buried", 1, AT - 14, note=NO_CUSTOMER)
RETRYING = JobRow("019e6f2a01", "shop.send_email", "mail", "retrying", 2, AT - 2, AT + 8, GREYLISTED)
BILL = Page("job", "019e6f2b01", "default", "shop.bill")
BILL_BOOK = Book(
    BILL,
    (
        ("why", "job 019e6f2b01 was buried 14 s ago: ValueError: invoice 1042 has no customer"),
        ("id", "019e6f2b01"),
        ("type", "shop.bill"),
        ("arguments", 'shop.bill(1042, token="***")'),
        ("attempt 1", "raised after 12ms on app-1-9f3c: ValueError: invoice 1042 has no customer"),
        (" ", "Traceback (most recent call last):"),
        (" ", '  File "shop/billing.py", line 88, in bill'),
        (" ", '    raise ValueError(f"invoice {id} has no customer")'),
        (" ", "ValueError: invoice 1042 has no customer"),
    ),
    (BURIED,),
)
DEFAULT = Page("queue", "default")
DEFAULT_BOOK = Book(
    DEFAULT,
    (("why", "queue default: 2 workers run 6 of at most 8; 1706 jobs are ready"),),
    (
        JobRow("019e6f1a01", "shop.render", "default", "running", 1, AT - 90, worker="app-1-9f3c"),
        JobRow("019e6f3a01", "shop.resize", "default", "ready", 0, AT - 48),
        JobRow("019e6f3b01", "shop.add", "default", "delayed", 0, AT - 40, AT + 300),
        BURIED,
    ),
)


#: 70 characters of a queue, a job type and a worker, that differ at their ends.
LONG_QUEUE = "orders-of-the-big-customers-in-europe-that-pay-by-invoice-and-late"
LONG_TYPE = "shop.billing.invoices.send_the_monthly_statement_to_the_customers"
LONG_WORKER = "worker-of-the-month-in-the-third-rack-on-the-left-side-host-0a1b2c"


def with_long_names(shot: Snapshot) -> Snapshot:
    """The same with names of 70 characters."""
    queues = {row.name: f"{LONG_QUEUE}-{number:03}" for number, row in enumerate(shot.queues)}
    workers = {row.name: f"{LONG_WORKER}-{number:03}" for number, row in enumerate(shot.workers)}

    def long(text: str) -> str:
        return (
            queues.get(text) or workers.get(text) or (f"{LONG_TYPE}.{text[5:]}" if text.startswith("shop.") else text)
        )

    def named(value: object) -> object:
        match value:
            case msgspec.Struct():
                return type(value)(**{name: named(getattr(value, name)) for name in value.__struct_fields__})
            case str():
                return long(value)
            case tuple():
                return tuple(map(named, value))
            case dict():
                return {long(key): named(one) for key, one in value.items()}
            case _:
                return value

    made = named(shot)
    assert isinstance(made, Snapshot)
    return made
