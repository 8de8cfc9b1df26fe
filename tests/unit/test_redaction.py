"""What may be shown of a job outside of kq."""

from __future__ import annotations

from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as some

from kq.secret_names import HIDDEN, is_secret
from kq.values.redaction import (
    FEW,
    beginning,
    both_ends,
    brief_arguments,
    redacted,
    redacted_end,
    redacted_text,
    shown_call,
)


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
        *(
            "X-Api-Key",
            "api-key",
            "tokens",
            "passwords",
            "secrets",
            "credentials",
            "access_key",
            "accessKey",
            "ssh_key",
        ),
        *("aws_access_key_id", "signing_key", "encryption_key", "passphrase", "pass", "jwt", "otp", "sid", "dsn"),
        *("database_url", "webhook_url", "cookies", "PGPASS", "Set-Cookie", "Proxy-Authorization", "JSESSIONID"),
        *("dbpass", "AWS_SECRET_ACCESS_KEY", "username_and_password", "admin_user_name_token", "sslKey", "token_hash"),
    ],
)
def test_a_secret_is_known_by_its_name(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        *("path", "author", "postcard", "spin", "ping", "tokenizer_path_x", "to", "number", "discard", "keyboard"),
        *("pass_count", "key", "primary_key", "public_key", "cache_key", "max_tokens", "token_type", "session_timeout"),
        *("compass", "bypass", "passenger", "monkey", "secretary", "inside", "panel", "authority", "callback_url"),
    ],
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


@pytest.mark.parametrize(
    "path",
    [
        "/usr/lib/python3/dist-packages/some_long_name_of_a_module/and_another_one",
        "/usr/lib/python3.13/site-packages/opentelemetry/instrumentation/sqlalchemy2/package",
        "build/lib.linux-x86_64-cpython-313/shop/billing_and_invoices/v2",
        "/srv/app-releases-2026/shop-4711/current/worker_of_the_month",
        "/home/ann/Projects2026/WebShop/src/main/java/org/example/HTTPServer",
    ],
)
def test_a_long_path_is_shown_unless_a_part_of_it_is_a_token(path: str) -> None:
    assert redacted_text(f"no such file: {path}") == f"no such file: {path}"
    for token in ("9f86d081884c7d659a2feaa0c55ad015", "q7Zp2Kd93jWmX8sT0aBv", "AKIA4EXAMPLE7KEY2Q9XWZ81"):
        assert redacted_text(f"no such file: {path}/{token}").endswith(HIDDEN)
        assert redacted_text(f"no such file: {path}/{token}/x").endswith(HIDDEN)


@pytest.mark.parametrize(
    "name",
    [
        "orders-of-the-big-customers-in-europe-that-pay-by-invoice-and-late-0",
        "orders-worker-7d9f8b6c5d-x2k4q-1-of-mail",
        "worker-of-the-month-in-the-third-rack-2211-6aadfd3f",
        "send_the_monthly_statement_to_the_customers_v2",
    ],
)
def test_a_long_name_is_shown(name: str) -> None:
    assert (
        redacted_text(f"no live worker takes queue {name}; start one")
        == f"no live worker takes queue {name}; start one"
    )


@pytest.mark.parametrize(
    "token",
    [
        "550e8400-e29b-41d4-a716-446655440000",
        "glpat-AbC1-x9Y2-zQ83-kdjW-qq81-Ls0a",
        "xoxb-123456789012-1234567890123-AbCdEfGhIj",
        "sk_live_test_51AbCdEfGhIjKlMnOpQrSt",
        "pQ3-x_9aB-Zk2_mN7-wE5_rT8-yU1_iO4-aS6",
        "wJa3rXUtnFEMI/K7MDENG/bPxRfiCY9z8Q7KEYs1",
        "AKd83/js+92kdjWq/8dKs0zTq1/Lm40pXe/77sB",
        "0uPz/9xW4k3/aT/7hQe2+Lr8YvN5c1/Jd6Gm0S",
        "3f786850e387550fdab836ed7e6dc881de23001b",
        "sk_live_4eC39HqLyjWDarjtT1zdp7dc4eC39",
        "a" * 31 + "1",
    ],
)
def test_a_token_is_none_of_them(token: str) -> None:
    assert redacted_text(f"with {token}.") == f"with {HIDDEN}."


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: ***"),
        ("authorization: Bearer abc.def", "authorization: ***"),
        ("sent 'Bearer tok-en.4711' twice", "sent 'Bearer ***' twice"),
        ("auth: token abcdef, next", "auth: ***, next"),
        ("see /verify/eyJhbGciOi.eyJzdWIiOiIx.SflKxw", "see /verify/***"),
        ("x=1&a.token.b=hush", "x=1&a.token.b=***"),
    ],
)
def test_credentials_as_headers_and_addresses_have_them_are_hidden(said: str, shown: str) -> None:
    assert redacted_text(said) == shown


def test_a_secret_of_which_only_the_beginning_would_be_shown_is_hidden() -> None:
    for secret in ("a1" * 60, f"password={'x' * 90}", f"redis://:{'hush' * 30}@host"):
        shown = redacted(f"{'é ' * 90}{secret} {'é ' * 9000}")
        assert "a1a1" not in shown
        assert "xxx" not in shown
        assert "hush" not in shown
        assert len(shown) < 300


PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEhunterhunterhunterhunterhunter\nabhunter==\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    "text",
    [
        "error: password=hunter2",
        "password='correct hunter staple'",
        '{"passphrase": "a hunter b"}',
        r"{\"password\": \"hunter2\"}",
        "password=b'hunter2'",
        'tokens=["hunter", "hunter2"]',
        "X-Api-Key: hunter2",
        "Cookie: a=b; sid=hunter; theme=hunter",
        "sent Basic aHVudGVyOmh1bnRlcjI= to it",
        "curl -u ann:hunter2 https://host/",
        "mysql -uroot -phunter2 shop",
        "no answer from ann:hunter2@db.example.org:5432",
        "https://hooks.slack.com/services/T0/B0/hunter",
        "https://discord.com/api/webhooks/123/hunter-x",
        "AKIAHUNTERHUNTER2345",
        "glpat-hunterhunterhunte1",
        PEM,
        PEM[:-30],
        PEM[45:],
        repr(PEM),
        "<password>hunter2</password>",
        "run --password hunter2 --times 1",
        "os.environ['PASSWORD'] = 'hunter2'",
        "user[password]=hunter2&x=1",
    ],
)
def test_a_secret_is_known_by_its_form_and_by_what_is_before_it(text: str) -> None:
    shown = redacted_text(text)
    assert HIDDEN in shown
    assert not any(part in shown.casefold() for part in ("hunter", "ahvu"))


@pytest.mark.parametrize(
    "number",
    [
        *("4111111111111111", "4111 1111 1111 1111", "4111-1111-1111-1111", "5555555555554444", "378282246310005"),
        *("3782 822463 10005", "6011111111111117", "30569309025904"),
        *("DE89370400440532013000", "DE89 3704 0044 0532 0130 00", "gb82west12345698765432", "NO9386011117947"),
    ],
)
def test_numbers_of_cards_and_accounts_are_hidden(number: str) -> None:
    assert redacted_text(f"paid by {number}, thanks") == "paid by ***, thanks"
    assert redacted({"note": number}) == {"note": HIDDEN}
    if number.isdecimal():
        assert redacted([int(number), -1]) == [HIDDEN, -1]


@pytest.mark.parametrize(
    "text",
    [
        *("4111111111111112", "DE89370400440532013001", "1765094400000", "1765094400000000", "20261207081500"),
        *(
            "4006381333931",
            "1998468839425806336",
            "4111 1111 1111",
            "4711",
            "3.14159265358979",
            "12 45 78 99 41 32 17 60",
        ),
        *("first pass: 12 rows", "max_tokens=4096, tokens=4096", "author: Ann", "keyboard=de spin: 500"),
        *(
            "Unexpected token: }",
            "use basic authentication here",
            "mailto:ann@example.org",
            "git@github.com:shop/x.git",
        ),
        *("nginx:1.25@sha256:abcdef", "react:npm@18.2.0", "at 12:30@office", "https://example.org/webhooks/stripe"),
    ],
)
def test_what_only_looks_like_one_is_shown(text: str) -> None:
    assert redacted_text(text) == text
    assert redacted([text, True]) == [text, True]


def test_numbers_yes_and_no_are_shown_where_they_are_no_secret() -> None:
    shown = {"id": 4711, "at": 1765094400000, "has_password": True, "private": False, "password": None, "tokens": 512}
    assert redacted(shown) == shown
    assert redacted({"pin": 1234, "cvv": 123}) == {"pin": HIDDEN, "cvv": HIDDEN}


def test_headers_and_options_of_commands_are_known_by_what_is_before_them() -> None:
    assert redacted([["X-Api-Key", "x"], ["Accept", "y"]]) == [["X-Api-Key", HIDDEN], ["Accept", "y"]]
    assert redacted({"name": "X-Api-Key", "value": "x"}) == {"name": "X-Api-Key", "value": HIDDEN}
    assert redacted(["mysql", "--password", "x", "shop"]) == ["mysql", "--password", HIDDEN, "shop"]


@pytest.mark.parametrize("place", range(0, 60, 7))
def test_what_is_cut_shows_no_part_of_a_secret(place: int) -> None:
    text = f"{'-' * place} redis://:{'hush' * 9}@host {'-' * (60 - place)}"
    for shown in (beginning(text, 50), both_ends(text, 50), redacted_end(text, 50)):
        assert "hush" not in shown
        assert len(shown) <= 51
    for whole in (beginning(text, 120), both_ends(text, 120)):
        assert whole == text


@pytest.mark.parametrize(
    "key", ["shop.charge:4711", "shop.refresh_token:4711", f"shop.charge:{'3f78' * 8}", "shop.pin:a-b.c:7"]
)
def test_a_key_is_shown_where_kq_says_that_it_is_one(key: str) -> None:
    for what in ("effect", "unique key", "unique lock"):
        said = f"nobody knows of the {what} {key!r}, password=***; find out"
        assert redacted_text(said.replace("***", "hunter2")) == said
    for said in (f"the effect '{key} token=hunter2'", f"effect {key}: 'token=hunter2'", "effect 'redis://:hunter2@h'"):
        assert "hunter2" not in redacted_text(said)


#: What takes the square of a text's length where a pattern looks at a part of it again and again.
NASTY = (
    *("a-", "a-b_", "x", "token-", "x://", "redis://", ";x://", "x://a@", "://", "@", "a:b@", "?token", "?tokentoken"),
    *("&a", "?a=", "eyJ-", "eyJa-", "eyJ.", "eyJ", 'File "', 'File "a", line ', "/a", "/a/", "a1/", "/", "0/", "Z9+/"),
    *("token", "token ", 'token:"', "token='", "token\t= ", "password'", "authorization: bearer ", "bearer ", "-", "_"),
    *("effect '", "effect 'a:", "effect 'a:b'", "effect 'a.", "unique key 'a", "effect "),
    *(
        "mysql ",
        "mysql -",
        " -p",
        "-----BEGIN PRIVATE KEY-----",
        "-----END PRIVATE KEY-----",
        "DE89 ",
        "4111 ",
        "4" * 16,
    ),
    *("basic aaaaaaaa", "<a ", "<token>", "sk-", "AKIA", "https://hooks.slack.com/services/", "a: ", "token=[", "%3D"),
    *("1", "é1", " ", "\n", "\x00", "'", '"', "=", "https://h/?token=a&", "/a1b2c3d4e5f6a7b8c9d0", "pin", "A", "Aa1"),
)


@pytest.mark.parametrize("part", NASTY)
@pytest.mark.parametrize("before", ["", "x://", "?", "/a/b"])
def test_a_text_of_many_parts_is_read_once(before: str, part: str) -> None:
    text = before + part * (64_000 // len(part))
    begun = process_time()
    shown = redacted_text(f"{text} --db-password=hunter2 password: 'hunter3'")
    assert process_time() - begun < 0.5  # 0.03 s at most; it took minutes, and who looked at a job stood still
    assert "hunter" not in shown


@given(some.text(some.sampled_from("aZ09/+-_.:;@?&='\" \n") | some.characters(), max_size=40), some.sampled_from(NASTY))
def test_whatever_stands_in_a_text_it_is_read_once(piece: str, other: str) -> None:
    both = piece + other
    text = both * (64_000 // len(both))
    begun = process_time()
    redacted_text(text)
    assert process_time() - begun < 0.5
