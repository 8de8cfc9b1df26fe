"""The mailer against a mail server that misbehaves: what is sent, what is refused, and what nobody knows."""

from __future__ import annotations

import itertools
import re
import socket
import ssl
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from email import message_from_bytes, policy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kq import App, BadJob, ConfigError, Control, InDoubt, NotDone, Retry, gate, mail
from kq.conformance.contract.mailserver import MailServer
from kq.effects.context import CurrentJob, Footing, running
from kq.gate import BURST
from kq.handles.standing import read
from kq.smtp import MailDelayed, MailRefused
from kq.state import open_store
from kq.state.store import Write
from kq.values.record import lease_key

SENDER = "Shop <shop@example.org>"


@pytest.fixture
def app(tmp_path: Path) -> App:
    return App("post", f"memory://{tmp_path.name}")


@pytest.fixture
def server() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


@pytest.fixture
def attempt(app: App) -> Callable[..., Any]:
    """Makes the block an attempt of a job, on a worker whose lease holds; each time the next one."""
    app.store.write([Write(lease_key("w"), b"1", 60.0)])
    numbers = itertools.count(1)

    @contextmanager
    def attempt(job: str = "j") -> Iterator[None]:
        footing = Footing(app, "w")
        token = running.set(CurrentJob(job, "kq.mail", "mail", next(numbers), float("inf"), footing))
        try:
            yield
        finally:
            running.reset(token)

    return attempt


def test_a_mail_arrives_whole(app: App, server: MailServer, attempt: Callable[..., Any]) -> None:
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


def test_the_same_mail_to_the_same_person_is_refused(app: App, server: MailServer, attempt: Callable[..., Any]) -> None:
    post = mail.mailer(app, server.url, sender=SENDER)
    with attempt():
        assert post("ann@example.org", "hello", "text") == {"ann@example.org": "sent"}
    with attempt("another"):
        assert post("Ann <ANN@example.org>", " hello ", "text  \r\n") == {"ANN@example.org": "sent before"}
        assert post(["ann@example.org", "bob@example.org"], "hello", "text")["bob@example.org"] == "sent"
        assert post("ann@example.org", "hello", "another text")["ann@example.org"] == "sent"
    assert len(server.accepted) == 3


def test_the_message_id_follows_from_the_content(app: App, server: MailServer) -> None:
    post = mail.mailer(app, server.url, sender=SENDER)
    for _ in range(2):
        post("ann@example.org", "hello", "text")  # called here and now: no memory
    first, second = (str(each.message["Message-ID"]) for each in server.accepted)
    assert first == second
    assert first.endswith("@example.org>")


@pytest.mark.parametrize("at", ["MAIL", "RCPT", "DATA", "."])
def test_what_the_server_refuses_is_final_and_tells_its_words(
    app: App, server: MailServer, attempt: Callable[..., Any], at: str
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
    app: App, server: MailServer, attempt: Callable[..., Any], at: str
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
    app: App, server: MailServer, attempt: Callable[..., Any], at: str
) -> None:
    post = mail.mailer(app, server.url, sender=SENDER)
    server.replies[at] = ""
    with attempt(), pytest.raises(NotDone):
        post("ann@example.org", "hello", "text")
    assert not server.accepted


def test_a_server_that_hangs_up_after_the_text_leaves_a_doubt(
    app: App, server: MailServer, attempt: Callable[..., Any]
) -> None:
    post = mail.mailer(app, server.url, sender=SENDER)
    server.replies["."] = ""
    with attempt(), pytest.raises(InDoubt, match="nobody knows"):
        post("ann@example.org", "hello", "text")
    server.replies.clear()
    with attempt(), pytest.raises(InDoubt):
        post("ann@example.org", "hello", "text")
    assert len(server.accepted) == 1


@pytest.mark.parametrize("reply", ["2", "25", "4", "55", "354 go on", "999 what", "what"])
def test_an_answer_to_the_text_that_broke_off_or_is_none_leaves_a_doubt(
    app: App, server: MailServer, attempt: Callable[..., Any], reply: str
) -> None:
    post = mail.mailer(app, server.url, sender=SENDER)
    server.replies["."] = reply
    for _ in range(2):
        with attempt(), pytest.raises(InDoubt):
            post("ann@example.org", "hello", "text")
    assert len(server.accepted) == 1


def test_each_way_to_say_yes_to_the_text_is_one(app: App, server: MailServer, attempt: Callable[..., Any]) -> None:
    post = mail.mailer(app, server.url, sender=SENDER)
    server.replies["."] = "251 it goes on from here"
    with attempt():
        assert post("ann@example.org", "hello", "text") == {"ann@example.org": "sent"}
    assert len(server.accepted) == 1


def test_nobody_there_is_no_doubt(app: App, server: MailServer, attempt: Callable[..., Any]) -> None:
    post = mail.mailer(app, "smtp://127.0.0.1:1", sender=SENDER)
    with attempt(), pytest.raises(MailDelayed, match="did not take it now"):
        post("ann@example.org", "hello", "text")


def test_one_refusal_does_not_keep_the_mail_from_the_others(
    app: App, server: MailServer, attempt: Callable[..., Any]
) -> None:
    post = mail.mailer(app, server.url, sender=SENDER)
    server.replies["EHLO"] = "250 here"
    with attempt(), pytest.raises(MailRefused, match="SMTPUTF8"):
        post(["zoë@example.org", "ann@example.org"], "hello", "text")
    assert [each.recipient for each in server.accepted] == ["ann@example.org"]


def test_addresses_of_other_scripts_arrive(app: App, server: MailServer) -> None:
    post = mail.mailer(app, server.url, sender=SENDER)
    post("zoë@example.org", "hello", "text")
    post("ann@bücher.example", "hello", "text")
    assert [each.recipient for each in server.accepted] == ["zoë@example.org", "ann@xn--bcher-kva.example"]


def test_several_mails_go_over_one_connection(app: App, server: MailServer) -> None:
    post = mail.mailer(app, server.url, sender=SENDER)
    for number in range(3):
        post("ann@example.org", f"mail {number}", "text")
    assert server.connections == 1


@pytest.mark.parametrize(
    "to", ["ann@example.org\nBcc: eve@example.org", "no address", "a@example.org, b@example.org", "a@b\rX: y"]
)
def test_a_header_cannot_be_slipped_in_with_an_address(app: App, server: MailServer, to: str) -> None:
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


def test_an_attempt_after_one_that_sent_the_mail_says_so(
    app: App, server: MailServer, attempt: Callable[..., Any]
) -> None:
    post = mail.mailer(app, server.url, sender=SENDER)
    for _ in range(2):
        with attempt():
            assert post("ann@example.org", "hello", "text") == {"ann@example.org": "sent"}
    assert len(server.accepted) == 1


@pytest.mark.parametrize(
    ("limit", "to"), [({"per_recipient": 3}, ["ann@example.org"] * 4), ({"per_family": 3}, "abcd")]
)
def test_a_loop_pauses_the_mailer_until_somebody_resumes_it(
    app: App, server: MailServer, attempt: Callable[..., Any], limit: dict[str, int], to: Sequence[str]
) -> None:
    post = mail.mailer(app, server.url, sender=SENDER, **limit)  # type: ignore[arg-type]
    addresses = [each if "@" in each else f"{each}@example.org" for each in to]

    def send(number: int) -> None:
        with attempt():
            post(addresses[number], f"order {number} failed", "text")

    for number in range(3):
        send(number)
    with pytest.raises(Retry, match="3 mails"):
        send(3)
    with Control(app) as control:
        order = read(app.store).types["kq.mail"]
        assert f"sends in a loop, or {next(iter(limit))}= is too low" in order.reason
        assert app.store.scan("troubles:")  # people are told
        with attempt():
            post("bob@example.org", "something else", "text")  # what has begun ends
        control.resume_type("kq.mail")
    send(3)
    assert len(server.accepted) == 5


def test_mails_that_the_server_does_not_take_are_no_loop(
    app: App, server: MailServer, attempt: Callable[..., Any]
) -> None:
    post = mail.mailer(app, server.url, sender=SENDER, per_recipient=2)
    server.replies["RCPT"] = "451 later"
    for _ in range(4):
        with attempt(), pytest.raises(MailDelayed):
            post("ann@example.org", "hello", "text")
    server.replies.clear()
    with attempt():
        assert post("ann@example.org", "hello", "text") == {"ann@example.org": "sent"}


def test_the_rate_is_that_of_all_workers_together(app: App, server: MailServer, attempt: Callable[..., Any]) -> None:
    rate = 40.0  # a second
    apps = [App("post", app.address.url) for _ in range(2)]
    posts = [mail.mailer(each, server.url, sender=SENDER, per_minute=60 * rate) for each in apps]
    began = time.monotonic()
    for number in range(20):
        with attempt():
            posts[number % 2]("ann@example.org", f"mail {number}", "text")
    assert time.monotonic() - began >= (20 - BURST) / rate


class Saying:
    """A slate that keeps what was written on it."""

    def __init__(self) -> None:
        self.said: list[tuple[float, float, str]] = []

    def progress(self, n: float, of: float, text: str, at: float) -> None:
        self.said.append((n, of, text))

    def extend(self, seconds: float) -> None:
        raise NotImplementedError


def test_a_mail_that_waits_its_turn_says_so_while_it_waits(
    app: App, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    slate = Saying()
    waited: list[tuple[float, float, str]] = []
    monkeypatch.setattr(gate, "time", SimpleNamespace(sleep=lambda seconds: waited.extend(slate.said)))
    turn = repr(app.store.now() + 30).encode()
    app.store.write([Write(lease_key("w"), b"1", 60.0), Write("gate:kq.mail", turn, 60.0)])
    token = running.set(CurrentJob("j", "kq.mail", "mail", 1, float("inf"), Footing(app, "w"), slate=slate))
    try:
        mail.mailer(app, server.url, sender=SENDER)("ann@example.org", "hello", "text")
    finally:
        running.reset(token)
    assert waited == [(0, 1, "waits its turn: 600 mails a minute at most")]
    assert slate.said[-1] == (0, 1, "")


def test_a_turn_that_is_far_away_is_no_reason_to_wait_in_a_worker(
    app: App, server: MailServer, attempt: Callable[..., Any]
) -> None:
    post = mail.mailer(app, server.url, sender=SENDER, per_minute=0.5)
    for number in range(BURST):
        with attempt():
            post("ann@example.org", f"mail {number}", "text")
    with attempt(), pytest.raises(NotDone, match="next turn"):
        post("ann@example.org", "one more", "text")


class SteppedClock:
    """The computer's clock, which somebody may set."""

    step = 0.0

    def now(self) -> float:
        return time.time() + self.step

    def monotonic(self) -> float:
        return time.monotonic()


def test_a_clock_that_is_set_back_holds_up_no_mail_and_is_no_loop(
    app: App, server: MailServer, attempt: Callable[..., Any]
) -> None:
    clock = SteppedClock()
    open_store(app.address.state, clock=clock).close()
    post = mail.mailer(app, server.url, sender=SENDER, per_minute=0.5, per_recipient=8)
    for number, step in enumerate([3600.0, 3600.0, 3600.0, 7300.0, 0.0, -7200.0]):
        clock.step = step
        with attempt():
            assert post("ann@example.org", f"mail {number}", "text") == {"ann@example.org": "sent"}
    assert not read(app.store).types


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1, which is its own CA, and its key in one file."""
    file = tmp_path_factory.mktemp("ca") / "cert.pem"
    key = file.with_name("key.pem")
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*words.split(), "-keyout", str(key), "-out", str(file)], check=True, capture_output=True)
    file.write_text(file.read_text() + key.read_text())
    return file


def encrypted(ca: Path, **more: Any) -> MailServer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca)
    return MailServer(context=context, **more)


@pytest.mark.parametrize("tls", ["smtps", "smtp+starttls"])
def test_mails_go_encrypted_and_after_a_login(app: App, attempt: Callable[..., Any], ca: Path, tls: str) -> None:
    with encrypted(ca, tls=tls, login=("shop", "s3 cret")) as server:
        url = server.url.replace("s3 cret", "s3%20cret")
        post = mail.mailer(app, f"{url}?ca={ca}", sender=SENDER)
        for number in range(2):
            with attempt():
                post("ann@example.org", f"mail {number}", "text")
        assert server.subjects() == ["mail 0", "mail 1"]
        assert server.connections == 1


@pytest.mark.parametrize("tls", ["smtp", "smtps", "smtp+starttls"])
def test_the_end_of_a_text_does_not_wait_for_a_delayed_ack(app: App, ca: Path, tls: str) -> None:
    arrived = dict[str, float]()
    gaps = list[float]()

    def note(moment: str, recipient: str) -> None:
        arrived[moment] = time.monotonic()
        if moment == "end":
            gaps.append(arrived["end"] - arrived["DATA"])

    with MailServer(moment=note) if tls == "smtp" else encrypted(ca, tls=tls, moment=note) as server:
        post = mail.mailer(app, server.url if tls == "smtp" else f"{server.url}?ca={ca}", sender=SENDER)
        for number in range(15):
            post("ann@example.org", f"mail {number}", "text")
    assert statistics.median(gaps) < 0.02  # a delayed ACK of Linux takes 0.04 s


@pytest.mark.parametrize("tls", ["smtps", "smtp+starttls"])
def test_a_server_that_nobody_vouches_for_gets_no_mail(
    app: App, attempt: Callable[..., Any], ca: Path, tls: str
) -> None:
    with encrypted(ca, tls=tls) as server:
        post = mail.mailer(app, server.url, sender=SENDER)
        with attempt(), pytest.raises(MailDelayed, match="certificate"):
            post("ann@example.org", "hello", "text")
        assert not server.accepted


def test_a_server_without_encryption_gets_no_password(app: App, attempt: Callable[..., Any]) -> None:
    with MailServer(login=("shop", "secret")) as server:
        post = mail.mailer(app, server.url.replace("smtp:", "smtp+starttls:"), sender=SENDER)
        with attempt(), pytest.raises(MailDelayed, match="STARTTLS"):
            post("ann@example.org", "hello", "text")
        assert not any(command.startswith("AUTH") for command in server.commands)
    with pytest.raises(ConfigError, match="unencrypted"):
        mail.mailer(app, "smtp://shop:secret@mx.example.org", sender=SENDER, name="other")


def test_a_wrong_password_may_be_mended(app: App, attempt: Callable[..., Any]) -> None:
    with MailServer(login=("shop", "secret")) as server:
        post = mail.mailer(app, server.url.replace("secret", "guess"), sender=SENDER)
        with attempt(), pytest.raises(MailDelayed, match="535"):
            post("ann@example.org", "hello", "text")


def test_a_server_that_does_not_answer_is_given_up_in_time(app: App, attempt: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        post = mail.mailer(app, f"smtp://127.0.0.1:{mute.getsockname()[1]}", sender=SENDER, patience=0.2)
        began = time.monotonic()
        with attempt(), pytest.raises(MailDelayed, match="timed out"):
            post("ann@example.org", "hello", "text")
        assert time.monotonic() - began < 5


def test_a_connection_outlives_a_refusal_and_not_a_hang_up(app: App, server: MailServer) -> None:
    post = mail.mailer(app, server.url, sender=SENDER)
    server.replies["RCPT"] = "550 no such user"
    with pytest.raises(MailRefused):
        post("ann@example.org", "hello", "text")
    server.replies.clear()
    post("ann@example.org", "hello", "text")
    assert server.connections == 1
    server.replies["MAIL"] = ""
    with pytest.raises(MailDelayed):
        post("ann@example.org", "hello", "text")
    server.replies.clear()
    post("ann@example.org", "hello", "text")
    assert server.connections == 2


def test_a_dry_run_sends_nothing_and_remembers_nothing(
    app: App, server: MailServer, attempt: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    dry = mail.mailer(app, "log:", sender=SENDER)
    with attempt():
        assert dry("ann@example.org", "hello", "text") == {"ann@example.org": "would be sent"}
    assert "would go to ann@example.org" in caplog.text
    post = mail.mailer(app, server.url, sender=SENDER, name="real")
    with attempt():
        assert post("ann@example.org", "hello", "text") == {"ann@example.org": "sent"}


def test_the_settings_say_where_mails_go_when_the_code_does_not(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KQ_MAIL", f"file://{tmp_path}/out")
    post = mail.mailer(app, sender=SENDER)
    post("ann@example.org", "hello", "text")
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_a_text_that_looks_like_its_own_end_arrives_whole(app: App, server: MailServer) -> None:
    post = mail.mailer(app, server.url, sender=SENDER)
    post("ann@example.org", "hello", "one\r\n.\r\nQUIT\r\n.\r\nMAIL FROM:<eve@example.org>\n.\rtwo")
    (accepted,) = server.accepted
    lines = accepted.message.get_content().splitlines()
    assert lines == ["one", ".", "QUIT", ".", "MAIL FROM:<eve@example.org>", ".", "two"]


#: Text in which whatever separates lines or headers somewhere is likely.
WILD = st.text(
    st.sampled_from('ab @<>,;:"()\\\r\n\t\0\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029=?é✓.') | st.characters(), max_size=40
)
KNOWN = {"from", "to", "cc", "reply-to", "subject", "date", "message-id", "mime-version"} | {
    "content-type",
    "content-transfer-encoding",
    "content-disposition",
    "x-recipient",
}
#: A second header, as an encoded word.
SLIPPED = "=?utf-8?q?hi=0D=0AX-Eve=3A_here?="

TAME = WILD.map(lambda text: re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", "", text))


@settings(max_examples=200)
@given(
    to=st.lists(WILD | TAME.map("{} <ann@example.org>".format) | TAME.map('"{}" <ann@example.org>'.format), max_size=3),
    subject=WILD | TAME,
    name=WILD | TAME,
    body=WILD,
)
@example(to=["Ann\n <ann@example.org>"], subject="x", name="a", body="")
@example(to=["ann@example.org\n"], subject="x\n", name="a\n", body="\n")
@example(to=["=?utf-8?q?=0ABcc:eve?= <ann@example.org>"], subject="=?utf-8?q?=0AX:_y?=", name="a", body="")
@example(
    to=[f'"{SLIPPED}" <ann@example.org>', f"{SLIPPED} <ann@example.org>", "=?utf-8?q?=0D=0A?=@example.org"],
    subject=f"{'a ' * 100}{SLIPPED}",
    name=SLIPPED,
    body="",
)
@example(to=["\u2028x <ann@example.org>"], subject="a\x85b: c", name="a", body="")
def test_no_header_can_be_slipped_in(to: list[str], subject: str, name: str, body: str) -> None:
    app = App("fuzz", "memory://fuzz")
    with tempfile.TemporaryDirectory() as folder:
        post = mail.mailer(app, f"file://{folder}", sender=SENDER)
        try:
            job = post.job(["Bob <bob@example.org>", *to], subject, body, attachments=[mail.Attachment(name, b"x")])
        except TypeError:
            return  # refused in the caller's line
        args, kwargs = post.signature.convert(list(job.args), job.kwargs)
        post(*args, **kwargs)
        meant = {each.rpartition("<")[2].rstrip(">").strip() for each in ["<bob@example.org>", *to]}
        for file in Path(folder).iterdir():
            data = file.read_bytes()
            for line in data.partition(b"\r\n\r\n")[0].splitlines():
                assert line[:1] in b" \t" or line.partition(b":")[0].decode().lower() in KNOWN
            message = message_from_bytes(data, policy=policy.default)
            assert {header.lower() for header in message} <= KNOWN
            shown = {each.addr_spec.encode("utf-8", "surrogateescape").decode() for each in message["To"].addresses}
            assert shown <= meant
            assert message["Subject"].split() == subject.split()
            assert max(map(len, data.split(b"\r\n"))) < 999
            assert data.count(b"\n") == data.count(b"\r\n")


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
