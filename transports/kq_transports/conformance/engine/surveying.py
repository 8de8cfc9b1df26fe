"""All queues at one look. Part of EngineSuite."""

from __future__ import annotations

import pytest

from kq_transports.conformance.engine.world import (
    QUEUE,
    SHORT,
    Connect,
    EngineWorld,
    done,
    given_back,
    message,
    messages,
    requires,
    take,
)
from kq_transports.engine import DEPTH, Engine, Load

#: Seconds by which an age may be more than what was waited for, on a busy machine.
BUSY = 5.0


class Surveying(EngineWorld):
    """What survey() tells of queues, and of the oldest message of each."""

    def oldest(self, engine: Engine) -> float:
        """How long the oldest message of the queue has been ready, as engine tells it."""
        oldest = engine.survey()[QUEUE].oldest
        assert oldest is not None
        return oldest

    def test_a_survey_tells_the_states_of_every_queue_apart(self, engine: Engine, other: Engine) -> None:
        engine.declare("second", {})
        engine.declare("empty", {})
        engine.publish([*messages("a b c"), message("later", delay=900), message("x", queue="second")])
        take(engine, 2)
        found = {name: (load.ready, load.delayed, load.held) for name, load in other.survey().items()}
        assert found == {QUEUE: (1, 1, 2), "second": (1, 0, 0), "empty": (0, 0, 0)}

    def test_a_survey_tells_which_queues_one_connection_at_a_time_consumes(self, engine: Engine) -> None:
        engine.declare("alone", {"x-single-active-consumer": True})
        assert {name: load.single for name, load in engine.survey().items()} == {QUEUE: False, "alone": True}

    def test_nothing_that_an_engine_wrote_is_set_aside(self, engine: Engine, other: Engine) -> None:
        engine.publish([*messages("a b c d"), message("later", delay=900), message("soon", delay=SHORT)])
        took = take(engine, 2)
        engine.settle([*done(took[:1]), *given_back(took[1:])])
        other.remove(QUEUE, ["c"])
        self.elapse(SHORT * 1.1)
        take(other, 1)
        assert other.survey()[QUEUE].aside == 0
        assert "unreadable" not in other.facts()

    def test_a_survey_agrees_with_counts(self, engine: Engine) -> None:
        engine.publish([*messages("a b"), message("soon", delay=SHORT)])
        take(engine, 1)
        self.elapse(SHORT * 1.1)
        load, counts = engine.survey()[QUEUE], engine.count(QUEUE)
        assert (load.ready, load.delayed, load.held) == (counts.ready, counts.delayed, counts.held) == (2, 0, 1)

    def test_what_dead_connections_held_is_ready_in_a_survey(self, engine: Engine, connect: Connect) -> None:
        victim = connect("victim", lease=SHORT)
        engine.publish(messages("a"))
        take(victim)
        self.elapse(SHORT * 1.5)
        take(engine, 0)  # whoever works notices; who looks needs not
        assert engine.survey()[QUEUE].held == 0

    def test_nothing_ready_has_no_age(self, engine: Engine) -> None:
        assert engine.survey()[QUEUE] == Load()
        engine.publish([message("later", delay=900), *messages("a")])
        take(engine)
        assert self.oldest(engine) == 0.0

    def test_the_oldest_is_the_one_that_waits_longest_whatever_its_priority(self, engine: Engine) -> None:
        engine.publish([message("low", priority=1)])
        self.elapse(SHORT)
        engine.publish([message("high", priority=9)])
        assert SHORT * 0.99 <= self.oldest(engine) < SHORT + BUSY
        engine.settle(done(take(engine)))
        assert self.oldest(engine) == 0.0

    def test_a_delayed_message_is_as_old_as_it_is_due(self, engine: Engine) -> None:
        engine.publish([message("a", delay=SHORT)])
        self.elapse(SHORT)
        assert self.oldest(engine) < SHORT + BUSY - 1
        self.elapse(SHORT)
        assert self.oldest(engine) >= SHORT * 0.9

    @pytest.mark.parametrize("looked", [False, True], ids=["before anybody looked", "after somebody looked"])
    def test_one_that_was_delayed_for_long_is_young(self, engine: Engine, looked: bool) -> None:
        engine.publish([message("a", delay=4 * SHORT)])
        self.elapse(4.2 * SHORT)
        if looked:
            take(engine, 0)
        assert self.oldest(engine) < 3 * SHORT

    def test_giving_back_makes_nothing_younger(self, engine: Engine) -> None:
        engine.publish(messages("a b"))
        self.elapse(SHORT)
        engine.settle(given_back(take(engine)))
        assert SHORT * 0.99 <= self.oldest(engine) < SHORT + BUSY

    def test_one_that_was_delayed_and_given_back_is_no_older_than_it_is_due(self, engine: Engine) -> None:
        engine.publish([message("a", delay=4 * SHORT)])
        self.elapse(4.2 * SHORT)
        engine.settle(given_back(take(engine)))
        assert self.oldest(engine) < 3 * SHORT

    def test_what_was_removed_is_not_the_oldest(self, engine: Engine) -> None:
        requires(engine.traits, "indexed")
        engine.publish(messages("a b"))
        self.elapse(3 * SHORT)
        engine.publish(messages("c"))
        engine.remove(QUEUE, ["a", "b"])
        assert self.oldest(engine) < 3 * SHORT

    def test_the_oldest_is_found_behind_some_that_were_delayed(self, engine: Engine) -> None:
        engine.publish([message(f"d{i}", delay=2 * SHORT) for i in range(DEPTH - 1)])
        engine.publish(messages("a"))
        self.elapse(2.5 * SHORT)
        assert self.oldest(engine) >= 2.4 * SHORT

    def test_it_goes_on_when_a_queue_is_purged(self, engine: Engine) -> None:
        engine.publish([message("a", delay=SHORT / 3), *messages("b c")])
        self.elapse(SHORT)
        held = take(engine, 1)
        engine.purge(QUEUE)
        engine.settle(given_back(held))
        assert engine.survey()[QUEUE].ready == 1
        assert self.oldest(engine) < SHORT + BUSY

    def test_looking_changes_nothing(self, engine: Engine, other: Engine) -> None:
        engine.publish(messages("a b"))
        for _ in range(3):
            other.survey()
        assert [(delivery.id, delivery.count) for delivery in take(engine)] == [("a", 0), ("b", 0)]
