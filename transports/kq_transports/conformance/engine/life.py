"""The life of a message: published, reserved, given back, settled. Part of EngineSuite."""

from __future__ import annotations

import pytest

from kq_transports.conformance.engine.world import (
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
from kq_transports.engine import Action, Counts, Delivery, Engine, Full, Message, NotFound, TooLarge, Verdict, Want


class Order(EngineWorld):
    """In which order messages come, and how many at once."""

    def test_messages_come_in_order_of_submission(self, engine: Engine) -> None:
        engine.publish(messages("b a"))
        engine.publish(messages("c"))
        assert ids(take(engine)) == "b a c"

    def test_a_higher_priority_comes_first_and_equals_in_order(self, engine: Engine) -> None:
        engine.publish([message(f"{letter}{p}", priority=p) for letter in "ab" for p in range(10)])
        assert ids(take(engine)) == " ".join(f"{letter}{p}" for p in range(9, -1, -1) for letter in "ab")

    def test_a_batch_has_at_most_its_limit(self, engine: Engine) -> None:
        engine.publish(messages("a b c"))
        assert [ids(take(engine, 2)), ids(take(engine, 2)), ids(take(engine, 2))] == ["a b", "c", ""]

    def test_a_thousand_messages_keep_their_order(self, engine: Engine) -> None:
        names = " ".join(f"m{i}" for i in range(1000))
        engine.publish(messages(names))
        assert ids(take(engine, 1000)) == names

    def test_the_first_queue_of_a_want_comes_first(self, engine: Engine) -> None:
        engine.declare("more", {})
        engine.publish([message("b", queue="more", priority=9), message("a")])
        assert ids(engine.reserve([Want((QUEUE, "more"), 5)])) == "a b"

    def test_several_wants_are_met_at_once_each_within_its_limit(self, engine: Engine) -> None:
        engine.declare("more", {})
        engine.publish([*messages("a b c"), *(message(id, queue="more") for id in "xyz")])
        got = engine.reserve([Want((QUEUE,), 2), Want(("more",), 1), Want((QUEUE, "more"), 2)])
        assert sorted(d.id for d in got) == ["a", "b", "c", "x", "y"]

    def test_a_want_without_credit_takes_nothing(self, engine: Engine) -> None:
        engine.publish(messages("a"))
        assert take(engine, 0) == []

    def test_a_delivery_has_what_was_published(self, engine: Engine) -> None:
        body = bytes(range(256)) * 4096  # 1 MiB
        engine.publish([Message("an id: ü/{1}", QUEUE, body, priority=7)])
        (got,) = take(engine)
        assert (got.id, got.queue, got.body, got.priority, got.count) == ("an id: ü/{1}", QUEUE, body, 7, 0)

    def test_an_empty_body_is_a_body(self, engine: Engine) -> None:
        engine.publish([Message("a", QUEUE, b"")])
        assert take(engine)[0].body == b""

    @pytest.mark.parametrize("queue", ["kq.q-1/ä ü", "{x}{y}:z", "a" * 200, "semi;quote'%"])
    def test_a_queue_may_have_any_name(self, engine: Engine, queue: str) -> None:
        engine.declare(queue, {})
        engine.publish([message("a", queue=queue)])
        assert [d.queue for d in take(engine, queue=queue)] == [queue]
        assert queue in engine.queues()


class GiveBack(EngineWorld):
    """A message that is given back is as it was, and marked."""

    def test_it_is_first_again_and_counted(self, engine: Engine) -> None:
        engine.publish(messages("a b"))
        first = take(engine, 1)
        engine.settle(given_back(first))
        assert [(d.id, d.count) for d in take(engine)] == [("a", 1), ("b", 0)]

    def test_it_keeps_its_priority_and_its_place_among_others(self, engine: Engine) -> None:
        engine.publish([message("a", priority=5), message("b", priority=5), message("c", priority=5), message("d")])
        a, b, _ = take(engine, 3)
        engine.settle(given_back([b, a]))
        engine.publish([message("e", priority=5), message("high", priority=6)])
        assert ids(take(engine)) == "high a b e d"

    def test_its_count_rises_with_each_delivery(self, engine: Engine) -> None:
        engine.publish(messages("a"))
        counts = []
        for _ in range(21):
            (got,) = take(engine)
            counts.append(got.count)
            engine.settle(given_back([got]))
        assert counts == list(range(21))

    def test_reserve_settles_before_it_takes(self, engine: Engine) -> None:
        engine.publish(messages("a b"))
        first = take(engine, 1)
        again = engine.reserve([Want((QUEUE,), 1)], given_back(first))
        assert [(d.id, d.count) for d in again] == [("a", 1)]
        assert ids(engine.reserve([Want((QUEUE,), 5)], done(again))) == "b"


class Settle(EngineWorld):
    """How deliveries end."""

    def test_done_is_the_end_of_a_message(self, engine: Engine, other: Engine) -> None:
        engine.publish(messages("a"))
        assert engine.settle(done(take(engine))) == []
        assert engine.count(QUEUE) == Counts()
        assert take(other) == []

    def test_a_second_settle_does_nothing_and_says_so(self, engine: Engine) -> None:
        engine.publish(messages("a"))
        got = take(engine)
        engine.settle(done(got))
        assert engine.settle(done(got)) == [got[0].receipt]

    def test_a_stale_receipt_does_nothing_to_the_delivery_that_followed(self, engine: Engine, other: Engine) -> None:
        engine.publish(messages("a"))
        old = take(engine)
        engine.settle(given_back(old))
        new = take(other)
        assert engine.settle(done(old)) == [old[0].receipt]
        assert engine.settle(given_back(old)) == [old[0].receipt]
        assert other.settle(done(new)) == []

    def test_ones_own_older_receipt_is_stale(self, engine: Engine) -> None:
        engine.publish(messages("a"))
        old = take(engine)
        engine.settle(given_back(old))
        new = take(engine)
        assert engine.settle(done(old)) == [old[0].receipt]
        assert engine.settle(done(new)) == []

    def test_a_stranger_cannot_settle(self, engine: Engine, other: Engine) -> None:
        engine.publish(messages("a"))
        got = take(engine)
        other.beat()
        assert other.settle(done(got)) == [got[0].receipt]
        assert engine.settle(done(got)) == []

    def test_what_is_no_receipt_is_stale(self, engine: Engine) -> None:
        engine.beat()
        assert engine.settle([Verdict("nonsense", Action.DONE), Verdict("", Action.DONE)]) == ["nonsense", ""]

    def test_good_receipts_are_settled_beside_stale_ones(self, engine: Engine) -> None:
        engine.publish(messages("a b"))
        a, b = take(engine)
        engine.settle(done([a]))
        assert engine.settle(done([a, b])) == [a.receipt]
        assert engine.count(QUEUE) == Counts()

    def test_a_stale_verdict_does_not_disturb_a_reserve(self, engine: Engine) -> None:
        engine.publish(messages("a b"))
        first = take(engine, 1)
        engine.settle(done(first))
        assert ids(engine.reserve([Want((QUEUE,), 1)], done(first))) == "b"

    def test_the_same_receipt_twice_in_one_settle_settles_once(self, engine: Engine) -> None:
        engine.publish(messages("a b"))
        a, _ = take(engine)
        engine.settle(done([a, a]))
        assert engine.count(QUEUE) == Counts(held=1)


class FollowUps(EngineWorld):
    """Settling and publishing together."""

    def test_follow_ups_come_with_the_end(self, engine: Engine) -> None:
        engine.publish(messages("a"))
        assert engine.settle(done(take(engine)), messages("b c")) == []
        assert ids(take(engine)) == "b c"

    def test_messages_may_be_stored_without_verdicts(self, engine: Engine) -> None:
        engine.beat()
        assert engine.settle([], messages("a")) == []
        assert ids(take(engine)) == "a"

    def test_a_repeated_settle_stores_nothing_twice(self, engine: Engine) -> None:
        engine.publish(messages("a"))
        a = take(engine)
        engine.settle(done(a), messages("b"))
        engine.settle(done(take(engine)))
        assert engine.settle(done(a), messages("b")) == [a[0].receipt]
        assert engine.count(QUEUE) == Counts()

    def test_a_stale_receipt_undoes_all_of_a_settle_with_follow_ups(self, engine: Engine) -> None:
        engine.publish(messages("a b"))
        a, b = take(engine)
        engine.settle(done([a]))
        assert engine.settle(done([a, b]), messages("c")) == [a.receipt]
        assert engine.count(QUEUE) == Counts(held=1)
        assert engine.settle(done([b]), messages("c")) == []
        assert ids(take(engine)) == "c"

    def test_a_follow_up_for_no_queue_undoes_the_end(self, engine: Engine) -> None:
        requires(engine.traits, "atomic")
        engine.publish(messages("a"))
        a = take(engine)
        with pytest.raises(NotFound):
            engine.settle(done(a), [message("b"), message("c", queue="nowhere")])
        assert engine.count(QUEUE) == Counts(held=1)
        assert engine.settle(done(a)) == []

    def test_a_follow_up_with_no_room_undoes_the_end(self, engine: Engine) -> None:
        requires(engine.traits, "atomic")
        engine.declare("small", {"x-max-length": 1})
        engine.publish([message("a"), message("x", queue="small")])
        a = take(engine)
        with pytest.raises(Full):
            engine.settle(done(a), [message("b"), message("y", queue="small")])
        assert engine.count(QUEUE) == Counts(held=1)
        assert engine.settle(done(a)) == []

    def test_a_job_may_follow_itself_under_its_id(self, engine: Engine) -> None:
        engine.publish(messages("a b"))
        a = take(engine, 1)
        assert engine.settle(done(a), [Message("a", QUEUE, b"anew")]) == []
        b, again = take(engine)
        assert (b.id, again.id, again.body, again.count) == ("b", "a", b"anew", 0)

    def test_a_job_may_follow_itself_later(self, engine: Engine) -> None:
        engine.publish(messages("a"))
        engine.settle(done(take(engine)), [message("a", delay=SHORT)])
        assert engine.count(QUEUE) == Counts(delayed=1)
        self.elapse(SHORT * 1.1)
        assert ids(take(engine)) == "a"

    def test_a_follow_up_with_the_id_of_what_is_given_back_is_skipped(self, engine: Engine) -> None:
        requires(engine.traits, "indexed")
        engine.publish(messages("a"))
        engine.settle(given_back(take(engine)), [Message("a", QUEUE, b"anew")])
        assert [(d.body, d.count) for d in take(engine)] == [(b"a", 1)]

    def test_verdicts_in_several_queues_end_together(self, engine: Engine) -> None:
        engine.declare("more", {})
        engine.publish([message("a"), message("b", queue="more")])
        got = engine.reserve([Want((QUEUE, "more"), 2)])
        assert engine.settle(done(got), [message("c", queue="more")]) == []
        assert (engine.count(QUEUE), engine.count("more")) == (Counts(), Counts(ready=1))


class Publish(EngineWorld):
    """Storing messages, once."""

    def test_an_id_that_waits_is_not_stored_again(self, engine: Engine) -> None:
        requires(engine.traits, "indexed")
        engine.publish(messages("a b a"))
        engine.publish([message("a", priority=9)])
        assert ids(take(engine)) == "a b"

    def test_an_id_that_is_delayed_is_not_stored_again(self, engine: Engine) -> None:
        requires(engine.traits, "indexed")
        engine.publish([message("a", delay=3600)])
        engine.publish(messages("a"))
        assert engine.count(QUEUE) == Counts(delayed=1)

    def test_an_id_that_is_held_is_not_stored_again(self, engine: Engine, other: Engine) -> None:
        requires(engine.traits, "indexed")
        engine.publish(messages("a"))
        held = take(engine)
        other.publish(messages("a"))
        assert take(other) == []
        assert engine.settle(done(held)) == []
        assert engine.count(QUEUE) == Counts()

    def test_an_id_that_was_done_is_new(self, engine: Engine) -> None:
        engine.publish(messages("a"))
        engine.settle(done(take(engine)))
        engine.publish(messages("a"))
        assert [(d.id, d.count) for d in take(engine)] == [("a", 0)]

    def test_the_same_id_in_two_queues_is_two_messages(self, engine: Engine) -> None:
        engine.declare("more", {})
        engine.publish([message("a"), message("a", queue="more")])
        here, there = take(engine), take(engine, queue="more")
        assert engine.settle(done(here)) == []
        assert engine.settle(given_back(there)) == []
        assert (engine.count(QUEUE), engine.count("more")) == (Counts(), Counts(ready=1))

    def test_nothing_is_stored_when_one_queue_is_missing(self, engine: Engine) -> None:
        with pytest.raises(NotFound, match="nowhere"):
            engine.publish([message("a"), message("b", queue="nowhere")])
        assert engine.count(QUEUE) == Counts()

    def test_a_full_queue_stores_nothing_of_the_whole(self, engine: Engine) -> None:
        engine.declare("small", {"x-max-length": 2})
        engine.publish([message("a", queue="small")])
        with pytest.raises(Full, match="small"):
            engine.publish([message("x"), message("b", queue="small"), message("c", queue="small")])
        assert (engine.count("small"), engine.count(QUEUE)) == (Counts(ready=1), Counts())

    def test_one_message_that_is_too_large_stores_nothing_of_the_whole(self, engine: Engine) -> None:
        engine.options.max_message_size = 1000
        with pytest.raises(TooLarge, match=r"'jobs' has 1,001 bytes, more than the 1,000"):
            engine.publish([message("a"), Message("b", QUEUE, bytes(1001))])
        assert engine.count(QUEUE) == Counts()
        engine.publish([Message("b", QUEUE, bytes(1000))])
        assert ids(take(engine)) == "b"

    def test_what_was_delivered_gets_away_however_large_it_is(self, engine: Engine) -> None:
        engine.options.max_message_size = 1000
        engine.publish([Message("a", QUEUE, bytes(1000))])
        assert engine.settle(done(take(engine)), [Message("a", QUEUE, bytes(1001))]) == []
        assert [len(delivery.body) for delivery in take(engine)] == [1001]

    def test_a_full_queue_has_room_again_when_a_message_is_done(self, engine: Engine) -> None:
        engine.declare("small", {"x-max-length": 1})
        engine.publish([message("a", queue="small")])
        engine.settle(done(take(engine, queue="small")))
        engine.publish([message("b", queue="small")])
        assert ids(take(engine, queue="small")) == "b"

    def test_publishing_nothing_is_nothing(self, engine: Engine) -> None:
        engine.publish([])
        assert engine.count(QUEUE) == Counts()

    def test_another_connection_sees_what_was_published(self, engine: Engine, other: Engine) -> None:
        engine.publish(messages("a b"))
        assert [ids(take(other, 1)), ids(take(engine, 1))] == ["a", "b"]


class Delay(EngineWorld):
    """Messages for later, by the broker's clock."""

    def test_it_is_not_ready_before_its_time(self, engine: Engine) -> None:
        engine.publish([message("later", delay=SHORT), message("now")])
        assert ids(take(engine)) == "now"
        assert engine.due is not None
        assert 0 < engine.due <= SHORT + 0.01
        self.elapse(SHORT * 1.1)
        assert ids(take(engine)) == "later"

    def test_those_that_are_due_come_by_priority_and_submission(self, engine: Engine) -> None:
        engine.publish(
            [message("a", delay=SHORT), message("b", delay=SHORT / 2), message("c", delay=0.001, priority=1)]
        )
        engine.publish(messages("d"))
        self.elapse(SHORT * 1.1)
        assert ids(take(engine)) == "c a b d"

    def test_those_that_are_due_come_in_that_order_also_one_at_a_time(self, engine: Engine) -> None:
        engine.publish([message(id, delay=SHORT / n, priority=n // 4) for n, id in enumerate("abcde", 1)])
        self.elapse(SHORT * 1.1)
        assert [ids(take(engine, 1)) for _ in range(5)] == list("deabc")

    def test_one_millisecond_and_one_year_are_delays(self, engine: Engine) -> None:
        engine.publish([message("short", delay=0.001), message("long", delay=365 * 86400.0)])
        self.elapse(0.01)
        assert ids(take(engine)) == "short"
        assert engine.count(QUEUE) == Counts(delayed=1, held=1)

    def test_due_is_far_when_nothing_is_delayed(self, engine: Engine) -> None:
        engine.publish(messages("a"))
        take(engine)
        assert engine.due is None or engine.due > 10  # the end of a lease may count

    def test_due_speaks_of_the_queues_that_were_asked_for(self, engine: Engine) -> None:
        engine.declare("more", {})
        engine.publish([message("a", queue="more", delay=1.0), message("b", delay=600.0)])
        take(engine)
        assert engine.due is not None
        assert 10 < engine.due <= 600.01

    def test_a_delayed_message_outlives_its_publisher(self, connect: Connect, engine: Engine) -> None:
        publisher = connect()
        publisher.publish([message("a", delay=SHORT)])
        publisher.close()
        self.elapse(SHORT * 1.1)
        assert ids(take(engine)) == "a"

    def test_many_due_at_once_all_come(self, engine: Engine) -> None:
        engine.publish([message(f"m{i}", delay=SHORT) for i in range(3000)])
        self.elapse(SHORT * 1.1)
        got: list[Delivery] = []
        while batch := take(engine, 5000):
            got += batch
        assert sorted(d.id for d in got) == sorted(f"m{i}" for i in range(3000))
