"""`kq doctor`: is all there that jobs need? Each finding is one line, with the next step where something is wrong.

It follows a job's way: `host` looks at settings and this machine, `application` at the job types, `server` at broker
and state store, `crew` at the workers. A check whose ground is missing is left out: the ground's own finding tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import click

from kq.app import App
from kq.cli.doctor import alerts, application, crew, host, server
from kq.cli.doctor.finding import LEVELS, Finding, failed
from kq.cli.failing import NO
from kq.cli.frame import flags, verb
from kq.cli.show import print_json, print_table
from kq.cli.target import any_app, settings
from kq.errors import ConfigError, KqError
from kq.plain import printable
from kq.values.given import Loaded

_COLORS = {"ok": "green", "warn": "yellow", "fail": "red"}


@verb("doctor")
def command() -> int:
    """Check settings, this host, application, broker, state store and workers.

    Prints every setting with its origin, then what is well, then what is worth a look, then what is broken.
    Exit code 1 when something is broken.
    """
    try:
        loaded = settings()
    except ConfigError as error:
        rows, found = [], [failed("settings", error)]
    else:
        rows, found = loaded.rows(), examine(loaded)
    findings = sorted(found, key=lambda finding: LEVELS.index(finding.level))
    broken = any(finding.level == "fail" for finding in findings)
    if flags().json:
        told = [{"key": key, "value": value, "origin": origin} for key, value, origin in rows]
        as_data = [{"level": f.level, "about": f.about, "message": f.message, "fix": f.fix or None} for f in findings]
        print_json({"ok": not broken, "settings": told, "findings": as_data})
    else:
        print_table(["SETTING", "VALUE", "FROM"], rows)
        _tell(findings)
    return NO if broken else 0


def _tell(findings: Iterable[Finding]) -> None:
    """In groups: what is broken stands last, where the eye is."""
    level = ""
    for finding in findings:
        if finding.level != level:
            click.echo()
        level = finding.level
        label = click.style(level.ljust(4), fg=_COLORS[level], bold=True)
        click.echo(f"{label}  {finding.about}: {printable(finding.message)}")
        if finding.fix:
            click.echo(f"      {printable(finding.fix)}")


def examine(loaded: Loaded) -> list[Finding]:
    """All findings, as they come."""
    findings = [*host.settings(loaded), *host.this_host(loaded.config.worker)]
    try:
        app = any_app(loaded)
        findings += application.look(app, loaded.config.app)
    except KqError as error:
        findings.append(failed("application", error))
        app = App("kq", flags().url)
    try:
        _follow(app, findings)
    finally:
        app.close()
    return findings


def _follow(app: App, findings: list[Finding]) -> None:
    """From the URL to the workers, as far as it goes."""
    if not _extend(findings, "URL", lambda: server.address(app)):
        return
    _extend(findings, "alerts", lambda: alerts.channels(app))
    _extend(findings, "mail", lambda: alerts.mailers(app))
    reached = _extend(findings, "broker", lambda: server.broker(app))
    if not reached and not app.address.state_stays_here:
        return
    kept = _extend(findings, "state", lambda: server.state(app))
    if reached and kept:
        _extend(findings, "queues", lambda: server.queues(app))
        _extend(findings, "workers", lambda: crew.look(app))
        _extend(findings, "alerts", lambda: alerts.rules(app))
        _extend(findings, "alerts", lambda: alerts.unsent(app))


def _extend(findings: list[Finding], about: str, check: Callable[[], Iterator[Finding]]) -> bool:
    """Add what check finds; its error is a finding too. Whether it came to its end."""
    try:
        findings.extend(check())
    except (KqError, OSError) as error:
        findings.append(failed(about, error))
        return False
    return True
