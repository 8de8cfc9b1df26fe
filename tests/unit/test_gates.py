"""Gates of executors: of each queue no more jobs pass than its limit says; and who may begin when they pass anew."""

from __future__ import annotations

from kq.worker.gates import Gates
from kq.worker.wire import Claims


def test_so_many_of_a_queue_pass_and_the_others_follow_in_their_order() -> None:
    gates = Gates[int]()
    assert [number for number in range(5) if gates.enter(number, "narrow", 2)] == [0, 1]
    assert gates.enter(5, "wide", 0)
    assert [gates.leave("narrow", 2) for _ in range(5)] == [2, 3, 4, None, None]
    assert gates.leave("wide", 0) is None
    assert [number for number in range(3) if gates.enter(number, "narrow", 2)] == [0, 1]


def test_each_queue_has_a_gate_of_its_own() -> None:
    gates = Gates[str]()
    assert gates.enter("a", "one", 1)
    assert not gates.enter("b", "one", 1)
    assert gates.enter("c", "other", 1)
    assert gates.leave("other", 1) is None
    assert gates.leave("one", 1) == "b"


def test_who_begins_before_others_that_came_first_claims_these_too() -> None:
    claims = Claims(10)
    claims.offer([1, 2, 3, 4, 5])
    assert claims.claim(1)
    assert claims.claim(4)
    assert claims.take_back() == {5}
    assert [claims.claim(seq) for seq in (2, 3, 5)] == [True, True, False]
    claims.close()


def test_who_was_taken_back_costs_none_that_came_after_him_its_claim() -> None:
    claims = Claims(10)
    claims.offer([1, 2])
    assert claims.take_back() == {1, 2}
    claims.offer([3, 4])
    assert [claims.claim(seq) for seq in (1, 4, 2, 3)] == [False, True, False, True]
    claims.close()
