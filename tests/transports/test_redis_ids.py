"""Ids are kept short where they can be, and come back as they were."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from kq_transports.conformance.engine.world import QUEUE, done, message, take
from kq_transports.redis import RedisEngine
from kq_transports.redislink import Place

IDS = [
    "019b76daa87d0123456789abcdef",
    "019B76DAA87D0123456789ABCDEF",
    "0" * 28,
    "ff" * 14,
    "01 9b 76 da a8 7d 01 23 45 6",
    bytes.fromhex("01" + "61" * 13).decode(),  # what the bytes of the first might look like
    "\x00",
    "\x0f" + "a" * 12,
    "é" * 14,
    "a",
]


@pytest.fixture
def engine(redis_url: str) -> Iterator[RedisEngine]:
    engine = RedisEngine(Place.of(redis_url))
    engine.declare(QUEUE, {})
    yield engine
    engine.close()


def test_every_id_comes_back_as_it_was(engine: RedisEngine) -> None:
    engine.publish([message(id) for id in IDS])
    assert [seen.id for seen in engine.browse(QUEUE)] == IDS
    assert [seen.id for seen in engine.find(QUEUE, IDS)] == IDS
    assert engine.remove(QUEUE, IDS[:2]) == IDS[:2]
    taken = take(engine, len(IDS))
    assert [delivery.id for delivery in taken] == IDS[2:]
    assert engine.settle(done(taken)) == []


def test_an_id_that_is_there_is_stored_once(engine: RedisEngine) -> None:
    for _ in range(2):
        engine.publish([message(id) for id in IDS])
    assert engine.count(QUEUE).ready == len(IDS)


def test_an_id_as_kq_makes_it_takes_half_as_many_bytes(engine: RedisEngine, redis_url: str) -> None:
    engine.publish([message(IDS[0])])
    with redis.Redis.from_url(redis_url) as server:
        assert server.hkeys(f"kq:{{{QUEUE}}}:jobs") == [bytes.fromhex(IDS[0])]
