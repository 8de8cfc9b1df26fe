"""What stands in the state store and can't be read counts as not there, and is told once."""

from __future__ import annotations

import logging

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from kq.handles.standing import decode_order
from kq.values.reading import reader, text
from kq.values.record import Record, decode_late, decode_record, decode_start, encode


class Note(msgspec.Struct):
    """Something to read."""

    to: str


def test_what_is_there_is_read_and_what_is_not_there_is_none() -> None:
    read = reader(Note)
    assert read(b'{"to": "a"}') == Note("a")
    assert read(None) is None


def test_what_can_not_be_read_is_none_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    read = reader(Note)
    with caplog.at_level(logging.WARNING, "kq.state"):
        assert [read(b"{secret"), read(b"{secret"), read(b'{"to": 7}')] == [None, None, None]
    assert len(caplog.records) == 2
    assert caplog.records[0].getMessage().startswith("a note in the state store can't be read and is left out: ")
    assert "secret" not in caplog.text


@given(some.binary(max_size=100) | some.just(b"[" * 5000))
def test_nothing_that_a_stranger_writes_raises(value: bytes) -> None:
    for read in (decode_record, decode_late, decode_start, decode_order):
        read(value)
    text(value)


@given(some.integers(0, 200), some.binary(min_size=1, max_size=3))
def test_nor_does_a_record_that_was_spoilt(at: int, by: bytes) -> None:
    whole = encode(Record("completed", msgspec.Raw(b"[1, 2]"), error="", worker="w", type="t", queue="q"))  # type: ignore[arg-type]
    at %= len(whole)
    decode_record(whole[:at] + by + whole[at + len(by) :])
