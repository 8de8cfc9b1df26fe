"""The doctor on alerts and mailers: that those who are to be told can be."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from kq.app import App
from kq.cli.doctor.finding import Finding
from kq.cli.near import did_you_mean
from kq.control import Control
from kq.errors import KqError
from kq.handles.trouble import queue_of
from kq.mail import server_of
from kq.mailurl import MailUrl, parse_mail_url
from kq.smtp import post_to
from kq.values.condition import parse_condition
from kq.values.job import State

#: Seconds that a server may take to answer the doctor.
PATIENCE = 5.0
#: What is quoted in a command, and what only a shell understands outside of that: `|`, `&&`, `>`, `$NAME`, `$(`, `~/`.
_QUOTED = re.compile(r'''\\.|'[^']*'|"(?:\\.|[^"\\])*"''', re.DOTALL)
_SHELL = re.compile(r"\||\s&|;(?=\s|$)|(?<!\S)\d?[<>]\S*|\$(?=[\w{(])\S*|`|(?<!\S)~/")


def channels(app: App) -> Iterator[Finding]:
    """Whether mail server, webhook and command are there; nothing is sent."""
    alerts = app.alerts
    if alerts.mail:
        yield _mail("alerts", f"go to {', '.join(alerts.mail)} by", parse_mail_url(app.mail))
    if alerts.webhook:
        yield _webhook(alerts.webhook)
    if alerts.command:
        yield _command(alerts.command)


def rules(app: App) -> Iterator[Finding]:
    """Rules about queues that are not there."""
    about = {text: parse_condition(text).queue for text in app.alerts.rules} if app.alerts.wanted else {}
    if any(about.values()):
        with Control(app) as control:
            known = control.queue_names()
        for text, queue in about.items():
            if queue and queue not in known:
                fix = did_you_mean(queue, known) or "kq queues ls names those that are there."
                yield Finding("warn", "alerts", f"the rule {text} is about queue {queue!r}, which is not there", fix)


def unsent(app: App) -> Iterator[Finding]:
    """Alerts that nobody got."""
    if app.alerts.wanted:
        queue = queue_of(app.name)
        with Control(app) as control:
            buried = control.jobs(queue, State.BURIED, limit=1)
        for job in buried:
            fix = f"Mend that, then kq jobs kick --queue {queue}."
            yield Finding("warn", "alerts", f"some could not be sent: {job.error}", fix)


def mailers(app: App) -> Iterator[Finding]:
    """Whether the servers to which the application's mailers send are there; nothing is sent."""
    for name, job_type in app.jobs.items():
        url = server_of(job_type)
        if url is not None:
            yield _mail("mail", f"{name} sends by", url)


def _mail(about: str, told: str, url: MailUrl) -> Finding:
    try:
        words = post_to(url, PATIENCE).reach()
    except KqError as error:
        fix = "Name another server: mail: smtps://user:password@host in kq.yaml, KQ_MAIL, or server= of the mailer."
        return Finding("fail", about, f"{url} takes no mail: {error.message}", fix)
    return Finding("ok", about, f"{told} {url}, which says {words!r}")


def _webhook(hook: str) -> Finding:
    split = urlsplit(hook)
    place = split.hostname, split.port or (443 if split.scheme == "https" else 80)
    try:
        socket.create_connection(place, PATIENCE).close()
    except OSError as error:
        return Finding("fail", "alerts", f"the webhook's host {split.hostname} is not reached: {error}")
    return Finding("ok", "alerts", f"go to a webhook at {split.hostname}, which is there")


def _command(command: str) -> Finding:
    program = shlex.split(command)[0]
    if found := _SHELL.search(_QUOTED.sub("", command)):
        what = f"alerts.command is not run by a shell, so {found[0].strip()!r} in it means nothing"
        return Finding("fail", "alerts", what, "Name a script of yours, or write sh -c '…'.")
    if shutil.which(program) is None:
        return Finding("fail", "alerts", f"there is no command {program!r}", "Write its whole path in alerts.command.")
    return Finding("ok", "alerts", f"go to the command {program}")
