"""How alerts are sent: by mail, webhook and command, each once; and what the loop breaker lets people be told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from kq import App, NotDone, Retry, mail
from kq.alert import register_alerts
from kq.conformance.contract.mailserver import MailServer
from kq.effects.context import CurrentJob, Footing, running
from kq.handles.trouble import ALERT, COUNTS, Alert, counts_of, decode_trouble
from kq.state.store import Write
from kq.values.record import lease_key

GROUPS = [{"type": "pay", "exception": "ValueError", "new": 3}]


@dataclass
class Hook:
    """A webhook. answer: the status that it answers with."""

    answer: int = 200
    got: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hook.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(hook.answer)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        hook.url = f"http://127.0.0.1:{server.server_address[1]}/services/T0/s3cret"
        yield hook
        server.shutdown()
        thread.join()


@pytest.fixture
def app(tmp_path: Path) -> App:
    return living(tmp_path)


def living(folder: Path) -> App:
    """An app whose worker w lives."""
    app = App("shop", f"memory://{folder.name}")
    app.store.write([Write(lease_key("w"), b"1", 60.0)])
    return app


@contextmanager
def attempt(app: App, number: int = 1) -> Iterator[None]:
    """The block is an attempt of one and the same job."""
    token = running.set(CurrentJob("alert-1", ALERT, "q", number, float("inf"), Footing(app, "w")))
    try:
        yield
    finally:
        running.reset(token)


@pytest.fixture
def tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[[int], list[str]]]:
    """Makes what sends one alert in its numbered attempt, with these settings."""

    def make(**settings: str) -> Callable[[int], list[str]]:
        for name, value in settings.items():
            monkeypatch.setenv(f"KQ_{name}", value)
        app = living(tmp_path)  # now: it reads its settings once
        register_alerts(app)

        def send(number: int) -> list[str]:
            with attempt(app, number):
                told: list[str] = app.jobs[ALERT].function("it rains", "all day", GROUPS)
                return told

        return send

    return make


def test_a_webhook_gets_text_for_people_and_groups_for_programs(hook: Hook, tell: Callable[..., Any]) -> None:
    send = tell(ALERTS_WEBHOOK=hook.url)
    assert send(1) == ["webhook"]
    assert hook.got == [{"text": "it rains\nall day", "subject": "it rains", "groups": GROUPS, "rule": None}]


def test_a_webhook_gets_the_rule_that_is_so_or_over(
    hook: Hook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KQ_ALERTS_WEBHOOK", hook.url)
    app = living(tmp_path)
    register_alerts(app)
    rule = {"rule": "dead>0", "state": "so", "since": 1000.0, "until": None, "queues": []}
    job = Alert("alert-1", "[shop] dead>0: w", "it has been so", rule=rule).job(app.name)
    with attempt(app):
        app.jobs[ALERT].function(*job.args, **job.kwargs)
    assert [told["rule"] for told in hook.got] == [rule]


def test_a_command_gets_the_text_as_its_input(tmp_path: Path, tell: Callable[..., Any]) -> None:
    send = tell(ALERTS_COMMAND=f"tee '{tmp_path}/told here'")
    assert send(1) == ["command"]
    assert (tmp_path / "told here").read_text() == "it rains\n\nall day"


def test_a_channel_that_fails_does_not_keep_the_others_from_telling_and_is_tried_again_alone(
    hook: Hook, tell: Callable[..., Any], tmp_path: Path
) -> None:
    command, told = f"tee -a '{tmp_path}/told'", tmp_path / "told"
    with MailServer() as server:
        send = tell(
            MAIL=server.url,
            ALERTS_MAIL="a@example.org, b@example.org",
            ALERTS_WEBHOOK=hook.url,
            ALERTS_COMMAND=command,
        )
        hook.answer = 503
        with pytest.raises(NotDone, match="webhook at 127.0.0.1 answered 503"):
            send(1)
        assert told.read_text() == "it rains\n\nall day"  # the one after it, too
        hook.answer = 200
        assert send(2) == ["mail", "webhook", "command"]
        assert [accepted.recipient for accepted in server.accepted] == ["a@example.org", "b@example.org"]
        assert len(hook.got) == 2
        assert send(3) == ["mail", "webhook", "command"]
        assert (len(server.accepted), len(hook.got), told.read_text().count("it rains")) == (2, 2, 1)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"ALERTS_WEBHOOK": "http://127.0.0.1:1/s3cret"}, "the webhook at 127.0.0.1 did not answer"),
        ({"ALERTS_COMMAND": "false"}, "the command false ended with 1"),
        ({"ALERTS_COMMAND": "/nowhere/page"}, "the command /nowhere/page failed"),
    ],
)
def test_what_went_wrong_is_told_without_secrets(settings: dict[str, str], told: str, tell: Callable[..., Any]) -> None:
    with pytest.raises(NotDone, match=told) as error:
        tell(**settings)(1)
    assert "s3cret" not in str(error.value)


def test_the_loop_breaker_lets_people_be_told(app: App) -> None:
    with MailServer() as server:
        post = mail.mailer(app, server.url, sender="shop@example.org", per_recipient=2)
        with attempt(app):
            for number in range(2):
                post("ann@example.org", f"mail {number}", "text")
            with pytest.raises(Retry):
                post("ann@example.org", "mail 2", "text")
    ((_, stored),) = app.store.scan("trouble:")
    trouble = decode_trouble(stored)
    assert trouble is not None
    assert (trouble.type, trouble.exception) == ("kq.mail", "something sends in a loop")
    assert sum(count.number for count in counts_of(dict(app.store.scan(COUNTS)))[trouble.id].values()) == 1
