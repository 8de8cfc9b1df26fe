"""The mailer against a mail server that misbehaves: what is sent, what is refused, and what nobody knows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kq import App, BadJob, ConfigError, InDoubt, NotDone, mail
from kq.context import CurrentJob, Footing, running
from kq.record import lease_key
from kq.smtp import MailDelayed, MailRefused
from kq.state.store import Write
from tests.smtp import SmtpServer

SENDER = "Shop <shop@example.org>"


@pytest.fixture
def app(tmp_path: Path) -> App:
    return App("post", f"memory://{tmp_path.name}")


@pytest.fixture
def server() -> Iterator[SmtpServer]:
    with SmtpServer() as server:
        yield server


@pytest.fixture
def attempt(app: App) -> Callable[[], Any]:
    """Makes the block one attempt of a job, on a worker whose lease holds; each time the next attempt."""
    app.store.write([Write(lease_key("w"), b"1", 60.0)])
    numbers = itertools.count(1)

    @contextmanager
    def attempt() -> Iterator[None]:
        footing = Footing(app, "w")
        token = running.set(CurrentJob("j", "kq.mail", "mail", next(numbers), float("inf"), footing))
        try:
            yield
        finally:
            running.reset(token)

    return attempt


def test_a_mail_arrives_whole(app: App, server: SmtpServer, attempt: Callable[[], Any]) -> None:
    post = mail.mailer(app, server.url, sender=SENDER)
    picture = mail.Attachment("cat.png", b"\x00\xff" * 50, "image/png")
    with attempt():
        told = post(
            ["Zoë Müller <zoe@example.org>"],
            "Grüße ✓",
            "one\n.two\n..three",
            html="<b>one</b>",
            cc=["cc@example.org"],
            bcc=["hidden@example.org"],
            reply_to="answers@example.org",
            attachments=[picture],
        )
    assert told == dict.fromkeys(["zoe@example.org", "cc@example.org", "hidden@example.org"], "sent")
    first = server.accepted[0]
    assert (first.sender, first.recipient) == ("shop@example.org", "zoe@example.org")
    message = first.message
    assert message["Subject"] == "Grüße ✓"
    assert "Zoë Müller" in message["To"]
    assert (message["Cc"], message["Reply-To"]) == ("cc@example.org", "answers@example.org")
    assert all(b"hidden" not in each.data for each in server.accepted)
    plain, html = message.get_body(("plain",)), message.get_body(("html",))
    assert plain is not None
    assert html is not None
    assert plain.get_content().splitlines() == ["one", ".two", "..three"]
    assert html.get_content().strip() == "<b>one</b>"
    assert [each.get_content() for each in message.iter_attachments()] == [b"\x00\xff" * 50]


def test_the_same_mail_to_the_same_person_is_refused(app: App, server: SmtpServer, attempt: Callable[[], Any]) -> None:
    post = mail.mailer(app, server.url, sender=SENDER)
    with attempt():
        assert post("ann@example.org", "hello", "text") == {"ann@example.org": "sent"}
    with attempt():
        assert post("Ann <ANN@example.org>", " hello ", "text  \r\n") == {"ANN@example.org": "sent before"}
        assert post(["ann@example.org", "bob@example.org"], "hello", "text")["bob@example.org"] == "sent"
        assert post("ann@example.org", "hello", "another text")["ann@example.org"] == "sent"
    assert len(server.accepted) == 3


def test_the_message_id_follows_from_the_content(app: App, server: SmtpServer) -> None:
    post = mail.mailer(app, server.url, sender=SENDER)
    for _ in range(2):
        post("ann@example.org", "hello", "text")  # called here and now: no memory
    first, second = (str(each.message["Message-ID"]) for each in server.accepted)
    assert first == second
    assert first.endswith("@example.org>")


@pytest.mark.parametrize("at", ["MAIL", "RCPT", "DATA", "."])
def test_what_the_server_refuses_is_final_and_tells_its_words(
    app: App, server: SmtpServer, attempt: Callable[[], Any], at: str
) -> None:
    post = mail.mailer(app, server.url, sender=SENDER)
    server.replies[at] = "550 no such user"
    with attempt(), pytest.raises(MailRefused, match="550 no such user"):
        post("ann@example.org", "hello", "text")
    server.replies.clear()
    with attempt():
        assert post("ann@example.org", "hello", "text") == {"ann@example.org": "sent"}


@pytest.mark.parametrize("at", ["MAIL", "RCPT", "DATA", "."])
def test_what_the_server_does_not_take_now_may_be_tried_again(
    app: App, server: SmtpServer, attempt: Callable[[], Any], at: str
) -> None:
    post = mail.mailer(app, server.url, sender=SENDER)
    server.replies[at] = "451 later"
    with attempt(), pytest.raises(MailDelayed, match="451 later"):
        post("ann@example.org", "hello", "text")
    server.replies.clear()
    with attempt():
        assert post("ann@example.org", "hello", "text") == {"ann@example.org": "sent"}


@pytest.mark.parametrize("at", ["EHLO", "MAIL", "RCPT", "DATA"])
def test_a_server_that_hangs_up_before_the_text_took_nothing(
    app: App, server: SmtpServer, attempt: Callable[[], Any], at: str
) -> None:
    post = mail.mailer(app, server.url, sender=SENDER)
    server.replies[at] = ""
    with attempt(), pytest.raises(NotDone):
        post("ann@example.org", "hello", "text")
    assert not server.accepted


def test_a_server_that_hangs_up_after_the_text_leaves_a_doubt(
    app: App, server: SmtpServer, attempt: Callable[[], Any]
) -> None:
    post = mail.mailer(app, server.url, sender=SENDER)
    server.replies["."] = ""
    with attempt(), pytest.raises(InDoubt, match="nobody knows"):
        post("ann@example.org", "hello", "text")
    server.replies.clear()
    with attempt(), pytest.raises(InDoubt):
        post("ann@example.org", "hello", "text")
    assert len(server.accepted) == 1


def test_nobody_there_is_no_doubt(app: App, server: SmtpServer, attempt: Callable[[], Any]) -> None:
    post = mail.mailer(app, "smtp://127.0.0.1:1", sender=SENDER)
    with attempt(), pytest.raises(MailDelayed, match="did not take it now"):
        post("ann@example.org", "hello", "text")


def test_one_refusal_does_not_keep_the_mail_from_the_others(
    app: App, server: SmtpServer, attempt: Callable[[], Any]
) -> None:
    post = mail.mailer(app, server.url, sender=SENDER)
    server.replies["EHLO"] = "250 here"
    with attempt(), pytest.raises(MailRefused, match="SMTPUTF8"):
        post(["zoë@example.org", "ann@example.org"], "hello", "text")
    assert [each.recipient for each in server.accepted] == ["ann@example.org"]


def test_addresses_of_other_scripts_arrive(app: App, server: SmtpServer) -> None:
    post = mail.mailer(app, server.url, sender=SENDER)
    post("zoë@example.org", "hello", "text")
    post("ann@bücher.example", "hello", "text")
    assert [each.recipient for each in server.accepted] == ["zoë@example.org", "ann@xn--bcher-kva.example"]


def test_several_mails_go_over_one_connection(app: App, server: SmtpServer) -> None:
    post = mail.mailer(app, server.url, sender=SENDER)
    for number in range(3):
        post("ann@example.org", f"mail {number}", "text")
    assert server.connections == 1


@pytest.mark.parametrize(
    "to", ["ann@example.org\nBcc: eve@example.org", "no address", "a@example.org, b@example.org", "a@b\rX: y"]
)
def test_a_header_cannot_be_slipped_in_with_an_address(app: App, server: SmtpServer, to: str) -> None:
    post = mail.mailer(app, server.url, sender=SENDER)
    with pytest.raises(BadJob, match="not one address"):
        post(to, "hello", "text")
    with pytest.raises(TypeError):
        post.job([to], "hello", "text")
    with pytest.raises(TypeError):
        post.job("ann@example.org", "hello", "text", bcc=[to])
    assert not server.accepted


@pytest.mark.parametrize("subject", ["hello\r\nBcc: eve@example.org", "hello\nX: y", "hello\0"])
def test_a_header_cannot_be_slipped_in_with_a_subject(app: App, subject: str) -> None:
    post = mail.mailer(app, "smtp://127.0.0.1:1", sender=SENDER)
    with pytest.raises(TypeError):
        post.job("ann@example.org", subject, "text")


def test_a_loop_is_stopped(app: App, server: SmtpServer, attempt: Callable[[], Any]) -> None:
    post = mail.mailer(app, server.url, sender=SENDER, per_recipient=3)
    with attempt():
        for number in range(3):
            post("ann@example.org", f"mail {number}", "text")
        with pytest.raises(MailRefused, match="something sends in a loop"):
            post("ann@example.org", "mail 4", "text")
        post("bob@example.org", "mail 4", "text")


def test_a_folder_takes_mails_during_development(app: App, tmp_path: Path) -> None:
    post = mail.mailer(app, f"file://{tmp_path}/out", sender=SENDER)
    post("ann@example.org", "hello", "text")
    assert [b"Subject: hello" in file.read_bytes() for file in (tmp_path / "out").iterdir()] == [True]


@pytest.mark.parametrize("server", ["", "localhost", "http://x", "smtp://"])
def test_a_server_that_is_none_is_named(app: App, server: str) -> None:
    with pytest.raises(ConfigError, match="mail server"):
        mail.mailer(app, server, sender=SENDER)


def test_a_password_is_not_told(app: App) -> None:
    with pytest.raises(ConfigError) as told:
        mail.mailer(app, "smpt://ann:secret@host", sender=SENDER)
    assert "secret" not in str(told.value)
