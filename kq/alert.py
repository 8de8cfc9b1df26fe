"""Alerts: telling a human what happened, by mail, webhook or command. A job type like any other, made of public parts.

Control decides when there is something to tell (`kq.control.bell`) and submits an alert; a worker sends it by each
channel once (promise C13). In doubt it is sent again: an alert that comes twice is better than one that lies buried.
"""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from kq.app import App
from kq.effects.context import current_job
from kq.errors import NotDone
from kq.gate import Gate
from kq.handles.trouble import ALERT, queue_of
from kq.mail import Mail, Postman
from kq.mailurl import parse_mail_url
from kq.smtp import post_to
from kq.values.config import Alerts
from kq.values.job import HIGHEST
from kq.values.policy import Exponential
from kq.values.redaction import one_line

#: Seconds that an answer may take, and a command.
PATIENCE = 30.0
#: Seconds that it is remembered which alerts were sent.
REMEMBER = 30 * 86400.0
#: More than anybody is told; how often is for control to say.
MANY = 1_000_000
#: Eight hours of a mail server that is away.
RETRIES = Exponential(first=5, factor=2, longest=900, retries=40)


def register_alerts(app: App) -> None:
    """Give app the job type that sends alerts."""
    channels = list(_channels(app))

    def tell(subject: str, text: str, groups: list[dict[str, Any]], rule: dict[str, Any] | None = None) -> list[str]:
        """Tell everybody; raises when one of them could not be told, to be tried again."""
        told, wrong = list[str](), list[NotDone]()
        for name, send in channels:
            try:
                send(subject, text, {"groups": groups, "rule": rule})
                told.append(name)
            except NotDone as error:
                wrong.append(error)
        if wrong:
            raise NotDone("; ".join(error.message for error in wrong))
        return told

    app.job(name=ALERT, queue=queue_of(app.name), priority=HIGHEST, timeout=10 * PATIENCE, retry_policy=RETRIES)(tell)


#: Tells subject and text; to programs also what these are about, as data.
Send = Callable[[str, str, dict[str, Any]], None]


def _channels(app: App) -> Iterator[tuple[str, Send]]:
    """How people are told, each by its name."""
    alerts = app.alerts
    if alerts.mail:
        yield "mail", _by_mail(app, alerts)
    if alerts.webhook:
        hook = alerts.webhook
        yield "webhook", _once("webhook", lambda subject, text, data: post(hook, subject, text, data))
    if alerts.command:
        command = alerts.command
        yield "command", _once("command", lambda subject, text, data: run(command, subject, text))


def _by_mail(app: App, alerts: Alerts) -> Send:
    gate = Gate(app, ALERT, MANY, MANY, MANY)
    sender = alerts.sender or f"kq@{socket.getfqdn()}"
    postman = Postman(app, ALERT, sender, "repeat", REMEMBER, gate, lambda: post_to(parse_mail_url(app.mail), PATIENCE))

    def send(subject: str, text: str, data: dict[str, Any]) -> None:
        postman.deliver(Mail(alerts.mail or (), subject, text))

    return send


def _once(channel: str, send: Send) -> Send:
    """send, once for each alert."""

    def send_once(subject: str, text: str, data: dict[str, Any]) -> None:
        job = current_job()
        assert job is not None
        with job.once(f"{ALERT}:{job.id}:{channel}", on_doubt="repeat", keep=REMEMBER) as effect:
            if effect.due:
                send(subject, text, data)

    return send_once


def post(hook: str, subject: str, text: str, data: dict[str, Any]) -> None:
    """Post an alert to a webhook, in the form that chats know. Raises NotDone."""
    host = urlsplit(hook).hostname
    body = json.dumps({"text": f"{subject}\n{text}", "subject": subject, **data}).encode()
    request = urllib.request.Request(hook, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE):
            return
    except urllib.error.HTTPError as error:
        with error:
            raise NotDone(f"the webhook at {host} answered {error.code} {error.reason}") from None
    except OSError as error:
        raise NotDone(f"the webhook at {host} did not answer: {one_line(error)}") from None


def run(command: str, subject: str, text: str) -> None:
    """Start a command with the alert as its input. Raises NotDone."""
    words = shlex.split(command)
    try:
        done = subprocess.run(
            words, input=f"{subject}\n\n{text}", capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotDone(f"the command {words[0]} failed: {one_line(error)}") from None
    if done.returncode:
        raise NotDone(f"the command {words[0]} ended with {done.returncode}: {one_line(done.stderr or done.stdout)}")
