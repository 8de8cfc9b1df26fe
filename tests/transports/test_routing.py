"""Topic patterns as AMQP has them, and the examples in the module."""

from __future__ import annotations

import doctest

from hypothesis import given
from hypothesis import strategies as st

from kq_transports import routing
from kq_transports.engine import Binding
from kq_transports.routing import matches, route

words = st.lists(st.sampled_from(["a", "b", "a+(b", ""]), min_size=1, max_size=5)
patterns = st.lists(st.sampled_from(["a", "b", "a+(b", "", "*", "#", "#"]), min_size=1, max_size=5)


def covers(pattern: list[str], key: list[str]) -> bool:
    """What AMQP says, word by word."""
    if not pattern:
        return not key
    first, *rest = pattern
    if first == "#":
        return covers(rest, key) or (bool(key) and covers(pattern, key[1:]))
    return bool(key) and first in ("*", key[0]) and covers(rest, key[1:])


def split(text: str) -> list[str]:
    return text.split(".") if text else []


@given(patterns, words)
def test_a_pattern_covers_what_amqp_says(pattern: list[str], key: list[str]) -> None:
    written, said = ".".join(pattern), ".".join(key)
    assert matches(written, said) == covers(split(written), split(said))


def test_a_pattern_of_many_hashes_is_quick() -> None:
    assert not matches("#." * 30 + "x", "a." * 30 + "a")


def test_a_queue_that_is_bound_twice_gets_one_copy() -> None:
    bindings = [Binding("q", "a.*"), Binding("q", "#"), Binding("other", "b")]
    assert route("topic", bindings, "a.b") == ["q"]


def test_a_direct_exchange_goes_by_the_key_and_a_fanout_does_not() -> None:
    bindings = [Binding("one", "a"), Binding("two", "b")]
    assert (route("direct", bindings, "b"), route("fanout", bindings, "x")) == (["two"], ["one", "two"])


def test_the_examples_in_the_module_are_true() -> None:
    assert doctest.testmod(routing).failed == 0
