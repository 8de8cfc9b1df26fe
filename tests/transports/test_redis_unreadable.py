"""Entries that kq did not write, in the keys of a queue: they are set aside with a reason, and the queue goes on."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis

from kq_transports.conformance.engine.world import QUEUE, done, message, take
from kq_transports.redis import RedisEngine
from kq_transports.redislink import Place


def key(part: str) -> str:
    return f"kq:{{{QUEUE}}}:{part}"


#: What is planted, and how much of it is set aside.
PLANTED: dict[str, tuple[Callable[[Any], object], int]] = {
    "an item of a line": (lambda redis: redis.lpush(key("line:0"), "foreign"), 1),
    "an item with a space": (lambda redis: redis.lpush(key("line:0"), "not ours"), 1),
    "an empty item": (lambda redis: redis.lpush(key("line:0"), ""), 1),
    "an item without a message": (lambda redis: redis.lpush(key("line:0"), "01 nothing"), 1),
    "a member without a message": (lambda redis: redis.zadd(key("beside"), {"nothing": 1}), 1),
    "a place that is infinite": (lambda redis: redis.zadd(key("beside"), {"nothing": "-inf"}), 1),
    "a delayed member without a message": (lambda redis: redis.zadd(key("delayed"), {"nothing": 1}), 1),
    "a sequence that is no number": (lambda redis: redis.hset(key("queue"), "sequence", "x"), 0),
    "a body that is empty": (
        lambda redis: (redis.hset(key("jobs"), "nothing", ""), redis.lpush(key("line:0"), "01 nothing")),
        1,
    ),
    "a count that is no number": (lambda redis: redis.hset(key("counts"), "one", "x"), 0),
    "a held record": (lambda redis: redis.hset(key("held"), "nothing", "x"), 0),
}


@pytest.fixture
def engine(redis_url: str) -> Iterator[RedisEngine]:
    engine = RedisEngine(Place.of(redis_url))
    engine.declare(QUEUE, {})
    yield engine
    engine.close()


@pytest.mark.parametrize("what", PLANTED)
def test_an_unreadable_entry_stops_no_queue(engine: RedisEngine, redis_url: str, what: str) -> None:
    plant, count = PLANTED[what]
    with Redis.from_url(redis_url) as redis:
        engine.publish([message("one"), message("two")])
        plant(redis)
        engine.survey()
        for state in ("ready", "held", "delayed"):
            engine.browse(QUEUE, state)
        engine.publish([message("three")])
        got = take(engine, 10)
        assert [delivery.id for delivery in got] == ["one", "two", "three"]
        assert engine.settle(done(got)) == []
        kept = redis.lrange(key("aside"), 0, -1)
        assert len(kept) == count
        assert engine.survey()[QUEUE].aside == count
        assert (key("aside") in engine.facts().get("unreadable", "")) == bool(count)
        assert engine.delete(QUEUE) >= 0


def test_a_message_of_which_only_the_ticket_was_lost_is_delivered(engine: RedisEngine, redis_url: str) -> None:
    with Redis.from_url(redis_url) as redis:
        engine.publish([message("late", delay=0.001), message("one")])
        redis.hset(key("tickets"), "late", "x")
        redis.zadd(key("delayed"), {"late": 1})
        assert {delivery.id for delivery in take(engine, 10)} == {"late", "one"}


def test_the_newest_thousand_are_kept(engine: RedisEngine, redis_url: str) -> None:
    with Redis.from_url(redis_url) as redis:
        engine.publish([message("one")])
        redis.lpush(key("line:0"), *(f"foreign {number}" for number in range(1500)))
        assert [delivery.id for delivery in take(engine, 1)] == ["one"]
        kept = redis.lrange(key("aside"), 0, -1)
        assert (len(kept), engine.survey()[QUEUE].aside) == (1000, 1000)
        assert kept[-1].endswith(b"foreign 0")  # it stood last
        told = engine.facts()["unreadable"]
        assert told.startswith(f"1,000 in {key('aside')} (")
        for command in re.findall(r"redis-cli ([^;)]+)", told):
            redis.execute_command(*shlex.split(command))
        assert "unreadable" not in engine.facts()
