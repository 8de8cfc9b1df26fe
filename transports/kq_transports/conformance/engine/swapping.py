"""One message taking the place of another, in one step: kicked, edited, set aside.

Part of EngineSuite.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import pytest

from kq_transports.conformance.engine.world import (
    ARGUMENTS,
    QUEUE,
    SHORT,
    Connect,
    EngineWorld,
    given_back,
    ids,
    message,
    messages,
    requires,
    take,
)
from kq_transports.conformance.flaky import Flaky, Moment
from kq_transports.engine import Counts, Engine, Full, Message, NotFound, Swap, Unreachable

ASIDE = "aside"


def swapped(id: str, *instead: Message, keeps_due: bool = False) -> Swap:
    """A message as message() makes it, and what is to take its place."""
    return Swap(id, id.encode(), instead, keeps_due)


class Swapping(EngineWorld):
    """swap(): compare, take off and publish."""

    @pytest.fixture
    def aside(self, engine: Engine) -> Engine:
        """A second queue with three messages that were set aside."""
        engine.declare(ASIDE, ARGUMENTS)
        engine.publish([message(id, queue=ASIDE) for id in "abc"])
        return engine

    def test_a_message_moves_to_another_queue(self, aside: Engine, other: Engine) -> None:
        assert aside.swap(ASIDE, [swapped("b", message("b", priority=7))]) == [True]
        assert ids(take(aside, queue=ASIDE)) == "a c"
        assert [(d.id, d.priority, d.count) for d in take(other)] == [("b", 7, 0)]

    def test_many_move_in_one_call(self, aside: Engine, other: Engine) -> None:
        assert aside.swap(ASIDE, [swapped(id, message(id)) for id in "abc"]) == [True, True, True]
        assert (ids(take(other)), aside.count(ASIDE)) == ("a b c", Counts())

    def test_a_message_changes_where_it_is(self, aside: Engine, other: Engine) -> None:
        assert aside.swap(ASIDE, [swapped("b", Message("b", ASIDE, b"mended", 5))]) == [True]
        first, *_ = other.browse(ASIDE)
        assert (first.id, first.body, first.priority) == ("b", b"mended", 5)
        assert aside.count(ASIDE) == Counts(ready=3)

    def test_nothing_instead_removes_it(self, aside: Engine) -> None:
        assert aside.swap(ASIDE, [swapped("b")]) == [True]
        assert ids(take(aside, queue=ASIDE)) == "a c"

    def test_what_has_changed_meanwhile_stays(self, aside: Engine, other: Engine) -> None:
        other.swap(ASIDE, [swapped("b", Message("b", ASIDE, b"mended"))])
        assert aside.swap(ASIDE, [swapped("b", message("b")), swapped("c", message("c"))]) == [False, True]
        assert [s.body for s in aside.find(ASIDE, ["b"])] == [b"mended"]
        assert ids(take(other)) == "c"

    def test_what_is_gone_is_not_swapped(self, aside: Engine, other: Engine) -> None:
        aside.swap(ASIDE, [swapped("b")])
        assert aside.swap(ASIDE, [swapped("b", message("b"))]) == [False]
        assert take(other) == []

    def test_what_is_held_is_not_swapped(self, aside: Engine, other: Engine) -> None:
        held = take(other, 1, ASIDE)
        assert aside.swap(ASIDE, [swapped("a", message("a"))]) == [False]
        other.settle(given_back(held))
        assert aside.swap(ASIDE, [swapped("a", message("a"))]) == [True]
        assert aside.count(ASIDE) == Counts(ready=2)

    def test_an_id_that_is_there_already_is_stored_once(self, aside: Engine, other: Engine) -> None:
        requires(aside.traits, "indexed")
        aside.publish([message("a", priority=3)])
        assert aside.swap(ASIDE, [swapped("a", message("a"))]) == [True]
        assert [(d.id, d.priority) for d in take(other)] == [("a", 3)]

    def test_a_delayed_message_gets_another_delay(self, engine: Engine, other: Engine) -> None:
        engine.publish([message("a", delay=3600), message("b", delay=3600)])
        assert engine.swap(QUEUE, [swapped("a", message("a")), swapped("b", message("b", delay=SHORT))]) == [True, True]
        assert ids(take(other)) == "a"
        self.elapse(SHORT * 1.1)
        assert ids(take(other)) == "b"

    def test_what_takes_its_place_may_keep_its_time(self, engine: Engine, other: Engine) -> None:
        engine.publish([message("a", delay=3600), message("b", delay=SHORT), message("c")])
        before = engine.find(QUEUE, ["a"])[0].due
        swaps = [swapped(id, Message(id, QUEUE, b"mended"), keeps_due=True) for id in "abc"]
        assert engine.swap(QUEUE, swaps) == [True, True, True]
        after = engine.find(QUEUE, ["a"])[0].due
        assert after == pytest.approx(before, abs=0.5)
        assert ids(take(other)) == "c"
        self.elapse(SHORT * 1.1)
        assert [(d.id, d.body) for d in take(other)] == [("b", b"mended")]

    def test_who_sleeps_is_woken(self, aside: Engine, other: Engine) -> None:
        assert take(other) == []
        other.arm([QUEUE])
        aside.swap(ASIDE, [swapped("a", message("a"))])
        assert other.wait([QUEUE], 5.0)
        assert ids(take(other)) == "a"

    def test_nothing_is_done_when_one_cannot_be_stored(self, aside: Engine) -> None:
        with pytest.raises(NotFound, match="nowhere"):
            aside.swap(ASIDE, [swapped("a", message("a")), swapped("b", message("b", queue="nowhere"))])
        assert (aside.count(ASIDE), aside.count(QUEUE)) == (Counts(ready=3), Counts())
        with pytest.raises(NotFound, match="nowhere"):
            aside.swap("nowhere", [swapped("a")])

    def test_a_full_queue_takes_no_more_but_what_takes_anothers_place(self, engine: Engine) -> None:
        engine.declare("small", {"x-max-length": 2})
        engine.publish([message(id, queue="small") for id in "ab"])
        engine.publish(messages("c"))
        with pytest.raises(Full, match="small"):
            engine.swap(QUEUE, [swapped("c", message("c", queue="small"))])
        assert engine.count(QUEUE) == Counts(ready=1)
        assert engine.swap("small", [swapped("a", Message("a", "small", b"mended"))]) == [True]
        assert engine.swap("small", [swapped("b", message("other", queue="small"))]) == [True]
        assert engine.count("small") == Counts(ready=2)

    @pytest.mark.parametrize("moment", ["before", "after"])
    def test_a_swap_may_fail_and_is_repeated_without_harm(
        self, connect: Connect, aside: Engine, moment: Moment
    ) -> None:
        requires(aside.traits, "indexed")
        for k in count(1):
            flaky = Flaky(connect(), "swap", k, moment)
            for id in "abc":
                self._surely(flaky, [swapped(id, message(id))])
            assert (aside.count(ASIDE), aside.count(QUEUE)) == (Counts(), Counts(ready=3))
            for id in "abc":
                aside.swap(QUEUE, [swapped(id, message(id, queue=ASIDE))])
            if not flaky.broken:
                break
        assert k == 4

    @staticmethod
    def _surely(engine: Engine, swaps: Sequence[Swap]) -> None:
        try:
            engine.swap(ASIDE, swaps)
        except Unreachable:
            engine.swap(ASIDE, swaps)  # False when the first one was carried out
