"""What Redis keeps of a message that was delayed: as long as there is the message, and as 0.1.0 kept it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from kq_transports.conformance.engine.world import QUEUE, done, message, take
from kq_transports.conformance.kombu.world import eventually
from kq_transports.engine import Counts
from kq_transports.redis import RedisEngine
from kq_transports.redislink import Place

TICKETS = f"kq:{{{QUEUE}}}:tickets"


@pytest.fixture
def engine(redis_url: str) -> Iterator[RedisEngine]:
    engine = RedisEngine(Place.of(redis_url))
    engine.declare(QUEUE, {})
    yield engine
    engine.close()


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as server:
        yield server


def test_nothing_is_left_of_what_was_delayed_and_is_done_or_removed(engine: RedisEngine, server: redis.Redis) -> None:
    engine.publish([message("a", delay=0.001), message("b", delay=3600), message("c")])
    assert server.hlen(TICKETS) == 2
    while engine.count(QUEUE) != Counts(delayed=1):
        engine.wait([QUEUE], 1.0)
        engine.settle(done(take(engine)))
    assert engine.remove(QUEUE, ["b"]) == ["b"]
    assert not server.exists(TICKETS)


def test_what_0_1_0_delayed_comes_at_its_place(engine: RedisEngine, server: redis.Redis) -> None:
    engine.publish([message("a", delay=0.001), message("b")])
    (entry,) = server.hvals(TICKETS)
    server.hset(TICKETS, "a", entry.split()[0])
    eventually(lambda: engine.survey()[QUEUE].ready == 2, "a is due")
    assert [delivery.id for delivery in take(engine)] == ["a", "b"]
