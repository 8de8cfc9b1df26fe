"""What may be shown of a job outside of kq."""

from __future__ import annotations

import pytest

from kq.redaction import FEW, HIDDEN, brief_arguments, is_secret, redacted, redacted_text, shown_call


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "db_password",
        "passwd",
        "apiKey",
        "api_key",
        "X-Auth-Token",
        "secret",
        "card",
        "card_number",
        "pin",
        "session",
        "iban",
        "userPassword",
        "refresh_token",
        "ssn",
        "credentials_private",
    ],
)
def test_a_secret_is_known_by_its_name(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name", ["path", "author", "postcard", "spin", "ping", "tokenizer_path_x", "to", "number", "discard"]
)
def test_what_is_called_otherwise_is_shown(name: str) -> None:
    assert not is_secret(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("can't reach redis://ann:hunter2@host/0", "can't reach redis://ann:***@host/0"),
        ("login failed for password=hunter2, user=ann", "login failed for password=***, user=ann"),
        ('{"api_key": "abc"}', '{"api_key": ***}'),
        ("Bearer eyJhbGciOi.eyJzdWIiOiIx.SflKxw", "Bearer ***"),
        ("key 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822c refused", "key *** refused"),
        ("row 7 of table has no date", "row 7 of table has no date"),
        ("a-perfectly-normal-and-quite-long-file-name.tar.gz", "a-perfectly-normal-and-quite-long-file-name.tar.gz"),
    ],
)
def test_secrets_in_text_are_hidden(text: str, shown: str) -> None:
    assert redacted_text(text) == shown


def test_secrets_are_found_inside_of_values() -> None:
    value = {"user": "ann", "password": "x", "more": [{"token": 5}, "plain"], "n": 1.5, "no": None}
    assert redacted(value) == {
        "user": "ann",
        "password": HIDDEN,
        "more": [{"token": HIDDEN}, "plain"],
        "n": 1.5,
        "no": None,
    }


def test_a_call_names_its_positional_arguments_to_hide_them() -> None:
    assert shown_call("login", ("user", "password"), ["ann", "x"], {"n": 1}) == 'login("ann", "***", n=1)'
    assert shown_call("f", (), ["ann"], {"secret": [1]}) == 'f("ann", secret="***")'


def test_arguments_that_are_seen_beside_others_are_named_cut_and_few() -> None:
    assert brief_arguments(("user", "password"), ["ann", "x"], {"n": 1}) == {"user": "ann", "password": "***", "n": 1}
    assert brief_arguments(("a",), [1, 2], {"api_key": "k"}) == {"a": 1, "1": 2, "api_key": "***"}
    assert brief_arguments((), [], {"rows": [[0] * 9] * 9, "text": "é" * 99}) == {
        "rows": "[[0, 0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0, 0], […",
        "text": "é" * 60 + "…",
    }
    assert len(brief_arguments((), [1] * 100, {})) == FEW


def test_what_is_long_is_cut() -> None:
    assert len(shown_call("f", (), ["é" * 5000], {})) < 300
    assert len(shown_call("f", (), ["x y"] * 5000, {})) <= 2001


def test_the_paths_of_a_traceback_are_shown() -> None:
    frame = '  File "/srv/app-releases-2026/shop-4711/lib/python3.13/site-packages/shop/billing.py", line 88, in bill'
    assert redacted_text(frame) == frame
    assert redacted_text(f"{frame}: {'a1' * 20}").endswith(HIDDEN)


def test_the_path_of_a_file_is_shown_and_a_token_with_slashes_is_not() -> None:
    path = "/srv/images/2026/holiday/IMG_00001.jpeg"
    assert redacted_text(f"cannot read {path}, again") == f"cannot read {path}, again"
    assert redacted(["/data/2026/11/25/report_7", 1]) == ["/data/2026/11/25/report_7", 1]
    for token in (
        "/9j4AAQSkZJRgABAQAAAQABAAD2wCEAAkGB",
        "AKd83/js+92kdjWq/8dKs0",
        "/v1/3f786850e387550fdab836ed7e6dc881de23001b",
    ):
        assert redacted_text(f"with {token * 2}.") == f"with {HIDDEN}."


@pytest.mark.timeout(20)  # it took minutes, and who looked at a job's arguments stood still
@pytest.mark.parametrize("part", ["a-", "a-b_", "x", "token-", "x://"])
def test_a_text_of_many_parts_is_read_once(part: str) -> None:
    text = part * (64_000 // len(part))
    assert redacted_text(f"{text} --db-password=hunter2 password: 'hunter3'").endswith(
        f" --db-password={HIDDEN} password: {HIDDEN}"
    )
