"""`kq doctor`: is all there that jobs need? Each finding is one line, with the next step where something is wrong."""

from __future__ import annotations

import os
import select
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import click

from kq.app import App
from kq.broker import Delivery, Session, Settlement
from kq.cli.failing import NO, describe
from kq.cli.frame import flags, verb
from kq.cli.plain import printable
from kq.cli.show import print_json, print_table
from kq.cli.target import any_app, settings
from kq.clock import new_id
from kq.config import Loaded, misspelt
from kq.control import Control, Health
from kq.errors import LOOK, BrokerUnreachable, KqError
from kq.message import Envelope
from kq.state.store import Write
from kq.units import format_duration
from kq.url import redact

Level: TypeAlias = Literal["ok", "warn", "fail"]

#: Where the round trip goes through. Not listed by `kq queues ls`.
QUEUE = "kq.doctor"
#: Seconds that one round trip may take before it counts as failed.
PATIENCE = 5.0
#: Seconds by which two clocks may differ before times on screens mislead.
SKEW = 2.0

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
]

_COLORS = {"ok": "green", "warn": "yellow", "fail": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. fix: the next step, where there is one."""

    level: Level
    about: str
    message: str
    fix: str = ""


@verb("doctor")
def command() -> int:
    """Check settings, broker, state store, application and workers.

    Prints every setting with its origin, then what is well, then what is worth a look, then what is broken.
    Exit code 1 when something is broken.
    """
    loaded = settings()
    findings = sorted(examine(loaded), key=lambda finding: list(_COLORS).index(finding.level))
    broken = any(finding.level == "fail" for finding in findings)
    if flags().json:
        rows = [{"key": key, "value": value, "origin": origin} for key, value, origin in loaded.rows()]
        found = [{"level": f.level, "about": f.about, "message": f.message, "fix": f.fix or None} for f in findings]
        print_json({"ok": not broken, "settings": rows, "findings": found})
        return NO if broken else 0
    print_table(["SETTING", "VALUE", "FROM"], loaded.rows())
    click.echo()
    for finding in findings:
        _tell(finding)
    return NO if broken else 0


def _tell(finding: Finding) -> None:
    level = click.style(finding.level.ljust(4), fg=_COLORS[finding.level], bold=True)
    click.echo(f"{level}  {finding.about}: {printable(finding.message)}")
    if finding.fix:
        click.echo(f"      {printable(finding.fix)}")


def examine(loaded: Loaded) -> list[Finding]:
    """All findings. A check whose ground is missing is left out: the ground's own finding tells."""
    findings = [*_settings(loaded)]
    try:
        app = any_app(loaded)
        findings += _application(app, loaded.config.app)
    except KqError as error:
        findings.append(_failed("application", error))
        app = App("kq", flags().url)
    try:
        _follow(app, findings)
    finally:
        app.close()
    return findings


def _follow(app: App, findings: list[Finding]) -> None:
    """Follow a job's way from the URL to the workers, as far as it goes."""
    if not _extend(findings, "URL", lambda: _address(app)):
        return
    reached = _extend(findings, "broker", lambda: _broker(app))
    if not reached and not app.address.state_stays_here:
        return
    kept = _extend(findings, "state", lambda: _state(app))
    if reached and kept:
        _extend(findings, "workers", lambda: _workers(app))


def _extend(findings: list[Finding], about: str, check: Callable[[], Iterator[Finding]]) -> bool:
    """Add what check finds; its error is a finding too. Whether it came to its end."""
    try:
        findings.extend(check())
    except (KqError, OSError) as error:
        findings.append(_failed(about, error))
        return False
    return True


def _failed(about: str, error: Exception) -> Finding:
    told = describe(error)
    message = f"{told['message']} ({told['code']})" if told["code"] else told["message"]
    return Finding("fail", about, message, "" if told["fix"] == LOOK else told["fix"])


def _settings(loaded: Loaded) -> Iterator[Finding]:
    yield Finding("ok", "settings", f"read from {loaded.file}" if loaded.file else "no config file, the defaults count")
    for name, meant in misspelt(os.environ).items():
        yield Finding("warn", "settings", f"{name} is set but means nothing to kq", f"Did you mean {meant}?")
    if loaded.file and stat.S_IMODE(loaded.file.stat().st_mode) & 0o044 and _has_password(loaded, loaded.file):
        fix = "Write url_file: or ${NAME}, or chmod 600 it."
        yield Finding("warn", "settings", f"{loaded.file.name} holds a password and others may read it", fix)


def _has_password(loaded: Loaded, file: Path) -> bool:
    """Whether a password is written in the config file itself."""
    urls = {"url": loaded.config.url, "state": loaded.config.state or ""}
    written = [url for key, url in urls.items() if loaded.origins.get(key, "").startswith(file.name)]
    return any(redact(url) != url for url in written) and "${" not in file.read_text()


def _address(app: App) -> Iterator[Finding]:
    yield Finding("ok", "URL", app.address.redacted)


def _broker(app: App) -> Iterator[Finding]:
    app.broker.reach()
    with Control(app) as control:
        control.round_trip()
        yield Finding("ok", "broker", f"answers in {format_duration(control.round_trip())}")
        for name, value in control.facts().items():
            yield from fact(name, value, app.address.local)
    yield Finding("ok", "broker", f"submit, take and settle one job: {format_duration(round_trip(app))}")
    if not app.broker.traits.durable:
        yield Finding("warn", "broker", "keeps jobs only as long as this process lives", "Use it for tests.")


def fact(name: str, value: str, local: bool) -> Iterator[Finding]:
    """What a fact that a server tells of itself is worth. local: it is on this host."""
    if (name, value) == ("auth", "no") and not local:
        fix = "Give the server a password: requirepass in redis.conf, and redis://:PASSWORD@… in url_file:."
        yield Finding(
            "warn", "broker", "asks for no password: whoever reaches it may read, change and submit jobs", fix
        )
        return
    told = [(level, why, fix) for known, when, level, why, fix in ADVICE if known == name and when(value)]
    for level, why, fix in told:
        yield Finding(level, "broker", f"{name} is {value}: {why}", fix)
    if not told:
        yield Finding("ok", "broker", f"{name} {value}")


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
            if left <= 0:
                raise BrokerUnreachable(f"a message did not come back within {format_duration(PATIENCE)}", stored="yes")
            if not session.drain():
                descriptor, due = session.watch()
                select.select([descriptor], [], [], left if due is None else min(left, due))
        session.settle([Settlement(delivery) for delivery in arrived])
    finally:
        session.close()
    return time.monotonic() - began


def _state(app: App) -> Iterator[Finding]:
    key = f"doctor:{new_id()}"
    began = time.monotonic()
    app.store.write([Write(key, b"1", 60.0), Write(key, None)])
    took = time.monotonic() - began
    yield Finding("ok", "state", f"kept in {redact(app.address.state)}, a write takes {format_duration(took)}")
    if app.address.state_stays_here:
        fix = "Name a store that all hosts share: state: redis://… in kq.yaml. On one host it is fine."
        yield Finding("warn", "state", "results and worker records are kept in a file of this host", fix)
    skew = abs(app.store.now() - time.time())
    if skew > SKEW:
        fix = "Let both follow a time server. kq uses the broker's clock; times on screens may mislead."
        yield Finding("warn", "state", f"its clock and this host's differ by {format_duration(skew)}", fix)


def _workers(app: App) -> Iterator[Finding]:
    with Control(app) as control:
        beats = control.heartbeat_check()
        for beat in beats:
            if beat.health is not Health.ALIVE:
                fix = "Its jobs go to others when its lease is over." if beat.health is Health.LATE else ""
                yield Finding(
                    "warn",
                    "workers",
                    f"{beat.worker.name} is {beat.health}, last beat {format_duration(beat.age)} ago",
                    fix,
                )
        alive = [beat for beat in beats if beat.health is Health.ALIVE]
        yield (
            Finding("ok", "workers", f"{len(alive)} alive")
            if alive
            else Finding("warn", "workers", "none is alive", "Start one: kq worker")
        )
        yield from _gauges(control)
        for queue in control.queues():
            if alive and queue.ready and not queue.workers:
                fix = f"Start a worker for it: kq worker -Q {queue.name}"
                yield Finding("warn", "workers", f"queue {queue.name} has {queue.ready} jobs ready and no worker", fix)


def _gauges(control: Control) -> Iterator[Finding]:
    gauges = control.health()
    for ids, what in (
        (gauges.held_without_lease, "held by a worker whose lease is over"),
        (gauges.past_limit, "running past its limit"),
    ):
        for id in ids:
            yield Finding("warn", "workers", f"job {id} is {what}", f"kq jobs why {id} says more.")


def _application(app: App, where: str | None) -> Iterator[Finding]:
    types = ", ".join(sorted(app.jobs))
    if where is None:
        yield Finding(
            "warn", "application", "none is named", "-A module:app, KQ_APP, or app: in kq.yaml; kq init makes one."
        )
    elif types:
        yield Finding("ok", "application", f"{where} has {len(app.jobs)} job types: {types}")
    else:
        yield Finding("warn", "application", f"{where} has no job types", "Define one: @app.job")
