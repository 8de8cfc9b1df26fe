"""Queues, exchanges, and looking without taking. Part of EngineSuite."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from kq_transports.conformance.engine.world import (
    ARGUMENTS,
    QUEUE,
    SHORT,
    Connect,
    EngineWorld,
    done,
    given_back,
    ids,
    message,
    messages,
    requires,
    take,
)
from kq_transports.engine import Arguments, Binding, Counts, Engine, Mismatch, NotEmpty, NotFound

#: Seconds that a long queue may take to be filled and purged.
WITHIN = 30.0


class Queues(EngineWorld):
    """Declaring, listing, purging and deleting queues."""

    def test_declaring_again_changes_nothing(self, engine: Engine, other: Engine) -> None:
        engine.publish(messages("a"))
        other.declare(QUEUE, dict(ARGUMENTS))
        assert ids(take(other)) == "a"

    @pytest.mark.parametrize("arguments", [{}, {"x-max-priority": 5}, {"x-max-priority": 9, "more": 1}])
    def test_declaring_with_other_arguments_is_refused(
        self, engine: Engine, other: Engine, arguments: Arguments
    ) -> None:
        with pytest.raises(Mismatch, match=QUEUE):
            other.declare(QUEUE, arguments)
        assert engine.queues() == {QUEUE: ARGUMENTS}

    def test_every_connection_sees_queues_with_their_arguments(self, engine: Engine, other: Engine) -> None:
        arguments = {"x-max-length": 7, "x-dead-letter-routing-key": "ü", "anything": {"else": [1, None, True]}}
        engine.declare("more", arguments)
        assert other.queues() == {QUEUE: ARGUMENTS, "more": arguments}

    def test_a_queue_ends_when_nobody_used_it_for_as_long_as_it_said(self, engine: Engine, other: Engine) -> None:
        for name in ("unused", "declared", "asked", "held"):
            engine.declare(name, {"x-expires": 2000})
        engine.publish([message("a", queue="held")])
        assert ids(take(engine, queue="held")) == "a"
        self.elapse(1.2)
        engine.declare("declared", {"x-expires": 2000})
        assert take(other, queue="asked") == []
        self.elapse(1.2)
        take(other)  # an engine may end it when it is asked for something
        assert set(engine.queues()) == {QUEUE, "declared", "asked", "held"}

    def test_delete_ends_a_queue_with_all_that_is_in_it(self, engine: Engine, other: Engine) -> None:
        engine.publish([*messages("a b"), message("c", delay=600)])
        take(other, 1)
        assert engine.delete(QUEUE) == 3
        assert engine.queues() == {}
        with pytest.raises(NotFound):
            engine.publish(messages("d"))
        engine.declare(QUEUE, {})
        assert take(engine) == []

    def test_what_was_held_in_a_deleted_queue_can_be_settled_without_effect(self, engine: Engine) -> None:
        engine.publish(messages("a"))
        held = take(engine)
        engine.delete(QUEUE)
        engine.declare(QUEUE, {})
        engine.settle(given_back(held))
        assert take(engine) == []

    def test_what_is_to_be_deleted_when_empty_stays_with_what_it_has(self, engine: Engine) -> None:
        engine.publish([message("a"), message("b", delay=600)])
        held = take(engine)
        with pytest.raises(NotEmpty):
            engine.delete(QUEUE, if_empty=True)
        engine.settle(done(held))
        with pytest.raises(NotEmpty):
            engine.delete(QUEUE, if_empty=True)
        assert engine.remove(QUEUE, ["b"]) == ["b"]
        assert engine.delete(QUEUE, if_empty=True) == 0
        assert QUEUE not in engine.queues()

    def test_in_a_queue_that_is_not_there_is_nothing(self, engine: Engine) -> None:
        assert (engine.delete("nowhere"), engine.purge("nowhere"), engine.remove("nowhere", ["a"])) == (0, 0, [])
        assert (engine.browse("nowhere"), engine.find("nowhere", ["a"]), take(engine, queue="nowhere")) == ([], [], [])

    def test_purge_leaves_what_is_held(self, engine: Engine) -> None:
        engine.publish([*messages("a b c"), message("d", delay=600)])
        held = take(engine, 1)
        assert engine.purge(QUEUE) == 3
        assert engine.count(QUEUE) == Counts(held=1)
        assert engine.settle(done(held)) == []

    def test_what_is_stored_while_a_queue_is_purged_stays(self, engine: Engine, other: Engine) -> None:
        many, until = 20_000, time.monotonic() + WITHIN
        for first in range(0, many, 1000):
            engine.publish([message(f"{first + each}", priority=each % 10) for each in range(1000)])
        with ThreadPoolExecutor(1) as pool:
            purged = pool.submit(engine.purge, QUEUE)
            while other.count(QUEUE).ready == many and time.monotonic() < until:
                pass
            other.publish([message(f"later {priority}", priority=priority) for priority in range(10)])
            assert purged.result(WITHIN) == many
        assert ids(take(other)) == " ".join(f"later {priority}" for priority in reversed(range(10)))

    def test_a_purged_message_may_come_again(self, engine: Engine) -> None:
        engine.publish(messages("a"))
        engine.purge(QUEUE)
        engine.publish(messages("a"))
        assert ids(take(engine)) == "a"

    def test_all_of_it_outlives_every_connection(self, connect: Connect, engine: Engine) -> None:
        requires(engine.traits, "durable")
        engine.publish([message("a"), message("high", priority=9), message("later", delay=600)])
        engine.declare_exchange("events", "topic")
        engine.bind("events", Binding(QUEUE, "a.#"))
        engine.close()
        again = connect()
        assert (again.queues(), again.bindings("events")[0]) == ({QUEUE: ARGUMENTS}, "topic")
        assert list(again.bindings("events")[1]) == [Binding(QUEUE, "a.#")]
        assert again.count(QUEUE) == Counts(ready=2, delayed=1)
        assert ids(take(again)) == "high a"


class Exchanges(EngineWorld):
    """Exchanges and bindings, which live in the broker."""

    def test_every_connection_sees_bindings(self, engine: Engine, other: Engine) -> None:
        engine.declare("more", {})
        engine.declare_exchange("events", "topic")
        engine.bind("events", Binding(QUEUE, "job.*"))
        engine.bind("events", Binding("more", "#"))
        kind, bindings = other.bindings("events")
        assert (kind, set(bindings)) == ("topic", {Binding(QUEUE, "job.*"), Binding("more", "#")})

    def test_binding_twice_is_binding_once(self, engine: Engine) -> None:
        engine.declare_exchange("all", "fanout")
        engine.bind("all", Binding(QUEUE))
        engine.bind("all", Binding(QUEUE))
        assert list(engine.bindings("all")[1]) == [Binding(QUEUE)]

    def test_a_queue_may_be_bound_under_several_keys(self, engine: Engine) -> None:
        engine.declare_exchange("events", "direct")
        engine.bind("events", Binding(QUEUE, "a"))
        engine.bind("events", Binding(QUEUE, "b"))
        engine.unbind("events", Binding(QUEUE, "a"))
        assert list(engine.bindings("events")[1]) == [Binding(QUEUE, "b")]

    def test_unbinding_what_is_not_bound_is_nothing(self, engine: Engine) -> None:
        engine.declare_exchange("events", "direct")
        engine.unbind("events", Binding(QUEUE, "a"))
        assert list(engine.bindings("events")[1]) == []

    def test_a_change_by_another_connection_is_seen(self, engine: Engine, other: Engine) -> None:
        engine.declare_exchange("all", "fanout")
        engine.bind("all", Binding(QUEUE))
        assert len(engine.bindings("all")[1]) == 1
        other.unbind("all", Binding(QUEUE))
        assert list(engine.bindings("all")[1]) == []

    def test_declaring_another_kind_is_refused(self, engine: Engine, other: Engine) -> None:
        engine.declare_exchange("events", "topic")
        engine.declare_exchange("events", "topic")
        with pytest.raises(Mismatch, match="events"):
            other.declare_exchange("events", "fanout")

    def test_an_exchange_that_was_never_declared_is_not_found(self, engine: Engine) -> None:
        with pytest.raises(NotFound, match="nowhere"):
            engine.bindings("nowhere")
        with pytest.raises(NotFound, match="nowhere"):
            engine.bind("nowhere", Binding(QUEUE))

    def test_deleting_an_exchange_ends_its_bindings(self, engine: Engine) -> None:
        engine.declare_exchange("events", "topic")
        engine.bind("events", Binding(QUEUE, "#"))
        engine.delete_exchange("events")
        with pytest.raises(NotFound):
            engine.bindings("events")
        engine.declare_exchange("events", "fanout")
        assert list(engine.bindings("events")[1]) == []

    def test_deleting_a_queue_ends_its_bindings(self, engine: Engine) -> None:
        engine.declare_exchange("all", "fanout")
        engine.bind("all", Binding(QUEUE))
        engine.delete(QUEUE)
        assert list(engine.bindings("all")[1]) == []


class Looking(EngineWorld):
    """Counting, browsing, finding and removing."""

    @pytest.fixture
    def filled(self, engine: Engine) -> Engine:
        """A queue with three ready messages, two delayed ones and two held."""
        engine.publish([message("h1", priority=9), message("h2", priority=9), *messages("r1 r2")])
        engine.publish([message("r0", priority=5), message("d2", delay=900), message("d1", delay=600, priority=1)])
        take(engine, 2)
        return engine

    def test_counts_tell_the_states_apart(self, filled: Engine) -> None:
        assert filled.count(QUEUE) == Counts(ready=3, delayed=2, held=2)

    def test_what_is_not_there_is_not_found(self, filled: Engine) -> None:
        with pytest.raises(NotFound, match="nowhere"):
            filled.count("nowhere")

    def test_ready_messages_are_browsed_in_order_of_delivery(self, filled: Engine, other: Engine) -> None:
        seen = other.browse(QUEUE)
        assert [(s.id, s.priority, s.state, s.due, s.holder) for s in seen] == [
            ("r0", 5, "ready", None, ""),
            ("r1", 0, "ready", None, ""),
            ("r2", 0, "ready", None, ""),
        ]
        assert [s.body for s in seen] == [b"r0", b"r1", b"r2"]
        assert ids(take(other)) == "r0 r1 r2"

    def test_delayed_messages_are_browsed_by_their_time(self, filled: Engine) -> None:
        first, second = filled.browse(QUEUE, "delayed")
        assert (first.id, first.state, second.id) == ("d1", "delayed", "d2")
        assert first.due is not None
        assert second.due is not None
        assert 290 < second.due - first.due < 310

    def test_held_messages_tell_their_holder(self, filled: Engine) -> None:
        seen = filled.browse(QUEUE, "held")
        assert [(s.id, s.state, s.holder) for s in seen] == [("h1", "held", "first"), ("h2", "held", "first")]

    def test_browsing_goes_page_by_page(self, filled: Engine) -> None:
        pages = [filled.browse(QUEUE, limit=2, offset=offset) for offset in (0, 2, 4)]
        assert [[s.id for s in page] for page in pages] == [["r0", "r1"], ["r2"], []]

    def test_looking_takes_nothing_and_counts_as_no_delivery(self, filled: Engine, other: Engine) -> None:
        before = filled.count(QUEUE)
        filled.browse(QUEUE)
        filled.find(QUEUE, ["r0"])
        assert filled.count(QUEUE) == before
        assert [d.count for d in take(other)] == [0, 0, 0]

    def test_messages_are_found_by_id_in_any_state(self, filled: Engine) -> None:
        found = {s.id: s.state for s in filled.find(QUEUE, ["r1", "d1", "h1", "missing"])}
        assert found == {"r1": "ready", "d1": "delayed", "h1": "held"}

    def test_removed_messages_never_come(self, filled: Engine, other: Engine) -> None:
        requires(filled.traits, "indexed")
        assert sorted(filled.remove(QUEUE, ["r1", "d1", "missing"])) == ["d1", "r1"]
        assert ids(take(other)) == "r0 r2"
        assert filled.count(QUEUE) == Counts(delayed=1, held=4)

    def test_what_is_held_is_not_removed(self, filled: Engine) -> None:
        assert filled.remove(QUEUE, ["h1"]) == []
        assert filled.count(QUEUE).held == 2

    def test_a_removed_message_may_be_published_anew(self, filled: Engine, other: Engine) -> None:
        requires(filled.traits, "indexed")
        filled.remove(QUEUE, ["r0"])
        filled.publish([message("r0")])
        assert ids(take(other)) == "r1 r2 r0"

    def test_what_was_given_back_is_browsed_at_its_old_place(self, filled: Engine, other: Engine) -> None:
        other.settle(given_back(take(other, 2)))
        assert [(s.id, s.count) for s in filled.browse(QUEUE)] == [("r0", 1), ("r1", 1), ("r2", 0)]

    def test_a_delayed_message_that_is_due_is_seen_when_it_comes(self, filled: Engine, other: Engine) -> None:
        filled.publish([message("soon", delay=SHORT)])
        self.elapse(SHORT * 1.1)
        assert ids(take(other)) == "r0 r1 r2 soon"
        assert [s.id for s in filled.browse(QUEUE, "delayed")] == ["d1", "d2"]
