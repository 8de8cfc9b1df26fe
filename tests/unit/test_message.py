"""The wire form, version 1: what is written is read again, and nothing that is read breaks a worker (C19)."""

from __future__ import annotations

import datetime
import itertools
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from unittest import mock

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from kq.app import App
from kq.clock import made_at
from kq.errors import MessageError
from kq.values.job import Counters, Job, Settings
from kq.values.message import (
    DEPTH_LIMIT,
    HEAD_LIMIT,
    HISTORY_LIMIT,
    VERSION,
    Attempt,
    Envelope,
    Head,
    again,
    decode_body,
    decode_head,
    encode_body,
    encode_head,
    set_aside,
)
from kq.values.policy import Fixed
from kq.values.redaction import one_line
from kq.writer import Writer
from tests.unit.strategies import COUNTERS, HEADS, JSON, TEXT

ID = "019b3c4d5e6f0123456789abcdef"
HEADERS = {"kq": 1, "id": ID, "type": "shop.jobs.resize"}


# There and back.


@given(some.lists(JSON, max_size=4), some.dictionaries(TEXT, JSON, max_size=4))
def test_arguments_come_back_as_they_were(args: list[Any], kwargs: dict[str, Any]) -> None:
    assert decode_body(encode_body(args, kwargs)) == (args, kwargs)


@given(HEADS)
def test_a_head_comes_back_as_it_was(head: Head) -> None:
    assert decode_head(encode_head(head)) == head


@given(HEADS)
def test_a_head_comes_back_as_it_was_through_json(head: Head) -> None:
    assert decode_head(msgspec.json.decode(msgspec.json.encode(encode_head(head)))) == head


@given(HEADS)
def test_headers_say_their_version_and_nothing_that_goes_without_saying(head: Head) -> None:
    headers = encode_head(head)
    assert headers["kq"] == VERSION
    assert None not in headers.values()


def test_a_fresh_job_has_few_headers() -> None:
    assert encode_head(Head(id=ID, type="shop.jobs.resize", submitted=5)) == {**HEADERS, "submitted": 5.0}


@pytest.mark.parametrize(("later", "said"), [(0.005, False), (0.5, True)], ids=["at once", "later"])
def test_when_a_job_was_submitted_is_in_its_id_unless_that_was_made_before(
    later: float, said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App("shop", "memory://shop")
    now = (made_at(ID) or 0.0) + later
    monkeypatch.setattr("time.time", lambda: now)
    headers = app.envelope(Job(ID, "shop.jobs.resize")).headers
    assert ("submitted" in headers) is said
    assert decode_head(headers).submitted_at == (now if said else made_at(ID))
    assert app.envelope(Job("mine", "shop.jobs.resize")).headers["submitted"] == now


def test_many_jobs_that_are_to_start_at_an_instant_are_not_late_by_what_it_takes_to_write_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = itertools.count(1000)
    monkeypatch.setattr("time.time", lambda: float(next(ticks)))
    writer = Writer(App("shop", "memory://shop")._registry, time.time)
    jobs = [Job[None](f"{number}", "t", settings=Settings(at=5000.0)) for number in range(10)]
    held = Job[None]("held", "t", settings=Settings(at=5000.0, hold=9000.0))
    made = [envelope for _, envelope in writer.all_written([*jobs, held])]
    assert {envelope.delay for envelope in made[:-1]} == {5000.0 - next(ticks) + 1}
    assert made[-1].delay == 9000


def test_nobody_knows_when_a_job_was_submitted_whose_id_names_no_moment() -> None:
    ids = ["mine", "f" * 28, "x" * 28]
    assert [Head(id=id, type="t").submitted_at for id in ids] == [0.0, 0.0, 0.0]


def test_arguments_that_are_left_out_are_none() -> None:
    assert decode_body(b"{}") == ([], {})
    assert decode_body(b' {"kwargs": {"x": 1}, "from": "a newer version"} ') == ([], {"x": 1})


def test_headers_that_are_not_ours_do_not_matter() -> None:
    assert decode_head({**HEADERS, "traceparent": "00-ab", "x-delivery-count": 3, "shop": {"a": [1]}}).id == ID


@given(HEADS, COUNTERS)
def test_a_head_can_count_anew(head: Head, counters: Counters) -> None:
    counted = head.counting(counters)
    assert counted.counters == counters
    assert counted.counting(head.counters) == head


def test_a_head_gives_its_policy_back() -> None:
    assert Head(id=ID, type="t", retry_policy=Fixed(delay=3).to_data()).policy == Fixed(delay=3)
    assert Head(id=ID, type="t").policy is None


def test_an_envelope_can_be_readdressed() -> None:
    envelope = Envelope(ID, "mail", b"{}", {"kq": 1}, priority=3, delay=2.0)
    assert envelope.to("mail.buried") == Envelope(ID, "mail.buried", b"{}", {"kq": 1}, priority=3, delay=2.0)


# The headers of a message that goes on.

ALONG = {"traceparent": "00-ab", "x-delay": 5, "x-delivery-count": 3}


def test_a_retry_keeps_the_headers_that_are_not_ours_and_none_of_one_delivery() -> None:
    head = Head(id=ID, type="shop.jobs.resize", failed=1)
    assert again({**HEADERS, **ALONG}, head) == {**HEADERS, "failed": 1, "traceparent": "00-ab"}


def test_a_job_that_comes_back_from_the_buried_leaves_behind_why_it_was() -> None:
    buried = {**HEADERS, "failed": 3, "error": "KeyError: 1", "traceback": "…", "buried": 5.0, "queue": "mail"}
    head = msgspec.structs.replace(decode_head(buried), failed=0, error=None, traceback=None, buried=None, queue=None)
    assert again(buried, head) == HEADERS


def test_what_can_not_be_read_is_buried_with_its_headers_as_they_came() -> None:
    newer = {"kq": 2, "id": [1], "type": None, **ALONG}
    why = {"error": "its version is 2", "buried": 5.0, "queue": "mail"}
    assert set_aside(newer, error="its version is 2", buried=5.0, queue="mail") == {
        "kq": 2,
        "id": [1],
        "type": None,
        "traceparent": "00-ab",
        **why,
    }


def test_a_repeated_submit_says_that_it_is_one() -> None:
    envelope = Envelope(ID, "mail", b"{}", encode_head(Head(id=ID, type="t")))
    assert decode_head(envelope.again().headers) == Head(id=ID, type="t", again=True)
    assert not decode_head(envelope.headers).again


# Limits.


@pytest.mark.parametrize("attempts", [0, 1, HISTORY_LIMIT, HISTORY_LIMIT + 1, 3 * HISTORY_LIMIT])
def test_a_history_keeps_its_first_attempt_and_the_latest(attempts: int) -> None:
    head = Head(id=ID, type="t")
    for number in range(1, attempts + 1):
        head = head.after(Attempt(number=number, worker="w", started=1.0, ended=2.0, outcome="raised"))
    latest = range(max(2, attempts - HISTORY_LIMIT + 2), attempts + 1)
    assert [attempt.number for attempt in head.history] == ([1, *latest] if attempts else [])


def lists(levels: int) -> bytes:
    return b'{"args":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def objects(levels: int) -> bytes:
    return b'{"kwargs":' + b'{"a":' * (levels - 2) + b"{}" + b"}" * (levels - 2) + b"}"


def behind_text(levels: int) -> bytes:
    return b'{"args":[1,"]]]",' + b'[{"a":' * 9 + b"[" * (levels - 20) + b"]" * (levels - 20) + b"}]" * 9 + b"]}"


@pytest.mark.parametrize("nested", [lists, objects, behind_text])
def test_a_body_may_be_nested_64_levels_deep(nested: Callable[[int], bytes]) -> None:
    decode_body(nested(DEPTH_LIMIT))
    for levels in (DEPTH_LIMIT + 1, DEPTH_LIMIT + 2, 500, 100_000):
        with pytest.raises(MessageError, match="the body is nested more than 64 levels deep"):
            decode_body(nested(levels))


def test_brackets_beside_each_other_or_in_text_are_not_depth() -> None:
    args = [[[]] * 200, "[" * 200, {"{" * 200: '\\"[[' * 200}]
    assert decode_body(encode_body(args, {})) == (args, {})


def test_what_is_too_deep_to_be_decoded_is_not_encoded() -> None:
    value: Any = 1
    for _ in range(DEPTH_LIMIT - 2):
        value = [value]
        assert decode_body(encode_body([value], {"a": value})) == ([value], {"a": value})
    for _ in range(DEPTH_LIMIT):
        value = [value]
        with pytest.raises(TypeError, match="argument 1 is nested more than 62 levels deep"):
            encode_body([value], {})
        with pytest.raises(MessageError, match="nested more than 64 levels deep"):
            decode_body(b'{"args":[' + msgspec.json.encode(value) + b"]}")


@pytest.mark.parametrize("body", [b"[" * 10**6, b"[{" * 10**6, b'["' * 10**6, b'{"args":["' + b'\\"' * 10**6])
def test_a_hostile_body_costs_no_time(body: bytes) -> None:
    began = time.process_time()
    with pytest.raises(MessageError):
        decode_body(body)
    assert time.process_time() - began < 0.5


# What cannot be sent.


@pytest.mark.parametrize(
    ("args", "kwargs", "reason"),
    [
        ([1, object()], {}, "argument 2 has no JSON form: Encoding objects of type object is unsupported"),
        ([], {"when": object()}, "argument 'when' has no JSON form: Encoding objects of type object is unsupported"),
        ([], {"rate": float("nan")}, "argument 'rate' holds NaN or infinity, which JSON does not have"),
        ([None], {"rates": {"a": (1.0, float("inf"))}}, "argument 'rates' holds NaN or infinity"),
        (["\ud800"], {}, "argument 1 holds text that is not Unicode (half of a surrogate pair)"),
        ([], {"\ud800": 1}, "the arguments have no JSON form: 'utf-8' codec can't encode"),
    ],
)
def test_an_argument_that_json_can_not_carry_is_named(args: list[Any], kwargs: dict[str, Any], reason: str) -> None:
    with pytest.raises(TypeError) as caught:
        encode_body(args, kwargs)
    assert str(caught.value).startswith(reason)
    assert "\n" not in str(caught.value)


def test_null_alone_is_no_reason_to_refuse() -> None:
    args = [None, "null", {"null": [None, 1.5]}]
    assert decode_body(encode_body(args, {})) == (args, {})


# What cannot be used.


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "not a kq message of version 1: it has no header kq"),
        ({**HEADERS, "kq": 2}, "not a kq message of version 1: its version is 2"),
        ({**HEADERS, "kq": "1"}, "not a kq message of version 1: its version is '1'"),
        ({**HEADERS, "kq": "x" * 9999}, "not a kq message of version 1: its version is 'xxxxx"),
        ({**HEADERS, "kq": True}, "its version is True"),
        ({**HEADERS, "kq": Decimal("sNaN")}, "its version is Decimal('sNaN')"),
        ({"kq": 1, "type": "t"}, "a header is wrong: Object missing required field `id`"),
        ({"kq": 1, "id": ID}, "a header is wrong: Object missing required field `type`"),
        ({**HEADERS, "id": ""}, "Expected `str` of length >= 1 - at `$.id`"),
        ({**HEADERS, "type": ""}, "Expected `str` of length >= 1 - at `$.type`"),
        ({**HEADERS, "id": "x" * 256}, "Expected `str` of length <= 255 - at `$.id`"),
        ({**HEADERS, "id": "\ud800"}, "surrogates not allowed"),
        ({**HEADERS, "failed": -1}, "Expected `int` >= 0 - at `$.failed`"),
        ({**HEADERS, "lost": 2**31}, "Expected `int` <= 2147483647 - at `$.lost`"),
        ({**HEADERS, "infra": 1.5}, "Expected `int`, got `float` - at `$.infra`"),
        ({**HEADERS, "timeout": 0}, "Expected `float` > 0.0 - at `$.timeout`"),
        ({**HEADERS, "timeout": float("inf")}, "Expected `float` <= 31622400.0 - at `$.timeout`"),
        ({**HEADERS, "deadline": float("nan")}, "at `$.deadline`"),
        ({**HEADERS, "deadline": 10**400}, "a header is wrong"),
        ({**HEADERS, "submitted": "yesterday"}, "Expected `float`, got `str` - at `$.submitted`"),
        ({**HEADERS, "unique": 5}, "at `$.unique`"),
        ({**HEADERS, "history": [{"number": 1}]}, "missing required field `worker` - at `$.history[0]`"),
        ({**HEADERS, "retry_policy": {}}, "a header is wrong: unknown kind of retry policy: None"),
        ({**HEADERS, "retry_policy": {"kind": "fixed", "delay": -1}}, "delay -1.0 is out of range"),
        ({**HEADERS, "retry_policy": []}, "at `$.retry_policy`"),
    ],
)
def test_a_wrong_header_is_a_message_error_that_names_it(headers: dict[str, Any], reason: str) -> None:
    with pytest.raises(MessageError) as caught:
        decode_head(headers)
    assert reason in caught.value.reason
    _assert_fits_a_header(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"args"',
        b'{"args": {}}',
        b'{"args": null}',
        b'{"kwargs": []}',
        b'{"args": []',
        b'{"args": [NaN]}',
        b'{"args": [1e999]}',
        b'{"args": [' + b"9" * 5000 + b"]}",
        b'{"args": ["\xff"]}',
        b'{"args": ["\\ud800"]}',
        b'\xef\xbb\xbf{"args": []}',
        b"\x80\x04\x95K\x01.",
    ],
)
def test_what_is_no_body_is_a_message_error_of_one_line(body: bytes) -> None:
    with pytest.raises(MessageError, match="the body is no JSON of the form") as caught:
        decode_body(body)
    _assert_fits_a_header(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b'{"args": [1], "args": [2]}',
        b'{"kwargs": {"to": "a", "to": "b"}}',
        b'{"args": [[{"x": {"y": 1, "z": 2, "y": 1}}]]}',
        b'{"args":[],"kwargs":{"to":1,"to":100000.0}}',
        b'{"args": [], "\\u0061rgs": [1]}',
        b'{"args": [], "other": {"a": 1, "a": 1}}',
    ],
)
def test_a_name_that_stands_twice_is_a_message_error(body: bytes) -> None:
    with pytest.raises(MessageError, match="twice in one object"):
        decode_body(body)


@pytest.mark.parametrize("body", [b'{"args": [{"a": 1}, {"a": 2}]}', b' {"kwargs": {"a": {"a": "\\"a\\":1,"}}} '])
def test_one_name_in_two_objects_is_none_that_stands_twice(body: bytes) -> None:
    decode_body(body)


@given(some.lists(JSON, max_size=3), some.dictionaries(TEXT, JSON, max_size=3))
def test_what_is_written_is_looked_at_once(args: list[Any], kwargs: dict[str, Any]) -> None:
    with mock.patch("kq.values.message.json.loads", side_effect=AssertionError("a second look")):
        decode_body(encode_body(args, kwargs))


@pytest.mark.parametrize("name", ["unique", "traceparent"])
def test_headers_that_take_too_much_are_a_message_error(name: str) -> None:
    decode_head({**HEADERS, name: "x" * (HEAD_LIMIT - 1000)})
    with pytest.raises(MessageError, match="the headers have 1,") as caught:
        decode_head({**HEADERS, name: "x" * HEAD_LIMIT})
    _assert_fits_a_header(caught.value)


#: What a message may bring that somebody else wrote: all that JSON, and all that an AMQP table can hold.
ODD: some.SearchStrategy[Any] = some.recursive(
    some.none()
    | some.booleans()
    | some.integers()
    | some.floats()
    | some.text(some.characters(), max_size=20)
    | some.binary(max_size=8)
    | some.decimals()
    | some.datetimes(timezones=some.sampled_from([None, datetime.UTC])),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KNOWN = some.sampled_from(Head.__struct_fields__)
ODD_POLICIES = some.dictionaries(
    some.sampled_from(["kind", "policies", "otherwise", "delay", "retries", "delays"]),
    some.sampled_from(["fixed", "by error", "never", "delays"]) | ODD,
)


@given(some.dictionaries(KNOWN | some.text(max_size=5), ODD, max_size=6), some.booleans(), ODD_POLICIES)
@example({"deadline": Decimal("sNaN")}, True, {})
@example({"timeout": Decimal("1e999999")}, True, {})
def test_whatever_the_headers_hold_decoding_gives_a_usable_head_or_a_message_error(
    odd: dict[str, Any], version: bool, policy: dict[str, Any]
) -> None:
    headers = {**HEADERS, "retry_policy": policy, **odd} if policy else {**HEADERS, **odd}
    headers["kq"] = 1 if version else headers["kq"]
    try:
        head = decode_head(headers)
    except MessageError as error:
        _assert_fits_a_header(error)
        return
    again = decode_head(msgspec.json.decode(msgspec.json.encode(encode_head(head))))
    assert again.id == head.id
    assert again.policy == head.policy
    assert head.counters.attempts >= 0


def test_headers_nested_to_the_end_of_the_stack_are_a_message_error() -> None:
    deep: Any = {"kind": "never"}
    for _ in range(2 * sys.getrecursionlimit()):
        deep = {"kind": "by error", "policies": {"KeyError": deep}, "otherwise": {"kind": "never"}}
    with pytest.raises(MessageError):
        decode_head({**HEADERS, "retry_policy": deep})


@given(some.binary(max_size=200))
def test_whatever_the_bytes_decoding_gives_arguments_or_a_message_error(body: bytes) -> None:
    _decode(body)


@given(ODD, some.integers(0, 400), some.binary(max_size=3))
def test_whatever_became_of_a_body_decoding_gives_arguments_or_a_message_error(
    value: Any, at: int, noise: bytes
) -> None:
    body = b'{"args":%b,"kwargs":{"a":%b}}' % ((msgspec.json.encode(_without_surrogates(value)),) * 2)
    _decode(body[:at] + noise + body[at:])
    _decode(body[:at])


def _decode(body: bytes) -> None:
    try:
        args, kwargs = decode_body(body)
    except MessageError as error:
        _assert_fits_a_header(error)
        return
    assert decode_body(encode_body(args, kwargs)) == (args, kwargs)


def _assert_fits_a_header(error: MessageError) -> None:
    assert "\n" not in error.reason
    assert len(error.reason.encode()) < 2000


def _without_surrogates(value: Any) -> Any:
    return repr(value) if "\\ud" in repr(value) else value


@pytest.mark.parametrize(("text", "line"), [("a\n  b\t c", "a b c"), ("x" * 500, "x" * 400 + "…"), (KeyError(1), "1")])
def test_a_long_reason_becomes_one_line(text: object, line: str) -> None:
    assert one_line(text) == line
