"""Many at once: connections that share a queue, and queues that are long. Part of EngineSuite."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from kq_transports.conformance.engine.world import (
    DEADLINE,
    QUEUE,
    Connect,
    EngineWorld,
    done,
    given_back,
    message,
    take,
)
from kq_transports.engine import Counts, Delivery, Engine

LONG = 10_000  # messages


class Load(EngineWorld):
    """What holds for one holds for many."""

    def test_many_connections_share_a_queue_and_each_message_is_done_once(
        self, connect: Connect, engine: Engine
    ) -> None:
        number, finished = 400, list[str]()
        engine.publish([message(f"m{i}") for i in range(number)])

        def work(worker: Engine) -> None:
            while got := take(worker, 7):
                worker.settle(given_back(got[:1]) + done(got[1:]) if got[0].count == 0 else done(got))
                finished.extend(d.id for d in (got[1:] if got[0].count == 0 else got))

        in_threads(work, [(connect(),) for _ in range(4)])
        self.finish(engine, finished)
        assert sorted(finished) == sorted(f"m{i}" for i in range(number))
        assert engine.count(QUEUE) == Counts()

    def finish(self, engine: Engine, finished: list[str]) -> None:
        """Do what was given back last."""
        while got := take(engine):
            finished.extend(d.id for d in got)
            engine.settle(done(got))

    def test_publishers_at_once_each_keep_their_order(self, connect: Connect, engine: Engine) -> None:
        def publish(name: str, publisher: Engine) -> None:
            for i in range(0, 60, 2):
                publisher.publish([message(f"{name}{i}"), message(f"{name}{i + 1}")])

        publishers = {name: connect() for name in "abc"}
        in_threads(publish, publishers.items())
        got: list[Delivery] = take(engine, 1000)
        for name in publishers:
            assert [d.id for d in got if d.id[0] == name] == [f"{name}{i}" for i in range(60)]

    def test_a_long_queue_costs_no_more_than_a_short_one(self, engine: Engine) -> None:
        short = min(self.rounds(engine, f"short{i}.") for i in range(3))
        for begin in range(0, LONG, 1000):
            engine.publish([message(f"ready{begin + i}") for i in range(1000)])
            engine.publish([message(f"late{begin + i}", delay=3600) for i in range(1000)])
            engine.beat()
        long = min(self.rounds(engine, f"long{i}.") for i in range(3))
        assert long < 2 * short + 0.02

    def rounds(self, engine: Engine, name: str) -> float:
        """Seconds for 50 messages, each published, taken and done."""
        begin = time.perf_counter()
        for i in range(50):
            engine.publish([message(f"{name}{i}", priority=9)])
            (got,) = take(engine, 1)
            engine.settle(done([got]))
            engine.count(QUEUE)
        return time.perf_counter() - begin


def in_threads(work: Callable[..., object], arguments: Iterable[tuple[object, ...]]) -> None:
    """Call work with each of arguments at the same time; raises what one of the calls raised."""
    with ThreadPoolExecutor(max_workers=8) as threads:
        for call in [threads.submit(work, *each) for each in arguments]:
            call.result(3 * DEADLINE)
