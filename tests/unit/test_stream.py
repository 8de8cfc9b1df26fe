"""What stands of a stream, as it is read."""

from __future__ import annotations

from msgspec import Raw

from kq.handles.stream import Block


def test_an_attempt_begins_with_its_first_chunk_and_not_with_each_block() -> None:
    blocks = (Block(2, 5, 5, [Raw(b'"a"'), Raw(b'"b"')]), Block(2, 5, 7, [Raw(b'"c"')]))
    read = [(chunk.value, chunk.offset, chunk.begins) for block in blocks for chunk in block.read(0)]
    assert read == [("a", 5, True), ("b", 6, False), ("c", 7, False)]
