"""Broker URLs: what people write, what Kombu is given, and what is never printed."""

from __future__ import annotations

import traceback
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as some
from kombu import Connection

from kq import url
from kq.errors import ConfigError, MissingDriver
from kq.mailurl import parse_mail_url
from kq.url import parse

#: Beginnings of URLs, one for each part that may hold any byte.
URLS = (
    "sqlite:///",
    "redis://:hush",
    "redis://h/",
    "amqp://u:",
    "amqp://h/",
    "memory://",
    "unix:///",
    "sqlite:///a?x=",
)


@pytest.mark.parametrize(
    ("written", "kombu"),
    [
        ("memory://", "kq-memory://default"),
        ("memory://tests", "kq-memory://tests"),
        ("sqlite:///kq.db", "kq-sqlite:///kq.db"),
        ("sqlite:////var/lib/my%20jobs.db", "kq-sqlite:////var/lib/my%20jobs.db"),
        ("sqlite:////var/a @ b/jobs.db", "kq-sqlite:////var/a%20%40%20b/jobs.db"),
        ("memory://my tests", "kq-memory://my tests"),
        ("redis://", "kq-redis://localhost/0"),
        ("redis://h:6380/3", "kq-redis://h:6380/3"),
        ("rediss://u:p%40@h/3", "kq-rediss://u:p%40@h/3"),
        ("unix:///run/redis.sock", "kq-redis:///0"),
        ("unix:///run/redis.sock?db=2", "kq-redis:///2"),
        ("amqp://h", "kq-amqp://h/%2F"),
        ("amqp://u:p@h:5673//", "kq-amqp://u:p@h:5673/%2F"),
        ("amqp://h/shop", "kq-amqp://h/shop"),
        ("amqps://h/a%2Fb", "kq-amqps://h/a%2Fb"),
        ("redis://a;redis://b:1/0", "kq-redis://a/0;kq-redis://b:1/0"),
        (" redis://a ", "kq-redis://a/0"),
    ],
)
def test_each_url_gets_a_scheme_of_ours(written: str, kombu: str) -> None:
    assert url.parse(written).kombu == kombu


def test_options_are_taken_off_for_the_transport() -> None:
    address = url.parse("amqp://h//?queue_type=quorum&timeout=2500ms&max=7&share=0.5&fast=true")
    assert address.kombu == "kq-amqp://h/%2F"
    assert address.options == {"queue_type": "quorum", "timeout": 2.5, "max": 7, "share": 0.5, "fast": True}


def test_a_redis_socket_is_an_option() -> None:
    address = url.parse("unix:///run/my%20redis.sock?db=2&timeout=1")
    assert (address.kombu, address.options) == ("kq-redis:///2", {"socket": "/run/my redis.sock", "timeout": 1.0})


@given(password=some.text(min_size=1, alphabet=some.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])))
def test_kombu_reads_back_any_password(password: str) -> None:
    address = url.parse(f"redis://user:{quote(password, safe='')}@h/1")
    connection = Connection(address.kombu.removeprefix("kq-"))
    assert (connection.userid, connection.password, connection.virtual_host) == ("user", password, "1")


@given(name=some.text(min_size=1, alphabet=some.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])))
def test_kombu_reads_back_any_virtual_host(name: str) -> None:
    address = url.parse(f"amqp://h/{quote(name, safe='')}")
    assert Connection(address.kombu.removeprefix("kq-")).virtual_host == name


@pytest.mark.parametrize("written", ["memory://a", "sqlite:///x.db", "redis://:p@h/1", "unix:///r.sock?db=2"])
def test_a_broker_that_can_is_its_own_state_store(written: str) -> None:
    assert url.parse(written).state == written


def test_of_several_servers_the_first_keeps_the_state() -> None:
    assert url.parse("redis://a/0;redis://b/0").state == "redis://a/0"


def test_a_state_store_gets_the_options_of_its_broker_as_a_place() -> None:
    address = url.parse("sqlite:////x.db?synchronous=normal&timeout=1&lease=10")
    assert (address.state, address.state_options) == ("sqlite:////x.db", {"synchronous": "normal"})


def test_the_state_beside_rabbitmq_is_a_file_of_this_user_for_each_virtual_host(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert url.parse("amqp://u:secret@h//").state == f"sqlite:///{tmp_path}/kq/h-5672-default.db"
    assert url.parse("amqps://h:1/a%2Fb?queue_type=quorum").state == f"sqlite:///{tmp_path}/kq/h-1-a_b.db"
    assert url.parse("amqp://h//?queue_type=quorum").state_options == {}
    assert url.parse("amqp://h").state_stays_here
    assert not url.parse("amqp://h", state="redis://h").state_stays_here
    assert not url.parse("sqlite:///x.db").state_stays_here


def test_a_scheme_comes_with_a_package_that_names_its_transport(
    lightning: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    address = url.parse("lightning://u:se%3Bcret@h:7/a/b%3Bc?namespace=x&timeout=2s;lightning://i")
    assert address.kombu == "kq-lightning://u:se%3Bcret@h:7/a/b%3Bc;kq-lightning://i"
    assert address.options == {"namespace": "x", "timeout": 2.0}
    assert address.transports == {"kq-lightning": "lightning_transport:Lightning"}
    assert address.state == f"sqlite:///{tmp_path}/kq/lightning-h-7-a_b_c.db"
    assert url.parse("lightning://h", "redis://r").state == "redis://r"
    with pytest.raises(ConfigError, match="can keep no state"):
        url.parse("sqlite:///x.db", "lightning://h")


def test_ours_have_no_need_of_another_package() -> None:
    assert url.parse("redis://h").transports == {}


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "is empty"),
        ("localhost", "has no scheme"),
        ("redos://h", r"no broker has the scheme redos://\nDid you mean redis://"),
        ("rabbitmq://h", "Did you mean amqp://"),
        ("postgresql://h", "kq speaks memory://, sqlite://.*others when their package is installed"),
        ("redis://h:port/0", "its port is no number"),
        ("redis://h/jobs", "a Redis database is a number, not 'jobs'"),
        ("unix:///s.sock?db=x", "a Redis database is a number"),
        ("unix://", "names no socket file"),
        ("sqlite://jobs.db", "Write three slashes: sqlite:///jobs.db"),
        ("sqlite://", "names no file"),
        ("sqlite:////var/", "names no file"),
        ("sqlite:///:memory:", "Write memory://name"),
        ("memory://a/b", "has a name and no path"),
        ("redis://a;amqp://b", "different kinds of broker"),
        ("sqlite:///a;sqlite:///b", "can't fail over"),
        ("redis://h/0?timeout", "its options are wrong"),
        ("redis://h/0?timeout=soon", "'soon' is no duration"),
        *((f"{start}{odd}", "is not UTF-8") for odd in ("%ff", "\udcff", "%ed%b2%80") for start in URLS),
    ],
)
def test_a_wrong_url_is_refused_with_what_would_be_right(written: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        url.parse(written)


@pytest.mark.parametrize(("written", "extra"), [("redis://h", "redis"), ("amqp://h", "rabbitmq")])
def test_a_missing_driver_names_the_extra(written: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(url, "find_spec", lambda name: None)
    with pytest.raises(MissingDriver, match=rf"not installed\npip install 'kq-jobs\[{extra}\]'"):
        url.parse(written)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("redis://:hush@h/0", "redis://:***@h/0"),
        ("amqp://user:hush@h//", "amqp://user:***@h//"),
        ("redis://hush@h/0", "redis://***@h/0"),
        ("rediss://hush@a;rediss://hush@b", "rediss://***@a;rediss://***@b"),
        ("rediz://hush@h/0", "rediz://***@h/0"),
        (
            "no answer from valkey://hu/sh@h:1/0 of bob@example.org",
            "no answer from valkey://***@h:1/0 of bob@example.org",
        ),
        ("amqp://user@h//", "amqp://user@h//"),
        ("redis://:hush@a;redis://:hush@b", "redis://:***@a;redis://:***@b"),
        ("redis://:hu@sh@h/0", "redis://:***@h/0"),
        ("redis://:hu/sh@h/0", "redis://:***@h/0"),
        ("redis://:hu;sh@h/0", "redis://:***@h/0"),
        ("redis://h/0?auth_token=hush&timeout=5", "redis://h/0?auth_token=***&timeout=5"),
        ("redis://h/0?a=1&PASSWORD=hush", "redis://h/0?a=1&PASSWORD=***"),
        (
            "could not reach redis://:hush@h:1/0, or 'amqp://u:hush@g'",
            "could not reach redis://:***@h:1/0, or 'amqp://u:***@g'",
        ),
        ("mail ops@example.org", "mail ops@example.org"),
        ("sqlite:////var/lib/kq.db", "sqlite:////var/lib/kq.db"),
    ],
)
def test_what_is_printed_holds_no_secret(written: str, shown: str) -> None:
    assert url.redact(written) == shown


@pytest.mark.parametrize(
    "written",
    [
        "redis://u:hush\u2100x@h",  # what urlsplit() refuses in words that repeat it
        "redis://u:hush\uff0fx@h",
        "redis://u:hush[x@h",
        "redis://u:hush@[h]",
        "redis://u:hush x@h",
        "redis://u:hush\n@h",
        "redis://u:x hush@h:port",
        "redis:/u:hush@h",
        "redis:u:hush@h",
        "redis//u:hush@h",
        "u:hush@h",
        "redis://u:x hush@h;redis://h:port",
        "redis://h;redis://u:x hush@h",
    ],
)
def test_a_url_that_is_none_is_refused_without_its_secrets(written: str) -> None:
    for read in (url.parse, lambda text: parse_mail_url(text.replace("redis", "smtps"))):
        with pytest.raises(ConfigError) as told:
            read(written)
        assert "hush" not in "".join(traceback.format_exception(told.value))
        assert "***@h" in str(told.value) or "***@[h" in str(told.value)


@pytest.mark.parametrize(
    "wrong", ["redos://:hush@h", "redis://:hu/sh@h:x", "redis://h:x?token=hush", "redis://h?token=hush&timeout=x"]
)
def test_an_error_about_a_url_holds_no_secret(wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        url.parse(wrong)
    assert "hush" not in str(caught.value)
    assert "hu/sh" not in str(caught.value)


def test_a_relative_file_is_seen_from_the_folder_that_names_it() -> None:
    assert (
        url.anchored("sqlite:///kq.db?synchronous=normal", "/srv/my app")
        == "sqlite:////srv/my%20app/kq.db?synchronous=normal"
    )
    assert url.anchored("sqlite:////x.db", "/srv") == "sqlite:////x.db"
    assert url.anchored("redis://h", "/srv") == "redis://h"


def test_another_state_store_may_be_named_with_options_of_its_own() -> None:
    address = url.parse("amqp://h//?queue_type=quorum", state="sqlite:////s.db?synchronous=normal")
    assert (address.state, address.state_options) == ("sqlite:////s.db", {"synchronous": "normal"})
    assert address.options == {"queue_type": "quorum"}


@pytest.mark.parametrize("wrong", ["amqp://u:hush@h", "postgresql://h", "redis://h/x"])
def test_what_can_keep_no_state_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        url.parse("memory://", state=wrong)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("sqlite:///kq.db", True),
        ("memory://", True),
        ("redis://localhost:6379/0", True),
        ("redis://127.0.0.2", True),
        ("redis://[::1]:6379", True),
        ("unix:///run/redis.sock", True),
        ("redis://db.example.org", False),
        ("amqp://user:word@localhost;amqp://user:word@10.0.0.7", False),
    ],
)
def test_a_broker_on_this_host_is_known_by_its_url(url: str, local: bool) -> None:
    assert parse(url).local is local


def test_a_folder_that_is_not_utf8_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/tmp/\udcff")
    with pytest.raises(ConfigError, match="the path .* is not UTF-8"):
        url.parse("amqp://h")
    with pytest.raises(ConfigError, match="the path .* is not UTF-8"):
        url.anchored("sqlite:///kq.db", "/tmp/\udcff")
