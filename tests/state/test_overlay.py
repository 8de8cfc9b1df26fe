"""A store to write to in vain: it is seen as any other, and the one below stays as it is."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from kq.state import Write
from kq.state.memory import MemoryStore
from kq.state.overlay import Overlay

_fresh = itertools.count()
KEYS, VALUES = st.sampled_from(["a:1", "a:2", "b:1"]), st.sampled_from([b"1", b"2"])
MAYBE = st.one_of(st.none(), VALUES)
WRITES = st.builds(
    Write,
    KEYS,
    MAYBE,
    alive=st.one_of(st.none(), KEYS),
    unless=st.one_of(st.none(), st.tuples(KEYS, VALUES)),
    must=st.one_of(st.none(), st.tuples(KEYS, MAYBE)),
    adds=st.booleans(),
)


@given(st.dictionaries(KEYS, VALUES), st.lists(st.lists(WRITES, max_size=3), max_size=6))
def test_it_answers_as_a_store_that_is_written_to(before: dict[str, bytes], steps: list[list[Write]]) -> None:
    below, like = MemoryStore(f"below-{next(_fresh)}"), MemoryStore(f"like-{next(_fresh)}")
    for store in (below, like):
        store.write([Write(key, value) for key, value in before.items()])
    overlay = Overlay(below)
    for writes in steps:
        assert overlay.write(writes) == like.write(writes)
        assert overlay.get(["a:1", "a:2", "b:1"]) == like.get(["a:1", "a:2", "b:1"])
        assert [overlay.scan("a:", limit) for limit in (1, 9)] == [like.scan("a:", limit) for limit in (1, 9)]
        for key in ("a:1", "b:1"):
            assert overlay.wait(key, 0) == like.wait(key, 0)
    assert dict(below.scan("")) == before


def test_what_was_to_be_kept_for_a_while_vanishes() -> None:
    overlay = Overlay(MemoryStore(f"below-{next(_fresh)}"))
    overlay.write([Write("a:1", b"1", keep=0.0), Write("a:2", b"2", keep=60.0)])
    assert overlay.get(["a:1", "a:2"]) == [None, b"2"]
