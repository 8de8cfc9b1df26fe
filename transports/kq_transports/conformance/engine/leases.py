"""Leases: who holds what, for how long, and what the dead may still say. Part of EngineSuite."""

from __future__ import annotations

from pathlib import Path

import pytest

from kq_transports.conformance.engine.world import (
    ARGUMENTS,
    QUEUE,
    SHORT,
    Connect,
    EngineWorld,
    done,
    hold,
    ids,
    message,
    messages,
    requires,
    take,
)
from kq_transports.conformance.peer import peer
from kq_transports.engine import Binding, Counts, Engine, LeaseLost, NotFound, Options

GONE = SHORT * 1.2  # seconds after which a SHORT lease is over


class Leases(EngineWorld):
    """A connection holds what it took for as long as it beats."""

    def test_what_a_dead_connection_held_is_ready_at_its_old_place(self, connect: Connect, engine: Engine) -> None:
        victim = connect(lease=SHORT)
        engine.publish(messages("a b c d"))
        assert ids(take(victim, 2)) == "a b"
        assert ids(take(engine, 1)) == "c"
        self.elapse(GONE)
        assert [(d.id, d.count) for d in take(engine)] == [("a", 1), ("b", 1), ("d", 0)]

    def test_beats_keep_what_is_held_for_as_long_as_they_come(self, connect: Connect, engine: Engine) -> None:
        holder = connect(lease=SHORT)
        engine.publish(messages("a"))
        held = take(holder)
        for _ in range(8):
            self.elapse(SHORT / 4)
            holder.beat()
            assert take(engine) == []
        assert holder.settle(done(held)) == []

    def test_a_lease_begins_with_the_first_beat_or_reserve(self, connect: Connect, engine: Engine) -> None:
        engine.publish(messages("a"))
        assert engine.leases() == []
        connect("beats").beat()
        take(connect("reserves"))
        assert {(lease.connection, lease.held) for lease in engine.leases()} == {("beats", 0), ("reserves", 1)}

    def test_a_lease_says_when_it_ends(self, connect: Connect, engine: Engine) -> None:
        connect("long", lease=100.0).beat()
        connect("short", lease=50.0).beat()
        until = {lease.connection: lease.until for lease in engine.leases()}
        assert 45 < until["long"] - until["short"] < 55

    def test_a_connection_without_a_name_gets_one_of_its_own(self, connect: Connect) -> None:
        one, two = connect(), connect()
        one.beat()
        two.beat()
        names = {lease.connection for lease in one.leases()}
        assert len(names) == 2
        assert names == {one.options.name, two.options.name}

    def test_a_name_belongs_to_the_last_that_took_it(self, connect: Connect, engine: Engine) -> None:
        first = connect("worker")
        engine.publish(messages("a"))
        take(first)
        second = connect("worker")
        assert ids(take(second)) == "a"
        with pytest.raises(LeaseLost):
            first.beat()

    def test_a_kept_alive_connection_needs_no_beats(self, connect: Connect, engine: Engine) -> None:
        holder = connect(lease=SHORT, keep_alive=True)
        engine.publish(messages("a"))
        held = take(holder)
        for _ in range(4):
            self.elapse(SHORT / 2)
            assert take(engine) == []
        assert holder.settle(done(held)) == []

    def test_closing_gives_back_at_once_and_at_the_same_place(self, connect: Connect, engine: Engine) -> None:
        holder = connect()
        engine.publish([message("a", priority=2), message("b"), message("c")])
        take(holder, 2)
        holder.close()
        holder.close()
        assert [(d.id, d.count) for d in take(engine)] == [("a", 1), ("b", 1), ("c", 0)]
        assert [lease.connection for lease in engine.leases()] == ["first"]

    def test_a_dead_connection_leaves_no_lease_behind(self, connect: Connect, engine: Engine) -> None:
        connect(lease=SHORT).beat()
        assert len(engine.leases()) == 1
        self.elapse(GONE)
        take(engine)
        assert [lease.connection for lease in engine.leases()] == ["first"]

    def test_a_queue_that_is_never_empty_hides_no_dead_connection(self, connect: Connect, engine: Engine) -> None:
        victim = connect(lease=SHORT)
        engine.publish(messages(" ".join(f"m{i}" for i in range(100))))
        take(victim, 1)
        self.elapse(GONE)
        assert ids(take(engine, 1)) == "m0"

    def test_a_killed_process_gives_back_when_its_lease_ends(self, tmp_path: Path, engine: Engine) -> None:
        requires(engine.traits, "shared")
        engine.publish(messages("a b"))
        with peer(hold, self, tmp_path, Options(lease=SHORT), 1) as process:
            assert process.receive() == ["a"]
            process.kill()
        self.elapse(GONE)
        assert [(d.id, d.count) for d in take(engine)] == [("a", 1), ("b", 0)]

    def test_a_process_that_was_killed_is_not_reclaimed_before_its_lease_ends(
        self, tmp_path: Path, engine: Engine
    ) -> None:
        requires(engine.traits, "shared")
        engine.publish(messages("a"))
        with peer(hold, self, tmp_path, Options(lease=60.0), 1) as process:
            process.receive()
            process.kill()
        assert take(engine) == []
        assert engine.count(QUEUE) == Counts(held=1)


class Fencing(EngineWorld):
    """What a dead connection says is refused, for ever."""

    def test_every_word_about_deliveries_is_refused(self, connect: Connect, engine: Engine) -> None:
        zombie = connect(lease=SHORT)
        engine.publish(messages("a"))
        old = take(zombie)
        self.elapse(GONE)
        new = take(engine)
        for word in (lambda: zombie.settle(done(old)), lambda: take(zombie), zombie.beat) * 2:
            with pytest.raises(LeaseLost):
                word()
        assert engine.settle(done(new)) == []

    def test_a_refused_settle_stores_no_follow_ups(self, connect: Connect, engine: Engine) -> None:
        zombie = connect(lease=SHORT)
        engine.publish(messages("a"))
        old = take(zombie)
        self.elapse(GONE)
        take(engine)
        with pytest.raises(LeaseLost):
            zombie.settle(done(old), messages("b"))
        assert engine.count(QUEUE) == Counts(held=1)

    def test_a_refused_reserve_neither_settles_nor_takes(self, connect: Connect, engine: Engine) -> None:
        zombie = connect("zombie")
        engine.publish(messages("a b"))
        old = take(zombie, 1)
        engine.expel("zombie")
        with pytest.raises(LeaseLost):
            zombie.reserve([], done(old))
        assert ids(take(engine)) == "a b"

    def test_a_dead_connection_may_be_closed_and_takes_nothing_with_it(self, connect: Connect, engine: Engine) -> None:
        zombie = connect(lease=SHORT)
        engine.publish(messages("a"))
        take(zombie)
        self.elapse(GONE)
        new = take(engine)
        zombie.close()
        assert engine.settle(done(new)) == []

    def test_expelling_gives_back_in_one_step(self, connect: Connect, engine: Engine) -> None:
        victim = connect("victim")
        engine.publish(messages("a b"))
        held = take(victim, 1)
        assert engine.expel("victim") is True
        assert [(d.id, d.count) for d in take(engine)] == [("a", 1), ("b", 0)]
        with pytest.raises(LeaseLost):
            victim.settle(done(held))

    def test_an_expelled_connection_learns_it_at_its_next_beat(self, connect: Connect, engine: Engine) -> None:
        victim = connect("victim")
        victim.beat()
        engine.expel("victim")
        with pytest.raises(LeaseLost):
            victim.beat()

    def test_expelling_a_stranger_is_false(self, engine: Engine) -> None:
        assert engine.expel("nobody") is False


class SingleActive(EngineWorld):
    """A queue that one connection at a time consumes."""

    @pytest.fixture
    def single(self, engine: Engine) -> str:
        """A queue with one seat and three messages."""
        engine.declare("single", {"x-single-active-consumer": True})
        engine.publish([message(id, queue="single") for id in "abc"])
        return "single"

    def test_only_the_first_gets_messages(self, single: str, engine: Engine, other: Engine) -> None:
        assert ids(take(engine, 1, queue=single)) == "a"
        assert take(other, queue=single) == []
        assert ids(take(engine, queue=single)) == "b c"
        assert take(other, queue=single) == []

    def test_the_seat_is_taken_by_asking_even_in_vain(self, single: str, engine: Engine, other: Engine) -> None:
        engine.purge(single)
        take(engine, queue=single)
        engine.publish([message("d", queue=single)])
        assert take(other, queue=single) == []
        assert ids(take(engine, queue=single)) == "d"

    def test_closing_frees_the_seat(self, single: str, engine: Engine, other: Engine) -> None:
        take(engine, 1, queue=single)
        engine.close()
        assert ids(take(other, queue=single)) == "a b c"

    def test_the_seat_of_who_was_expelled_is_free_when_his_lease_would_have_ended(
        self, single: str, connect: Connect, engine: Engine
    ) -> None:
        victim = connect("victim", lease=SHORT)
        take(victim, 1, queue=single)
        assert engine.expel("victim")
        assert engine.count(single) == Counts(ready=3)
        assert take(engine, queue=single) == []  # the victim may not know yet
        with pytest.raises(LeaseLost):
            take(victim, queue=single)
        assert engine.due is not None
        self.elapse(GONE)
        assert ids(take(engine, queue=single)) == "a b c"
        assert not engine.expel("victim")

    def test_the_end_of_the_lease_frees_the_seat(self, single: str, connect: Connect, engine: Engine) -> None:
        victim = connect(lease=SHORT)
        take(victim, 1, queue=single)
        assert take(engine, queue=single) == []
        self.elapse(GONE)
        assert ids(take(engine, queue=single)) == "a b c"

    def test_release_frees_the_seat_and_keeps_what_is_held(self, single: str, engine: Engine, other: Engine) -> None:
        held = take(engine, 1, queue=single)
        engine.release([single])
        assert ids(take(other, queue=single)) == "b c"
        assert take(engine, queue=single) == []
        assert engine.settle(done(held)) == []

    def test_each_queue_has_its_own_seat(self, single: str, engine: Engine, other: Engine) -> None:
        other.declare("more", {"x-single-active-consumer": True})
        other.publish([message("x", queue="more")])
        take(engine, queue=single)
        assert ids(take(other, queue="more")) == "x"
        assert take(engine, queue="more") == []


class Mortal(EngineWorld):
    """Queues that end with the connection that declared them."""

    @pytest.fixture
    def owner(self, connect: Connect, engine: Engine) -> Engine:
        """A connection with a queue of its own, bound to a fanout."""
        owner = connect("owner", lease=SHORT)
        owner.declare("mine", {}, mortal=True)
        engine.declare_exchange("all", "fanout")
        return owner

    def test_others_may_publish_to_it(self, owner: Engine, engine: Engine) -> None:
        engine.publish([message("a", queue="mine")])
        assert ids(take(owner, queue="mine")) == "a"

    def test_it_ends_with_close(self, owner: Engine, engine: Engine) -> None:
        owner.close()
        assert "mine" not in engine.queues()
        with pytest.raises(NotFound):
            engine.publish([message("a", queue="mine")])

    def test_it_ends_with_the_lease(self, owner: Engine, engine: Engine) -> None:
        owner.beat()
        self.elapse(GONE)
        take(engine)
        assert "mine" not in engine.queues()

    def test_it_ends_when_its_connection_is_expelled(self, owner: Engine, engine: Engine) -> None:
        owner.beat()
        engine.expel("owner")
        assert "mine" not in engine.queues()

    def test_it_takes_its_bindings_with_it(self, owner: Engine, engine: Engine) -> None:
        engine.bind("all", Binding("mine"))
        owner.close()
        kind, bindings = engine.bindings("all")
        assert (kind, list(bindings)) == ("fanout", [])

    def test_it_ends_with_the_last_that_declared_it(self, owner: Engine, engine: Engine, other: Engine) -> None:
        other.declare("mine", {}, mortal=True)
        owner.close()
        assert "mine" in engine.queues()
        other.close()
        assert "mine" not in engine.queues()

    def test_a_queue_that_lasts_goes_on_lasting(self, owner: Engine, engine: Engine) -> None:
        owner.declare(QUEUE, ARGUMENTS, mortal=True)
        owner.close()
        assert QUEUE in engine.queues()
