"""What the RabbitMQ transport works out without a broker: frames, values, and the way of a delayed message."""

from __future__ import annotations

import contextlib
import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

import pytest
from amqp import spec
from amqp.basic_message import Message as TheirMessage
from amqp.serialization import decode_properties_basic
from hypothesis import given
from hypothesis import strategies as st

from kq_transports.amqp.channel import Channel
from kq_transports.amqp.delay import HIGHEST, LONGEST, UNITS, path, rungs
from kq_transports.amqp.frames import BrokenStream, Incoming, Method, ack_frame, message_frames, method_frame
from kq_transports.amqp.message import Arrival, Message
from kq_transports.amqp.registry import Ladder
from kq_transports.amqp.values import packed_properties, unpacked_properties
from kq_transports.engine import EngineError

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1)).map(lambda t: t.replace(microsecond=0, tzinfo=UTC)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)
HEADERS = st.dictionaries(st.text(max_size=20), VALUES, max_size=6)


class TestValues:
    @given(HEADERS)
    def test_headers_come_back_as_they_went(self, headers: dict[str, Any]) -> None:
        packed = packed_properties({"application_headers": headers, "priority": 9, "message_id": "m"})
        assert unpacked_properties(packed, 0) == {"application_headers": headers, "priority": 9, "message_id": "m"}

    @given(HEADERS)
    def test_py_amqp_reads_what_is_written(self, headers: dict[str, Any]) -> None:
        properties = {"content_type": "a/b", "application_headers": headers, "delivery_mode": 2, "type": "t"}
        theirs, _ = decode_properties_basic(packed_properties(properties), 0)
        assert theirs == {**properties, "application_headers": naive(headers)}

    @given(HEADERS)
    def test_what_py_amqp_writes_is_read(self, headers: dict[str, Any]) -> None:
        written = TheirMessage("", application_headers=headers, correlation_id="c")._serialize_properties()
        assert unpacked_properties(written, 0) == {"application_headers": headers, "correlation_id": "c"}

    def test_headers_that_are_not_wanted_are_passed_over(self) -> None:
        packed = packed_properties({"application_headers": {"x": [1, {"y": "z"}], "a": True, "b": 1.5, "c": 2}})
        assert unpacked_properties(packed, 0, {"x", "a", "b"}) == {"application_headers": {"c": 2}}

    def test_a_decimal_comes_back(self) -> None:
        packed = packed_properties({"application_headers": {"price": Decimal("-12.50")}})
        assert unpacked_properties(packed, 0)["application_headers"] == {"price": Decimal("-12.50")}

    @pytest.mark.parametrize("wrong", [{"x": object()}, {"x": 2**70}, {"k" * 256: 1}])
    def test_what_amqp_cannot_carry_is_refused(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError):
            packed_properties({"application_headers": wrong})

    def test_a_text_that_is_too_long_is_refused(self) -> None:
        with pytest.raises(ValueError, match="255"):
            packed_properties({"message_id": "m" * 256})

    @given(HEADERS, st.data())
    def test_properties_that_were_cut_or_changed_are_values_or_a_value_error(
        self, headers: dict[str, Any], data: st.DataObject
    ) -> None:
        whole = bytearray(packed_properties({"application_headers": headers, "message_id": "x"}))
        for _ in range(data.draw(st.integers(0, 3))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
        with contextlib.suppress(ValueError, ArithmeticError, LookupError, OSError, struct.error):
            unpacked_properties(cut, 0)

    @pytest.mark.parametrize(
        "table",
        [
            b"\x01kS\x00\x00\x00\x09short",  # a text that is longer than its table
            b"\xffk",  # a name that is
            b"\x01kA\x00\x00\x00\x05S\x00\x00\x00\x09",  # a list's last value that is
        ],
    )
    def test_what_is_longer_than_what_it_stands_in_is_refused(self, table: bytes) -> None:
        properties = b"\x20\x80" + len(table).to_bytes(4, "big") + table + b"\x0amessage-id"
        with pytest.raises((ValueError, IndexError)):
            unpacked_properties(properties, 0)


class TestMessage:
    @pytest.mark.parametrize("levels", [100, 5000])
    def test_headers_that_are_nested_too_deep_are_not_read(self, levels: int) -> None:
        table = b""
        for _ in range(levels):
            table = b"\x01xF" + len(table).to_bytes(4, "big") + table
        assert came(table).headers == {}

    @pytest.mark.parametrize("table", [b"\x01x?", b"\x01xT" + b"\xff" * 8, b"\x01x", b"\x01xl\x00"])
    def test_headers_that_make_no_sense_are_not_read(self, table: bytes) -> None:
        message = came(table)
        assert (message.headers, message.body) == ({}, b"body")

    def test_many_headers_that_are_not_deep_are_read(self) -> None:
        table = packed_properties({"application_headers": {f"h{i}": [{}] for i in range(200)}})[6:]
        assert len(came(table).headers) == 200


def came(table: bytes) -> Message:
    """A message that was delivered with these headers."""
    header = bytes(12) + (1 << 13).to_bytes(2, "big") + len(table).to_bytes(4, "big") + table
    return Message(Arrival(cast("Channel", None), "q", "c", 1, False, "", "q", header, b"body"))


def naive(value: Any) -> Any:
    """value as py-amqp reads it: times have no zone."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=None)
    if isinstance(value, dict):
        return {key: naive(each) for key, each in value.items()}
    return [naive(each) for each in value] if isinstance(value, list) else value


class TestFrames:
    @given(st.lists(st.binary(max_size=300), max_size=5), st.integers(1, 40), st.integers(20, 200))
    def test_methods_are_found_however_the_stream_is_cut(self, bodies: list[bytes], cut: int, limit: int) -> None:
        properties = packed_properties({"priority": 3})
        # Basic.Publish has no content for a client; a delivery looks the same but for its name.
        sent = b"".join(message_frames(7, "", "q", True, properties, body, limit) for body in bodies)
        stream = sent.replace(method(spec.Basic.Publish), method(spec.Basic.Deliver)) + ack_frame(7, 5, True)
        got: list[Method] = []
        incoming = Incoming(got.append)
        for begin in range(0, len(stream), cut):
            incoming.feed(stream[begin : begin + cut])
        assert [each.body for each in got[:-1]] == bodies
        assert all(unpacked_properties(each.header, 12) == {"priority": 3} for each in got[:-1])
        assert (got[-1].channel, got[-1].name) == (7, spec.Basic.Ack)

    def test_messages_of_two_channels_may_be_mixed(self) -> None:
        got: list[Method] = []
        incoming = Incoming(got.append)
        one, two = (deliver(channel, body) for channel, body in ((1, b"one"), (2, b"two")))
        for a, b in zip(one, two, strict=True):
            incoming.feed(a + b)
        assert [(each.channel, each.body) for each in got] == [(1, b"one"), (2, b"two")]

    @pytest.mark.parametrize(
        "broken",
        [
            method_frame(1, spec.Basic.Ack, b"")[:-1] + b"x",  # its end is wrong
            b"\x03\x00\x01\x00\x00\x00\x01x\xce",  # a body without a message
            b"\x09\x00\x01\x00\x00\x00\x00\xce",  # no such kind
            b"\x01\x00\x01\xff\xff\xff\xff\x00",  # larger than was agreed
            method_frame(1, spec.Basic.Deliver, b"") + b"\x03\x00\x01\x00\x00\x00\x00\xce",  # an empty part
        ],
    )
    def test_what_is_no_amqp_is_an_error(self, broken: bytes) -> None:
        with pytest.raises(BrokenStream):
            Incoming(lambda method: None).feed(broken)


def method(name: tuple[int, int]) -> bytes:
    """The first bytes of a method's payload."""
    return bytes((0, name[0], 0, name[1]))


def deliver(channel: int, body: bytes) -> list[bytes]:
    """The three frames of a delivery."""
    sent = message_frames(channel, "", "q", False, packed_properties({}), body, 1000)
    sent = sent.replace(method(spec.Basic.Publish), method(spec.Basic.Deliver))
    return [frame + b"\xce" for frame in sent.split(b"\xce")[:-1]]


class TestPaths:
    @given(st.integers(1, LONGEST))
    def test_a_message_waits_as_long_as_it_should_and_hardly_longer(self, delay: int) -> None:
        assert 0 <= waited(path("q", 5, delay).key) - delay < UNITS[0]

    @given(st.integers(1, LONGEST))
    def test_a_way_begins_at_its_first_wait_and_leaves_the_levels_after_its_last(self, delay: int) -> None:
        way = path("q", 5, delay)
        _, *waits = way.key.split(".")
        assert waits[way.first] != "0ms" != waits[way.top]
        assert set(waits[: way.first]) <= {"0ms"}
        assert len(waits) == way.top + 1 <= HIGHEST + 1

    def test_a_delay_that_is_round_is_one_wait(self) -> None:
        for delay in (20, 300, 5_000, 60_000, 600_000, 3_000_000_000):
            way = path("q", 5, delay)
            assert way.first == way.top

    def test_a_ladder_has_a_rung_for_each_digit(self) -> None:
        waits = [digit * UNITS[level] for level, digit in rungs(Ladder("q", 5, 2))]
        assert waits == [20, 40, 60, 80, *range(100, 1000, 100), *range(1000, 10_000, 1000)]

    def test_a_name_of_a_queue_is_no_pattern(self) -> None:
        assert path("a.*.#", 0, 20).key.count(".") == 1
        assert not {"*", "#"} & set(path("a.*.#", 0, 20).key)

    def test_no_two_ladders_have_the_same_keys(self) -> None:
        ways = [("q", 5), ("q", 4), ("q.5", 0), ("q.5.20ms", 0), ("p", 5), ("5.q", 5), ("q" * 255, 5)]
        keys = {path(queue, priority, LONGEST).key for queue, priority in ways}
        assert len(keys) == len(ways)
        assert max(map(len, keys)) <= 255

    def test_three_years_are_enough(self) -> None:
        with pytest.raises(EngineError, match="longer"):
            path("q", 0, LONGEST + 1)


def waited(key: str) -> int:
    """Milliseconds that a message with this key waits."""
    return sum(int(word.removesuffix("ms")) for word in key.split(".")[1:])
