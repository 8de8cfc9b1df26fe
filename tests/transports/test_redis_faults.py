"""What is particular to Redis when things go wrong: lost answers, lost scripts, a full or forbidding server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TypeVar

import pytest
import redis

from kq_transports.conformance.engine.world import QUEUE, done, given_back, ids, message, messages, take
from kq_transports.conformance.kombu.world import eventually
from kq_transports.conformance.proxy import Proxy
from kq_transports.engine import (
    Counts,
    Delivery,
    EngineError,
    Full,
    LeaseLost,
    NotFound,
    Options,
    Unreachable,
    Want,
    sleep_on,
)
from kq_transports.redis import RedisEngine
from kq_transports.redislink import Place
from tests.conftest import available
from tests.servers import RedisServer, free_port

R = TypeVar("R")

SLOW = 0.2  # seconds that the proxy holds bytes back, so that an answer can be lost
PATIENCE = 10.0  # seconds until a test gives up
SHORT = 0.3  # seconds: the timeout of a verb that is to fail


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Redis of this test alone, which may be stopped and changed."""
    with available(RedisServer) as server:
        yield server


@pytest.fixture
def admin(server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
def engine(server: RedisServer) -> Iterator[RedisEngine]:
    engine = RedisEngine(Place.of(server.url))
    engine.declare(QUEUE, {})
    yield engine
    engine.close()


class ClusterNode(RedisServer):
    """A node of a Redis Cluster that has no others yet."""

    def __init__(self) -> None:
        super().__init__()
        while self.port > 55535:  # the nodes talk to each other on the port 10,000 higher
            self.port = free_port()

    def command(self) -> list[str]:
        return [*super().command(), "--cluster-enabled", "yes"]


class Lossy:
    """An engine behind a proxy that loses the answer of one call, whose effect onlooker sees."""

    def __init__(self, proxy: Proxy, onlooker: RedisEngine) -> None:
        self.proxy, self.onlooker = proxy, onlooker
        self.engine = RedisEngine(Place(port=proxy.port))

    def lose_answer(self, call: Callable[[RedisEngine], R], effect: Counts) -> R:
        """What call returns although its connection broke between its effect and its answer."""
        outcome: list[R | Exception] = []

        def run() -> None:
            try:
                outcome.append(call(self.engine))
            except Exception as error:
                outcome.append(error)

        self.proxy.delay(SLOW)
        thread = threading.Thread(target=run)
        thread.start()
        eventually(lambda: self.onlooker.count(QUEUE) == effect, "it was done")
        self.proxy.delay(0)
        self.proxy.cut()
        thread.join(PATIENCE)
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return outcome[0]


@pytest.fixture
def lossy(server: RedisServer, engine: RedisEngine, proxy_to: Callable[[int], Proxy]) -> Iterator[Lossy]:
    lossy = Lossy(proxy_to(server.port), engine)
    lossy.engine.beat()
    yield lossy
    lossy.engine.close()


class TestLostAnswers:
    """The socket breaks after a verb had its effect."""

    def test_a_publish_is_stored_once(self, lossy: Lossy) -> None:
        lossy.lose_answer(lambda e: e.publish(messages("a b")), Counts(ready=2))
        assert ids(take(lossy.onlooker)) == "a b"

    def test_a_reserve_hands_out_what_its_lost_answer_carried(self, lossy: Lossy) -> None:
        lossy.onlooker.publish(messages("a b c"))
        got = lossy.lose_answer(lambda e: take(e, 2), Counts(ready=1, held=2))
        assert [(d.id, d.count) for d in got] == [("a", 0), ("b", 0)]
        assert lossy.onlooker.count(QUEUE) == Counts(ready=1, held=2)
        assert lossy.engine.settle(done(got)) == []

    def test_what_was_held_before_a_lost_reserve_stays_held(self, lossy: Lossy) -> None:
        lossy.onlooker.publish(messages("a b"))
        before = take(lossy.engine, 1)
        got = lossy.lose_answer(lambda e: take(e, 1), Counts(held=2))
        assert ids(got) == "b"
        assert lossy.engine.settle(done([*before, *got])) == []

    def test_a_settle_gets_the_answer_that_was_lost(self, lossy: Lossy) -> None:
        lossy.onlooker.publish(messages("a b"))
        got = take(lossy.engine)
        lossy.engine.settle(done(got[:1]))
        stale = lossy.lose_answer(lambda e: e.settle(done(got)), Counts())
        assert stale == [got[0].receipt]

    def test_a_settle_with_follow_ups_happens_once_and_is_no_refusal(self, lossy: Lossy) -> None:
        lossy.onlooker.publish(messages("a"))
        got = take(lossy.engine)
        assert lossy.lose_answer(lambda e: e.settle(done(got), messages("b c")), Counts(ready=2)) == []
        assert lossy.onlooker.count(QUEUE) == Counts(ready=2)

    def test_a_first_reserve_whose_answer_never_came_holds_nothing_after_close(
        self, server: RedisServer, engine: RedisEngine
    ) -> None:
        take(engine, 0)  # so that the server knows the script
        engine.publish(messages("a"))
        impatient = RedisEngine(Place.of(server.url), Options(timeout=SHORT))
        impatient.count(QUEUE)
        with server.frozen(), pytest.raises(Unreachable):
            take(impatient)
        eventually(lambda: engine.count(QUEUE) == Counts(held=1), "it is held")
        impatient.close()
        assert ids(take(engine)) == "a"

    def test_what_can_not_be_repeated_says_that_nobody_knows(self, lossy: Lossy) -> None:
        lossy.onlooker.publish(messages("a b"))
        with pytest.raises(Unreachable) as unknown:
            lossy.lose_answer(lambda e: e.remove(QUEUE, ["a"]), Counts(ready=1))
        assert unknown.value.sent


class TestBadNetwork:
    """A broker that vanishes and comes back, and clients that go on."""

    def test_who_is_not_there_was_sent_nothing(self, server: RedisServer) -> None:
        server.stop()
        with pytest.raises(Unreachable, match="can't be reached") as refused:
            RedisEngine(Place.of(server.url)).publish(messages("a"))
        assert not refused.value.sent

    def test_a_frozen_server_is_waited_for_no_longer_than_told(self, server: RedisServer, engine: RedisEngine) -> None:
        impatient = RedisEngine(Place.of(server.url), Options(timeout=SHORT))
        impatient.publish(messages("a"))
        with server.frozen():
            begin = time.monotonic()
            with pytest.raises(Unreachable, match="in time") as late:
                impatient.publish(messages("b"))
            assert late.value.sent
            with pytest.raises(Unreachable):
                impatient.publish(messages("b"))
            assert time.monotonic() - begin < 4 * SHORT
        impatient.publish(messages("b"))
        assert engine.count(QUEUE) == Counts(ready=2)
        impatient.close()

    def test_a_reserve_that_arrives_late_takes_nothing_for_ever(self, server: RedisServer, engine: RedisEngine) -> None:
        impatient = RedisEngine(Place.of(server.url), Options(timeout=SHORT))
        engine.publish(messages("a b"))
        assert take(impatient, 0) == []
        with server.frozen():
            for _ in range(2):
                with pytest.raises(Unreachable):
                    take(impatient, 1)
        got = take(impatient)
        assert [(d.id, d.count) for d in got] == [("a", 0), ("b", 0)]
        assert impatient.settle(done(got)) == []
        assert engine.count(QUEUE) == Counts()
        impatient.close()

    def test_what_an_older_socket_sent_is_not_done_after_what_a_newer_one_did(
        self, server: RedisServer, engine: RedisEngine
    ) -> None:
        late = RedisEngine(Place.of(server.url))
        for _ in range(2):
            late._link.close()
            assert take(late, 1) == []
        engine.publish(messages("a"))
        late._link.opened -= 1
        with pytest.raises(EngineError, match="KQLATE"):
            take(late)
        assert engine.count(QUEUE) == Counts(ready=1)
        late.close()

    def test_a_settle_that_is_said_again_gets_its_first_answer(self, server: RedisServer, engine: RedisEngine) -> None:
        impatient = RedisEngine(Place.of(server.url), Options(timeout=SHORT))
        engine.publish(messages("a"))
        got = take(impatient)
        impatient.settle([])  # so that the server knows the script
        with server.frozen(), pytest.raises(Unreachable):
            impatient.settle(done(got), messages("b"))
        eventually(lambda: engine.count(QUEUE) == Counts(ready=1), "it is ready")
        assert impatient.settle(done(got), messages("b")) == []
        assert ids(take(engine)) == "b"
        impatient.close()

    def test_a_lease_outlives_a_restart(self, server: RedisServer, engine: RedisEngine) -> None:
        engine.publish(messages("a b"))
        got = take(engine)
        engine.arm([QUEUE])
        server.restart()
        assert take(engine) == []
        assert engine.settle(done(got[:1])) == []
        assert engine.settle(given_back(got[1:])) == []
        assert [(d.id, d.count) for d in take(engine)] == [("b", 1)]

    def test_a_lease_ends_while_the_server_is_away(self, server: RedisServer, engine: RedisEngine) -> None:
        short = RedisEngine(Place.of(server.url), Options(lease=SHORT))
        engine.publish(messages("a"))
        held = take(short)
        server.kill()
        time.sleep(SHORT)  # a lease runs in the server's time, which no test can move
        server.start()
        with pytest.raises(LeaseLost):
            short.settle(done(held))
        assert ids(take(engine)) == "a"
        short.close()

    def test_a_sleeper_learns_that_the_server_went(self, server: RedisServer, engine: RedisEngine) -> None:
        assert take(engine) == []
        engine.arm([QUEUE])
        server.restart()
        assert engine.wait([QUEUE], PATIENCE)
        assert take(engine) == []

    def test_a_half_open_sleeper_is_woken_by_the_beat(
        self, server: RedisServer, engine: RedisEngine, proxy_to: Callable[[int], Proxy]
    ) -> None:
        proxy = proxy_to(server.port)
        sleeper = RedisEngine(Place(port=proxy.port), Options(timeout=SHORT))
        assert take(sleeper) == []
        sleeper.arm([QUEUE])
        proxy.freeze()
        woken = threading.Thread(target=sleeper.wait, args=([QUEUE], None))
        woken.start()
        eventually(lambda: _tries(sleeper.beat) and not woken.is_alive(), "it was woken")
        proxy.restore()
        engine.publish(messages("a"))
        assert ids(take(sleeper)) == "a"
        sleeper.close()

    def test_a_ring_that_nobody_has_read_for_long_is_no_silence(self, server: RedisServer) -> None:
        engine = RedisEngine(Place.of(server.url), Options(timeout=SHORT))
        engine.declare(QUEUE, {})
        assert take(engine) == []
        sleep_on([engine.arm([QUEUE])], PATIENCE)  # it rings after a second without cause
        until = time.monotonic() + 2 * SHORT
        while time.monotonic() < until:
            engine.beat()
        assert take(engine) == []
        descriptor = engine.arm([QUEUE])  # Unreachable, if it had been taken for dead
        engine.publish(messages("a"))
        assert sleep_on([descriptor], PATIENCE)
        assert ids(take(engine)) == "a"
        engine.close()

    def test_a_beat_overtakes_a_verb_that_waits_for_its_answer(self, server: RedisServer) -> None:
        with Proxy(server.port) as wire:
            engine = RedisEngine(Place.of(f"redis://127.0.0.1:{wire.port}/0"), Options("far", lease=2.0))
            engine.declare(QUEUE, {})
            take(engine)
            wire.delay(SLOW)
            over = threading.Event()

            def beat() -> None:
                while not over.wait(SLOW):
                    assert engine.beat_beside()

            with ThreadPoolExecutor(1) as pool:
                beats = pool.submit(beat)
                for _ in range(8):  # it takes longer than a lease
                    assert take(engine) == []
                over.set()
                beats.result()
            engine.publish(messages("a"))
            assert ids(take(engine)) == "a"
            engine.close()

    def test_sixty_killed_sockets_lose_and_double_nothing(
        self, server: RedisServer, engine: RedisEngine, admin: redis.Redis
    ) -> None:
        amount = 600
        finished: list[str] = []

        def consume() -> None:
            consumer = RedisEngine(Place.of(server.url))
            while len(finished) < amount:
                got = insist(partial(take, consumer, 5))
                assert insist(partial(consumer.settle, done(got))) == []
                finished.extend(delivery.id for delivery in got)
                if not got:
                    insist(partial(consumer.wait, [QUEUE], 1.0))
            consumer.close()

        consumers = [threading.Thread(target=consume) for _ in range(2)]
        for consumer in consumers:
            consumer.start()
        for i in range(60):
            insist(partial(engine.publish, [message(f"m{10 * i + j}") for j in range(10)]))
            admin.client_kill_filter(_type="normal", skipme=True)
        for consumer in consumers:
            consumer.join(PATIENCE)
        assert sorted(finished) == sorted(f"m{i}" for i in range(amount))


class TestLostScripts:
    def test_scripts_that_the_server_forgot_are_told_again(self, engine: RedisEngine, admin: redis.Redis) -> None:
        engine.publish(messages("a"))
        admin.script_flush()
        engine.publish(messages("b"))
        got = take(engine)
        admin.script_flush()
        assert engine.settle(done(got)) == []


class TestFullServer:
    """Redis has reached its maxmemory: nothing more comes in, all that is there can be finished."""

    @pytest.fixture(autouse=True)
    def full(self, engine: RedisEngine, admin: redis.Redis) -> None:
        engine.publish([message("a"), message("b"), message("later", delay=0.01)])
        admin.config_set("maxmemory", 1)

    def test_a_publish_is_refused_with_the_remedy(self, engine: RedisEngine, admin: redis.Redis) -> None:
        with pytest.raises(Full, match="maxmemory"):
            engine.publish(messages("c"))
        admin.config_set("maxmemory", 0)
        counts = engine.count(QUEUE)
        assert counts.ready + counts.delayed == 3

    def test_jobs_are_reserved_settled_and_given_back(self, engine: RedisEngine) -> None:
        engine.beat()
        a, b = take(engine, 2)
        assert engine.settle([*done([a]), *given_back([b])], messages("follow-up")) == []
        got: list[str] = []
        while len(got) < 3:
            assert engine.wait([QUEUE], PATIENCE)
            got += (delivery.id for delivery in take(engine))
        assert sorted(got) == ["b", "follow-up", "later"]

    def test_the_dead_are_reclaimed(self, engine: RedisEngine, server: RedisServer) -> None:
        victim = RedisEngine(Place.of(server.url))
        take(victim, 2)
        assert engine.expel(victim.options.name)
        assert len(take(engine, 2)) == 2


class TestForbiddingServer:
    """Errors that no repeating heals: each says what to do, and no secret."""

    @pytest.mark.parametrize("password", ["", ":wrong-secret@", "user:wrong-secret@"])
    def test_a_wrong_password(self, server: RedisServer, admin: redis.Redis, password: str) -> None:
        admin.config_set("requirepass", "right-secret")
        stranger = RedisEngine(Place.of(f"redis://{password}127.0.0.1:{server.port}/0"))
        with pytest.raises(EngineError, match="check user and password") as error:
            stranger.publish(messages("a"))
        assert not isinstance(error.value, ConnectionError)
        assert "secret" not in f"{error.value!r} {stranger!r}"

    def test_the_right_password(self, server: RedisServer, admin: redis.Redis) -> None:
        admin.config_set("requirepass", "right-secret")
        friend = RedisEngine(Place.of(f"redis://:right-secret@127.0.0.1:{server.port}/0"))
        friend.declare(QUEUE, {})
        assert friend.facts()["auth"] == "yes"
        friend.close()

    def test_a_user_without_rights(self, server: RedisServer, admin: redis.Redis) -> None:
        admin.acl_setuser("guest", enabled=True, passwords=["+secret"], categories=["+@read", "+@connection"])
        guest = RedisEngine(Place.of(f"redis://guest:secret@127.0.0.1:{server.port}/0"))
        with pytest.raises(EngineError, match=r"has no permissions to run the 'evalsha' command; give it ~kq:\*"):
            guest.publish(messages("a"))
        guest.close()

    def test_a_replica(self, engine: RedisEngine, admin: redis.Redis) -> None:
        admin.replicaof("127.0.0.1", "1")
        with pytest.raises(EngineError, match="primary"):
            engine.publish(messages("a"))

    def test_a_cluster(self) -> None:
        with available(ClusterNode) as node:
            engine = RedisEngine(Place.of(node.url))
            with pytest.raises(EngineError, match="single server"):
                engine.declare(QUEUE, {})
            engine.close()

    def test_a_queue_named_like_an_error_is_only_missing(self, engine: RedisEngine) -> None:
        with pytest.raises(NotFound, match="no queue 'the cluster slot: -OOM'"):
            engine.publish([message("a", queue="the cluster slot: -OOM")])

    def test_a_queue_of_another_program_under_our_key(self, engine: RedisEngine, admin: redis.Redis) -> None:
        admin.set("kq:{theirs}:queue", "x")
        with pytest.raises(EngineError, match="WRONGTYPE"):
            engine.publish([message("a", queue="theirs")])


class TestBounds:
    """What is done for others comes in bounded portions, and is not forgotten."""

    def test_a_dead_connection_with_very_much_is_reclaimed_by_several_calls(self, server: RedisServer) -> None:
        victim, other = (RedisEngine(Place.of(server.url), Options(lease=lease)) for lease in (1.0, 15.0))
        victim.declare(QUEUE, {})
        victim.publish([message(f"m{i}") for i in range(3000)])
        assert len(take(victim, 3000)) == 3000
        got: list[Delivery] = []
        until = time.monotonic() + PATIENCE
        while len(got) < 3000 and time.monotonic() < until:
            batch = take(other, 1500)
            got += batch
            if not batch:
                other.wait([QUEUE], 0.2)
        assert sorted(d.id for d in got) == sorted(f"m{i}" for i in range(3000))
        with pytest.raises(LeaseLost):
            victim.beat()
        assert [lease.connection for lease in other.leases()] == [other.options.name]
        other.close()

    def test_nothing_is_left_but_what_was_declared(self, engine: RedisEngine, admin: redis.Redis) -> None:
        engine.publish([message("a"), message("b"), message("later", delay=0.001)])
        engine.declare("mine", {"x-single-active-consumer": True}, mortal=True)
        engine.settle(given_back(take(engine, 1)))
        engine.arm([QUEUE])
        engine.reserve([Want((QUEUE, "mine"), 0)])
        engine.delete(QUEUE)
        engine.close()
        assert set(admin.scan_iter()) == {b"kq:number"}


def insist(call: Callable[[], R]) -> R:
    """What call returns, made again as often as its socket is killed."""
    while True:
        try:
            return call()
        except Unreachable:
            continue


def _tries(call: Callable[[], object]) -> bool:
    with suppress(Unreachable):
        call()
    return True


def test_an_unknown_option_of_a_url_is_named() -> None:
    with pytest.raises(ValueError, match="colour"):
        Place.of("redis://host/0?colour=red")
