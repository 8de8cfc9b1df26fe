"""The doctor on broker and state store: reached, new and safe enough, quick, on time, and with fitting queues."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from kq.app import App
from kq.broker import Delivery, Session, Settlement
from kq.cli.doctor.finding import Finding, Level, failed
from kq.clock import SYSTEM, new_id
from kq.control import Control
from kq.errors import BrokerUnreachable
from kq.state.store import Write
from kq.units import format_duration
from kq.url import redact
from kq.values.advice import SKEW
from kq.values.message import Envelope

#: Where the round trip goes through. Not listed by `kq queues ls`.
QUEUE = "kq.doctor"
#: Seconds that one round trip may take before it counts as failed.
PATIENCE = 5.0

#: Bytes that the log of an SQLite file may have: 64 MiB stay of a large one, and a group of 100 000 jobs takes as much.
LOG_LIMIT = 256 * 2**20

#: What some facts that servers tell of themselves mean for jobs: fact, values, how bad, why, the remedy.
ADVICE: list[tuple[str, Callable[[str], bool], Level, str, str]] = [
    (
        "maxmemory-policy",
        lambda policy: policy not in ("noeviction", "unknown"),
        "fail",
        "when its memory is full the server drops jobs in silence",
        "redis-cli config set maxmemory-policy noeviction, and in redis.conf",
    ),
    (
        "appendonly",
        lambda value: value == "no",
        "warn",
        "jobs are lost when the server restarts",
        "redis-cli config set appendonly yes, and in redis.conf",
    ),
    (
        "appendfsync",
        lambda value: value == "no",
        "warn",
        "what the server stored last is lost when its host loses power",
        "redis-cli config set appendfsync everysec, and in redis.conf",
    ),
    (
        "log bytes",
        lambda value: int(value) > LOG_LIMIT,
        "warn",
        "a program has been reading the file for so long that what is in its log cannot go into it",
        "End that program, or its transaction: fuser -v on the file names who has it open",
    ),
]
#: The first version of each product that keeps the contract.
OLDEST = {"redis": (6, 2), "valkey": (7, 2), "RabbitMQ": (3, 13)}
#: In each line of releases, the first without CVE-2025-49844: whoever may run a script runs code on the server.
MENDED = {
    "redis": [(6, 2, 20), (7, 2, 11), (7, 4, 6), (8, 0, 4), (8, 2, 2)],
    "valkey": [(7, 2, 11), (8, 0, 6), (8, 1, 4)],
}


def address(app: App) -> Iterator[Finding]:
    """That the URL is one."""
    yield Finding("ok", "URL", app.address.redacted)


def broker(app: App) -> Iterator[Finding]:
    """That it is reached, lets us in, is set up well, and carries a message."""
    app.broker.reach()
    with Control(app) as control:
        control.round_trip()
        yield Finding("ok", "broker", f"answers in {format_duration(control.round_trip())}")
        facts = control.facts()
    yield from unreadable(facts.pop("unreadable", ""))
    for name, value in facts.items():
        yield from fact(name, value)
    yield from version(facts.get("product", ""), facts.get("version", ""))
    yield from door(app.address.local, facts.get("auth", ""))
    if "file" in facts:
        yield from guarded(Path(facts["file"]))
    yield Finding("ok", "broker", f"submit, take and settle one job: {format_duration(round_trip(app))}")
    if not app.broker.traits.durable:
        yield Finding("warn", "broker", "keeps jobs only as long as this process lives", "Use it for tests.")


def fact(name: str, value: str) -> Iterator[Finding]:
    """What a fact that the server tells of itself means."""
    told = [(level, why, fix) for known, when, level, why, fix in ADVICE if known == name and when(value)]
    for level, why, fix in told:
        yield Finding(level, "broker", f"{name} is {value}: {why}", fix)
    if not told:
        yield Finding("ok", "broker", f"{name} {value}")


def version(product: str, text: str) -> Iterator[Finding]:
    """What a server's version means: too old to keep the contract, or known to be open."""
    number = tuple(map(int, re.findall(r"\d+", text)[:3]))
    if not number or product not in OLDEST:
        return
    if number < OLDEST[product]:
        oldest = ".".join(map(str, OLDEST[product]))
        fix = f"Update it: kq is tested from {oldest} on."
        yield Finding("fail", "broker", f"{product} {text} is too old to keep what kq promises", fix)
    line = [mended for mended in MENDED.get(product, ()) if mended[:2] == number[:2]]
    newest = max(MENDED.get(product, [number]))
    if number < (line[0] if line else newest):
        fix = "Update it, unless your distribution has mended it under the old number."
        yield Finding("warn", "broker", f"{product} {text} has CVE-2025-49844: its scripts can break out", fix)


def unreadable(where: str) -> Iterator[Finding]:
    """Entries of queues that are none of kq's messages. where: how many, in what, and how they are removed."""
    if where:
        what = f"entries that can't be read were set aside: {where}"
        yield Finding("warn", "broker", what, "Find the program that wrote them, then remove them.")


def door(local: bool, auth: str) -> Iterator[Finding]:
    """Whether strangers may come in. local: the server is on this host. auth: "no" when it asks for no password."""
    if auth == "no" and not local:
        what = "it asks for no password: whoever reaches its port may read, change and submit jobs"
        fix = "Set requirepass or users (ACL), keep the URL in url_file:, and open its firewall to your hosts only."
        yield Finding("warn", "broker", what, fix)


def guarded(path: Path) -> Iterator[Finding]:
    """Whether others may read or replace the file of a broker."""
    if path.stat().st_mode & 0o077:
        what = f"{path} may be read or written by others: so may all arguments and results"
        yield Finding("warn", "broker", what, f"chmod 600 {path}, unless workers of another user share it")
    folder = path.parent.stat()
    if folder.st_mode & 0o022:
        what = f"the folder {path.parent} may be written by others, who can put another file in its place"
        yield Finding("warn", "broker", what, "Keep it in a folder of the user that runs kq, with mode 700 or 755.")


def round_trip(app: App) -> float:
    """Seconds that a message takes through the broker: stored, delivered, settled. Raises BrokerUnreachable."""
    began = time.monotonic()
    id = new_id()
    app.publisher.publish([Envelope(id, QUEUE, b"{}")], began + app.submit_timeout)
    arrived: list[Delivery] = []
    session = Session(app.broker, f"doctor-{id[-8:]}", app.lease, {QUEUE: 10}, arrived.append)
    try:
        while not any(delivery.id == id for delivery in arrived):
            left = began + PATIENCE - time.monotonic()
            if left <= 0 or not session.next(left):
                raise BrokerUnreachable(f"a message did not come back within {format_duration(PATIENCE)}", stored="yes")
        session.settle([Settlement(delivery) for delivery in arrived])
    finally:
        session.close()
    return time.monotonic() - began


def state(app: App) -> Iterator[Finding]:
    """That the state store is there, where others see it, and on time."""
    key = f"doctor:{new_id()}"
    began = time.monotonic()
    app.store.write([Write(key, b"1", 60.0), Write(key, None)])
    took = time.monotonic() - began
    yield Finding("ok", "state", f"kept in {redact(app.address.state)}, a write takes {format_duration(took)}")
    if app.address.state_stays_here:
        fix = "Name a store that all hosts share: state: redis://… in kq.yaml. On one host it is fine."
        yield Finding("warn", "state", "results and worker records are kept in a file of this host", fix)
    yield from clock("its clock and this host's", app.store.now() - SYSTEM.now(), "state")


def clock(whose: str, ahead: float, about: str) -> Iterator[Finding]:
    """Whether two clocks agree. ahead: seconds."""
    if abs(ahead) > SKEW:
        fix = (
            "Let both follow a time server: timedatectl set-ntp true. Leases and delays follow the broker's clock, "
            "but times on screens may mislead."
        )
        yield Finding("warn", about, f"{whose} differ by {format_duration(abs(ahead))}", fix)


def queues(app: App) -> Iterator[Finding]:
    """That the queues which are there were declared as kq declares them."""
    with Control(app) as control:
        yield from (failed("queues", error) for error in control.misfits())
