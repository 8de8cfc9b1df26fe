"""Ready messages stand in lines or beside them; whoever looks sees one order. Many steps, many messages."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from kq_transports.conformance.engine.world import QUEUE, done, given_back, message, take
from kq_transports.engine import Delivery, Message
from kq_transports.redis import RedisEngine
from kq_transports.redislink import Place


@pytest.fixture
def engine(redis_url: str) -> Iterator[RedisEngine]:
    engine = RedisEngine(Place.of(redis_url))
    engine.declare(QUEUE, {})
    yield engine
    engine.close()


class Crowd:
    """Random steps, and the plain list that tells what must be ready, in which order."""

    def __init__(self, engine: RedisEngine, seed: int) -> None:
        self.engine, self.random = engine, random.Random(seed)
        self.ready: list[tuple[int, int, str]] = []  # minus the priority, number of submission, id
        self.ranks: dict[str, tuple[int, int, str]] = {}
        self.held: list[Delivery] = []

    def publish(self) -> None:
        batch: list[Message] = []
        for _ in range(self.random.choice([1, 3, 40])):
            number, priority = len(self.ranks), self.random.choice([0, 0, 0, 5, 9])
            id = f"m{number}"
            self.ranks[id] = (-priority, number, id)
            batch.append(message(id, priority=priority, delay=self.random.choice([0, 0, 0, 0.000001])))
        self.engine.publish(batch)
        self.ready += (self.ranks[m.id] for m in batch)

    def take(self) -> None:
        self.ready.sort()
        limit = self.random.choice([1, 2, 10, 50])
        got = take(self.engine, limit)
        assert [d.id for d in got] == [id for _, _, id in self.ready[:limit]]
        assert [-d.priority for d in got] == [rank for rank, _, _ in self.ready[:limit]]
        del self.ready[:limit]
        self.held += got

    def give_back(self) -> None:
        self.random.shuffle(self.held)
        back, self.held = self.held[:7], self.held[7:]
        assert self.engine.settle(given_back(back)) == []
        self.ready += (self.ranks[d.id] for d in back)

    def finish(self) -> None:
        self.random.shuffle(self.held)
        over, self.held = self.held[:10], self.held[10:]
        assert self.engine.settle(done(over)) == []

    def remove(self) -> None:
        gone = self.random.sample(self.ready, min(5, len(self.ready)))
        assert sorted(self.engine.remove(QUEUE, [id for _, _, id in gone])) == sorted(id for _, _, id in gone)
        self.ready = [each for each in self.ready if each not in gone]

    def look(self) -> None:
        self.ready.sort()
        size = self.random.choice([1, 9, 100])
        pages = [self.engine.browse(QUEUE, limit=size, offset=offset) for offset in range(0, len(self.ranks), size)]
        assert [seen.id for page in pages for seen in page] == [id for _, _, id in self.ready]
        assert self.engine.count(QUEUE).ready == len(self.ready)
        some = [id for _, _, id in self.ready[:3]]
        found = self.engine.find(QUEUE, some)
        assert [(s.id, s.state, -s.priority, s.body) for s in found] == [
            (id, "ready", self.ranks[id][0], id.encode()) for id in some
        ]


@pytest.mark.parametrize("seed", range(6))
def test_any_steps_keep_the_order(engine: RedisEngine, seed: int) -> None:
    crowd = Crowd(engine, seed)
    steps = [crowd.publish, crowd.publish, crowd.take, crowd.give_back, crowd.finish, crowd.remove]
    for step in crowd.random.choices(steps, k=150):
        step()
        if crowd.random.random() < 0.1:
            crowd.look()
    while crowd.ready:
        crowd.take()
    assert take(engine) == []


def test_a_removed_message_in_the_middle_may_come_again(engine: RedisEngine) -> None:
    engine.publish([message(f"m{i}") for i in range(100)])
    assert engine.remove(QUEUE, ["m50"]) == ["m50"]
    engine.publish([message("m50")])
    assert [d.id for d in take(engine, 200)] == [f"m{i}" for i in range(100) if i != 50] + ["m50"]
